"""Every remedy is followed to the letter: the words an error or a finding proposes are given to the next command."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from entailor import DataSettings, validate
from entailor.cli.app import app
from entailor.config.experiment import Experiment, parse_settings
from entailor.config.overrides import apply_overrides
from entailor.config.plain import share
from entailor.data.labels import label_key, visible
from entailor.data.splits import load_data
from entailor.errors import LabelError
from entailor.methods.registry import known_keys


def file_of(path: Path, labels: list[str]) -> str:
    """Write one row a label, all texts different."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([[f"{path.stem} text number {n}", label] for n, label in enumerate(labels)])
    return str(path)


def loaded(*words: str):
    return load_data(parse_settings(Experiment, apply_overrides({}, words, known_keys)).data, whole=True)


def words_in(message: str) -> list[str]:
    """Return the key=value words of a message, as a shell reads them."""
    found = re.findall(r"'data\.(?:[^']|'\"'\"')*'|data\.[a-z_]+=[^ ]+[^ .,)]", message)
    return [word for one in found for word in shlex.split(one)]


TRAIN = ["yes", "no"] * 20


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (TRAIN, "maybe"),
        (TRAIN, "Yes"),
        (TRAIN, "yes\u200b"),
        (TRAIN, "\uff59es"),
        (["true", "false"] * 20, "True"),
        (["True", "False"] * 20, "true"),
        (["1", "0"] * 20, "2"),
        (["it's", "isn't"] * 20, "It's"),
        (['say "a"', "b: c"] * 20, "B: C"),
        (["null", "~x"] * 20, "NULL"),
        ([f"class {n % 200}" for n in range(400)], "other"),
    ],
    ids=lambda value: ascii(value)[:20],
)
@pytest.mark.parametrize("named", [False, True])
def test_a_label_that_only_test_has(tmp_path: Path, train: list[str], test: str, named: bool):
    given = [f"data.train={file_of(tmp_path / 'a.csv', train)}", f"data.test={file_of(tmp_path / 'b.csv', [test])}"]
    given += [f"data.labels={json.dumps(list(dict.fromkeys(train)))}"] * named
    with pytest.raises(LabelError) as caught:
        loaded(*given)
    assert len(str(caught.value)) < 2000
    (word,) = words_in(str(caught.value))
    assert loaded(*given, word).split.test[0].label in train


@pytest.mark.parametrize("written", ["maybe", "Yes", "y\u2060es", "n/a"])
def test_a_label_of_train_that_labels_does_not_name(tmp_path: Path, written: str):
    given = [f"data.train={file_of(tmp_path / 'a.csv', [*TRAIN, written])}", "data.labels=[yes, no]"]
    with pytest.raises(LabelError) as caught:
        loaded(*given)
    words = words_in(str(caught.value))
    assert words
    for word in words:  # the label set as proposed goes in place of the one that was given
        assert len(loaded(given[0], word if "labels=" in word else given[1], word).split.train) == 41


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("odd", [["maybe", "perhaps"], ["Yes", "NO", "maybe"], ["Yes", " NO "]], ids=str)
def test_several_labels_that_only_test_has_are_one_error(tmp_path: Path, odd: list[str], named: bool):
    test = [*TRAIN * 500, *odd, "yes"]  # in more than one batch of rows
    test.insert(3, odd[0])
    given = [f"data.train={file_of(tmp_path / 'a.csv', TRAIN)}", f"data.test={file_of(tmp_path / 'b.csv', test)}"]
    with pytest.raises(LabelError, match=rf"row 5, .* and {len(odd) - 1} more \(") as caught:
        loaded(*given, *["data.labels=[yes, no]"] * named)
    (word,) = words_in(str(caught.value))
    read = loaded(*given, word).split.test
    assert len(read) == len(test)
    assert {row.label for row in read} == {"yes", "no"}


def test_very_many_labels_that_only_test_has(tmp_path: Path):
    files = file_of(tmp_path / "a.csv", TRAIN), file_of(tmp_path / "b.csv", [f"label {n}" for n in range(5000)])
    with pytest.raises(LabelError, match=r"and more than 12 more .* Check the label column") as caught:
        loaded(f"data.train={files[0]}", f"data.test={files[1]}")
    assert len(str(caught.value)) < 700


def test_labels_that_no_row_has(tmp_path: Path):
    given = f"data.train={file_of(tmp_path / 'a.csv', TRAIN)}"
    with pytest.raises(LabelError) as caught:
        loaded(given, "data.labels=[yes, no, maybe]")
    (word,) = words_in(str(caught.value))
    assert loaded(given, word).labels == ("yes", "no")


@pytest.mark.parametrize(
    ("marker", "others"),
    [("-1", ["0", "1"]), ("-", ["+", "0"]), ("", ["a", "b"]), ("NaN", [f"c{n}" for n in range(15)])],
)
def test_many_rows_without_gold_ask_what_is_meant_and_both_answers_work(tmp_path: Path, marker: str, others: list[str]):
    labels = [*(others * 30), *([marker] * 30)]
    given = f"data.train={file_of(tmp_path / 'a.csv', labels)}"
    with pytest.raises(LabelError, match="may be a class or mean that there is no gold label") as caught:
        loaded(given)
    is_class, is_none = words_in(str(caught.value))
    assert len(loaded(given, is_class).split.train) == len(labels)
    assert len(loaded(given, is_class).labels) == len(others) + 1
    kept = loaded(given, is_none)
    assert len(kept.split.train) == len(labels) - 30
    assert [one.severity for one in kept.reading] == ["info"]


@pytest.mark.parametrize(("count", "severity"), [(1, "info"), (6, "warning")])
def test_few_rows_without_gold_are_dropped_and_said(tmp_path: Path, count: int, severity: str):
    given = f"data.train={file_of(tmp_path / 'a.csv', TRAIN * 5 + ['-1'] * count)}"
    data = loaded(given)
    (found,) = data.reading
    assert (found.severity, len(data.split.train)) == (severity, 200)
    is_class, is_none = words_in(found.remedy)
    assert Counter(row.label for row in loaded(given, is_class).split.train)["-1"] == count
    assert len(loaded(given, is_none).split.train) == 200


def test_quiet_commands_say_what_is_dropped(tmp_path: Path):
    source = file_of(tmp_path / "a.csv", TRAIN * 5 + ["-1"] * 2)
    run = ["compare", "--train", source, "--methods", "majority", "--out", str(tmp_path / "run"), "-q", "doctor=false"]
    done = CliRunner().invoke(app, run)
    assert "2 of 202 examples (1 %) of train" in done.stderr
    assert "2 of 202 examples (1 %) of train" in CliRunner().invoke(app, ["validate", "--train", source, "-q"]).stdout


def test_minus_one_is_a_class_where_labels_name_it(tmp_path: Path):
    data = loaded(f"data.train={file_of(tmp_path / 'a.csv', ['-1', '0', '1'] * 9)}", "data.labels=[-1,0,1]")
    assert (data.labels, len(data.split.train), data.reading) == (("-1", "0", "1"), 27, ())
    from_yaml = parse_settings(Experiment, {"data": {"labels": [-1, 0, 1.0], "label_names": {-1: 0}}}).data
    assert (from_yaml.labels, from_yaml.label_names) == (("-1", "0", "1"), {"-1": "0"})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("yes", "yes\u200b", True),
        ("yes", "\ufeffYES", True),
        ("yes", "\uff59\uff45\uff53", True),
        ("yes", "y\u00ades", True),
        ("yes", "yes\ufe0f", True),
        ("a b", "a\u00a0b", True),
        ("not_entailment", "Not-Entailment", True),
        ("café", "cafe\u0301", True),
        ("non-binary", "non\u2011binary", True),
        ("don't", "don\u2019t", True),
        ("pos", "p\u043es", True),  # a Cyrillic letter
        ("\u0421OP", "cop", True),
        ("\u0412\u0441\u0435", "\u0432\u0441\u0435", True),  # Cyrillic alone is told by case as ever
        ("\u062c\u064a\u062f", "\u062c\u0640\u064a\u062f", True),
        ("\u0130yi", "iyi", True),
        ("\u22122", "-2", True),
        ("yes", "Yes.", True),
        ("yes", '"yes"', True),
        ("1.", "1", True),
        ("01", "1", True),
        ("1.5", "+1.50", True),
        ("1.5", "15", False),
        ("10", "1", False),
        ("c.", "c#", False),
        (":)", ":(", False),
        ("\u0441\u043e\u0440", "cop", False),
        ("-1", "1", False),
        ("1-2", "12", False),
        ("c++", "c", False),
        ("a", "b", False),
    ],
    ids=ascii,
)
def test_labels_that_look_alike(tmp_path: Path, one: str, other: str, same: bool):
    assert (label_key(one) == label_key(other)) is same
    given = (
        f"data.train={file_of(tmp_path / 'a.csv', [one, other, 'third'] * 9)}",
        f"data.labels={json.dumps([one, other, 'third'])}",
    )
    found = [finding for finding in loaded(*given).findings if finding.kind == "label_spelling"]
    assert bool(found) is same
    if same:
        assert visible(one) in found[0].message
        assert visible(other) in found[0].message
        assert visible(one) != visible(other)
        if "\u043e" in other:  # a letter that looks like another is told by its code
            assert visible(other) == "'p\\u043es'"
        (word,) = words_in(found[0].remedy)
        assert len(loaded(given[0], word).labels) == 2


@pytest.mark.parametrize(
    ("values", "groups"),
    [
        ([True, 1, False, 0], [["1", "true"], ["0", "false"]]),
        ([True, "yes", 1.0, "1", "Y", False], [["1", "Y", "true", "yes"]]),
        ([True, "TRUE", False, "no"], [["TRUE", "true"], ["false", "no"]]),
        (["on", "off", 0, "unknown"], [["0", "off"]]),
        ([1, "1", 1.0, "1.00", 0], []),  # one class of numbers, whatever their type
        ([0, 1, 2, "no", "yes"], []),
        (["t", "y", "n", "f", "true"], []),
        (["true", "false", "unknown"], []),
    ],
)
def test_labels_that_say_the_same_whatever_their_type(tmp_path: Path, values: list, groups: list[list[str]]):
    path = tmp_path / "a.jsonl"
    rows = [{"text": f"text number {n}", "label": value} for n, value in enumerate(values * 9)]
    path.write_text("\n".join(map(json.dumps, rows)))
    report = validate(DataSettings(train=str(path)))
    found = [one for one in report.findings if one.kind == "label_spelling"]
    assert sorted(sorted(re.findall(r"'(.*?)'", one.message)) for one in found) == sorted(groups)
    if found:
        (word,) = words_in(found[0].remedy)  # one mapping for all of them
        assert len(loaded(f"data.train={path}", word).labels) == len(report.data.labels) - sum(
            len(group) - 1 for group in groups
        )
        mapped = loaded(f"data.train={path}", "data.label_names={unused: x}")
        assert "unused" in next(one.remedy for one in mapped.findings if one.kind == "label_spelling")


def test_a_test_file_that_writes_yes_and_no_in_another_way(tmp_path: Path):
    files = {"train": ["true", "false"], "test": ["1", "0"]}
    given = [f"data.{part}={file_of(tmp_path / f'{part}.csv', labels * 9)}" for part, labels in files.items()]
    with pytest.raises(LabelError, match="They say the same as labels of train") as caught:
        loaded(*given)
    (word,) = words_in(str(caught.value))
    assert yaml.safe_load(word.partition("=")[2]) == {"1": "true", "0": "false"}
    assert loaded(*given, word).labels == ("false", "true")


@pytest.mark.parametrize(
    "labels",
    [
        [f"{n % 50 / 10:.1f}" for n in range(400)],
        [f"{n % 50},5" for n in range(400)],
        [str(n % 350) for n in range(1400)],
        [f"id-{n}" for n in range(60)],
        [f"word {n % 1001}" for n in range(3000)],
    ],
    ids=["decimals", "commas", "numbers", "ids", "words"],
)
def test_labels_that_are_no_classes(tmp_path: Path, labels: list[str]):
    given = f"data.train={file_of(tmp_path / 'a.csv', labels)}"
    with pytest.raises(LabelError, match="looks like numbers, ids or free text") as caught:
        loaded(given)
    assert len(str(caught.value)) < 600
    (word,) = re.findall(r"data\.max_labels=\d+", str(caught.value))
    assert len(loaded(given, word).labels) == len(set(labels))


def test_more_labels_than_a_record_holds_are_refused_before_anything_runs(tmp_path: Path):
    labels = [f"word {n}" for n in range(5001)]
    given = f"data.train={file_of(tmp_path / 'a.csv', labels * 2)}"
    for named in ((), ("data.max_labels=5001",)):
        with pytest.raises(
            LabelError, match=r"5,001 different labels .*looks like numbers.*expected at most [15],000\."
        ) as caught:
            loaded(given, *named)
        assert len(str(caught.value)) < 500
        assert "max_labels" not in str(caught.value)


@pytest.mark.parametrize(
    "labels", [["1", "2", "3", "4", "5"] * 8, ["0.5", "1.0", "1.5"] * 8, [f"intent {n % 150}" for n in range(600)]]
)
def test_classes_that_are_many_or_numbers(tmp_path: Path, labels: list[str]):
    assert len(loaded(f"data.train={file_of(tmp_path / 'a.csv', labels)}").labels) == len(set(labels))


def test_examples_of_a_finding_are_of_its_own_part(tmp_path: Path):
    for name, text in (("a", "train"), ("b", "test")):
        rows = [
            f"{n},{'  ' if n in (3, 4) and name == 'a' else f'{text} number {n}'},{'xy'[n % 2]}\n" for n in range(20)
        ]
        (tmp_path / f"{name}.csv").write_text("id,text,label\n" + "".join(rows))
    found = validate(DataSettings(train=str(tmp_path / "a.csv"), test=str(tmp_path / "b.csv"))).findings
    (empty,) = [one for one in found if one.kind == "empty_texts"]
    assert [(row.part, row.id, row.text) for row in empty.examples] == [("train", "3", ""), ("train", "4", "")]


def test_a_finding_in_all_rows_has_all_ids_and_plain_percent(tmp_path: Path):
    source = file_of(tmp_path / "a.csv", TRAIN)
    (found,) = [one for one in validate(DataSettings(train=source, test=source)).findings if "exact" in one.kind]
    assert (len(found.examples), len(found.ids)) == (5, 40)
    assert found.message.startswith("40 of 40 examples (100 %) of test")


@pytest.mark.parametrize(
    ("count", "total", "said"),
    [(0, 9, "0 %"), (1, 99_999, "<0.1 %"), (199, 200, "99.5 %"), (99_999, 100_000, "99.9 %")],
)
def test_shares_are_plain_figures(count: int, total: int, said: str):
    assert share(count, total).endswith(f"({said})")
