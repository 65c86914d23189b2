"""Trials as runs of Weights & Biases, written offline: ``wandb sync`` sends them when the user says so."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entailor.runs.layout import RunFolder
from entailor.runs.record import RunRecord
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

    def trial(self, record: RunRecord, place: Path) -> None:
        """Write settings, curve and final figures; a failed trial with its exit code."""
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
        run = wandb.init(
            project=self.project,
            name=title(record, place),
            group=record.name,
            config=settings_of(record),
            dir=str(self.place),
            mode="offline",
            reinit="create_new",
            settings=quiet,
        )
        for point in record.curve:
            run.log(curve_figures(point), step=point.step)
        complete = record.status == "complete"
        if complete:
            run.summary.update(final_figures(record))
        run.finish(exit_code=0 if complete else 1)

    def finish(self, summary: Mapping[str, Any], folder: RunFolder) -> None:
        """Do nothing: the runs hold all."""
