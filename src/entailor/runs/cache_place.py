"""Where the cache lies: fetched and converted models, measured speeds, hashes of outputs."""

from __future__ import annotations

import os
from pathlib import Path

from entailor.runs.paths import user_path


def cache_folder() -> Path:
    """Return ``$ENTAILOR_CACHE``, else ``$XDG_CACHE_HOME/entailor``, else ``~/.cache/entailor``; it need not exist."""
    if own := os.environ.get("ENTAILOR_CACHE"):
        return user_path(own).absolute()
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "entailor"
