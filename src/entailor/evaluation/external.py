"""What one external test set says of every candidate: accuracy, groups, labels, and which of them differ.

Reads records whose predictions are those on the external test set. Nothing is chosen by it.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from entailor.evaluation.comparison import accuracy_by_group, label_means, scored_candidate
from entailor.evaluation.metrics import evaluate_record, outcome
from entailor.evaluation.pairs import compare_all
from entailor.evaluation.statistics import accuracy_interval
from entailor.runs.record import RunRecord, by_candidate


class UnscoredSet(TypedDict):
    """What comparison.json holds of an external test set that cannot be used."""

    name: str
    source: str
    error: str
    candidates: list[Mapping[str, Any]]


class ScoredSet(TypedDict):
    """What comparison.json holds of an external test set."""

    name: str
    source: str
    scoring: str
    error: str | None
    labels: list[str]
    num_examples: int
    majority_accuracy: float | None
    """Share of its most frequent label."""
    candidates: list[Mapping[str, Any]]
    """Best first: `model`, `method`, `num_seeds`, `accuracy`, `group` (candidates that share a letter do not differ
    significantly), `per_label`, `groups`."""


def compare_external(name: str, source: str, scoring: str, records: Sequence[RunRecord]) -> ScoredSet:
    """Return what comparison.json holds of an external test set.

    Args:
        name: of the external test set.
        source: its file.
        scoring: how the classifiers' labels answered the file's, in words.
        records: complete trials with predictions on the external test set, all over the same examples.
    """
    seeds = by_candidate(records)
    outcomes = {key: [outcome(record) for record in candidate] for key, candidate in seeds.items()}
    scored = {key: scored_candidate(candidate, outcomes[key]) for key, candidate in seeds.items()}
    order = sorted(scored, key=lambda key: -float(scored[key].mean_N.mean()))
    letters = compare_all({key: scored[key] for key in order}).letters
    candidates: list[Mapping[str, Any]] = []
    for key in order:
        per_seed = [float(result.correct_N.mean()) for result in outcomes[key]]
        interval = accuracy_interval(scored[key])
        candidates.append(
            {
                "model": key[0],
                "method": key[1],
                "num_seeds": len(per_seed),
                "accuracy": {
                    "mean": statistics.fmean(per_seed),
                    "low": interval.low,
                    "high": interval.high,
                    "worst": min(per_seed),
                    "per_seed": per_seed,
                },
                "group": letters[key],
                "per_label": label_means([evaluate_record(record) for record in seeds[key]]),
                "groups": accuracy_by_group(seeds[key], outcomes[key]),
            }
        )
    gold_N = outcomes[order[0]][0].gold_N if order else np.array([], dtype=np.int64)
    return {
        "name": name,
        "source": source,
        "scoring": scoring,
        "error": None if candidates else "no trial could be scored",
        "labels": list(records[0].labels) if records else [],
        "num_examples": len(gold_N),
        "majority_accuracy": float(np.bincount(gold_N).max() / len(gold_N)) if len(gold_N) else None,
        "candidates": candidates,
    }
