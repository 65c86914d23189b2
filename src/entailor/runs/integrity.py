"""What keeps files of a run whole: checksums, checksums that a file carries in itself, and words for a disk that fails.

Such a checksum is ``sha256:`` and 64 hex digits in the last line of a text file, computed over the file with zeros
in their
place. File and checksum are so written in one rename, and a kill between two files cannot set them at odds.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from entailor.errors import RunError
from entailor.runs.documents import open_regular

BLANK_CHECKSUM = "sha256:" + "0" * 64
_CHECKSUM = re.compile(rb"sha256:[0-9a-f]{64}")
# How Rust, in which safetensors is written, shows the number of a system's error; Python sees the text alone.
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_DISK_REMEDIES = {
    errno.ENOSPC: "the disk is full. Free some space",
    errno.EDQUOT: "your quota of this disk is used up. Free some space",
    errno.EFBIG: "a file may not become as large as needed here (ulimit -f, or the file system's own limit). Raise it",
    errno.EROFS: "the file system is read-only. Make it writable",
    errno.EACCES: "no permission to write there. Change the folder's owner or mode",
    errno.EPERM: "no permission to write there. Change the folder's owner or mode",
    errno.ENAMETOOLONG: "the path is too long. Give a shorter one",
    errno.ENOTDIR: "a part of the path is no folder. Give another one",
    errno.EEXIST: "a part of the path is no folder. Give another one",
    errno.EIO: "the disk reports an error. Look at the system's log",
}


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256 (64 hex digits)."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksums(folder: Path, leave_out: Iterable[str] = ()) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder by its relative path, in the order of their names.

    Args:
        folder: where to look.
        leave_out: names of files and folders, at the top, that do not count.
    """
    skipped = set(leave_out)
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {
        name.as_posix(): file_sha256(files[name])
        for name in sorted(files)
        if name.parts[0] not in skipped and not name.name.endswith(".tmp")
    }


def damaged_file(folder: Path, expected: Mapping[str, str], names: Iterable[str]) -> str | None:
    """Return what is wrong with the first of the named files, or None where each is as it was written.

    Args:
        folder: where they stand.
        expected: SHA-256 by relative path.
        names: which of them to look at.
    """
    for name in names:
        path = folder / name
        try:
            found = file_sha256(path)
        except FileNotFoundError:
            return f"{path}: missing"
        except OSError as error:
            return f"{path}: cannot be read ({error.strerror})"
        if found != expected.get(name):
            return f"{path}: damaged, its content is not what was written ({path.stat().st_size:,} bytes)"
    return None


def with_checksum(text: str) -> str:
    """Return a text with the blank checksum in it filled in.

    Args:
        text: holds `BLANK_CHECKSUM` in its last line; what stands before it does not count.
    """
    head, blank, tail = text.rpartition(BLANK_CHECKSUM)
    if not blank:
        raise ValueError("no blank checksum in the text")
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{head}sha256:{digest}{tail}"


def verify_checksum(path: Path, content: bytes, remedy: str) -> None:
    """Hold a file's content against the checksum it carries.

    Raises:
        RunError: there is no checksum, or it is that of another content.
    """
    found = next(reversed(list(_CHECKSUM.finditer(content[-200:]))), None)
    if found is None:
        raise RunError(f"{path}: damaged, or cut short: its checksum is not there ({len(content):,} bytes). {remedy}")
    start = max(0, len(content) - 200) + found.start()
    blank = content[:start] + BLANK_CHECKSUM.encode() + content[start + len(BLANK_CHECKSUM) :]
    if hashlib.sha256(blank).hexdigest() != found[0].decode().removeprefix("sha256:"):
        raise RunError(f"{path}: damaged or changed by hand: its checksum is that of another content. {remedy}")


def disk_trouble(error: BaseException) -> str | None:
    """Return in words what a failed write says of the disk, with the next step; None for any other error."""
    if isinstance(error, OSError):
        number = error.errno
    else:
        found = _OS_ERROR.search(str(error))
        number = int(found[1]) if found else None
    return _DISK_REMEDIES.get(number) if number is not None else None
