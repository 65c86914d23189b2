"""Where fetched and converted models are kept, and how a folder gets in there whole or not at all.

Knows nothing of checkpoints. What comes from the Hub stays in the Hub's own cache, shared with other tools.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from entailor.errors import ModelError, RunError
from entailor.runs.files import read_json, write_json

SOURCE_FILE = "source.json"
REMEMBERED_FROM_BYTES = 16 * 2**20
"""Files at least this large have their hash remembered; smaller ones are hashed faster than looked up."""
SETTLED_AFTER_NS = 3 * 10**9
"""A file changed later than this before it was hashed may change again without new times: clocks of file systems tick
slowly, some once in two seconds. Its hash is not remembered."""


@contextlib.contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Give an empty folder inside `parent` that is removed at the end.

    Raises:
        ModelError: the place cannot be written, or the disk is full.
    """
    scratch = parent / f".{secrets.token_hex(8)}.tmp"
    try:
        scratch.mkdir(parents=True)
        yield scratch
    except OSError as error:
        raise storage_error(error, parent) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder beside `target`; on success it is flushed and renamed to it, on failure removed.

    Raises:
        ModelError: the place cannot be written, or the disk is full.
    """
    with scratch_folder(target.parent) as scratch:
        yield scratch
        for file in scratch.iterdir():
            file.chmod(scratch.stat().st_mode & 0o666)  # safetensors writes private files
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())
        try:
            scratch.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was quicker, and its folder is as good
                raise


def storage_error(error: OSError, folder: Path, variable: str = "ENTAILOR_CACHE") -> ModelError:
    """Say in words why `folder` cannot take a model, and what to do: `variable` names another one."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ModelError(f"{folder}: the disk is full. Free some space, or set {variable} to a folder with room")
    problem = error.strerror or str(error)
    return ModelError(f"{folder}: cannot be written ({problem}). Set {variable} to a folder you may write to")


def require_room(folder: Path, needed_bytes: int) -> None:
    """Refuse work whose result would not fit on the disk of `folder`.

    Raises:
        ModelError: fewer than `needed_bytes` are free.
    """
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise ModelError(
            f"{folder}: {needed_bytes / 1e9:.1f} GB are needed and {free_bytes / 1e9:.1f} GB are free. "
            "Free some space, or set ENTAILOR_CACHE to a folder with room"
        )


def write_source(folder: Path, **source: str | None) -> None:
    """Note beside a checkpoint where it comes from: `name`, `wheel_sha256`, `gguf_sha256`, `weights_sha256`."""
    write_json(folder / SOURCE_FILE, source)


def read_source(folder: Path) -> dict[str, str | None]:
    """Read what `write_source` noted.

    Raises:
        ModelError: it is missing or damaged.
    """
    try:
        source = read_json(folder / SOURCE_FILE)
    except RunError as error:
        raise ModelError(f"{folder}: damaged ({error.__cause__ or error}). Delete this folder and run again") from None
    if not isinstance(source, dict) or not isinstance(source.get("name"), str):
        raise ModelError(f"{folder / SOURCE_FILE}: damaged, no name in it. Delete this folder and run again")
    return source


def file_sha256(path: Path, cache: Path | None = None) -> str:
    """Return a file's SHA-256 (64 hex digits).

    Args:
        path: the file.
        cache: where the hash of a large file is remembered; None: hash again, as for what a stranger gave. A hash is
            believed as long as place, size and all times of the file stay. The time of change cannot be set back.
    """
    stat = path.stat()
    remembered = None
    if cache is not None and stat.st_size >= REMEMBERED_FROM_BYTES:
        key = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:32]
        remembered = cache / "hashes" / f"{key}.json"
    state = _state(stat)
    if remembered is not None and remembered.is_file():
        with contextlib.suppress(RunError):
            entry = read_json(remembered)
            if isinstance(entry, dict) and {**state, "sha256": entry.get("sha256")}.items() <= entry.items():
                return str(entry["sha256"])
    begun_ns = time.time_ns()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    settled = max(stat.st_mtime_ns, stat.st_ctime_ns) < begun_ns - SETTLED_AFTER_NS
    if remembered is not None and settled and _state(path.stat()) == state:
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not correctness
            write_json(remembered, {"path": str(path), **state, "sha256": digest})
    return digest


def weights_sha256(files: Sequence[Path], cache: Path | None = None) -> str:
    """Return the SHA-256 of the one weight file, or of the list of names and hashes where there are several.

    Args:
        files: in the order of their names.
        cache: as in `file_sha256`.
    """
    hashes = [file_sha256(file, cache) for file in files]
    if len(hashes) == 1:
        return hashes[0]
    listing = "".join(f"{digest}  {file.name}\n" for digest, file in zip(hashes, files, strict=True))
    return hashlib.sha256(listing.encode()).hexdigest()


def _state(stat: os.stat_result) -> dict[str, int]:
    """Return what changes with a file."""
    names = ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
    return {name.removeprefix("st_"): getattr(stat, name) for name in names}
