"""Changes to an experiment, and what a folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from entailor.config.experiment import Experiment


def changed(experiment: Experiment, **values: Any) -> Experiment:
    return experiment.model_copy(update=values)


def with_data(experiment: Experiment, **values: Any) -> Experiment:
    return changed(experiment, data=experiment.data.model_copy(update=values))


def files_of(folder: Path, *, under: str = "") -> dict[str, tuple[int, bytes]]:
    """Every file with its time and content."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted((folder / under).rglob("*"))
        if path.is_file()
    }
