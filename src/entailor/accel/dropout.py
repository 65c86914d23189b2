"""Dropout whose mask takes 16 bits a number: a 64-bit random word serves four of them.

PyTorch draws one Bernoulli variable at a time, which costs as much as a small matrix product. Distribution and
independence stay; the probability of keeping is a multiple of 2**-16, and the scale is its exact inverse.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

LEVELS = 1 << 16
"""Keep probabilities are multiples of 1 / LEVELS: 0.9 is kept with probability 0.900009."""
LARGEST_SEED = 2**63 - 1
ONE_IN_BF16 = np.int16(0x3F80)
"""The bits of 1.0."""


def reference_dropout(rows: Tensor, p: float, training: bool) -> Tensor:
    """Return rows with a share p of zeros, the rest divided by 1 - p; the same rows outside training."""
    return nn.functional.dropout(rows, p, training)


def kept_of(p: float) -> int:
    """Return how many of `LEVELS` equally likely values are kept."""
    return round((1.0 - p) * LEVELS)


def dropout_mask(shape: Sequence[int], p: float) -> Tensor:
    """Return a float mask of 0 and LEVELS / kept, so that its mean is 1.

    Seeded from torch's default generator, so that seeding or restoring that one decides every mask.

    Args:
        shape: of the mask.
        p: probability of a zero, at least 0 and below 1.
    """
    kept = kept_of(p)
    scaled: np.ndarray[Any, np.dtype[np.float32]] = np.multiply(
        _drawn(prod(shape), kept), np.float32(LEVELS / kept), dtype=np.float32
    )
    return torch.from_numpy(scaled).view(*shape)


def half_mask(shape: Sequence[int], p: float) -> tuple[Tensor, float]:
    """Return the same mask as bf16 zeros and ones, and the scale apart: bf16 would round it by up to 0.4 %."""
    kept = kept_of(p)
    bits = np.multiply(_drawn(prod(shape), kept), ONE_IN_BF16, dtype=np.int16)
    return torch.from_numpy(bits).view(torch.bfloat16).view(*shape), LEVELS / kept


def _drawn(count: int, kept: int) -> NDArray[np.bool_]:
    # SFC64: about 0.4 ns a number; its state is made again for each mask and kept nowhere
    seed = int(torch.empty((), dtype=torch.int64).random_(LARGEST_SEED))
    words = np.random.SFC64(seed).random_raw((count + 3) // 4)
    drawn: NDArray[np.bool_] = words.view(np.uint16)[:count] < kept
    return drawn


def dropout(rows: Tensor, p: float, training: bool) -> Tensor:
    """Return what :func:`reference_dropout` does, drawn by 16 bits a number; elsewhere than on a CPU the reference."""
    if not training or p == 0.0:
        return rows
    if rows.device.type != "cpu" or kept_of(p) == 0:
        return reference_dropout(rows, p, training)
    if rows.dtype == torch.bfloat16:
        mask, scale = half_mask(rows.shape, p)
        return (rows * mask).mul_(scale)
    return rows * dropout_mask(rows.shape, p).to(rows.dtype)


class Dropout(nn.Dropout):
    """`nn.Dropout` by :func:`dropout`."""

    def forward(self, rows: Tensor) -> Tensor:
        """Return the rows, some of them zero while training."""
        return dropout(rows, self.p, self.training)


def replace_dropout(model: nn.Module) -> int:
    """Put :class:`Dropout` in the place of every `nn.Dropout`, in place; return how many there were.

    They hold no tensors, so nothing that is saved changes.
    """
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Dropout and not child.inplace
    ]
    for parent, name, child in found:
        setattr(parent, name, Dropout(child.p).train(child.training))
    return len(found)
