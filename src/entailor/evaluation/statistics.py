"""Intervals of shares, the exact paired test, and the correction for many tests.

Arrays of right and wrong go in, figures come out. Resampling is bootstrap.py, what is compared with what pairs.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from entailor.evaluation.bootstrap import Scored, spread_of_accuracy


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
    return _wilson(share, n, NormalDist().inv_cdf(0.5 + confidence / 2))


def _wilson(share: float, n: float, z: float) -> Proportion:
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


def accuracy_interval(candidate: Scored) -> Proportion:
    """Return a candidate's mean accuracy with a 95 % interval that holds the chance of examples, and of seeds.

    With one seed it is Wilson's. With several it is Wilson's with as many examples as would give the same variance,
    and with the quantile of t that so few seeds ask for, as surveys do it (Franco, Little, Louis, Slud 2019).

    Args:
        candidate: which examples each seed gets right.
    """
    share, n = float(candidate.correct_SN.mean()), candidate.correct_SN.shape[1]
    spread = spread_of_accuracy(candidate)
    if len(candidate.correct_SN) < 2 or spread.variance <= 0:
        return wilson_interval(share, n)
    # 1 - 1 / n: Wilson counts the variance over n, the spread over n - 1
    return _wilson(share, share * (1 - share) / (spread.variance * (1 - 1 / n)), spread.critical)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979), in the order given."""
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected
