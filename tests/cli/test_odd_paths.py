"""Every option that takes a path, with paths that cannot be: one clear error, and nothing is written."""

from __future__ import annotations

import pytest
from tests.hostile.running import command
from tests.hostile.runs import first_trial, sound_run

from entailor.config.experiment import Experiment, parse_settings
from entailor.errors import ConfigError

PATHS = {
    "no such user": "~nosuchuser/a.csv",
    "null character": "a\0b.csv",
    "no UTF-8": "a\udcff.csv",
    "half a pair": "a\ud800.csv",
    "outside": "../../../../../../../../nowhere/a.csv",
    "long name": "x" * 300,
    "long path": "/".join(["d" * 200] * 30),
    "many folders": "a/" * 2_000 + "a.csv",
    "empty": "",
    "blank": " ",
    "below a file": "{train}/x.csv",
    "escape": "\x1b[31mx.csv",
}
RUN, TRIAL, TRAIN = "{run}", "{trial}", "{train}"
COMPARE = ("compare", "--methods", "majority", "--out", "{out}", "doctor=false", "estimate=false")
EXPORT = ("export", "--format", "sklearn")
OPTIONS = [
    (*COMPARE, "--train", TRAIN, "--validation"),
    (*COMPARE, "--train", TRAIN, "--test"),
    (*COMPARE, "--train", TRAIN, "--external"),
    ("validate", "--train"),
    ("validate", "--train", TRAIN, "--model"),
    ("predict", "--run", TRIAL, "--output", "{out}.csv", "--input"),
    ("evaluate", "--test", TRAIN, "--run"),
    ("evaluate", "--run", TRIAL, "--test"),
    (*EXPORT, "--out", "{out}", "--run"),
    (*EXPORT, "--run", TRIAL, "--out", "{out}", "--external"),
    ("report", "--run"),
    ("verify", "--run"),
    ("diff", RUN),
    ("models", "pull"),
    ("serve",),
]
ALL_PATHS = [  # one of each kind of option: a file, data, a model, a run
    (*COMPARE, "--config"),
    (*COMPARE, "--train"),
    (*COMPARE, "--train", TRAIN, "methods=lora", "--model"),
    ("predict", "--input", TRAIN, "--output", "{out}.csv", "--run"),
]
WRITTEN = [
    (*EXPORT, "--run", TRIAL, "--out"),
    ("compare", "--train", TRAIN, *COMPARE[1:3], *COMPARE[5:], "--out"),
    ("validate", "--train", TRAIN, "--output"),
    ("predict", "--run", TRIAL, "--input", TRAIN, "--output"),
]
FEW = ("no such user", "null character", "half a pair", "long name")


def refused(tmp_path, words, path):
    run = sound_run()
    places = {"run": run / "run", "trial": first_trial(run / "run"), "train": run / "train.csv", "out": tmp_path / "o"}
    code, text = command([word.format(**places) for word in (*words, path)])
    assert code == 2, text
    assert "Traceback" not in text
    assert text.count("rror: ") == 1, text
    assert "\x1b" not in text
    assert {entry.name for entry in tmp_path.iterdir()} <= {"o"}, text  # data are read before models are looked for


@pytest.mark.parametrize(
    ("words", "name"),
    [(words, name) for words in ALL_PATHS for name in PATHS] + [(words, name) for words in OPTIONS for name in FEW],
    ids=lambda one: one if isinstance(one, str) else f"{one[0]} {one[-1]}",
)
def test_a_path_that_cannot_be_is_one_error(tmp_path, monkeypatch, words, name):
    monkeypatch.chdir(tmp_path)
    refused(tmp_path, words, PATHS[name])


@pytest.mark.parametrize("name", [*FEW, "long path", "many folders", "below a file"])
@pytest.mark.parametrize("words", WRITTEN, ids=lambda words: words[0])
def test_an_output_that_cannot_be_is_one_error(tmp_path, monkeypatch, words, name):
    monkeypatch.chdir(tmp_path)
    refused(tmp_path, words, PATHS[name])


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_an_empty_path_is_no_part_of_train(part):
    """An unset variable of a shell gave one, and all of train was then the test set."""
    with pytest.raises(ConfigError, match="an empty path; give a file or a data set, or leave it out"):
        parse_settings(Experiment, {"data": {"train": "a.csv", part: ""}})
