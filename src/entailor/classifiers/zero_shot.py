"""What classifiers share that know the labels by their names alone: a bias that validation may take off."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from entailor.classifiers.base import PromptedClassifier
from entailor.data.example import Example
from entailor.models.device import send
from entailor.runs.files import read_json, write_json
from entailor.tasks import Task

STATE_FILE = "zero_shot.json"
Calibration = Literal["none", "batch"]


class ZeroShotClassifier(PromptedClassifier):
    """Scores of labels, with batch calibration (Zhou et al. 2023) where it is asked for.

    Args:
        task: labels and input shape.
        calibration: batch takes the mean over validation off, whose labels are not looked at.

    Attributes:
        bias_L: what is subtracted from the scores.
    """

    def __init__(self, task: Task, calibration: Calibration) -> None:
        self.task, self.calibration = task, calibration
        self.bias_L = torch.zeros(len(task.labels))

    @property
    def needs_validation(self) -> bool:
        """Whether the mean over validation is taken off."""
        return self.calibration == "batch"

    def demonstrate(self, train: Sequence[Example]) -> tuple[str, ...]:
        """Look at no training example."""
        return ()

    def calibrate(self, logprobs_EL: NDArray[np.float64], targets_E: NDArray[np.int64]) -> tuple[str, ...]:
        """Take off the labels' mean probabilities, as log-probabilities."""
        self.bias_L = torch.from_numpy(np.log(np.exp(logprobs_EL).mean(0))).float()
        return ()

    def unbiased(self, scores_BL: Tensor) -> Tensor:
        """Return logits_BL, float32: the scores without the bias."""
        return scores_BL.float() - send(self.bias_L, scores_BL.device)

    def shift(self, shift_L: NDArray[np.float64]) -> None:
        """Take it off the bias."""
        self.bias_L = self.bias_L - torch.from_numpy(shift_L).float()

    def save(self, folder: Path) -> None:
        """Write the bias; there is nothing else to keep."""
        write_json(folder / STATE_FILE, {"bias": dict(zip(self.task.labels, self.bias_L.tolist(), strict=True))})

    def load(self, folder: Path) -> None:
        """Read the bias back.

        Raises:
            ValueError: it is that of other labels.
        """
        bias = read_json(folder / STATE_FILE)["bias"]
        if set(bias) != set(self.task.labels):
            raise ValueError(f"a bias for {', '.join(bias)}, expected one for {', '.join(self.task.labels)}")
        self.bias_L = torch.tensor([float(bias[label]) for label in self.task.labels])


def described(labels: Sequence[str], template: str, descriptions: dict[str, str]) -> list[str]:
    """Return each label in words: its own description, or its name with blanks for underscores in the template."""
    return [descriptions.get(label) or template.replace("{}", label.replace("_", " ")) for label in labels]
