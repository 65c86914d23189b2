"""The one estimate of chance behind every interval, test and recommendation: examples in clusters, and seeds.

Values of a metric an example and seed go in, a variance with its degrees of freedom comes out; which candidates are
compared is decided in pairs.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


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
    """

    values_SN: npt.NDArray[np.generic]
    varies: bool = True
    cluster_N: Integers | None = None

    def among(self, places: Sequence[int]) -> Scored:
        """Return the same for some of the examples."""
        cluster_N = self.cluster_N
        if cluster_N is not None:
            kept, cluster_N = np.unique(cluster_N[list(places)], return_inverse=True)
            cluster_N = cluster_N if 1 < len(kept) < len(cluster_N) else None
        return Scored(self.values_SN[:, list(places)], self.varies, cluster_N)

    @cached_property
    def mean_N(self) -> Floats:
        """Mean over the seeds of each example's value, shape (examples,)."""
        return np.asarray(self.values_SN.mean(axis=0), dtype=np.float64)

    @property
    def mean(self) -> float:
        """The metric, mean over seeds."""
        return float(self.mean_N.mean())


@dataclass(frozen=True)
class SeedVariance:
    """How far a candidate's seeds lie apart beyond what the finite test set explains.

    Attributes:
        variance: of a seed's true metric, too small as often as too large but for being cut at 0.
        uncorrected: the same with the chance of a finite test set in it; it decides how well `variance` is known.
        seeds: number of seeds behind the estimate.
    """

    variance: float
    uncorrected: float
    seeds: int


@dataclass(frozen=True, slots=True)
class Spread:
    """The chance in a difference of two candidates, or in one candidate's metric.

    Attributes:
        variance: of the figure: examples and seeds together.
        freedom: degrees of freedom (Satterthwaite 1946) of that estimate; few where three seeds decide it.
        examples: the part of `variance` that more test examples make smaller.
        freedom_examples: degrees of freedom of that part alone.
    """

    variance: float
    freedom: float
    examples: float
    freedom_examples: float = math.inf

    @property
    def seeds(self) -> float:
        """The part of `variance` that only more seeds make smaller."""
        return self.variance - self.examples

    def quantile(self, level: float) -> float:
        """Return the quantile of t, in standard errors."""
        from scipy.special import stdtrit

        return float(stdtrit(self.freedom, level))

    def half_width(self, confidence: float = CONFIDENCE) -> float:
        """Return half the width of a two-sided interval."""
        return self.quantile(0.5 + confidence / 2) * math.sqrt(self.variance)

    def p_below(self, difference: float) -> float:
        """Return the one-sided p-value of "not below 0": small where the difference is far below."""
        from scipy.special import stdtr

        if self.variance <= 0:
            return float(difference >= 0)
        return float(stdtr(self.freedom, difference / math.sqrt(self.variance)))

    def p(self, difference: float) -> float:
        """Return the two-sided p-value of "no difference"."""
        return min(1.0, 2 * self.p_below(-abs(difference)))


def seed_variance(values_SN: npt.NDArray[np.generic], cluster_N: Integers | None = None) -> SeedVariance | None:
    """Return the variance between seeds, or None with fewer than two of them.

    Means of seeds on the same N examples differ for two reasons: one seed made a better classifier, or the
    classifiers disagree about single examples and N of them do not average that out. The second is already in the
    variance over examples, so it is taken out here (the interaction of a two-way layout with one answer a cell).

    Args:
        values_SN: shape (seeds, examples).
        cluster_N: as in :class:`Scored`.
    """
    num_seeds, num_examples = values_SN.shape
    if num_seeds < 2 or num_examples < 2:
        return None
    means_S = values_SN.mean(axis=1)
    whole = float(means_S.var(ddof=1))
    rest_SN = values_SN - values_SN.mean(axis=0) - means_S[:, None] + means_S.mean()
    sums_SG = np.stack([_sums(rest_N, cluster_N) for rest_N in rest_SN])
    clusters = sums_SG.shape[1]
    if clusters < 2:
        return None
    disagreement = float((sums_SG**2).sum()) / (num_seeds - 1) * clusters / (clusters - 1) / num_examples**2
    # the variance of three means is below the true one in 6 cases of 10; raised so that it is in 5
    whole /= _median_of_variance(num_seeds - 1)
    return SeedVariance(max(0.0, whole - disagreement), whole, num_seeds)


def _median_of_variance(freedom: int) -> float:
    """Return the median of an estimated variance whose mean is 1."""
    from scipy.special import gammaincinv

    return float(gammaincinv(freedom / 2, 0.5)) * 2 / freedom


def seed_variances(a: Scored, b: Scored) -> tuple[SeedVariance | None, SeedVariance | None]:
    """Return those of both candidates; one with a single seed that varies is given the other's."""
    own_a, own_b = (seed_variance(one.values_SN, one.cluster_N) for one in (a, b))
    return (own_a or (own_b if a.varies else None), own_b or (own_a if b.varies else None))


def spread_of_difference(a: Scored, b: Scored) -> Spread:
    """Return the chance in a's metric minus b's: examples in pairs, and the seeds of both.

    Args:
        a: one candidate.
        b: another, over the same examples.
    """
    shares = [1 / len(one.values_SN) for one in (a, b)]
    parts = list(zip(seed_variances(a, b), shares, strict=True))
    return _spread(a.mean_N - b.mean_N, a.cluster_N, parts)


def spread_of_mean(candidate: Scored) -> Spread:
    """Return the chance in a candidate's metric: examples, and seeds where there are several."""
    own = seed_variance(candidate.values_SN, candidate.cluster_N)
    return _spread(candidate.mean_N, candidate.cluster_N, [(own, 1 / len(candidate.values_SN))])


def _sums(values_N: Floats, cluster_N: Integers | None) -> Floats:
    if cluster_N is None:
        return values_N
    return np.asarray(np.bincount(cluster_N, weights=values_N), dtype=np.float64)


def _spread(value_N: Floats, cluster_N: Integers | None, parts: list[tuple[SeedVariance | None, float]]) -> Spread:
    """Cluster-robust variance over examples, plus seeds; degrees of freedom after Satterthwaite."""
    n = len(value_N)
    sums_G = _sums(value_N - value_N.mean(), cluster_N)
    clusters = len(sums_G)
    examples = float((sums_G**2).sum()) * clusters / (clusters - 1) / n**2 if clusters > 1 else 0.0
    # where two candidates part on four examples of a thousand, these four are all that is known of the variance
    _, counts = np.unique(np.round(_sums(value_N, cluster_N), 9), return_counts=True)
    own = float(max(1, clusters - int(counts.max()) - 1))
    if cluster_N is not None:  # a few large clusters among many small ones count as few
        squares_G = np.bincount(cluster_N).astype(float) ** 2
        own = max(1.0, min(own, float(squares_G.sum() ** 2 / (squares_G**2).sum()) - 1))
    variance, uncertainty, least = examples, examples**2 / own, own
    shares: dict[int, float] = {}  # one estimate that stands for both candidates counts as one
    sources = {id(found): found for found, _ in parts if found is not None}
    for found, share in parts:
        if found is not None:
            shares[id(found)] = shares.get(id(found), 0.0) + share
    for key, found in sources.items():
        if found.variance:
            variance += shares[key] * found.variance
            uncertainty += (shares[key] * found.uncorrected) ** 2 / (found.seeds - 1)
            least = min(least, float(found.seeds - 1))
    # the difference of two estimates can be known worse than either; never fewer degrees than its poorest part has
    freedom = max(least, variance**2 / uncertainty) if uncertainty else least
    return Spread(variance, freedom, examples, own)
