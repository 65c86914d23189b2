"""Every remedy in a message about predictions and exports is followed: what it proposes is what is given next."""

from __future__ import annotations

import shutil

import pytest
from tests.hostile import running
from tests.hostile.runs import first_trial, sound_run

EXPORT = ("export", "--run", "{trial}", "--out", "{out}")
PREDICT = ("predict", "--run", "{trial}", "--input", "{train}")
EVALUATE = ("evaluate", "--run", "{trial}", "--test", "{train}")


@pytest.mark.parametrize(
    ("wrong", "remedy", "told"),
    [
        ((*EXPORT, "--format", "onnx"), "Fitting: sklearn", (*EXPORT, "--format", "sklearn")),
        ((*EXPORT, "--format", "pickle"), "fit: sklearn", None),
        ((*EXPORT, "--format", "sklearn,sklearn"), "name each format once", None),
        ((*EXPORT, "--format", "sklearn", "--margin", "5"), "a share of accuracy from 0 to 1", None),
        ((*EXPORT[:4], "{held}", "--format", "sklearn"), "exists already. Give another --out", None),
        ((*EXPORT[:4], "{run}/trials/new", "--format", "sklearn"), "Give another place to write", None),
        ((*PREDICT, "--output", "{out}.json"), "Use .csv, .tsv or .jsonl", (*PREDICT, "--output", "{out}.jsonl")),
        (
            (*PREDICT, "--output", "{held}/mine.csv"),
            "add --overwrite",
            (*PREDICT, "--output", "{held}/mine.csv", "--overwrite"),
        ),
        ((*PREDICT, "--output", "{held}"), "Use .csv, .tsv or .jsonl", (*PREDICT, "--output", "{held}/a.csv")),
        ((*PREDICT, "--output", "{out}.csv", "--min-confidence", "50"), "a probability from 0 to 1", None),
        (
            ("predict", "--run", "{run}/nothing", "--input", "{train}", "--output", "{out}.csv"),
            "Give the folder that `entailor compare`",
            (*PREDICT, "--output", "{out}.csv"),
        ),
        ((*EVALUATE, "--label-names", "0:a"), "expected field=COLUMN", (*EVALUATE, "--label-names", "0=a")),
        (
            (*EVALUATE, "--columns", "text=body"),
            "(or text=COL,label=COL)",
            (*EVALUATE, "--columns", "text=text,label=label"),
        ),
    ],
)
def test_what_a_message_proposes_works(tmp_path, wrong, remedy, told):
    run = sound_run() / "run"
    held = tmp_path / "held"
    held.mkdir()
    (held / "mine.csv").write_text("mine")
    places = {"run": run, "trial": first_trial(run).parents[1] / "bag_of_words" / "seed-0", "held": held}
    places |= {"out": tmp_path / "out", "train": sound_run() / "train.csv"}
    code, text = running.command([word.format(**places) for word in wrong])
    assert code == 2
    assert remedy in text, text
    if told:
        shutil.rmtree(places["out"], ignore_errors=True)
        code, text = running.command([word.format(**places) for word in told])
        assert code == 0, text
