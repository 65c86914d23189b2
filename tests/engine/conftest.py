"""A classifier of one layer, so that the engine is tested and nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from tests.observers import listener
from torch import Tensor, nn

from entailor.engine.trainer import train
from entailor.engine.training import LoopRuntime, TrainingData, TrainingResult
from entailor.methods import Classifier, TrainedMethod
from entailor.tasks import Task


@dataclass(frozen=True)
class Item:
    """Features of one example, and a pretended length."""

    example_index: int
    features: tuple[float, ...]
    length: int = 1
    truncated: bool = False

    def __len__(self) -> int:
        return self.length


class Toy(nn.Module, Classifier):
    """Logistic regression on four features; notes the batches it is given."""

    def __init__(self, labels: int = 2) -> None:
        super().__init__()
        self.task = Task(tuple(f"label{index}" for index in range(labels)), is_pair=False)
        self.layer = nn.Linear(4, labels)
        with torch.no_grad():
            self.layer.weight.zero_()
            self.layer.bias.zero_()
        self.batches: list[list[int]] = []

    def encode(self, examples: Sequence[Any]) -> list[Item]:
        raise NotImplementedError

    def collate(self, inputs: Sequence[Item]) -> Tensor:
        self.batches.append([item.example_index for item in inputs])
        return torch.tensor([item.features for item in inputs])

    def logits(self, batch: Tensor) -> Tensor:
        return self.layer(batch)

    def is_head(self, name: str) -> bool:
        return False

    def save(self, folder: Any) -> None:
        raise NotImplementedError

    def load(self, folder: Any) -> None:
        raise NotImplementedError

    def parameter_counts(self) -> tuple[int, int, int]:
        raise NotImplementedError


class ToyMethod(TrainedMethod):
    """Settings of the loop alone."""

    def adapt(self, backbone: Any, task: Task, seed: int) -> Toy:
        return Toy()


def toy_data(count: int = 32, seed: int = 0) -> tuple[list[Item], np.ndarray]:
    """Points whose label is the sign of the first feature, of pretended lengths from 1 to 20."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, 4)).astype(np.float32)
    items = [Item(row, tuple(map(float, values)), int(rng.integers(1, 21))) for row, values in enumerate(features)]
    return items, (features[:, 0] > 0).astype(np.int64)


@dataclass
class Session:
    """One training of the toy."""

    toy: Toy = field(default_factory=Toy)
    said: list[tuple[int, int, str]] = field(default_factory=list)

    def run(self, seed: int = 0, train_count: int = 32, validation_count: int = 12, **settings: Any) -> TrainingResult:
        data = TrainingData(*toy_data(train_count), *toy_data(validation_count, seed=1))
        runtime = LoopRuntime(seed, observer=listener(stage=lambda stage, *words: self.said.append(words)))
        return train(self.toy, ToyMethod(**{"learning_rate": 0.05, **settings}), data, runtime)


@pytest.fixture
def session() -> Session:
    return Session()
