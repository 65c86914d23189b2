"""Files written whole or not at all, and read back under limits.

Every file is written to a temporary name beside its place, flushed to disk and renamed, so a reader sees the old file
or the new one and never half of either.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from entailor.errors import RunError
from entailor.runs.documents import check_size, parse_json, read_bytes
from entailor.runs.integrity import BLANK_CHECKSUM, verify_checksum, with_checksum
from entailor.runs.ownership import refuse_links
from entailor.runs.paths import make_folder

CHECKSUM_KEY = "checksum"
REPLACE_TRIES = 20 if os.name == "nt" else 1
DELETE_IT = "Delete it and run the command that made it again"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is flushed and renamed, on failure removed.

    Raises:
        RunError: `path` lies in a run folder, behind a symbolic link, or a folder stands there.
    """
    refuse_links(path.parent)
    if path.is_dir():
        raise RunError(f"{path}: a folder stands where a file is written. Move it elsewhere")
    make_folder(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files
        _replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _replace(temporary: Path, path: Path) -> None:
    """Rename a file over another; on Windows as soon as nobody has that one open, a virus scanner for instance."""
    for left in reversed(range(REPLACE_TRIES)):
        try:
            temporary.replace(path)
        except PermissionError:
            if not left:
                raise
            time.sleep(0.05)
        else:
            return


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogatepass", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinity are refused, since other readers cannot take them.

    Raises:
        RunError: it is too large to be read back.
    """
    write_text(path, _json_text(path, value))


def write_checked_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON with a checksum of the file as its last key; :func:`read_checked_json` takes it off again.

    Raises:
        RunError: it is too large to be read back.
    """
    write_text(path, with_checksum(_json_text(path, {**value, CHECKSUM_KEY: BLANK_CHECKSUM})))


def _json_text(path: Path, value: Any) -> str:
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        check_size(text.encode("utf-8", "surrogatepass"))
    except ValueError as error:
        raise RunError(f"{path}: too large to be read back ({error}). Use fewer examples or labels") from None
    return text


def read_checked_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read what :func:`write_checked_json` wrote.

    Raises:
        RunError: the file is missing or damaged.
    """
    content = _content(path)
    value = _parsed(path, content)
    verify_checksum(path, content, remedy)
    if not isinstance(value, dict):
        raise RunError(f"{path}: damaged, a mapping was expected. {remedy}")
    value.pop(CHECKSUM_KEY, None)
    return value


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, atomically."""
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogatepass", newline="\n") as file,
    ):
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        RunError: the file is missing or damaged.
    """
    return _parsed(path, _content(path))


def _content(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except FileNotFoundError:
        raise RunError(f"{path}: no such file. Is this the folder of a finished run or trial?") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}). {DELETE_IT}") from None


def _parsed(path: Path, content: bytes) -> Any:
    try:
        return parse_json(content)
    except ValueError as error:
        raise RunError(f"{path}: cannot be read ({error}). {DELETE_IT}") from None
