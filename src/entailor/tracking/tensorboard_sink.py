"""Trials as event files of TensorBoard, a folder each: ``tensorboard --logdir RUN/tracking/tensorboard``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entailor.runs.layout import RunFolder
from entailor.runs.ownership import refuse_links, remove_files
from entailor.runs.record import SPLIT, CurvePoint, RunRecord
from entailor.tracking.figures import curve_figures, final_figures


class TensorBoardSink:
    """Writes event files.

    Args:
        place: the folder that TensorBoard is pointed to.
    """

    def __init__(self, place: Path) -> None:
        self.place = place

    def begin(self, record: RunRecord, place: Path, attempt: int) -> TensorBoardLog:
        """Open event files in MODEL/CANDIDATE/seed-N, in place of those of an earlier run of the same trial."""
        split = f"-split-{number}" if (number := record.provenance.get(SPLIT)) else ""
        name = place.name + split + (f"-restart-{attempt}" if attempt else "")
        target = self.place.joinpath(*place.parts[-3:-1], name)
        refuse_links(target)
        remove_files(target, [file.name for file in target.glob("events.out.tfevents.*")])
        return TensorBoardLog(target)

    def finish(self, summary: Mapping[str, Any], folder: RunFolder) -> None:
        """Do nothing: TensorBoard has no place for a comparison."""


class TensorBoardLog:
    """One trial; what is written can be seen at once."""

    def __init__(self, target: Path) -> None:
        from tensorboard.summary import Writer

        self.writer, self.last = Writer(str(target)), 0

    def point(self, point: CurvePoint) -> None:
        """Write a point of the curve."""
        self._write(curve_figures(point), point.step)

    def end(self, record: RunRecord | None, place: Path) -> None:
        """Write the final figures of a complete trial at the last step."""
        if record is not None and record.status == "complete":
            self._write(final_figures(record), self.last)
        self.writer.close()

    def _write(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()
        self.last = step
