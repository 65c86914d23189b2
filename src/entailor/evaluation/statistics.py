"""Intervals and paired tests: how sure a figure is, and whether two rows differ at all.

Arrays of right and wrong go in, figures come out; what is compared with what is decided in comparison.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

# A p-value from k draws is never below 2 / (k + 1). Holm multiplies it by the number of rows, so the draws must be
# many; they are cheap, see paired_bootstrap.
BOOTSTRAP_DRAWS = 10_000
BOOTSTRAP_SEED = 0


@dataclass(frozen=True, slots=True)
class Proportion:
    """A share between 0 and 1 with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Accuracy of one row minus that of another on the same examples.

    Attributes:
        value: the difference, -1 to 1.
        low: lower end of its 95 % interval.
        high: upper end.
        p: two-sided p-value of "no difference", not corrected for the number of rows.
        test: what gave the p-value, in words.
    """

    value: float
    low: float
    high: float
    p: float
    test: str


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
    from scipy.stats import binomtest

    only_a = int(np.sum(correct_a_N & ~correct_b_N))
    only_b = int(np.sum(correct_b_N & ~correct_a_N))
    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def paired_bootstrap(
    a_N: npt.NDArray[np.float64], b_N: npt.NDArray[np.float64], draws: int = BOOTSTRAP_DRAWS, seed: int = BOOTSTRAP_SEED
) -> Difference:
    """Return mean(a) - mean(b) with a percentile interval and a p-value, resampling examples in pairs.

    Drawing N examples with replacement is drawing how often each distinct difference occurs, which is multinomial.
    Differences of right and wrong take few values, so that all draws together cost milliseconds whatever N is.

    Args:
        a_N: 0 to 1, mean correctness of a over its seeds, one value an example, shape (N,).
        b_N: the same of b on the same examples, shape (N,).
        draws: number of resamples.
        seed: of the generator made here.
    """
    values, counts = np.unique(np.round(a_N - b_N, 12), return_counts=True)
    n = len(a_N)
    generator = np.random.default_rng(seed)
    means = generator.multinomial(n, counts / n, size=draws) @ values / n
    tolerance = 1e-12  # sums of thirds that cancel must count as no difference, on both sides
    fewer = min(int(np.sum(means <= tolerance)), int(np.sum(means >= -tolerance)))
    low, high = np.quantile(means, (0.025, 0.975))
    return Difference(
        value=float(np.mean(a_N) - np.mean(b_N)),
        low=float(low),
        high=float(high),
        p=min(1.0, 2 * (fewer + 1) / (draws + 1)),
        test="paired bootstrap",
    )


def compare_correctness(correct_a_SN: npt.NDArray[np.bool_], correct_b_SN: npt.NDArray[np.bool_]) -> Difference:
    """Return the difference of two rows: McNemar's test when both have one seed, else the bootstrap of their means.

    The interval comes from the bootstrap in both cases. It holds the chance in which examples were drawn, not the
    chance in which seeds were.

    Args:
        correct_a_SN: whether a is right, shape (seeds of a, examples).
        correct_b_SN: whether b is right on the same examples, shape (seeds of b, examples).
    """
    difference = paired_bootstrap(correct_a_SN.mean(axis=0), correct_b_SN.mean(axis=0))
    if len(correct_a_SN) > 1 or len(correct_b_SN) > 1:
        return difference
    p = mcnemar_exact(correct_a_SN[0], correct_b_SN[0])
    return Difference(difference.value, difference.low, difference.high, p, "McNemar, exact")


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979), in the order given."""
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected
