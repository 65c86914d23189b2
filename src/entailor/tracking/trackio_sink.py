"""Trials as runs of trackio, in a folder of the run's own: ``TRACKIO_DIR=RUN/tracking/trackio trackio show``."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entailor.errors import ConfigError
from entailor.runs.layout import RunFolder
from entailor.runs.record import CurvePoint, RunRecord
from entailor.tracking.figures import curve_figures, final_figures, settings_of, title

ELSEWHERE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")  # with which trackio would send what it is given


class TrackioSink:
    """Keeps trials in trackio's own database.

    Args:
        project: of trackio.
        place: the folder of the database.

    Raises:
        ConfigError: trackio would write or send elsewhere, since it was loaded before or is told so by the environment.
    """

    def __init__(self, project: str, place: Path) -> None:
        for name in ELSEWHERE:
            if os.environ.get(name):
                raise ConfigError(f"tracking.trackio: {name} is set, and trials would leave this machine. Unset it")
        place.mkdir(parents=True, exist_ok=True)
        os.environ["TRACKIO_DIR"] = str(place)  # trackio reads it once, when it is imported
        from trackio.utils import TRACKIO_DIR

        if Path(TRACKIO_DIR).resolve() != place.resolve():
            raise ConfigError(
                f"tracking.trackio: trackio writes to {TRACKIO_DIR} in this process already. Start a new process, or "
                "use one run folder"
            )
        self.project = project

    def begin(self, record: RunRecord, place: Path, attempt: int) -> TrackioLog:
        """Open a run with the trial's settings."""
        import trackio
        from trackio.context_vars import current_run

        with contextlib.redirect_stdout(io.StringIO()):  # it prints a command that looks elsewhere for the database
            run = trackio.init(
                self.project,
                name=title(record, attempt),
                group=record.name,
                config=settings_of(record),
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        current_run.set(None)  # else the next one ends it, and several trials may run at once
        return TrackioLog(run)

    def finish(self, summary: Mapping[str, Any], folder: RunFolder) -> None:
        """Do nothing: the runs hold all."""


class TrackioLog:
    """One trial, a run of trackio."""

    def __init__(self, run: Any) -> None:
        self.run, self.last = run, 0

    def point(self, point: CurvePoint) -> None:
        """Log a point of the curve."""
        self._log(curve_figures(point), point.step)

    def end(self, record: RunRecord | None, place: Path) -> None:
        """Keep the final figures of a complete trial."""
        with contextlib.redirect_stdout(io.StringIO()):
            if record is not None and record.status == "complete":
                self._log(final_figures(record), self.last)
            self.run.finish()

    def _log(self, figures: Mapping[str, float], step: int) -> None:
        self.run.log(figures, step=step)
        self.last = step
