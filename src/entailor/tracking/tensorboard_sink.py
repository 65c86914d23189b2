"""Trials as event files of TensorBoard, one folder a trial: ``tensorboard --logdir RUN/tracking/tensorboard``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entailor.runs.layout import RunFolder
from entailor.runs.record import RunRecord
from entailor.tracking.figures import curve_figures, final_figures, split_of


class TensorBoardSink:
    """Writes event files.

    Args:
        place: the folder that TensorBoard is pointed to.
    """

    def __init__(self, place: Path) -> None:
        self.place = place

    def trial(self, record: RunRecord, place: Path) -> None:
        """Write the curve by step, and the final figures at the last step; a failed trial has none."""
        from tensorboard.summary import Writer

        if record.status != "complete":
            return
        split = split_of(place).replace(" ", "-")
        writer = Writer(str(self.place / place.parent.name / split / place.name))
        for point in record.curve:
            for name, value in curve_figures(point).items():
                writer.add_scalar(name, value, point.step)
        last = record.curve[-1].step if record.curve else 0
        for name, value in final_figures(record).items():
            writer.add_scalar(name, value, last)
        writer.close()

    def finish(self, summary: Mapping[str, Any], folder: RunFolder) -> None:
        """Do nothing: TensorBoard has no place for a comparison."""
