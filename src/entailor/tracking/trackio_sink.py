"""Trials as runs of trackio, in a folder of the run's own: ``TRACKIO_DIR=RUN/tracking/trackio trackio show``."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entailor.errors import ConfigError
from entailor.runs.layout import RunFolder
from entailor.runs.record import RunRecord
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

    def trial(self, record: RunRecord, place: Path) -> None:
        """Keep settings, curve and final figures; a failed trial has none."""
        import trackio

        if record.status != "complete":
            return
        with contextlib.redirect_stdout(sys.stderr):  # it prints where the database is
            run = trackio.init(
                self.project,
                name=title(record, place),
                group=record.name,
                config=settings_of(record),
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
            for point in record.curve:
                run.log(curve_figures(point), step=point.step)
            run.log(final_figures(record), step=record.curve[-1].step if record.curve else 0)
            trackio.finish()  # not run.finish(), after which it would be finished once more, aloud, at the end

    def finish(self, summary: Mapping[str, Any], folder: RunFolder) -> None:
        """Do nothing: the runs hold all."""
