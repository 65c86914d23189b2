"""Intervals of shares, the exact paired test, and the correction for many tests.

Arrays of right and wrong go in, figures come out. Variances are variance.py, what is compared with what pairs.py.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from entailor.evaluation.variance import Scored, spread_of_mean


@dataclass(frozen=True, slots=True)
class Proportion:
    """A share between 0 and 1 with its 95 % interval."""

    value: float
    low: float
    high: float


def wilson_interval(share: float, n: int, confidence: float = 0.95) -> Proportion:
    """Return a share with its Wilson score interval.

    Written out because the share may be a mean over seeds, so that ``share * n`` is no whole number, which
    ``scipy.stats.binomtest`` refuses; for whole numbers both agree.

    Args:
        share: 0 to 1.
        n: number of examples, at least 1.
        confidence: coverage of the interval.
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Proportion(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def mcnemar_exact(correct_a_N: npt.NDArray[np.bool_], correct_b_N: npt.NDArray[np.bool_]) -> float:
    """Return the two-sided p-value of McNemar's exact test: do a and b get equally many examples right?

    Args:
        correct_a_N: whether a is right, shape (N,).
        correct_b_N: whether b is right on the same examples, shape (N,).
    """
    from scipy.special import bdtr

    only_a = int(np.sum(correct_a_N & ~correct_b_N))
    only_b = int(np.sum(correct_b_N & ~correct_a_N))
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def binomial_interval(share: float, n: float, confidence: float = 0.95) -> Proportion:
    """Return a share with its mid-P interval: Clopper and Pearson's with half the weight on what was seen.

    It covers about what it says for shares near 0 and 1 too, where Wilson's falls short (Berry and Armitage 1995).
    Share and n need not make a whole number: n may be the number of independent examples that would give the same
    variance as clusters and seeds do (Korn and Graubard 1998).

    Args:
        share: 0 to 1.
        n: number of examples, above 0.
        confidence: coverage of the interval.
    """
    from scipy.optimize import brentq
    from scipy.special import betainc

    right, wrong, tail = share * n, (1 - share) * n, (1 - confidence) / 2

    def at_least(p: float) -> float:
        """Return the chance of more than was seen, and half that of exactly as many."""
        more = betainc(right + 1, wrong, p) if wrong > 0 else 0.0
        same_or_more = betainc(right, wrong + 1, p) if right > 0 else 1.0
        return float(more + same_or_more) / 2

    low = brentq(lambda p: at_least(p) - tail, 0, 1) if right > 0 else 0.0
    high = brentq(lambda p: at_least(p) - (1 - tail), 0, 1) if wrong > 0 else 1.0
    return Proportion(share, min(share, float(low)), max(share, float(high)))


def accuracy_interval(candidate: Scored) -> Proportion:
    """Return a candidate's mean accuracy with a 95 % interval that holds the chance of examples, and of seeds.

    It is the binomial interval of as many independent examples as would give the same variance, widened
    as few seeds or clusters ask for (Korn and Graubard 1998). Where few examples are wrong their variance is drawn
    towards that of independent examples, with the weight of one example.

    Args:
        candidate: which examples each seed gets right.
    """
    share, n = candidate.mean, candidate.values_SN.shape[1]
    clusters = n if candidate.cluster_N is None else int(candidate.cluster_N.max()) + 1
    if not 0 < share < 1:
        return binomial_interval(share, clusters)
    spread, binomial = spread_of_mean(candidate), share * (1 - share) / n
    if candidate.folds is None:
        rarer = n * min(share, 1 - share)
        examples = (spread.examples * (1 - 1 / n) * rarer + binomial) / (rarer + 1)
        # the variance of independent examples follows from the share; that of clusters has to be estimated
        freedom = math.inf if candidate.cluster_N is None else spread.freedom_examples
        spread = replace(spread, examples=examples, freedom_examples=freedom)
    wide = spread.half_width()
    return binomial_interval(share, share * (1 - share) / (wide / NormalDist().inv_cdf(0.975)) ** 2)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979), in the order given."""
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def number_clusters(keys: Sequence[Hashable]) -> npt.NDArray[np.int64] | None:
    """Return the number of each example's cluster, 0 and up.

    None where every key stands once, and where there is one cluster only, which says nothing of others.
    """
    place: dict[Hashable, int] = {}
    numbers = np.array([place.setdefault(key, len(place)) for key in keys], dtype=np.int64)
    return numbers if 1 < len(place) < len(numbers) else None


@dataclass(frozen=True, slots=True)
class Clustering:
    """How far the examples of a test set are from independent.

    Attributes:
        clusters: number of them.
        largest: examples in the largest.
        intraclass_correlation: of right and wrong within clusters, mean over candidates (analysis of variance).
        design_effect: variance of an accuracy over that of as many independent examples, mean over candidates.
        effective_examples: independent examples that would show as much.
    """

    clusters: int
    largest: int
    intraclass_correlation: float | None
    design_effect: float | None
    effective_examples: int | None


def clustering(candidates: Sequence[Scored]) -> Clustering | None:
    """Return how examples hang together; None where none share a cluster, and with folds, which none is cut by."""
    cluster_N = candidates[0].cluster_N if candidates else None
    if cluster_N is None or candidates[0].folds is not None:
        return None
    sizes_G = np.bincount(cluster_N)
    correlations, effects = [], []
    for one in candidates:
        alone = spread_of_mean(Scored(one.mean_N[None])).variance
        if alone > 0:
            effects.append(spread_of_mean(Scored(one.mean_N[None], cluster_N=cluster_N)).variance / alone)
            correlations.append(_intraclass(one.mean_N, cluster_N, sizes_G))
    effect = float(np.mean(effects)) if effects else None
    return Clustering(
        clusters=len(sizes_G),
        largest=int(sizes_G.max()),
        intraclass_correlation=float(np.mean(correlations)) if correlations else None,
        design_effect=effect,
        effective_examples=round(len(cluster_N) / effect) if effect else None,
    )


def _intraclass(
    value_N: npt.NDArray[np.float64], cluster_N: npt.NDArray[np.int64], sizes_G: npt.NDArray[np.int64]
) -> float:
    """One-way analysis of variance with unequal clusters (Donner 1986)."""
    n, clusters = len(value_N), len(sizes_G)
    mean_G = np.bincount(cluster_N, weights=value_N) / sizes_G
    between = float((sizes_G * (mean_G - value_N.mean()) ** 2).sum()) / max(1, clusters - 1)
    within = float(((value_N - mean_G[cluster_N]) ** 2).sum()) / max(1, n - clusters)
    size = (n - float((sizes_G**2).sum()) / n) / max(1, clusters - 1)
    total = between + (size - 1) * within
    return (between - within) / total if total else 0.0
