"""A logistic regression on a frozen encoder: what the checkpoint already knows.

Alain & Bengio 2016, section 3.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Protocol

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from entailor.classifiers.base import FitData, count_parameters
from entailor.classifiers.frozen_encoder import FrozenEncoderClassifier
from entailor.classifiers.linear_model import LinearModel, LinearOutput
from entailor.classifiers.thresholds import ThresholdCosts, Thresholds
from entailor.classifiers.transformer import TokenBatch
from entailor.errors import MethodError
from entailor.methods.base import ClassWeight, Method
from entailor.models.load import Backbone
from entailor.tasks import Task


class LinearProbe(Method, name="linear_probe"):
    """Frozen encoder, mean-pooled, with a logistic regression on top."""

    summary: ClassVar[str] = "logistic regression on the frozen encoder"
    reads_windows: ClassVar[bool] = False
    deterministic: ClassVar[bool] = True

    C: tuple[PositiveFloat, ...] = Field(default=(0.001, 0.01, 0.1, 1.0), min_length=1)
    """Inverse regularisation strengths on standardised features; the best on validation is kept."""
    max_iter: int = Field(default=300, ge=1)
    """Most iterations of L-BFGS."""
    class_weight: ClassWeight = "none"
    thresholds: Thresholds = "none"
    costs: ThresholdCosts = Field(default_factory=dict)

    def adapt(self, backbone: Backbone | None, task: Task, seed: int) -> LinearProbeClassifier:
        """Return the unfitted classifier."""
        if backbone is None:
            raise MethodError("linear_probe needs a model. Give one with --model")
        return LinearProbeClassifier(self, backbone, task)


class LinearProbeClassifier(LinearOutput, FrozenEncoderClassifier):
    """Pooled vectors of a frozen encoder through a linear model."""

    def __init__(self, method: LinearProbe, backbone: Backbone, task: Task) -> None:
        super().__init__(backbone, task, method.name)
        self.method = method
        self.linear = LinearModel(len(task.labels))

    def fit(self, train: FitData, validation: FitData) -> tuple[str, ...]:
        """Fit on standardised features, then fold the standardisation into the weights."""
        return fit_standardized(self.linear, train, validation, self.method)

    def logits(self, batch: list[TokenBatch]) -> Tensor:
        """Return logits_BL."""
        return torch.from_numpy(self.linear.logits(self.features(batch))).float()

    def save(self, folder: Path) -> None:
        """Write the linear model."""
        self.linear.save(folder)

    def load(self, folder: Path) -> None:
        """Read it back."""
        self.linear.load(folder)

    def parameter_counts(self) -> tuple[int, int, int]:
        """Return the linear model's size, and the backbone's with it."""
        return self.linear.size, self.linear.size, self.linear.size + count_parameters(self.body.parameters())


class LinearSettings(Protocol):
    """What fits a linear model: see the fields of `LinearProbe`."""

    @property
    def C(self) -> tuple[float, ...]: ...  # noqa: D102
    @property
    def max_iter(self) -> int: ...  # noqa: D102
    @property
    def class_weight(self) -> Literal["none", "balanced"]: ...  # noqa: D102


def fit_standardized(
    linear: LinearModel, train: FitData, validation: FitData, settings: LinearSettings
) -> tuple[str, ...]:
    """Fit a linear model on features of mean zero and deviation one over train; it then takes them as they are.

    Args:
        linear: what is fitted, in place.
        train: features of shape (examples, F) and targets.
        validation: the same.
        settings: strengths, iterations and weights as in `LinearModel.fit`.
    """
    mean_F, scale_F = train.features.mean(0), train.features.std(0) + 1e-6
    events = linear.fit(
        ((train.features - mean_F) / scale_F, train.targets),
        ((validation.features - mean_F) / scale_F, validation.targets),
        settings.C,
        settings.max_iter,
        settings.class_weight,
    )
    linear.weight_FL = linear.weight_FL / scale_F[:, None]
    linear.bias_L = linear.bias_L - mean_F @ linear.weight_FL
    return events
