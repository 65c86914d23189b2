"""A logistic regression on a frozen encoder: what the checkpoint already knows.

Alain & Bengio 2016, section 3.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from entailor.classifiers.base import FitData, count_parameters
from entailor.classifiers.frozen_encoder import FrozenEncoderClassifier
from entailor.classifiers.linear_model import LinearModel, LinearOutput
from entailor.classifiers.transformer import TokenBatch
from entailor.methods.base import LinearMethod
from entailor.models.load import Backbone
from entailor.tasks import Task


class LinearProbe(LinearMethod, name="linear_probe"):
    """Frozen encoder, mean-pooled, with a logistic regression on top."""

    summary: ClassVar[str] = "logistic regression on the frozen encoder"
    reads_windows: ClassVar[bool] = False
    deterministic: ClassVar[bool] = True

    def adapt(self, backbone: Backbone | None, task: Task, seed: int) -> LinearProbeClassifier:
        """Return the unfitted classifier."""
        return LinearProbeClassifier(self, self.needed(backbone), task)


class LinearProbeClassifier(LinearOutput, FrozenEncoderClassifier):
    """Pooled vectors of a frozen encoder through a linear model."""

    def __init__(self, method: LinearProbe, backbone: Backbone, task: Task) -> None:
        super().__init__(backbone, task, method.name)
        self.method = method
        self.linear = LinearModel(len(task.labels))

    def fit(self, train: FitData, validation: FitData) -> tuple[str, ...]:
        """Fit on standardised features, then fold the standardisation into the weights."""
        return self.method.fit_standardized(self.linear, train, validation)

    def logits(self, batch: list[TokenBatch]) -> Tensor:
        """Return logits_BL."""
        return torch.from_numpy(self.linear.logits(self.features(batch))).float()

    def parameter_counts(self) -> tuple[int, int, int]:
        """Return the linear model's size, and the backbone's with it."""
        return self.linear.size, self.linear.size, self.linear.size + count_parameters(self.body.parameters())
