"""Pooled vectors of a frozen encoder: what classifiers without a gradient read.

Of pairs the pair's own pooled vector and, of the two texts read apart, u, v, |u - v| and u * v (Conneau et al. 2017,
InferSent, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from entailor.classifiers.base import FittedClassifier
from entailor.classifiers.fitting import fitting, probe_example
from entailor.classifiers.transformer import TokenBatch, TransformerClassifier
from entailor.data.example import Example
from entailor.errors import MethodError
from entailor.models.load import Backbone
from entailor.models.tokenizer import TokenIds
from entailor.tasks import Task


@dataclass(frozen=True, slots=True)
class VectorInput:
    """The pair's tokens and, for pairs, each text's alone."""

    example_index: int
    parts: tuple[TokenIds, ...]
    truncated: bool

    def __len__(self) -> int:
        return max(len(part) for part in self.parts)


class FrozenEncoderClassifier(FittedClassifier):
    """A frozen encoder whose vectors a subclass learns from.

    Args:
        backbone: the encoder.
        task: labels and input shape.
        method: name of the method, for messages.
    """

    def __init__(self, backbone: Backbone, task: Task, method: str) -> None:
        self.task, self.method_name = task, method
        backbone.leave_own_head(f"{method} reads the encoder below it")
        self.reader = TransformerClassifier(backbone, task)
        self.body: nn.Module = getattr(backbone.model, backbone.model.base_model_prefix)
        with fitting(backbone, method):
            self.features(self.collate(self.encode([probe_example(task)])))

    def encode(self, examples: Sequence[Example]) -> list[VectorInput]:
        """Tokenise the pair and each of its texts; long texts are truncated, never cut into windows."""
        views = [list(examples)]
        if self.task.is_pair:
            views.append([Example(row.id, row.text) for row in examples])
            views.append([Example(row.id, row.text_pair or "") for row in examples])
        encoded = [self.reader.encode(view) for view in views]
        if any(len(view) != len(examples) for view in encoded):
            raise MethodError(f"{self.method_name} reads whole texts. Set model.long_texts=truncate")
        return [
            VectorInput(row, parts, any(part.truncated for part in parts))
            for row, parts in enumerate(zip(*encoded, strict=True))
        ]

    def collate(self, inputs: Sequence[VectorInput]) -> list[TokenBatch]:
        """Return one token batch a view."""
        return [self.reader.collate(view) for view in zip(*(item.parts for item in inputs), strict=True)]

    def features(self, batch: list[TokenBatch]) -> NDArray[np.float32]:
        """Return features_BF: pooled, u, v, |u - v|, u * v for pairs; pooled alone for single texts."""
        pooled = [self.reader.mean_states(view) for view in batch]
        features_BF: NDArray[np.float32] = torch.cat([*pooled, *compared(pooled[1:])], dim=1).cpu().numpy()
        return features_BF


def compared(texts: Sequence[Tensor]) -> list[Tensor]:
    """Return |u - v| and u * v of the pooled vectors of two texts, (B, H); nothing where there are no two."""
    if not texts:
        return []
    u_BH, v_BH = texts
    return [(u_BH - v_BH).abs(), u_BH * v_BH]
