"""What a training is given and what it gives; the loop itself, which needs torch, is in `trainer`."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from entailor.classifiers.base import Encoded
from entailor.engine.batching import SCORING_TOKENS
from entailor.engine.checkpoint import Saving
from entailor.engine.ranks import ALONE, Ranks
from entailor.events import SILENT, Event, Observer
from entailor.runs.environment import loaded_torch
from entailor.runs.record import CurvePoint

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TrainingData:
    """Encoded train and validation splits, and one target an example (`Encoded.example_index` points to it).

    Attributes:
        train: inputs that are learned from.
        train_targets: their labels.
        validation: inputs that choose the weights.
        validation_targets: their labels.
        soft_targets_EL: distributions over the labels to learn in place of `train_targets`; None: those.
    """

    train: Sequence[Encoded]
    train_targets: NDArray[np.int64]
    validation: Sequence[Encoded]
    validation_targets: NDArray[np.int64]
    soft_targets_EL: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class LoopRuntime:
    """What surrounds the loop and does not change the method.

    Attributes:
        seed: of data order and dropout.
        autocast: bfloat16 to train in mixed precision, or None for fp32.
        scoring_batch_tokens: tokens of one batch when scoring validation.
        observer: told of each step, as the stage `train`.
        on_point: given each point of the curve when it is logged; from a checkpoint on, those before it first.
        is_enough: asked after each evaluation of validation, with the training examples seen so far; True stops
            training.
        saving: checkpoints while it runs, and the one to go on from; None: no checkpoints.
        ranks: the processes that train together.
    """

    seed: int
    autocast: torch.dtype | None = None
    scoring_batch_tokens: int = SCORING_TOKENS
    observer: Observer = SILENT
    on_point: Callable[[CurvePoint], None] | None = None
    is_enough: Callable[[CurvePoint, int], bool] | None = None
    saving: Saving | None = None
    ranks: Ranks = ALONE


@dataclass
class TrainingResult:
    """What the loop saw; the classifier holds the best weights.

    Attributes:
        curve: logged moments.
        best_step: step of the kept weights.
        best_accuracy: validation accuracy of the kept weights, 0 to 1.
        best_loss: validation log loss of the kept weights, nats.
        best_figure: their macro F1 or Matthews correlation, where that chooses.
        collapsed: True where the kept weights predict one class only.
        events: what happened that changes how the figures are read.
        train_seconds: the loop without evaluation.
        evaluate_seconds: validation evaluations.
        examples_seen: training inputs, with repetition.
        epochs: epochs run.
        evaluated_after: training examples seen before each evaluation of validation.
    """

    curve: list[CurvePoint] = field(default_factory=list)
    best_step: int = 0
    best_accuracy: float = 0.0
    best_loss: float = math.inf
    best_figure: float | None = None
    collapsed: bool = False
    events: list[Event] = field(default_factory=list)
    train_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    examples_seen: int = 0
    epochs: float = 0.0
    evaluated_after: list[int] = field(default_factory=list)


def seed_everything(seed: int) -> None:
    """Seed torch where it is used, numpy's legacy generator and random, which models and libraries draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - third-party layers may draw from the legacy generator
    if torch := loaded_torch():
        torch.manual_seed(seed)
