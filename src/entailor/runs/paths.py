"""A path as its user wrote it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

MOST_FOLDERS = 500  # above each other: `Path.mkdir` calls itself for each, until Python gives up


def user_path(written: str | Path) -> Path:
    """Return a path with ``~`` and ``~name`` as home folders; where there is no such user, it stays as it is written.

    `Path.expanduser` raises a `RuntimeError` there, which would be met in many places.
    """
    return Path(os.path.expanduser(written))  # noqa: PTH111 - see above


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        OSError: it cannot be made, or lies below too many others.
    """
    if len(folder.parts) > MOST_FOLDERS:
        raise OSError(errno.ENAMETOOLONG, f"more than {MOST_FOLDERS} folders above each other", str(folder)[:100])
    folder.mkdir(parents=True, exist_ok=True)
