"""A path as its user wrote it."""

from __future__ import annotations

import os
from pathlib import Path


def user_path(written: str | Path) -> Path:
    """Return a path with ``~`` and ``~name`` as home folders; where there is no such user, it stays as it is written.

    `Path.expanduser` raises a `RuntimeError` there, which would be met in many places.
    """
    return Path(os.path.expanduser(written))  # noqa: PTH111 - see above
