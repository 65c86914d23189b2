"""Trials that were copied from another run, or to another name: never part of a table without a word."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.conftest import make_examples, write_csv
from tests.hostile import running
from tests.hostile.runs import plain_page

import entailor.study.compare

BAG = "trials/none/bag_of_words/seed-0"


@pytest.fixture(autouse=True)
def _plain_page(monkeypatch):
    monkeypatch.setattr(entailor.study.compare, "write_report", plain_page)


def compare_words(folder: Path, name: str) -> list[str]:
    words = ["compare", "--train", f"{folder}/{name}.csv", "--test", f"{folder}/test.csv", "--out", f"{folder}/{name}"]
    return [*words, "--methods", "majority,bag_of_words", "doctor=false", "estimate=false"]


@pytest.fixture
def runs(tmp_path) -> Path:
    """Two runs with the same test examples, and others to train on."""
    for name, count, seed in (("a", 40, 1), ("b", 90, 2), ("test", 30, 3)):
        write_csv(tmp_path / f"{name}.csv", make_examples(count, seed=seed, pair=False, labels=("yes", "no")))
    for name in "ab":
        code, text = running.command(compare_words(tmp_path, name))
        assert code == 0, text
    return tmp_path


def move_from_b(run: Path) -> Path:
    shutil.rmtree(run / BAG)
    return Path(shutil.copytree(run.parent / "b" / BAG, run / BAG))


def test_a_split_of_another_run_is_found_and_made_again(runs):
    shutil.copy(runs / "b/split.json", runs / "a/split.json")
    verify = ["verify", "--run", str(runs / "a")]
    code, text = running.command(verify)
    assert code == 1
    assert "split.json: its examples are not those of the trials. Delete it and run the command that made it" in text
    (runs / "a/split.json").unlink()
    assert running.command(compare_words(runs, "a"))[0] == 0
    assert running.command(verify)[0] == 0


@pytest.mark.parametrize(
    ("copy", "problem"),
    [
        (move_from_b, "its examples are not those of"),
        (lambda run: Path(shutil.copytree(run / BAG, run / "trials/none/bag_of_words/seed-1")), "with seed 0"),
        (lambda run: Path(shutil.copytree(run / BAG, run / "trials/none/mine/seed-0")), "the trial of bag_of_words"),
        (lambda run: Path(shutil.copytree(run / BAG, run / "trials/org--m/bag_of_words/seed-0")), "on none"),
    ],
)
def test_a_copied_trial_is_no_part_of_the_table_and_is_left_as_it_was(runs, copy, problem):
    place = copy(runs / "a")
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    for words in (compare_words(runs, "a"), ["report", "--run", str(runs / "a")], ["verify", "--run", str(runs / "a")]):
        code, text = running.command(words)
        assert code == (1 if words[0] == "verify" else 2), text
        assert problem in text
        assert "Move it out of the run's folder" in text
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
    shutil.move(place, runs / "elsewhere")
    code, text = running.command(compare_words(runs, "a"))
    assert code == 0, text
    assert running.command(["verify", "--run", str(runs / "a")])[0] == 0
