"""Which inputs stand in which batch: similar lengths together, so that little is padding.

Plans indices only; what a batch is made of is the classifier's business.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Inputs are sorted by length within pools of this many batches: near-perfect buckets, still a new order each epoch.
POOL_BATCHES = 50
SCORING_TOKENS = 1024
"""Tokens of a scoring batch on a CPU, whose states stay in the cache (docs/decisions/0028)."""
SCORING_TOKENS_GPU = 16_384
"""The same on a GPU, which wants large products."""

TRAINING_TOKENS = 1024
"""Tokens a CPU takes at once in training; a larger batch goes through in parts (docs/decisions/0031)."""


@dataclass(frozen=True)
class BatchLimit:
    """How large a batch may be: a number of inputs, or a token budget with padding included.

    Attributes:
        examples: most inputs of a batch; None: no limit.
        tokens: most tokens of a batch, counted as inputs times the longest; None: no limit.
    """

    examples: int | None = None
    tokens: int | None = None

    def admits(self, count: int, longest: int) -> bool:
        """Tell whether `count` inputs padded to `longest` tokens fit; one input always does."""
        if count == 1:
            return True
        return (self.examples is None or count <= self.examples) and (
            self.tokens is None or count * longest <= self.tokens
        )


def scoring_batches(lengths: Sequence[int], limit: BatchLimit) -> list[list[int]]:
    """Return batches of indices, longest first, so that memory peaks at once and not at the end."""
    return _cut(sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)), lengths, limit)


def training_batches(
    lengths: Sequence[int], limit: BatchLimit, rng: np.random.Generator, *, by_length: bool = True
) -> list[list[int]]:
    """Return one epoch's batches of indices in random order.

    Args:
        lengths: tokens of each input.
        limit: how large a batch may be.
        rng: decides the order; the same state gives the same batches.
        by_length: sort within pools, so that a batch holds similar lengths.
    """
    order = rng.permutation(len(lengths)).tolist()
    if not by_length:
        return _cut(order, lengths, limit)
    mean_length = max(1.0, float(np.mean(lengths))) if lengths else 1.0
    per_batch = limit.examples or max(1, int((limit.tokens or 1) / mean_length))
    pool = POOL_BATCHES * per_batch
    batches: list[list[int]] = []
    for start in range(0, len(order), pool):
        members = sorted(order[start : start + pool], key=lambda index: -lengths[index])
        batches.extend(_cut(members, lengths, limit))
    return [batches[index] for index in rng.permutation(len(batches))]


def part_limit(device: str, examples: int | None = None) -> BatchLimit:
    """Return what of a batch goes through the model at once; a GPU takes it whole as long as memory suffices.

    Args:
        device: type of the model's device.
        examples: most inputs that memory has room for; None: not known to be too many.
    """
    return BatchLimit(examples, TRAINING_TOKENS if device == "cpu" else None)


def parts_of(
    batch: Sequence[int], lengths: Sequence[int], limit: BatchLimit, *, padded: bool = True
) -> list[Sequence[int]]:
    """Return the batch in consecutive parts within the limit; with padding, all of nearly the same number of inputs.

    Args:
        batch: indices.
        lengths: tokens of each input.
        limit: how large a part may be; one input always is.
        padded: count tokens with padding.
    """
    if padded:
        longest = max(lengths[index] for index in batch)
        most = min(limit.examples or len(batch), max(1, limit.tokens // longest) if limit.tokens else len(batch))
        size = math.ceil(len(batch) / math.ceil(len(batch) / most))
        return [batch[start : start + size] for start in range(0, len(batch), size)]
    starts, tokens = [0], 0
    for place, index in enumerate(batch):
        full = place - starts[-1] == limit.examples or tokens + lengths[index] > (limit.tokens or math.inf)
        if full and place > starts[-1]:
            starts.append(place)
            tokens = 0
        tokens += lengths[index]
    return [batch[start:end] for start, end in zip(starts, [*starts[1:], len(batch)], strict=True)]


def _cut(order: Sequence[int], lengths: Sequence[int], limit: BatchLimit) -> list[list[int]]:
    batches: list[list[int]] = []
    longest = 0
    for index in order:
        longest = max(longest, lengths[index])
        if batches and limit.admits(len(batches[-1]) + 1, longest):
            batches[-1].append(index)
        else:
            batches.append([index])
            longest = lengths[index]
    return batches
