"""Resampling: examples in pairs, and seeds above them, so that neither a lucky test set nor a lucky seed decides.

Arrays of right and wrong go in, intervals and p-values come out; which candidates are compared is decided in pairs.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

BOOTSTRAP_DRAWS = 10_000
BOOTSTRAP_SEED = 0
CONFIDENCE = 0.95
# How often the luck of seeds may be judged too small in a test. At 0.4 no layout that was simulated called more than
# 5 % of differences real where there were none (docs/decisions/0021).
TOO_SMALL = 0.4

Correct = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """Which test examples a candidate's classifiers get right.

    Attributes:
        correct_SN: shape (seeds, examples).
        varies: whether another seed would give another classifier. A method without randomness has one trial and no
            luck; one with randomness and one seed has luck that nobody has measured.
    """

    correct_SN: Correct
    varies: bool = True

    @property
    def mean_N(self) -> Floats:
        """Share of the seeds that get each example right, shape (examples,)."""
        return np.asarray(self.correct_SN.mean(axis=0))


@dataclass(frozen=True)
class SeedLuck:
    """How far the accuracies of a candidate's seeds lie apart beyond what the finite test set explains.

    Attributes:
        variance: of the luck of one seed, without bias but for being cut at 0.
        cautious: the same, raised so that it is too small in 4 cases of 10; with three seeds the one above is so in 6.
        uncorrected: variance of the seeds' accuracies, the chance of a finite test set included; it decides how well
            `variance` is known.
        deviations_S: of each seed from their mean, scaled so that drawing them has the variance above.
        seeds: number of seeds behind the estimate.
    """

    variance: float
    cautious: float
    uncorrected: float
    deviations_S: Floats
    seeds: int


@dataclass(frozen=True, slots=True)
class Spread:
    """The chance in a difference of two candidates, or in one candidate's accuracy.

    Attributes:
        variance: of the figure: examples and seeds together.
        freedom: degrees of freedom (Satterthwaite 1946) of that estimate; few where three seeds decide it.
    """

    variance: float
    freedom: float

    @property
    def factor(self) -> float:
        """How much wider a 95 % interval is than one with a known variance."""
        return self.critical / NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)

    @property
    def critical(self) -> float:
        """Half the width of a 95 % interval in standard errors."""
        from scipy.special import stdtrit

        return float(stdtrit(self.freedom, 0.5 + CONFIDENCE / 2))

    def p(self, difference: float) -> float:
        """Return the two-sided p-value of "no difference"."""
        from scipy.special import stdtr

        if self.variance <= 0:
            return 1.0 if difference == 0 else 0.0
        return float(min(1.0, 2 * stdtr(self.freedom, -abs(difference) / math.sqrt(self.variance))))


@dataclass(frozen=True, slots=True)
class Draws:
    """What resampling says of a difference: 95 % interval and two-sided p-value of "no difference"."""

    low: float
    high: float
    p: float


def seed_luck(correct_SN: Correct) -> SeedLuck | None:
    """Return the luck of seeds, or None with fewer than two of them.

    Accuracies of seeds on the same N examples differ for two reasons: one seed made a better classifier, or the
    classifiers disagree about single examples and N of them do not average that out. The second is already in the
    resampling of examples, so it is taken out here (the interaction of a two-way layout with one answer a cell).

    Args:
        correct_SN: shape (seeds, examples).
    """
    num_seeds, num_examples = correct_SN.shape
    if num_seeds < 2 or num_examples < 2:
        return None
    means_S = correct_SN.mean(axis=1)
    whole = float(means_S.var(ddof=1))
    rest_SN = correct_SN - correct_SN.mean(axis=0) - means_S[:, None] + means_S.mean()
    disagreement = float((rest_SN**2).sum()) / ((num_seeds - 1) * (num_examples - 1)) / num_examples
    variance = max(0.0, whole - disagreement)
    cautious = max(0.0, whole / _low_of_variance(num_seeds - 1) - disagreement)
    # a draw from S values has (S - 1) / S of their variance
    scale = math.sqrt(variance / whole * num_seeds / (num_seeds - 1)) if variance else 0.0
    return SeedLuck(variance, cautious, whole, scale * (means_S - means_S.mean()), num_seeds)


def _low_of_variance(freedom: int) -> float:
    """Return what an estimated variance whose mean is 1 stays below in 4 cases of 10."""
    from scipy.special import gammaincinv

    return float(gammaincinv(freedom / 2, TOO_SMALL)) * 2 / freedom


def paired_bootstrap(a_N: Floats, b_N: Floats, draws: int = BOOTSTRAP_DRAWS, seed: int = BOOTSTRAP_SEED) -> Draws:
    """Return the percentile interval and the p-value of mean(a) - mean(b), resampling examples in pairs.

    Args:
        a_N: 0 to 1, mean correctness of a over its seeds, one value an example, shape (N,).
        b_N: the same of b on the same examples, shape (N,).
        draws: number of resamples.
        seed: of the generator made here.
    """
    means = _example_draws(a_N - b_N, draws, np.random.default_rng(seed))
    tolerance = 1e-12  # sums of thirds that cancel must count as no difference, on both sides
    fewer = min(int(np.sum(means <= tolerance)), int(np.sum(means >= -tolerance)))
    low, high = np.quantile(means, (0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2))
    return Draws(float(low), float(high), min(1.0, 2 * (fewer + 1) / (draws + 1)))


def hierarchical_bootstrap(
    a: Scored, b: Scored, draws: int = BOOTSTRAP_DRAWS, seed: int = BOOTSTRAP_SEED
) -> Draws | None:
    """Return interval and p-value of a's accuracy minus b's, resampling seeds, then examples in pairs.

    Three seeds drawn from three with replacement understate their spread: such intervals cover 83 % instead of 95 %
    where seeds differ much. So the deviations of seeds are scaled to the variance they estimate (Rao and Wu 1988),
    intervals are widened as t does for so few seeds (Hesterberg 2015), and the p-value is that of t with
    Satterthwaite's degrees of freedom and the cautious estimate of luck. docs/decisions/0021 has the figures.

    A candidate with one seed whose luck is not known is taken to have that of the other candidate.

    Returns:
        None where no candidate has two seeds, so that nothing is known of their luck.
    """
    lucks = luck_of_both(a, b)
    if lucks == (None, None):
        return None
    generator = np.random.default_rng(seed)
    means = _example_draws(a.mean_N - b.mean_N, draws, generator)
    for sign, candidate, luck in zip((1, -1), (a, b), lucks, strict=True):
        if luck is not None and luck.variance:
            picked = generator.integers(0, luck.seeds, (draws, len(candidate.correct_SN)))
            means = means + sign * luck.deviations_S[picked].mean(axis=1)
    value = float(a.mean_N.mean() - b.mean_N.mean())
    spread = spread_of_difference(a, b)
    low, high = value + spread.factor * (np.quantile(means, (0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2)) - value)
    p = spread_of_difference(a, b, cautious=True).p(value)
    return Draws(max(-1.0, float(low)), min(1.0, float(high)), p)


def luck_of_both(a: Scored, b: Scored) -> tuple[SeedLuck | None, SeedLuck | None]:
    """Return the luck of both candidates' seeds; a candidate with one seed that varies is given the other's."""
    own_a, own_b = seed_luck(a.correct_SN), seed_luck(b.correct_SN)
    return (own_a or (own_b if a.varies else None), own_b or (own_a if b.varies else None))


def spread_of_difference(a: Scored, b: Scored, *, cautious: bool = False) -> Spread:
    """Return the chance in a's accuracy minus b's: examples in pairs, and the seeds of both.

    Args:
        a: one candidate.
        b: another, over the same examples.
        cautious: take the larger estimate of the seeds' luck, as tests do; intervals take the one without bias.
    """
    parts = [(luck, 1 / len(candidate.correct_SN)) for luck, candidate in zip(luck_of_both(a, b), (a, b), strict=True)]
    return _spread(a.mean_N - b.mean_N, parts, cautious=cautious)


def spread_of_accuracy(candidate: Scored) -> Spread:
    """Return the chance in a candidate's accuracy: examples, and seeds where there are several."""
    return _spread(candidate.mean_N, [(seed_luck(candidate.correct_SN), 1 / len(candidate.correct_SN))], cautious=False)


def _spread(value_N: Floats, parts: list[tuple[SeedLuck | None, float]], *, cautious: bool) -> Spread:
    n = len(value_N)
    examples = float(value_N.var(ddof=1)) / n if n > 1 else 0.0
    # where two candidates part on four examples of a thousand, these four are all that is known of the variance
    _, counts = np.unique(np.round(value_N, 12), return_counts=True)
    variance, uncertainty = examples, examples**2 / max(1, n - int(counts.max()) - 1)
    shares: dict[int, float] = {}  # one estimate that stands for both candidates counts as one
    sources = {id(luck): luck for luck, _ in parts if luck is not None}
    for luck, share in parts:
        if luck is not None:
            shares[id(luck)] = shares.get(id(luck), 0.0) + share
    for key, luck in sources.items():
        estimate = luck.cautious if cautious else luck.variance
        if estimate:
            scale = 1 / _low_of_variance(luck.seeds - 1) if cautious else 1.0
            variance += shares[key] * estimate
            uncertainty += (shares[key] * scale * luck.uncorrected) ** 2 / (luck.seeds - 1)
    return Spread(variance, variance**2 / uncertainty if uncertainty else math.inf)


def _example_draws(value_N: Floats, draws: int, generator: np.random.Generator) -> Floats:
    """Return the means of resampled examples.

    Drawing N examples with replacement is drawing how often each distinct value occurs, which is multinomial.
    Differences of right and wrong take few values, so that all draws together cost milliseconds whatever N is.
    """
    values, counts = np.unique(np.round(value_N, 12), return_counts=True)
    n = len(value_N)
    return np.asarray(generator.multinomial(n, counts / n, size=draws) @ values / n)
