"""Nearest neighbours in a frozen encoder's space: the labels of the most similar training texts vote.

Cover & Hart 1967; votes weighted by similarity as in Khandelwal et al. 2020, "Nearest Neighbor Language Models",
section 2.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt
from safetensors.numpy import load_file, save_file
from torch import Tensor

from entailor.classifiers.base import FitData, count_parameters
from entailor.classifiers.frozen_encoder import FrozenEncoderClassifier
from entailor.classifiers.transformer import TokenBatch
from entailor.methods.base import Method
from entailor.models.load import Backbone
from entailor.runs.files import read_json, write_json
from entailor.tasks import Task

VECTORS_FILE, CHOICE_FILE = "neighbours.safetensors", "neighbours.json"
LEAST_SHARE = 1e-3  # of the vote, spread over all labels: no label is ever impossible
QUERIES = 256  # compared with all neighbours at once


class Knn(Method, name="knn"):
    """Frozen encoder, mean-pooled; the nearest training examples vote."""

    summary: ClassVar[str] = "nearest training examples in the encoder's space"
    reads_windows: ClassVar[bool] = False
    deterministic: ClassVar[bool] = True

    k: tuple[PositiveInt, ...] = Field(default=(1, 4, 16, 64), min_length=1)
    """Numbers of neighbours; the best on validation is kept."""
    temperature: tuple[PositiveFloat, ...] = Field(default=(0.02, 0.05, 0.2), min_length=1)
    """A neighbour's vote is exp(cosine / temperature); the best on validation is kept."""

    def adapt(self, backbone: Backbone | None, task: Task, seed: int) -> KnnClassifier:
        """Return the classifier, still without neighbours."""
        return KnnClassifier(self, self.needed(backbone), task)


class KnnClassifier(FrozenEncoderClassifier):
    """Vectors of the training examples, and how many of them vote.

    Attributes:
        mean_F: mean over train, taken off before cosines: encoders put all texts into a narrow cone.
        unit_EF: training vectors of length one.
        targets_E: their output indices.
        k: how many vote.
        temperature: how steeply votes fall with distance.
    """

    def __init__(self, method: Knn, backbone: Backbone, task: Task) -> None:
        super().__init__(backbone, task, method.name)
        self.method = method
        self.mean_F: NDArray[np.float32] = np.zeros(0, np.float32)
        self.unit_EF: NDArray[np.float32] = np.zeros((0, 0), np.float32)
        self.targets_E: NDArray[np.int64] = np.zeros(0, np.int64)
        self.k, self.temperature = method.k[0], method.temperature[0]

    def fit(self, train: FitData, validation: FitData) -> tuple[str, ...]:
        """Keep train's vectors; choose the number of neighbours and the temperature by log loss on validation."""
        self.mean_F = train.features.mean(0)
        self.unit_EF, self.targets_E = self._unit(train.features), train.targets
        rows = np.arange(len(validation.targets))
        losses = {}
        for k, temperature in product(self.method.k, self.method.temperature):
            logprobs_BL = self._logprobs(validation.features, k, temperature)
            losses[k, temperature] = -float(logprobs_BL[rows, validation.targets].mean())
        self.k, self.temperature = min(losses, key=lambda choice: losses[choice])
        loss = losses[self.k, self.temperature]
        return (f"k={self.k}, temperature={self.temperature:g} chosen on validation (log loss {loss:.4f})",)

    def _unit(self, features_BF: NDArray[np.float32]) -> NDArray[np.float32]:
        centred_BF = features_BF - self.mean_F
        unit_BF: NDArray[np.float32] = centred_BF / np.maximum(np.linalg.norm(centred_BF, axis=1, keepdims=True), 1e-9)
        return unit_BF

    def _logprobs(self, features_BF: NDArray[np.float32], k: int, temperature: float) -> NDArray[np.float64]:
        """Return each label's share of the votes of the k nearest as log-probabilities, logprobs_BL."""
        labels, k = len(self.task.labels), min(k, len(self.unit_EF))
        parts = []
        for start in range(0, len(features_BF), QUERIES):
            similar_BE = self._unit(features_BF[start : start + QUERIES]) @ self.unit_EF.T
            near_BK = np.argpartition(-similar_BE, k - 1, axis=1)[:, :k]
            close_BK = np.take_along_axis(similar_BE, near_BK, axis=1).astype(np.float64)
            votes_BK = np.exp((close_BK - close_BK.max(axis=1, keepdims=True)) / temperature)
            share_BL = np.zeros((len(near_BK), labels))
            np.add.at(share_BL, (np.arange(len(near_BK))[:, None], self.targets_E[near_BK]), votes_BK)
            share_BL /= share_BL.sum(axis=1, keepdims=True)
            parts.append(np.log((1 - LEAST_SHARE) * share_BL + LEAST_SHARE / labels))
        return np.concatenate(parts)

    def logits(self, batch: list[TokenBatch]) -> Tensor:
        """Return logits_BL."""
        return torch.from_numpy(self._logprobs(self.features(batch), self.k, self.temperature)).float()

    def save(self, folder: Path) -> None:
        """Write vectors, labels and the choice."""
        save_file({"mean": self.mean_F, "unit": self.unit_EF, "targets": self.targets_E}, folder / VECTORS_FILE)
        write_json(folder / CHOICE_FILE, {"k": self.k, "temperature": self.temperature})

    def load(self, folder: Path) -> None:
        """Read them back.

        Raises:
            ValueError: the vectors do not fit together, or name labels the task does not have.
        """
        saved, chosen = load_file(folder / VECTORS_FILE), read_json(folder / CHOICE_FILE)
        mean_F, unit_EF, targets_E = saved["mean"], saved["unit"], saved["targets"]
        known = bool(len(targets_E)) and targets_E.min() >= 0 and targets_E.max() < len(self.task.labels)
        if unit_EF.shape != (len(targets_E), len(mean_F)) or not known:
            raise ValueError(f"vectors of {unit_EF.shape}, {len(targets_E)} labels, mean of {mean_F.shape}")
        self.mean_F, self.unit_EF, self.targets_E = mean_F, unit_EF, targets_E
        self.k, self.temperature = int(chosen["k"]), float(chosen["temperature"])

    def parameter_counts(self) -> tuple[int, int, int]:
        """Return the numbers kept of train, and the backbone's with them."""
        own = self.mean_F.size + self.unit_EF.size + self.targets_E.size
        return own, own, own + count_parameters(self.body.parameters())
