"""The one estimate of chance behind every interval, test and recommendation: examples in clusters, and seeds.

Values of a metric an example and seed go in, a variance with its degrees of freedom comes out; which candidates are
compared is decided in pairs.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
NEVER_PART = 1.9  # a normal variable of this deviation is below -1.6 in 20 and below -3.7 in 2.5 of 100 cases
SAME = 1e-9  # what differs by less does so by rounding

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Folds:
    """Test parts that differ from split to split, as those of a cross-validation do.

    Attributes:
        fold_N: number of the fold each answer is of, 0 and up without gaps.
        test_share: test examples of a fold for each example that is not, mean over the folds.
    """

    fold_N: Integers
    test_share: float

    def means(self, values_N: Floats) -> Floats:
        """Return the mean within each fold, shape (folds,)."""
        return np.asarray(np.bincount(self.fold_N, weights=values_N) / np.bincount(self.fold_N))

    @property
    def factor(self) -> float:
        """Variance of a mean over the folds, by that of a single fold's figure.

        Folds share what they train on, so that their figures are not independent: to the 1/k of k independent ones
        Nadeau and Bengio (2003, Inference for the Generalization Error, section 3.3) add n_test / n_train.
        """
        return 1 / (int(self.fold_N.max()) + 1) + self.test_share

    def spread(self, values_N: Floats) -> Spread:
        """Return the chance in the mean, of the corrected resampled t-test: k - 1 degrees of freedom."""
        means_J = self.means(values_N)
        return Spread(self.factor * float(means_J.var(ddof=1)), float(len(means_J) - 1))


@dataclass(frozen=True)
class Scored:
    """What a candidate's classifiers give for each test example.

    Attributes:
        values_SN: shape (seeds, examples), with the metric as mean over examples: right or wrong for accuracy, for
            other metrics what an example contributes (metrics.py).
        varies: whether another seed would give another classifier. A method without randomness has one trial; one with
            randomness and one seed has a variance between seeds that nobody has measured.
        cluster_N: number of the cluster of each example, 0 and up without gaps: examples that are not independent
            (hypotheses of one premise, repeated texts). None where every example stands alone.
        split_S: number of the split each row was trained on, where several were tested on the same examples. Rows of
            one split count as one: another split gives another classifier as well.
        folds: where test differs from split to split; an example that was tested in several stands here as often.
    """

    values_SN: npt.NDArray[np.generic]
    varies: bool = True
    cluster_N: Integers | None = None
    split_S: Integers | None = None
    folds: Folds | None = None

    def among(self, places: Sequence[int]) -> Scored:
        """Return the same for some of the examples; without folds, in which there may be too few of them."""
        cluster_N = self.cluster_N
        if cluster_N is not None:
            kept, cluster_N = np.unique(cluster_N[list(places)], return_inverse=True)
            cluster_N = cluster_N if 1 < len(kept) < len(cluster_N) else None
        return Scored(self.values_SN[:, list(places)], self.varies, cluster_N, self.split_S)

    @cached_property
    def mean_N(self) -> Floats:
        """Mean over the seeds of each example's value, shape (examples,)."""
        return np.asarray(self.values_SN.mean(axis=0), dtype=np.float64)

    @property
    def mean(self) -> float:
        """The metric, mean over seeds."""
        return float(self.mean_N.mean())

    @property
    def replicates_SN(self) -> npt.NDArray[np.generic]:
        """What independent classifiers give: one row a seed, or a split."""
        if self.split_S is None:
            return self.values_SN
        return np.stack([self.values_SN[self.split_S == one].mean(axis=0) for one in np.unique(self.split_S)])

    @cached_property
    def seed_variance(self) -> SeedVariance | None:
        """How far seeds lie apart, or None with fewer than two of them.

        The disagreement is the interaction of a two-way layout with one answer a cell, summed within clusters.
        """
        values_SN, cluster_N = self.replicates_SN, self.cluster_N
        num_seeds, num_examples = values_SN.shape
        if num_seeds < 2 or num_examples < 2:
            return None
        means_S = values_SN.mean(axis=1)
        rest_SN = values_SN - values_SN.mean(axis=0) - means_S[:, None] + means_S.mean()
        sums_SG = np.stack([cluster_sums(rest_N, cluster_N) for rest_N in rest_SN])
        clusters = sums_SG.shape[1]
        if clusters < 2:
            return None
        disagreement = float((sums_SG**2).sum()) / (num_seeds - 1) * clusters / (clusters - 1) / num_examples**2
        return SeedVariance(float(means_S.var(ddof=1)), disagreement, num_seeds)


@dataclass(frozen=True, slots=True)
class SeedVariance:
    """How far the means of a candidate's seeds lie apart, and how far they would for equally good classifiers.

    Attributes:
        between: variance of the seeds' means; the chance of a finite test set is in it.
        disagreement: the part of it that comes from classifiers that disagree about single examples, which N of them
            do not average out. Without bias, `between` less `disagreement` is the variance of a seed's true metric.
        seeds: number of seeds behind the estimate.
    """

    between: float
    disagreement: float
    seeds: int


@dataclass(frozen=True, slots=True)
class Spread:
    """The chance in a difference of two candidates, or in one candidate's metric.

    Three seeds know their variance poorly: in one case of ten they show less than a tenth of it. A t test with
    Satterthwaite's degrees of freedom takes these from the same small estimate and then believes it. So every variance
    that could have given what was seen is weighed by its fiducial distribution (generalized inference, Tsui and
    Weerahandi 1989; Hannig, Iyer and Patterson 2006). Without seeds, and where seeds are everything, it is the t test.

    Attributes:
        examples: variance that more test examples make smaller.
        freedom_examples: its degrees of freedom.
        between: variance of the means over seeds, as in :class:`SeedVariance`, summed over the candidates compared.
        disagreement: the part of `between` that is in `examples` already.
        freedom_seeds: degrees of freedom of `between`.
    """

    examples: float
    freedom_examples: float = math.inf
    between: float = 0.0
    disagreement: float = 0.0
    freedom_seeds: float = 1.0

    @property
    def seeds(self) -> float:
        """The part of `variance` that only more seeds make smaller."""
        return max(0.0, self.between - self.disagreement)

    @property
    def variance(self) -> float:
        """Variance of the figure: examples and seeds together."""
        return self.examples + self.seeds

    def p_below(self, difference: float) -> float:
        """Return the one-sided p-value of "not below 0": small where the difference is far below."""
        from scipy.special import stdtr

        if self.examples <= 0 and self.between <= 0:
            return float(difference >= 0)
        if self.between <= 0:
            return float(stdtr(self.freedom_examples, difference / math.sqrt(self.examples)))
        squares_Q, weights_Q = _chi_square(self.freedom_seeds)
        seeds_Q = np.maximum(0.0, self.between * self.freedom_seeds / squares_Q - self.disagreement)
        deviation_Q = np.sqrt(np.maximum(self.examples + seeds_Q, np.finfo(float).tiny))
        return float(stdtr(self.freedom_examples, difference / deviation_Q) @ weights_Q)

    def p(self, difference: float) -> float:
        """Return the two-sided p-value of "no difference"."""
        return min(1.0, 2 * self.p_below(-abs(difference)))

    def bound(self, level: float) -> float:
        """Return how far below what was seen the truth may lie: a one-sided confidence bound, `level` above 0.5."""
        from scipy.optimize import brentq
        from scipy.special import stdtrit

        if self.examples <= 0 and self.between <= 0:
            return 0.0
        if self.between <= 0:
            return float(stdtrit(self.freedom_examples, level)) * math.sqrt(self.examples)
        high = math.sqrt(self.examples + self.between)
        while self.p_below(-high) > 1 - level:
            high *= 2
        return float(brentq(lambda width: self.p_below(-width) - (1 - level), 0.0, high, rtol=1e-6))

    def half_width(self, confidence: float = CONFIDENCE) -> float:
        """Return half the width of a two-sided interval."""
        return self.bound(0.5 + confidence / 2)


@lru_cache(maxsize=64)
def _chi_square(freedom: float) -> tuple[Floats, Floats]:
    """Return values of a chi-square variable and their weights: the trapezoid rule over its logarithm."""
    low = math.log(freedom) - max(60 / freedom, 10 * math.sqrt(2 / freedom))
    points = 120 if freedom >= 2 else 160  # p-values are right to 1e-10
    log_Q = np.linspace(low, math.log(freedom + 12 * math.sqrt(2 * freedom) + 40), points)
    density_Q = np.exp(freedom / 2 * (log_Q - math.log(freedom)) - (np.exp(log_Q) - freedom) / 2)
    return np.exp(log_Q), density_Q / density_Q.sum()


def seed_variances(a: Scored, b: Scored) -> tuple[SeedVariance | None, SeedVariance | None]:
    """Return those of both candidates; one with a single seed that varies is given the other's."""
    own_a, own_b = a.seed_variance, b.seed_variance
    return (own_a or (own_b if a.varies else None), own_b or (own_a if b.varies else None))


def spread_of_difference(a: Scored, b: Scored) -> Spread:
    """Return the chance in a's metric minus b's: examples in pairs, and the seeds of both.

    Args:
        a: one candidate.
        b: another, over the same examples.
    """
    value_N, parts = a.mean_N - b.mean_N, []
    unit = float(max(np.abs(one.mean_N).max() for one in (a, b)))
    if a.folds is not None:
        of_folds = a.folds.spread(value_N)
        if of_folds.variance > (SAME * unit) ** 2:  # a few small folds with one and the same difference are no proof
            return of_folds
    else:
        shares = [1 / len(one.replicates_SN) for one in (a, b)]
        parts = list(zip(seed_variances(a, b), shares, strict=True))
    return _spread(value_N, a.cluster_N, parts, unit)


def spread_of_mean(candidate: Scored) -> Spread:
    """Return the chance in a candidate's metric: examples, and seeds where there are several.

    Of folds it is at least that of their examples: folds hold the labels in equal shares, and so differ by less.
    """
    if candidate.folds is not None:
        of_folds = candidate.folds.spread(candidate.mean_N)
        return max(of_folds, _spread(candidate.mean_N, candidate.cluster_N, []), key=Spread.half_width)
    own = candidate.seed_variance
    return _spread(candidate.mean_N, candidate.cluster_N, [(own, 1 / len(candidate.replicates_SN))])


def cluster_sums(values_N: Floats, cluster_N: Integers | None) -> Floats:
    """Return the sum within each cluster, or the values themselves where examples stand alone."""
    if cluster_N is None:
        return values_N
    return np.asarray(np.bincount(cluster_N, weights=values_N), dtype=np.float64)


def _spread(
    value_N: Floats, cluster_N: Integers | None, parts: list[tuple[SeedVariance | None, float]], unit: float = 0.0
) -> Spread:
    """Cluster-robust variance over examples, and seeds; `unit` is what two candidates may differ by on one example."""
    n, mean = len(value_N), float(value_N.mean())
    sums_G = cluster_sums(value_N - mean, cluster_N)
    clusters = len(sums_G)
    examples = float((sums_G**2).sum()) * clusters / (clusters - 1) / n**2 if clusters > 1 else 0.0
    # where two candidates part on four examples of a thousand, these four are all that is known of the variance
    _, counts = np.unique(np.round(cluster_sums(value_N, cluster_N), 9), return_counts=True)
    own = float(max(1, clusters - int(counts.max()) - 1))
    if cluster_N is not None:  # a few large clusters among many small ones count as few
        squares_G = np.bincount(cluster_N).astype(float) ** 2
        own = max(1.0, min(own, float(squares_G.sum() ** 2 / (squares_G**2).sum()) - 1))
    if examples <= (SAME * max(unit, abs(mean))) ** 2:
        examples, own = _without_variance(mean, unit, clusters)
    found = [(one, share) for one, share in parts if one is not None]
    if not found:
        return Spread(examples, own)
    between = sum(share * one.between for one, share in found)
    disagreement = sum(share * one.disagreement for one, share in found)
    return Spread(examples, own, between, disagreement, _freedom_seeds(found))


def _without_variance(mean: float, unit: float, clusters: int) -> tuple[float, float]:
    """Return the variance of what is the same for every example or cluster, and its degrees of freedom.

    That none was seen does not mean there is none. Where two candidates never part, the bounds are those of a share of
    which nothing was seen: 1.6 and 3.7 of `clusters` for 80 and 97.5 % (the rule of three). Where everything speaks for
    one of them, one more that speaks as clearly against it is added, which gives about the p-values of a sign test.
    """
    if abs(mean) <= SAME * unit:
        return (NEVER_PART * unit / clusters) ** 2, float(max(1, clusters - 1))
    return (2 * mean / (clusters + 1)) ** 2, float(max(1, clusters - 2))


def _freedom_seeds(parts: list[tuple[SeedVariance, float]]) -> float:
    """Return the degrees of freedom of the sum of two variances between seeds.

    Welch's lie between those of the poorer one and of both together, and are too many where one candidate's seeds vary
    much and happen to lie close. Half way to the poorer one no simulated pair was called different too often; with
    unequal numbers of seeds only the poorer one's hold (docs/statistics.md).
    """
    (a, share_a), (b, share_b) = parts[0], parts[-1]
    least = float(min(a.seeds, b.seeds) - 1)
    terms = share_a * a.between, share_b * b.between
    if a is b or a.seeds != b.seeds or not any(terms):
        return least
    return (least + sum(terms) ** 2 / sum(term**2 / least for term in terms)) / 2
