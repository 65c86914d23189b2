"""Starts the process with the pretend accelerator, which must not be this one: torch keeps such a device for good."""

import json
from pathlib import Path
from typing import Any

from tests.forked import forked


def ask(part: str, folder: Path) -> Any:
    """Return what a part of `tests.gpu.child` found.

    Args:
        part: quick, whole, mistakes or examples.
        folder: for models and the package's cache.
    """
    done = forked("tests.gpu.child", "tell", part, folder, ENTAILOR_CACHE=str(folder / "cache"))
    assert done.code == 0, done.err[-3000:]
    return json.loads(done.out.splitlines()[-1])
