"""The share of the most frequent label: what any other method must beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from entailor.classifiers.base import FitData, FittedClassifier
from entailor.data.example import Example
from entailor.methods.base import Method
from entailor.runs.record import read_json, write_json
from entailor.tasks import Task

if TYPE_CHECKING:
    from entailor.models.load import Backbone


class Majority(Method, name="majority"):
    """Predict the training split's label frequencies for every example."""

    summary: ClassVar[str] = "label frequencies of the training split"
    needs_backbone: ClassVar[bool] = False
    deterministic: ClassVar[bool] = True

    def adapt(self, backbone: Backbone | None, task: Task, seed: int) -> MajorityClassifier:
        """Return the unfitted classifier."""
        return MajorityClassifier(task)


@dataclass(frozen=True, slots=True)
class NoInput:
    """Stands for an example nothing is read of."""

    example_index: int
    truncated: bool = False

    def __len__(self) -> int:
        return 1


class MajorityClassifier(FittedClassifier):
    """The same logits for every example: log frequencies, with one added to each count."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.log_frequencies_L = np.zeros(len(task.labels))

    def encode(self, examples: Sequence[Example]) -> list[NoInput]:
        """Read nothing."""
        return [NoInput(row) for row in range(len(examples))]

    def collate(self, inputs: Sequence[NoInput]) -> int:
        """Return the number of examples."""
        return len(inputs)

    def features(self, batch: int) -> list[None]:
        """Return nothing an example."""
        return [None] * batch

    def fit(self, train: FitData, validation: FitData) -> tuple[str, ...]:
        """Count the labels."""
        counts_L = np.bincount(train.targets, minlength=len(self.task.labels)) + 1.0
        self.log_frequencies_L = np.log(counts_L / counts_L.sum())
        return ()

    def logits(self, batch: int) -> NDArray[np.float32]:
        """Return logits_BL."""
        return np.tile(self.log_frequencies_L.astype(np.float32), (batch, 1))

    def save(self, folder: Path) -> None:
        """Write the frequencies."""
        write_json(folder / "frequencies.json", dict(zip(self.task.labels, self.log_frequencies_L, strict=True)))

    def load(self, folder: Path) -> None:
        """Read the frequencies."""
        saved = read_json(folder / "frequencies.json")
        self.log_frequencies_L = np.array([float(saved[label]) for label in self.task.labels])

    def parameter_counts(self) -> tuple[int, int, int]:
        """Return one number a label."""
        return (len(self.task.labels),) * 3
