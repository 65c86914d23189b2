"""What a message about a damaged file of a run proposes is done, and then the command works."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.hostile import running
from tests.hostile.runs import RUN_FILES, first_trial, plain_page, run_copy, sound_run

import entailor.study.compare

DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut short": lambda file: file.write_bytes(file.read_bytes()[:-40]),
    "another content": lambda file: file.write_text("mine"),
    "missing": lambda file: file.unlink(),
}
FILES = [name for name in RUN_FILES if "trials" not in name or name.endswith(("record.json", "predictions.jsonl"))]
COMPARE = ("compare", "--train", "{train}", "--methods", "majority,bag_of_words", "doctor=false", "estimate=false")
COMMANDS = {
    "compare": (*COMPARE, "--out", "{run}"),
    "report": ("report", "--run", "{run}"),
    "verify": ("verify", "--run", "{run}", "--sample", "2"),
    "diff": ("diff", "{run}", "{sound}"),
    "predict": ("predict", "--run", "{run}", "--input", "{train}", "--output", "{run}.csv", "--overwrite"),
    "evaluate": ("evaluate", "--run", "{trial}", "--test", "{train}"),
}


@pytest.fixture(autouse=True)
def _plain_page(monkeypatch):
    monkeypatch.setattr(entailor.study.compare, "write_report", plain_page)


def run_command(words: tuple[str, ...], run: Path) -> tuple[int, str]:
    places = {"run": run, "trial": first_trial(run), "sound": sound_run() / "run", "train": sound_run() / "train.csv"}
    return running.command([word.format(**places) for word in words])


def follow(text: str, file: Path, run: Path) -> None:
    """Do what a message says, the first of two ways out."""
    trial = first_trial(run)
    if "Put a copy of it back" in text:
        shutil.copy(sound_run() / "run" / file.relative_to(run), file)
        return
    assert "the command that made it again" in text or "Is this the folder of a finished run" in text, text
    if "Delete the trial's folder" in text:
        shutil.rmtree(trial)
    elif "Delete it" in text:
        file.unlink()
    code, said = run_command(COMMANDS["compare"], run)
    assert code == 0, f"{text}: {said}"


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file(tmp_path, name):
    kinds = itertools.cycle(DAMAGES.items())
    next(itertools.islice(kinds, FILES.index(name), None))
    for (command, words), (kind, damage) in zip(COMMANDS.items(), kinds, strict=False):
        run = run_copy(tmp_path / command)
        damage(run / name)
        code, text = run_command(words, run)
        if code == 2:
            follow(text, run / name, run)
            code, after = run_command(words, run)
            assert code < 2, f"{command}, {kind}: {text}: {after}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A finished run with everything that words alone can have: findings, an estimate, an external test set."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copy(sound_run() / "train.csv", folder / "train.csv")
    shutil.copy(sound_run() / "train.csv", folder / "further.csv")
    code, text = running.command(compare_whole(folder, folder / "run"))
    assert code == 0, text
    return folder


def compare_whole(folder: Path, run: Path) -> list[str]:
    words = ["compare", "--train", str(folder / "train.csv"), "--external", str(folder / "further.csv")]
    return [*words, "--methods", "majority,bag_of_words", "--out", str(run)]


@pytest.mark.parametrize(
    "name",
    [
        *(".entailor.json", "doctor.json", "estimate.json", "report.html"),
        *("experiment.yaml", "environment.json", "split.json", "comparison.json", "test_access.json"),
        *(f"trials/none/bag_of_words/seed-0/{name}" for name in ("record.json", "predictions.jsonl")),
        "trials/none/bag_of_words/seed-0/external/*.json",
    ],
)
def test_what_verify_proposes(tmp_path, whole, name):
    run = Path(shutil.copytree(whole / "run", tmp_path / "run"))
    (file,) = run.glob(name)
    verify = ["verify", "--run", str(run)]
    assert running.command(verify)[0] == 0
    file.write_bytes(file.read_bytes()[:-40])
    code, text = running.command(verify)
    (line, *_) = [line for line in text.splitlines() if line.startswith("damaged") and str(file) in line]
    assert code == 1
    if "Put a copy of it back" in line:
        shutil.copy(whole / file.relative_to(tmp_path), file)
    elif "`entailor report`" in line:
        assert running.command(["report", "--run", str(run)])[0] == 0
    else:
        if "Delete the trial's folder" in line:
            shutil.rmtree(run / "trials/none/bag_of_words/seed-0")
        elif "Delete it" in line:
            file.unlink()
        assert re.search("[Rr]un the command that made it again", line), line
        code, said = running.command(compare_whole(whole, run))
        assert code == 0, f"{line}: {said}"
    code, after = running.command(verify)
    assert code == 0, f"{line}: {after}"
