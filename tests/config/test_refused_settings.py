"""What no setting can be: one error that names the key, what was found and what was expected."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.config.building import experiment, refusal

from entailor.config.experiment import Experiment, parse_settings
from entailor.config.overrides import apply_overrides, read_yaml
from entailor.errors import ConfigError
from entailor.methods.registry import known_keys

# --- what no setting can be


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("a: &a [x, x]\nb: &b [*a, *a]\n" + "".join(f"c{i}: [*b, *b, *b]\n" for i in range(2_000)), ["20,000 values"]),
        ("data: &a {train: *a}\n", ["alias of what it stands in", "line 1"]),
        (f"seeds: {'[' * 200}{']' * 200}\n", ["nested more than 100 deep"]),
        (f"seeds: {'9' * 6_000}\n", ["a number of 6,000 characters, at most 400"]),
        (f"seeds: {'1:' * 5_000}1\n", ["a number of 10,001 characters"]),
        ("out: !!timestamp 2001-99-99\n", ["timestamp", "is not taken. Write a plain value"]),
        ("doctor: !!bool perhaps\n", ["'perhaps' is no bool", "line 1"]),
        ("seeds: 1\nseeds: 2\n", ["the key 'seeds' stands twice. Keep one", "line 2"]),
        ("data: {train: a, train: b}\n", ["the key 'train' stands twice"]),
        ("x: 1\n" * 200_000, ["1,000,000 bytes, at most 524,288"]),
        ('out: "\\UFFFFFFFF"\n', ["a character or a version that cannot be"]),
    ],
)
def test_a_file_beyond_the_limits_is_refused_with_the_limit(tmp_path, content, parts):
    file = tmp_path / "run.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_yaml(file)
    for part in (str(file), *parts):
        assert part in str(caught.value)
    assert len(str(caught.value)) < 600


def test_dates_are_text_and_merged_mappings_are_read(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("out: 2001-99-99\nmodels: [2024-01-01]\nx: &x {a: 1, b: 2}\ny:\n  <<: *x\n  a: 3\nz: [*x, *x]\n")
    assert read_yaml(file) == {
        "out": "2001-99-99",
        "models": ["2024-01-01"],
        "x": {"a": 1, "b": 2},
        "y": {"a": 3, "b": 2},
        "z": [{"a": 1, "b": 2}] * 2,
    }


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (Path.mkdir, "Is a directory"),
        (os.mkfifo, "a named pipe, a regular file was expected"),
        (lambda file: file.symlink_to("/dev/zero"), "a device, a regular file was expected"),
        (lambda file: file.write_text("out: x\n", encoding="utf-16"), "not UTF-8 at byte 0"),
    ],
)
def test_what_is_no_text_file_is_refused_by_name(tmp_path, make, found):
    make(tmp_path / "run.yaml")
    with pytest.raises(ConfigError, match=f"run.yaml: {found}"):
        read_yaml(tmp_path / "run.yaml")


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("seeds=1e32", "seeds: a number of at most 1e+18 was expected, found 1e+32"),
        ("seeds=1001", "seeds: at most 1,000 seeds, found 1001"),
        ("seeds=[4294967296]", "seeds.0: Input should be less than 4294967296"),
        ("data.split_seed=-1", "data.split_seed: "),
        ("budget.search_seed=4294967296", "budget.search_seed: "),
        ("data.max_labels=1", "data.max_labels: "),
        ("lora.r=100000000000000000000", "methods.lora.r: a number of at most"),
        ("lora.r=1000000", "methods.lora.r: "),
        ("data.train=a\0b", "data.train: a null character"),
        ("out=\ud800", "out: half of a surrogate pair"),
        ("data.columns.\ud800=x", "data.columns.\\ud800: half of a surrogate pair"),
        (f"out={'x' * 500_001}", "out: a text of 500,001 characters"),
        (f"data.{'a.' * 30}b=1", "at most 20 parts"),
        (f"{'x' * 10_000}=1", "xxx...: no key of the experiment"),
    ],
)
def test_a_word_that_no_setting_takes_is_refused_in_a_short_message(word, part):
    message = refusal("methods=lora", word)
    assert part in message
    assert len(message) < 600


def test_a_path_that_is_no_utf8_can_be_named():
    """What the command line gives of such bytes are halves of surrogate pairs that stand for them."""
    assert experiment("out=caf\udce9").out == "caf\udce9"


def test_a_thousand_seeds_are_taken_and_one_that_stands_twice_is_found_in_no_time():
    assert len(experiment("seeds=1000").seeds) == 1_000
    assert "7 stands twice" in refusal(f"seeds=[{', '.join(map(str, [*range(900), 7]))}]")


def test_of_many_complaints_the_first_are_told():
    message = refusal(values={f"key{number}": 1 for number in range(500)})
    assert message.count("unknown key") == 20
    assert message.endswith("and 480 more")


def test_what_a_program_gives_is_held_to_the_same(tmp_path):
    deep: dict[str, Any] = {}
    for _ in range(5_000):
        deep = {"a": deep}
    with pytest.raises(ConfigError, match="nested more than 100 deep"):
        parse_settings(Experiment, {"methods": {"lora": deep}})
    with pytest.raises(ConfigError, match="more than 20,000 values"):
        parse_settings(Experiment, {"models": ["a"] * 50_000})


@pytest.mark.parametrize(("old", "new"), [("data.tune_size=0.2", "validation_size"), ("forecast=false", "estimate")])
def test_an_old_key_names_the_new_one(old, new):
    with pytest.raises(ConfigError, match=f"It was renamed: write '{new}' instead"):
        parse_settings(Experiment, apply_overrides({}, [old], known_keys))
