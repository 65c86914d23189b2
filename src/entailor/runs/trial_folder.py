"""The folder of a trial: its name, what it holds, and how what an unfinished attempt left there is removed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from entailor.errors import RunError
from entailor.runs.files import read_checked_json, write_checked_json
from entailor.runs.ownership import DATA_FOLDER, RUN_FILES, RUN_PARTS, refuse_links, remove_files, remove_scratch

RECORD_FILE = "record.json"
VALIDATION_FILE = "validation_predictions.jsonl"
CHECKPOINT_FOLDER = "checkpoint"
RUN_AGAIN = "Delete the trial's folder and run the command that made it again"
MOST_NAME_CHARACTERS = 100  # of a folder; file systems stop at 255 bytes
WRITTEN_FILE = ".written.json"  # what an unfinished trial has saved; its record says so in the end
SAVED_FOLDERS = ("adapter", "model", "last_good")
TRIAL_FILES = (
    *(
        RECORD_FILE,
        WRITTEN_FILE,
        VALIDATION_FILE,
        "predictions.jsonl",
        "curve.jsonl",
        "classifier.json",
        "traceback.txt",
    ),
    "last_good/classifier.json",
)
STUDY_FILE = "study.json"
# What is left of a file that was being written when a run was killed; in the last two folders files have any name.
TEMPORARY = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}\.tmp")
WRITTEN_NAMES = frozenset({*RUN_FILES, *TRIAL_FILES, STUDY_FILE})
JSON_FOLDERS = ("external", DATA_FOLDER)


def remove_temporary(run: Path) -> None:
    """Delete what is left in a run folder of files that were being written when a run was killed.

    Args:
        run: the folder, which no other process may be writing to. Links in it are not followed.
    """
    places = [run, *(run / name for name in RUN_PARTS if not (run / name).is_symlink())]
    for place in places:
        for path in place.glob(".*.tmp") if place == run else place.rglob(".*.tmp"):
            found = TEMPORARY.fullmatch(path.name)
            ours = found and (
                found["name"] in WRITTEN_NAMES or (path.parent.name in JSON_FOLDERS and found["name"].endswith(".json"))
            )
            if ours and path.is_file() and not path.is_symlink():
                path.unlink()


def clear_trial(folder: Path) -> None:
    """Remove what an unfinished or failed attempt wrote in a trial's folder, but for its checkpoints.

    The record goes first: while it stands there, the folder counts as finished. Files of others stay; a folder of a
    classifier that holds some, or whose list is lost, is kept under another name.

    Raises:
        RunError: the folder is reached through a link.
    """
    refuse_trial_links(folder)
    if not folder.is_dir():
        return
    written = {name for file in (RECORD_FILE, WRITTEN_FILE) for name in _listed_files(folder / file)}
    external = {f"external/{file.name}" for file in (folder / "external").glob("*.json")}
    remove_files(folder, (RECORD_FILE,))
    remove_files(folder, sorted(written | external | set(TRIAL_FILES)))
    for name in SAVED_FOLDERS:
        remove_scratch(folder / scratch_name(name))
        if (folder / name).exists():
            taken = (folder / f"{name}.kept-{number}" for number in count(1))
            (folder / name).rename(next(place for place in taken if not place.exists()))


def refuse_trial_links(folder: Path) -> None:
    """Refuse a trial folder, or a folder in it that is written to, that is a symbolic link.

    Raises:
        RunError: one is.
    """
    for place in (folder, *(folder / name for name in (CHECKPOINT_FOLDER, "external", *SAVED_FOLDERS))):
        refuse_links(place)
        if place.is_symlink():
            raise RunError(f"{place}: a symbolic link, through which nothing is written or deleted. Remove the link")


def _listed_files(path: Path) -> set[str]:
    """Return the files a record, or the list of an unfinished trial, names; none where it is missing or damaged."""
    try:
        return set(read_checked_json(path, RUN_AGAIN)["files"])
    except (RunError, KeyError, TypeError):
        return set()


@contextmanager
def saved_folder(trial: Path, name: str) -> Iterator[Path]:
    """Give an empty folder that takes the place of ``trial/name`` when it is whole and its files are written down.

    So an attempt that was broken off at any moment can be removed without touching what somebody else put there.
    """
    target, scratch = trial / name, trial / scratch_name(name)
    remove_scratch(scratch)
    scratch.mkdir(parents=True)
    yield scratch
    files = [(Path(name) / file.relative_to(scratch)).as_posix() for file in scratch.rglob("*") if file.is_file()]
    listed = _listed_files(trial / WRITTEN_FILE)
    write_checked_json(trial / WRITTEN_FILE, {"files": sorted({*listed, *files})})
    scratch.rename(target)


def scratch_name(name: str) -> str:
    """Return what a folder is called while it is filled."""
    return f".{name}.unfinished"


def folder_name(model: str) -> str:
    """Return a model's name as one safe path component: ``org/name`` becomes ``org--name``.

    What is no plain name, Hub id or package ends in a hash, so that two models never share a folder.
    """
    safe = re.sub(r"[^A-Za-z0-9._=-]+", "-", model.replace("/", "--")).strip(".-")
    if _PLAIN_MODEL.fullmatch(model) and len(safe) <= MOST_NAME_CHARACTERS:
        return safe
    digest = hashlib.blake2b(model.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{safe[-MOST_NAME_CHARACTERS:].lstrip('.-') or 'model'}-{digest}"


# No two of these give the same name: '--' and 'pypi-' stand in none, so they stand for '/' and 'pypi:' alone.
_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9._]|-(?!-))*(?<![.-])"
_PLAIN_MODEL = re.compile(rf"(?!pypi-)(?:pypi:{_WORD}==|{_WORD}/)?{_WORD}")
