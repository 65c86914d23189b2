"""Accuracy by number of labels: what more would give, who overtakes whom, and how many labels adapting takes.

Differences at a size are those of pairs.py, with examples, clusters and seeds in them; predictions are those of
learning_laws.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from entailor.errors import RunError
from entailor.evaluation.learning_laws import MOST_PASSES, MOST_WIDTH, predict
from entailor.evaluation.metrics import clusters
from entailor.evaluation.pairs import SIGNIFICANCE, Difference, compare_scored
from entailor.evaluation.statistics import accuracy_interval
from entailor.evaluation.variance import Scored
from entailor.evaluation.wording import candidate_titles
from entailor.runs.record import RunRecord

DRAWS = 200
SEED = 0
SAMPLE_DEVIATION = 0.0075  # by which another training sample moves a method without randomness, in accuracy

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CandidateCurve:
    """One candidate's records by number of training labels; all over the same test examples."""

    model: str
    method: str
    sizes: Mapping[int, Sequence[RunRecord]]

    @property
    def names(self) -> dict[str, str]:
        """Model and method, as comparison.json has them."""
        return {"model": self.model, "method": self.method}


Points = Mapping[int, Scored]


def describe_curves(
    candidates: Sequence[CandidateCurve], untrained: Sequence[CandidateCurve] = ()
) -> Mapping[str, Any]:
    """Return each candidate's points and predictions, the best at each size, where the lead changes, and what pays.

    Args:
        candidates: at least two sizes each.
        untrained: candidates that labels teach nothing, with one size each.

    Raises:
        RunError: two points were tested on different examples.
    """
    if not candidates:
        return {
            "candidates": [],
            "num_test": 0,
            "best": [],
            "crossings": [],
            "overtakes_untrained": [],
            "sentence": "No curve has two sizes yet.",
        }
    ids = [one.id for one in next(iter(candidates[0].sizes.values()))[0].predictions]
    points = [{size: _scored(records, ids) for size, records in sorted(one.sizes.items())} for one in candidates]
    documents = [_document(one, found) for one, found in zip(candidates, points, strict=True)]
    asked = [(one, _scored(next(iter(one.sizes.values())), ids)) for one in untrained]
    overtaking = _overtaking(candidates, points, max(asked, key=lambda pair: pair[1].mean)) if asked else []
    return {
        "num_test": len(ids),
        "candidates": documents,
        "best": _best_by_size(candidates, points),
        "crossings": _crossings(candidates, points),
        "overtakes_untrained": overtaking,
        "sentence": _sentence(documents, list(candidate_titles(documents).values())),
    }


def _scored(records: Sequence[RunRecord], ids: Sequence[str]) -> Scored:
    """Return right or wrong, (seeds, test examples), in the order of the ids."""
    lines = []
    for record in records:
        right = {one.id: one.predicted == one.label for one in record.predictions}
        if right.keys() != set(ids):
            raise RunError(
                f"{record.name} on {record.model}: a point of its learning curve was tested on other examples. "
                "Delete the folder `curve` and run the command that made it again"
            )
        lines.append([right[id_] for id_ in ids])
    varies = not all(record.provenance.get("deterministic", False) for record in records)
    order = {one.id: place for place, one in enumerate(records[0].predictions)}
    cluster_N = clusters(records[0])
    return Scored(np.array(lines), varies, None if cluster_N is None else cluster_N[[order[id_] for id_ in ids]])


def _draws(points: Points) -> Floats:
    """Return accuracies under resampled clusters of examples (the same for every size) and seeds, (draws, sizes)."""
    rng, first = np.random.default_rng(SEED), next(iter(points.values()))
    num_test = first.values_SN.shape[1]
    cluster_N = np.arange(num_test) if first.cluster_N is None else first.cluster_N
    num_clusters = int(cluster_N.max()) + 1
    counts_DC = rng.multinomial(num_clusters, np.full(num_clusters, 1 / num_clusters), size=DRAWS)
    weights_DN = counts_DC[:, cluster_N]
    drawn = []
    for scored in points.values():
        by_seed_DS = weights_DN @ scored.values_SN.T.astype(float) / weights_DN.sum(axis=1, keepdims=True)
        seeds, mean_D = by_seed_DS.shape[1], by_seed_DS.mean(axis=1)
        if scored.varies:
            picked_DS = rng.integers(seeds, size=by_seed_DS.shape)
            moved_D = np.take_along_axis(by_seed_DS, picked_DS, axis=1).mean(axis=1) - mean_D
            # what is drawn from few seeds varies less than seeds do
            mean_D = mean_D + moved_D * math.sqrt(seeds / max(1, seeds - 1))
        else:
            mean_D = mean_D + SAMPLE_DEVIATION * rng.standard_normal(DRAWS)
        drawn.append(mean_D)
    return np.array(drawn).T


def _document(candidate: CandidateCurve, points: Points) -> Mapping[str, Any]:
    lines = []
    for size, scored in points.items():
        inside, costs = accuracy_interval(scored), [record.costs for record in candidate.sizes[size]]
        lines.append(
            {
                "n": size,
                "accuracy": {"mean": scored.mean, "low": inside.low, "high": inside.high},
                "per_seed": scored.values_SN.mean(axis=1).tolist(),
                "epochs": float(np.mean([one.epochs for one in costs])),
                "train_seconds": float(np.mean([one.train_seconds for one in costs])),
            }
        )
    document: Mapping[str, Any] = {**candidate.names, "points": lines, "laws": [], "refused": None, "predicted": []}
    if any(scored.varies and len(scored.values_SN) < 2 for scored in points.values()):
        return {**document, "refused": "one seed; a prediction needs two or more at every size"}
    sizes = list(points)
    prediction = predict(sizes, np.array([one.mean for one in points.values()]), _draws(points))
    predicted = []
    for factor, figures in prediction.at.items():
        passes = figures.pop("passes")
        line: dict[str, float | str] = {"factor": factor, "n": factor * sizes[-1], **figures}
        width = figures["high"] - figures["low"]
        if width > MOST_WIDTH:
            line["refused"] = f"the interval is {100 * width:.0f} points wide"
        elif passes > MOST_PASSES:
            line["refused"] = "the law would pass 100 %: accuracy levels off before, where cannot be seen yet"
        predicted.append(line)
    return {**document, "laws": list(prediction.laws), "refused": prediction.refused, "predicted": predicted}


def _best_by_size(candidates: Sequence[CandidateCurve], points: Sequence[Points]) -> Sequence[Mapping[str, Any]]:
    """Return the most accurate candidate at each size that all have, and whether it may be another (95 %)."""
    best = []
    for size in sorted(set.intersection(*(set(one) for one in points))):
        place = max(range(len(points)), key=[one[size].mean for one in points].__getitem__)
        others = [compare_scored(points[place][size], one[size]) for i, one in enumerate(points) if i != place]
        sure = all(_surely(one, len(others)) for one in others)
        best.append({"n": size, **candidates[place].names, "sure": sure})
    return best


def _surely(ahead: Difference, tries: int) -> bool:
    """Return whether a candidate is ahead, one-sided, corrected for the number of tries (Bonferroni)."""
    return tries * ahead.mirrored().p_worse < SIGNIFICANCE


def _crossings(candidates: Sequence[CandidateCurve], points: Sequence[Points]) -> Sequence[Mapping[str, Any]]:
    """Return where one candidate overtakes another: surely behind at one size, and surely ahead at a later one.

    Both are corrected for the number of pairs and sizes. Between the last size behind and the first ahead the place is
    interpolated over log n.
    """
    found = []
    tries = len(points) * (len(points) - 1) // 2 * max(len(one) for one in points)
    for i, j in permutations(range(len(points)), 2):
        shared = sorted(set(points[i]) & set(points[j]))
        gaps = {n: compare_scored(points[i][n], points[j][n]) for n in shared}
        later = next((n for n in shared if _surely(gaps[n], tries)), None)
        earlier = [n for n in shared if later and n < later and _surely(gaps[n].mirrored(), tries)]
        if later is None or not earlier:
            continue
        between = [earlier[-1], later]
        at = _zero(between, [gaps[n].value for n in between])
        over = {f"over_{key}": value for key, value in candidates[j].names.items()}
        found.append({**candidates[i].names, **over, "between": between, "at": round(at)})
    return found


def _overtaking(
    candidates: Sequence[CandidateCurve], points: Sequence[Points], best: tuple[CandidateCurve, Scored]
) -> Sequence[Mapping[str, Any]]:
    """Return with how many labels each candidate becomes better than the best that labels teach nothing.

    The interval holds the sizes at which the difference is not significantly other than 0: a test turned around, as an
    interval is. Between sizes the ends are interpolated over log n. `low` is None where it is below the smallest size,
    `high` where it is above the largest; `at` where it is either, and `before_first` says which.
    """
    asked, line = best
    found = []
    for candidate, own in zip(candidates, points, strict=True):
        sizes = list(own)
        gaps = [compare_scored(own[n], line) for n in sizes]
        # the highest and the lowest so far: a curve that rises in truth goes down by chance alone
        value = np.maximum.accumulate([one.value for one in gaps])
        high = np.maximum.accumulate([one.high for one in gaps])
        low = np.minimum.accumulate([one.low for one in gaps][::-1])[::-1]
        over = {f"over_{key}": name for key, name in asked.names.items()}
        at, first, last = _zero(sizes, value), _zero(sizes, high), _zero(sizes, low)
        found.append(
            {
                **candidate.names,
                **over,
                "accuracy_untrained": line.mean,
                "at": round(at) if 0 < at < math.inf else None,
                "low": None if first == 0 else round(min(first, sizes[-1])),
                "high": None if last == math.inf else round(max(last, sizes[0])),
                "before_first": at == 0,
            }
        )
    return found


def _zero(sizes: Sequence[int], values: Sequence[float] | Floats) -> float:
    """Return where values first reach 0, interpolated over log n; 0 if from the first size on, infinite if at none."""
    place = next((k for k, value in enumerate(values) if value >= 0), None)
    if place is None or place == 0:
        return math.inf if place is None else 0.0
    behind, ahead = float(values[place - 1]), float(values[place])
    share = -behind / (ahead - behind)
    return math.exp(math.log(sizes[place - 1]) + share * math.log(sizes[place] / sizes[place - 1]))


def _sentence(documents: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Say of the candidate that is best at its largest size whether more labels are worth it."""
    place = max(range(len(documents)), key=lambda i: documents[i]["points"][-1]["accuracy"]["mean"])
    candidate, name = documents[place], names[place]
    last = candidate["points"][-1]
    here = f"{name}, best at {last['n']:,} labels ({100 * last['accuracy']['mean']:.1f} %)"
    if candidate["refused"]:
        return f"{here}: what more labels would give is not predicted: {candidate['refused']}."
    words = []
    for one in candidate["predicted"]:
        if "refused" in one:
            words.append(f"{one['factor']} times as many cannot be said ({one['refused']})")
        else:
            words.append(
                f"{one['factor']} times as many ({one['n']:,}) would give {100 * one['accuracy']:.1f} % "
                f"({100 * one['low']:.1f} to {100 * one['high']:.1f})"
            )
    twice = candidate["predicted"][0]
    if "refused" in twice:
        verdict = "Whether twice the labels gain a point is open"
    elif twice["gain_low"] > 0.01:
        verdict = "More labels are worth it"
    elif twice["gain_high"] < 0.01:
        verdict = "Twice the labels would gain less than a point"
    else:
        verdict = "Whether twice the labels gain a point is open"
    return f"{here}: {'; '.join(words)}. {verdict}."
