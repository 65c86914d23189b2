"""The one scoring loop: encoded inputs to label log-probabilities, the same whatever the batching.

Keeps label log-probabilities only; a batch's hidden states are gone before the next batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entailor.classifiers.base import Classifier, Encoded, FitData, FittedClassifier
from entailor.engine.batching import SCORING_TOKENS, SCORING_TOKENS_GPU, BatchLimit, scoring_batches
from entailor.engine.memory import is_out_of_memory
from entailor.engine.ranks import ALONE, Ranks
from entailor.errors import DivergedError
from entailor.events import SILENT, Observer
from entailor.models.device import free_cached_memory, main_device
from entailor.models.sharded import is_divided
from entailor.runs.environment import loaded_torch


def usual_batch_tokens() -> int:
    """Return the tokens of a scoring batch that suit this machine."""
    return SCORING_TOKENS if main_device().type == "cpu" else SCORING_TOKENS_GPU


@contextmanager
def without_gradients(classifier: Classifier) -> Iterator[None]:
    """Put a classifier's network into evaluation mode, and keep no gradients inside the block.

    Weights that are divided among processes are put together in tensors that a training uses as well, which those of
    inference mode are not fit for.
    """
    torch = loaded_torch()
    if torch is None:  # then there is no network
        yield
        return
    if isinstance(classifier, torch.nn.Module):
        classifier.eval()
    with torch.no_grad() if is_divided(classifier) else torch.inference_mode():
        yield


def run_without_gradients(classifier: Classifier) -> Callable[[Sequence[Encoded]], object]:
    """Return what puts inputs through a classifier as the scoring loop does, and waits for the answer."""

    def run(members: Sequence[Encoded]) -> object:
        with without_gradients(classifier):
            logits_BL: Any = classifier.logits(classifier.collate(members))
            return logits_BL if isinstance(logits_BL, np.ndarray) else logits_BL.cpu()

    return run


def score(
    classifier: Classifier,
    inputs: Sequence[Encoded],
    max_tokens: int,
    observer: Observer = SILENT,
    stage: str = "scoring",
    ranks: Ranks = ALONE,
) -> NDArray[np.float64]:
    """Return log-probabilities of the labels, shape (examples, L).

    Windows of one example are pooled by averaging their logits. An example without an answer has minus infinity for
    every label, so that its probabilities are all 0.

    Args:
        classifier: in evaluation mode after the call.
        inputs: encoded inputs; rows run from 0 without gaps.
        max_tokens: most tokens of a batch, padding included.
        observer: told how many inputs are done.
        stage: what it is told that this is.
        ranks: the processes that divide the batches among them; each gets the scores of all.

    Raises:
        DivergedError: a logit is not finite.
    """
    num_rows = 1 + max((item.example_index for item in inputs), default=-1)
    sums_EL = np.zeros((num_rows, len(classifier.task.labels)))
    counts_E = np.zeros(num_rows)
    parts: list[Any] = []  # stay where they are made until the last batch is on its way
    rows: list[int] = []
    done = 0
    divided = is_divided(classifier)
    with without_gradients(classifier), classifier.scoring(inputs) as prepared:
        lengths = [len(item) for item in prepared]
        every = scoring_batches(lengths, BatchLimit(tokens=max_tokens))
        batches = every[ranks.rank :: ranks.size]
        for group in _groups(batches, lengths, classifier.tokens_together):
            members = [[prepared[index] for index in indices] for indices in group]
            parts.extend(_logits(classifier, members, halve=not divided))
            rows_B = [row for batch in members for row in classifier.rows(batch)]
            rows.extend(rows_B)
            done += len(rows_B) * ranks.size
            observer.stage(stage, min(done, len(inputs)), len(inputs))
        if divided and len(batches) * ranks.size < len(every):  # the others have one batch more
            _logits(classifier, [[prepared[index] for index in every[-1]]], halve=False)
    if parts:
        np.add.at(sums_EL, rows, _read(parts))
        np.add.at(counts_E, rows, 1)
    ranks.add_up(sums_EL, counts_E)
    silent_E = np.isneginf(sums_EL).all(axis=1) if classifier.abstains else np.zeros(num_rows, dtype=bool)
    if not np.isfinite(sums_EL[~silent_E]).all():
        raise DivergedError("a score is not finite. Lower the learning rate, or train in fp32 (model.precision=fp32)")
    logprobs_EL = sums_EL / counts_E[:, None]
    logprobs_EL[~silent_E] = log_softmax(logprobs_EL[~silent_E])
    return logprobs_EL


def _groups(batches: Sequence[list[int]], lengths: Sequence[int], most: int | None) -> Iterator[list[list[int]]]:
    """Give batches that are run together: as many as have `most` tokens in all, or one after the other."""
    group: list[list[int]] = []
    tokens = 0
    for batch in batches:
        size = sum(lengths[index] for index in batch)
        if group and (most is None or tokens + size > most):
            yield group
            group, tokens = [], 0
        group.append(batch)
        tokens += size
    if group:
        yield group


def _logits(classifier: Classifier, batches: Sequence[Sequence[Encoded]], *, halve: bool = True) -> list[Any]:
    """Return logits_BL of each batch, in halves where memory does not suffice: scores do not depend on the batching.

    Not where weights are divided among processes, since the others would not try again.
    """
    try:
        return classifier.logits_together([classifier.collate(members) for members in batches])
    except (RuntimeError, MemoryError) as error:
        alone = len(batches) == 1 and len(batches[0]) == 1
        if alone or not halve or not is_out_of_memory(error):
            raise
    free_cached_memory()
    whole = batches if len(batches) > 1 else batches[0]
    middle = len(whole) // 2
    halves: list[Any] = [whole[:middle], whole[middle:]]
    return [logits for half in halves for logits in _logits(classifier, half if len(batches) > 1 else [half])]


def _read(parts: Sequence[Any]) -> NDArray[np.float64]:
    """Return the logits of all batches, one below the other; a GPU is waited for once."""
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts).astype(np.float64)
    import torch

    logits: NDArray[np.float64] = torch.cat(list(parts)).cpu().double().numpy()  # mps has no double
    return logits


def log_softmax(logits_EL: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log-probabilities, row by row."""
    shifted = logits_EL - logits_EL.max(axis=1, keepdims=True)
    normal: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normal


def collect_features(
    classifier: FittedClassifier,
    inputs: Sequence[Encoded],
    targets: Sequence[int],
    max_tokens: int,
    observer: Observer = SILENT,
    ranks: Ranks = ALONE,
) -> FitData:
    """Run the features of a whole split, batch by batch, and put them back into the order of the inputs.

    Several processes divide the batches among them, and each gets the features of all.
    """
    found: dict[int, Any] = {}
    batches = scoring_batches([len(item) for item in inputs], BatchLimit(tokens=max_tokens))
    for indices in batches[ranks.rank :: ranks.size]:
        rows = _features(classifier, [inputs[index] for index in indices])
        found.update(zip(indices, rows, strict=True))
        observer.stage("features", min(len(found) * ranks.size, len(inputs)), len(inputs))
    for others in ranks.gather(found):
        found.update(others)
    parts = [found[index] for index in range(len(inputs))]
    features: Any = np.stack(parts) if isinstance(parts[0], np.ndarray) else parts
    return FitData(features, np.asarray(targets, dtype=np.int64))


def _features(classifier: FittedClassifier, members: Sequence[Encoded]) -> list[Any]:
    """Return the features of a batch, row by row, in halves where memory does not suffice."""
    try:
        return list(classifier.features(classifier.collate(members)))
    except (RuntimeError, MemoryError) as error:
        if len(members) == 1 or not is_out_of_memory(error):
            raise
    free_cached_memory()
    middle = len(members) // 2
    return [row for half in (members[:middle], members[middle:]) for row in _features(classifier, half)]
