"""A logistic regression on a frozen encoder: what the checkpoint already knows.

For pairs the features are the pair's own pooled vector and, of the two texts read apart, u, v, |u - v| and u * v
(Conneau et al. 2017, InferSent, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from entailor.classifiers.base import FitData, FittedClassifier, count_parameters
from entailor.classifiers.linear_model import LinearModel
from entailor.classifiers.transformer import TokenBatch, TransformerClassifier
from entailor.data.example import Example
from entailor.errors import MethodError
from entailor.methods.base import Method
from entailor.models.load import Backbone
from entailor.models.tokenizer import TokenIds
from entailor.tasks import Task


class LinearProbe(Method, name="linear_probe"):
    """Frozen encoder, mean-pooled, with a logistic regression on top."""

    summary: ClassVar[str] = "logistic regression on the frozen encoder"
    deterministic: ClassVar[bool] = True

    C: tuple[PositiveFloat, ...] = Field(default=(0.001, 0.01, 0.1, 1.0), min_length=1)
    """Inverse regularisation strengths on standardised features; the best on validation is kept."""
    max_iter: int = Field(default=300, ge=1)
    """Most iterations of L-BFGS."""

    def adapt(self, backbone: Backbone | None, task: Task, seed: int) -> LinearProbeClassifier:
        """Return the unfitted classifier."""
        if backbone is None:
            raise MethodError("linear_probe needs a model. Give one with --model")
        return LinearProbeClassifier(self, backbone, task)


@dataclass(frozen=True, slots=True)
class ProbeInput:
    """The pair's tokens and, for pairs, each text's alone."""

    example_index: int
    parts: tuple[TokenIds, ...]
    truncated: bool

    def __len__(self) -> int:
        return max(len(part) for part in self.parts)


class LinearProbeClassifier(FittedClassifier):
    """Pooled vectors of a frozen encoder through a linear model."""

    def __init__(self, method: LinearProbe, backbone: Backbone, task: Task) -> None:
        self.method, self.task = method, task
        backbone.leave_own_head("linear_probe fits one of its own")
        self.reader = TransformerClassifier(backbone, task)
        self.body: nn.Module = getattr(backbone.model, backbone.model.base_model_prefix)
        self.linear = LinearModel(len(task.labels))

    def encode(self, examples: Sequence[Example]) -> list[ProbeInput]:
        """Tokenise the pair and each of its texts; long texts are truncated, never cut into windows."""
        views = [list(examples)]
        if self.task.is_pair:
            views.append([Example(row.id, row.text) for row in examples])
            views.append([Example(row.id, row.text_pair or "") for row in examples])
        encoded = [self.reader.encode(view) for view in views]
        if any(len(view) != len(examples) for view in encoded):
            raise MethodError("linear_probe reads whole texts. Set model.long_texts=truncate")
        return [
            ProbeInput(row, parts, any(part.truncated for part in parts))
            for row, parts in enumerate(zip(*encoded, strict=True))
        ]

    def collate(self, inputs: Sequence[ProbeInput]) -> list[TokenBatch]:
        """Return one token batch a view."""
        return [self.reader.collate(view) for view in zip(*(item.parts for item in inputs), strict=True)]

    def features(self, batch: list[TokenBatch]) -> NDArray[np.float32]:
        """Return features_BF: pooled, u, v, |u - v|, u * v for pairs; pooled alone for single texts."""
        pooled = [self.reader.mean_states(view) for view in batch]
        if len(pooled) == 3:
            u_BH, v_BH = pooled[1:]
            pooled += [(u_BH - v_BH).abs(), u_BH * v_BH]
        features_BF: NDArray[np.float32] = torch.cat(pooled, dim=1).cpu().numpy()
        return features_BF

    def fit(self, train: FitData, validation: FitData) -> tuple[str, ...]:
        """Fit on standardised features, then fold the standardisation into the weights."""
        return fit_standardized(self.linear, train, validation, self.method.C, self.method.max_iter)

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


def fit_standardized(
    linear: LinearModel, train: FitData, validation: FitData, strengths: Sequence[float], max_iterations: int
) -> tuple[str, ...]:
    """Fit a linear model on features of mean zero and deviation one over train; it then takes them as they are.

    Args:
        linear: what is fitted, in place.
        train: features of shape (examples, F) and targets.
        validation: the same.
        strengths: as in `LinearModel.fit`.
        max_iterations: as there.
    """
    mean_F, scale_F = train.features.mean(0), train.features.std(0) + 1e-6
    events = linear.fit(
        ((train.features - mean_F) / scale_F, train.targets),
        ((validation.features - mean_F) / scale_F, validation.targets),
        strengths,
        max_iterations,
    )
    linear.weight_FL = linear.weight_FL / scale_F[:, None]
    linear.bias_L = linear.bias_L - mean_F @ linear.weight_FL
    return events
