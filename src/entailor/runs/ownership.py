"""What is Entailor's own on the disk: which folder is a run's, and which files in it may be overwritten or deleted.

Nothing is written or deleted through a symbolic link, and nothing is deleted that a run did not write itself.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from entailor.errors import RunError
from entailor.runs.integrity import verify_checksum

MARKER_FILE = ".entailor.json"
LOCK_FILE = ".lock"
OWNER_FILE = ".lock.json"
MANIFEST_FILE = "manifest.json"  # of an exported folder
DATA_FOLDER, TRACKING_FOLDER = "data", "tracking"  # of a run: what it was given in memory, what trackers keep
RUN_PARTS = ("trials", "tuning", "curve", "splits", DATA_FOLDER, TRACKING_FOLDER)
CHECKED_FILES = ("experiment.yaml", "environment.json", "split.json", "comparison.json", "test_access.json")
RUN_FILES = (*CHECKED_FILES, MARKER_FILE, LOCK_FILE, OWNER_FILE, "doctor.json", "estimate.json", "report.html")
# What is left of the first two files of a run where it was killed while it wrote them.
BEGINNINGS = re.compile(rf"\.({re.escape(MARKER_FILE)}|{re.escape(OWNER_FILE)})\.[a-z0-9_]{{8}}\.tmp")
# Folders of before the marker, and copies without hidden files, are known by their checksums. One such file may have
# been copied to a folder of the user's own.
ENOUGH_CHECKED = 2


def is_run_folder(folder: Path) -> bool:
    """Tell whether a run wrote this folder: it has the marker, or several files that carry Entailor's checksum."""
    return (
        _has_checksum(folder / MARKER_FILE)
        or sum(_has_checksum(folder / name) for name in CHECKED_FILES) >= ENOUGH_CHECKED
    )


def check_run_folder(folder: Path) -> None:
    """Refuse a folder that is neither a run's nor new or empty; a lock, or a marker half written, does not count.

    Raises:
        RunError: it holds files of somebody else.
    """
    if not folder.is_dir() or is_run_folder(folder):
        return
    found = sorted(path.name for path in folder.iterdir() if not _is_lock(path))
    if found:
        shown = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
        raise RunError(
            f"{folder}: not empty ({shown}), and not the folder of a run. Give a new or empty folder with --out"
        )


def _is_lock(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    empty_lock = path.name == LOCK_FILE and path.stat().st_size == 0
    return path.name == OWNER_FILE or empty_lock or BEGINNINGS.fullmatch(path.name) is not None


def _has_checksum(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    try:
        verify_checksum(path, path.read_bytes(), "")
    except (RunError, OSError):
        return False
    return True


def enclosing_run(place: Path) -> Path | None:
    """Return the run folder a place lies in, as its path is written, or None."""
    return next((folder for folder in (place, *place.parents) if is_run_folder(folder)), None)


def belongs_to_run(path: Path, run: Path | None = None) -> bool:
    """Tell whether a run writes, or may delete, the file or folder at a path.

    Args:
        path: where links lead does not matter; they are followed.
        run: the folder; None looks for one around the path.
    """
    path = path.resolve()
    run = run.resolve() if run is not None else enclosing_run(path)
    if run is None or not path.is_relative_to(run) or path == run:
        return False
    first, *rest = path.relative_to(run).parts
    return first in RUN_PARTS or (not rest and first in RUN_FILES)


def enclosing_export(place: Path) -> Path | None:
    """Return the exported folder a place lies in, or None; a file that its manifest does not list makes it useless."""
    return next((folder for folder in place.parents if _has_checksum(folder / MANIFEST_FILE)), None)


def refuse_links(place: Path) -> None:
    """Refuse to write or delete where a symbolic link inside a run folder would lead out of it.

    Args:
        place: a file or folder; itself and the folders up to the run's are looked at. Outside a run folder there is
            nothing to refuse.

    Raises:
        RunError: one of them is a symbolic link.
    """
    links = []
    for folder in (place, *place.parents):
        if (folder / MARKER_FILE).is_file():
            break
        if folder.is_symlink():
            links.append(folder)
    else:
        return
    if links:
        raise RunError(
            f"{links[-1]}: a symbolic link inside a run folder, and nothing is written or deleted through one. "
            "Replace it by the folder it stands for, or give another --out"
        )


def remove_files(folder: Path, names: Iterable[str]) -> None:
    """Delete the named files below a folder, and the folders that are empty then; links are left as they are.

    Args:
        folder: a trial's; no link itself.
        names: relative paths.
    """
    emptied = set()
    for name in names:
        path = folder / name
        between = [parent for parent in path.parents if parent.is_relative_to(folder) and parent != folder]
        if ".." in path.parts or any(parent.is_symlink() for parent in (path, *between)) or not path.is_file():
            continue
        path.unlink()
        emptied.update(between)
    for inner in sorted(emptied, key=lambda one: len(one.parts), reverse=True):
        if not any(inner.iterdir()):
            inner.rmdir()


def remove_scratch(folder: Path) -> None:
    """Delete a folder that was made to be filled and renamed; a link of its name is left as it is."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
