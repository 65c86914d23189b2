"""Nearest training examples by a frozen encoder, for demonstrations that resemble what is asked (Liu et al. 2022).

Liu et al. 2022: "What Makes Good In-Context Examples for GPT-3?", section 2. Finds; does not decide what is shown.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from entailor.config.parts import ModelSettings
from entailor.data.example import Example
from entailor.models.load import load_backbone, open_model
from entailor.models.precision import PrecisionChoice
from entailor.tasks import Task

BATCH = 64


class Retriever:
    """Unit vectors of a pool of examples; a query's neighbours by cosine.

    Args:
        model: an encoder, as the user names models.
        pool: what is searched.
    """

    def __init__(self, model: str, pool: Sequence[Example]) -> None:
        from entailor.classifiers.transformer import TransformerClassifier

        settings, task = ModelSettings(head="new"), Task(("a", "b"), is_pair=pool[0].text_pair is not None)
        fp32 = PrecisionChoice("fp32", "vectors are computed in fp32")
        backbone = load_backbone(open_model(model, settings), task, settings, fp32, seed=0)
        self.reader = TransformerClassifier(backbone, task).eval()
        self.pool_EH = self._vectors(pool)

    def nearest(self, examples: Sequence[Example], count: int) -> list[list[int]]:
        """Return, for each example, the indices of its neighbours in the pool, nearest first."""
        similar_QE = self._vectors(examples) @ self.pool_EH.T
        order_QE = np.argsort(-similar_QE, axis=1, kind="stable")
        return [[int(index) for index in row[:count]] for row in order_QE]

    def _vectors(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        inputs = self.reader.encode(examples)
        order = sorted(range(len(inputs)), key=lambda row: len(inputs[row]))
        vectors: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(inputs)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            pooled_BH = self.reader.mean_states(self.reader.collate([inputs[row] for row in rows])).cpu().numpy()
            unit_BH = pooled_BH / np.maximum(np.linalg.norm(pooled_BH, axis=1, keepdims=True), 1e-9)
            for row, vector in zip(rows, unit_BH, strict=True):
                vectors[row] = vector
        return np.stack(vectors)
