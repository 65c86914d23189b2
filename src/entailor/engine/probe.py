"""What training steps and scoring batches take, by a few of them at real lengths; for estimates.

Runs the very functions of the training loop and the classifier, on a few batches picked from those that would be run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from entailor.classifiers.base import Classifier, Encoded
from entailor.engine.batching import BatchLimit, part_limit, parts_of, scoring_batches, training_batches
from entailor.engine.meter import peak_memory_bytes, reset_peak_memory
from entailor.engine.scorer import without_gradients
from entailor.engine.training import Runtime, TrainingData
from entailor.methods.base import TrainedMethod
from entailor.models.memory import resident_bytes

# Places among the batches in order of their size at which steps are timed, the most telling first.
QUANTILES = (0.5, 1.0, 0.2, 0.8, 0.35, 0.65, 0.05, 0.95)
WARM_STEPS = 4
LEAST_TIMED = 2
# Scoring batches from which a whole one is extrapolated: the larger has this share of its tokens, but not fewer than
# LEAST_TOKENS where a whole one has them, since small batches take more time a token; the smaller a quarter of that.
LARGE = 1 / 8
LEAST_TOKENS = 1024
SMALL_OF_LARGE = 1 / 4
LATENCY_EXAMPLES = 3
# Steps of many different lengths leave holes between the blocks of the C library's heap, which a few steps do not show:
# in the end about this share of what a usual step needs is resident besides (docs/decisions/0025).
HOLES = 0.6


@dataclass(frozen=True)
class TrainingCost:
    """What training takes.

    Attributes:
        epoch_seconds: one pass over train.
        evaluations: how often validation is scored in a whole training.
        peak_memory_bytes: most memory resident at once, over a whole training.
    """

    epoch_seconds: float
    evaluations: int
    peak_memory_bytes: int


@dataclass(frozen=True)
class ScoringCost:
    """What running batches without gradients takes.

    Attributes:
        token_seconds: seconds of one token, padding included.
        token_bytes: bytes the peak of memory grows by with one token of the batch.
        base_bytes: memory that any batch needs, what was resident before included.
    """

    token_seconds: float
    token_bytes: float
    base_bytes: int

    def peak_bytes(self, tokens: int) -> int:
        """Return the peak of memory with a batch of so many tokens."""
        return round(self.base_bytes + self.token_bytes * tokens)


def probe_training(
    classifier: Classifier,
    method: TrainedMethod,
    data: TrainingData,
    runtime: Runtime,
    num_train: int,
    allowance: float,
) -> TrainingCost:
    """Time a few steps and extrapolate to an epoch.

    Args:
        classifier: of no use afterwards.
        method: batch sizes, epochs, evaluations.
        data: a sample of train, and a few inputs of validation.
        runtime: precision and seed.
        num_train: inputs of the whole of train.
        allowance: seconds after which no further step is begun, once two are timed.
    """
    import torch

    from entailor.engine.trainer import single_steps

    limit = BatchLimit(
        examples=None if method.max_batch_tokens else method.per_device_train_batch_size, tokens=method.max_batch_tokens
    )
    lengths = [len(data.train[index % len(data.train)]) for index in range(num_train)]
    batches = training_batches(lengths, limit, np.random.default_rng(runtime.seed), by_length=method.group_by_length)
    size = method.gradient_accumulation_steps
    groups = sorted(
        (batches[start : start + size] for start in range(0, len(batches), size)),
        key=lambda group: _tokens(group, lengths),
    )
    # those that warm up hold the largest part of a batch, so that the peak of memory is met even where steps are slow
    device = next(classifier.parameters()).device if isinstance(classifier, torch.nn.Module) else torch.device("cpu")
    at_once = part_limit(device.type)
    held = {id(batch): _held_at_once(batch, lengths, at_once, padded=classifier.pads) for batch in batches}
    widest = max(groups, key=lambda group: max(held[id(batch)] for batch in group))
    shares = (*QUANTILES[: WARM_STEPS - 1], *QUANTILES)
    picked = [widest, *(groups[round(share * (len(groups) - 1))] for share in shares)]
    steps = single_steps(
        classifier,
        method,
        data,
        runtime,
        ([[i % len(data.train) for i in batch] for batch in group] for group in picked),
    )
    reset_peak_memory()
    resident = resident_bytes()
    begin = time.perf_counter()
    tokens, seconds = [], []
    for number, (group, spent) in enumerate(zip(picked, steps, strict=False)):
        if number >= WARM_STEPS or spent > allowance:  # what takes so long needs no warming up
            tokens.append(_tokens(group, lengths))
            seconds.append(spent)
        if len(seconds) >= LEAST_TIMED and time.perf_counter() - begin > allowance:
            break
    base, slope = line(tokens, seconds)
    epoch = sum(base + slope * _tokens(group, lengths) for group in groups)
    total_steps = max(1, math.ceil(len(groups) * method.num_train_epochs))
    by_epoch = method.eval_strategy == "epoch"
    evaluations = math.ceil(method.num_train_epochs) if by_epoch else math.ceil(total_steps / method.eval_steps)
    sizes = sorted(held.values())
    usual = sizes[len(sizes) // 2] / sizes[-1]
    grown = peak_memory_bytes() - resident
    return TrainingCost(epoch, evaluations, round(resident + grown * (1 + HOLES * usual)))


def probe_scoring(
    run: Callable[[Sequence[Encoded]], object], inputs: Sequence[Encoded], max_tokens: int, allowance: float
) -> ScoringCost:
    """Run a small and a larger batch, and extrapolate time and memory to a whole one.

    Args:
        run: puts inputs through the classifier.
        inputs: a sample, with real lengths.
        max_tokens: tokens of a whole batch.
        allowance: the larger batch is left out where it would take longer, in seconds.
    """
    run(inputs[:1])
    large = min(max_tokens, max(round(LARGE * max_tokens), LEAST_TOKENS))
    members = _filled(inputs, round(SMALL_OF_LARGE * large))
    begin = time.perf_counter()
    tokens, peak = _peak_of(run, members)
    slope = max(0.0, (peak - resident_bytes()) / tokens)
    if (time.perf_counter() - begin) / SMALL_OF_LARGE <= allowance:
        fewer, lower = tokens, peak
        members = _filled(inputs, large)
        tokens, peak = _peak_of(run, members)
        if tokens > fewer:  # by the difference of two, since what any batch needs is not to be counted for each token
            slope = max(0.0, (peak - lower) / (tokens - fewer))
    # memory that was just given back has to be asked for again; a second time is as in the middle of a run
    begin = time.perf_counter()
    run(members)
    seconds = time.perf_counter() - begin
    return ScoringCost(seconds / tokens, slope, round(peak - slope * tokens))


def _peak_of(run: Callable[[Sequence[Encoded]], object], members: Sequence[Encoded]) -> tuple[int, int]:
    """Return the tokens of a batch, padding included, and the peak of memory while it is run."""
    reset_peak_memory()
    run(members)
    return len(members) * max(map(len, members)), peak_memory_bytes()


def scoring_tokens(inputs: Sequence[Encoded], count: int, max_tokens: int) -> tuple[int, int]:
    """Return the tokens of all batches, and of the largest, if `count` inputs of these lengths are scored."""
    lengths = [len(inputs[index % len(inputs)]) for index in range(count)]
    sizes = [
        len(batch) * max(lengths[index] for index in batch)
        for batch in scoring_batches(lengths, BatchLimit(tokens=max_tokens))
    ]
    return sum(sizes), max(sizes, default=0)


def run_without_gradients(classifier: Classifier) -> Callable[[Sequence[Encoded]], object]:
    """Return what puts inputs through a classifier as the scoring loop does."""

    def run(members: Sequence[Encoded]) -> object:
        with without_gradients(classifier):
            logits_BL: Any = classifier.logits(classifier.collate(members))
            return logits_BL if isinstance(logits_BL, np.ndarray) else logits_BL.cpu()  # which waits for a GPU

    return run


def _filled(inputs: Sequence[Encoded], tokens: int) -> list[Encoded]:
    """Return inputs from the middle of the lengths, repeated until they have so many tokens."""
    ordered = sorted(inputs, key=len)
    middle = ordered[len(ordered) // 4 : max(len(ordered) // 4 + 1, 3 * len(ordered) // 4)]
    longest = max(map(len, middle))
    return [middle[index % len(middle)] for index in range(max(1, tokens // longest))]


def _tokens(group: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    return sum(len(batch) * max(lengths[index] for index in batch) for batch in group)


def _held_at_once(batch: Sequence[int], lengths: Sequence[int], limit: BatchLimit, *, padded: bool) -> int:
    """Return the tokens of the largest part of a batch."""
    parts = parts_of(batch, lengths, limit, padded=padded)
    members = [[lengths[index] for index in part] for part in parts]
    return max(len(part) * max(part) if padded else sum(part) for part in members)


def line(amounts: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """Return intercept and slope of the line through the points, neither below zero."""
    x, y = np.asarray(amounts, float), np.asarray(seconds, float)
    if np.ptp(x) == 0:
        return float(y.mean()), 0.0
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    slope = min(max(slope, 0.0), float(y.mean() / x.mean()))
    return float(y.mean() - slope * x.mean()), slope
