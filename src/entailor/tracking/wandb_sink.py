"""Trials as runs of Weights & Biases, written offline: ``wandb sync`` sends them when the user says so."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entailor.runs.layout import RunFolder
from entailor.runs.record import CurvePoint, RunRecord
from entailor.tracking.figures import curve_figures, final_figures, settings_of, title


class WandbSink:
    """Writes offline runs.

    Args:
        project: of Weights & Biases.
        place: the folder in which ``wandb/`` is written.
    """

    def __init__(self, project: str, place: Path) -> None:
        self.project, self.place = project, place
        place.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        for name in ("CACHE", "CONFIG", "DATA"):  # which would lie in the home folder
            os.environ.setdefault(f"WANDB_{name}_DIR", str(place / "wandb"))

    def begin(self, record: RunRecord, place: Path, attempt: int) -> WandbLog:
        """Open a run with the trial's settings."""
        import wandb

        quiet = wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        return WandbLog(
            wandb.init(
                project=self.project,
                name=title(record, attempt),
                group=record.name,
                config=settings_of(record),
                dir=str(self.place),
                mode="offline",
                reinit="create_new",
                settings=quiet,
            )
        )

    def finish(self, summary: Mapping[str, Any], folder: RunFolder) -> None:
        """Do nothing: the runs hold all."""


class WandbLog:
    """One trial, a run of Weights & Biases."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def point(self, point: CurvePoint) -> None:
        """Log a point of the curve."""
        self.run.log(curve_figures(point), step=point.step)

    def end(self, record: RunRecord | None, place: Path) -> None:
        """Keep the final figures of a complete trial; any other ends with an exit code of 1."""
        complete = record is not None and record.status == "complete"
        if record is not None and complete:
            self.run.summary.update(final_figures(record))
        self.run.finish(exit_code=0 if complete else 1)
