"""The calibration error without the part that comes from few examples, and what it may be.

The mean gap between confidence and accuracy over bins is above 0 for a classifier that is perfectly calibrated, the
more so the fewer examples: each bin's gap has chance in it that the absolute value does not average out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from entailor.evaluation.metrics import Outcome
from entailor.evaluation.variance import CONFIDENCE, Integers, cluster_sums

MOST_BINS = 15
LEAST_IN_BIN = 10  # independent examples, or clusters, on average
ROUNDING = 1e-12  # of a sum of squared gaps that are all alike
MANY = 1e4  # times its scale: a total whose noncentrality is known by the normal distribution

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CalibrationError:
    """Root mean square gap between stated probability and frequency, 0 to 1.

    Attributes:
        value: without bias in its square (Kumar, Liang and Ma 2019, *Verified Uncertainty Calibration*, section 4); 0
            where the gaps are no larger than chance makes them.
        low: lower end of its 95 % interval; 0 where the classifier may be perfectly calibrated.
        high: upper end.
    """

    value: float
    low: float
    high: float


def calibration_error(
    confidence_N: Floats, right_N: npt.NDArray[np.bool_], cluster_N: Integers | None = None
) -> CalibrationError:
    """Return the error of one stated probability an example, in bins that hold equally many examples.

    Each bin's mean gap has a variance. The sum of the squared gaps less that of the variances is without bias; over
    its scale it is a noncentral chi-square variable, whose noncentrality the interval is inverted for.

    Args:
        confidence_N: stated probability, shape (N,).
        right_N: whether what it was stated of is the case, shape (N,).
        cluster_N: as in :class:`~entailor.evaluation.variance.Scored`.
    """
    squares, variances = _gaps(confidence_N, right_N, cluster_N)
    value = math.sqrt(max(0.0, float((squares - variances).sum())))
    low, high = _interval(float(squares.sum()), variances)
    return CalibrationError(value, min(low, value), min(1.0, max(high, value)))


def classwise_calibration_error(result: Outcome, cluster_N: Integers | None = None) -> float:
    """Return the root of the mean over labels of the squared error of the probability of each (Kumar et al. 2019)."""
    errors = [
        float((squares - variances).sum())
        for label in range(result.probabilities_NL.shape[1])
        for squares, variances in [_gaps(result.probabilities_NL[:, label], result.gold_N == label, cluster_N)]
    ]
    return math.sqrt(max(0.0, float(np.mean(errors))))


def mean_error(found: Sequence[CalibrationError]) -> CalibrationError:
    """Return what is said of several seeds: the means of their figures."""
    return CalibrationError(*(float(np.mean([getattr(one, end) for one in found])) for end in ("value", "low", "high")))


def _gaps(confidence_N: Floats, right_N: npt.NDArray[np.bool_], cluster_N: Integers | None) -> tuple[Floats, Floats]:
    """Return a bin's squared gap and the variance of the gap, both times the bin's share of the examples."""
    n = len(confidence_N)
    independent = n if cluster_N is None else int(cluster_N.max()) + 1
    bins = max(1, min(MOST_BINS, independent // LEAST_IN_BIN))
    # equal confidences stay in one bin, so that their order in the file decides nothing
    edges = np.quantile(confidence_N, np.arange(1, bins) / bins)
    bin_N = np.searchsorted(np.unique(edges), confidence_N, side="left")
    gap_N = right_N - confidence_N
    squares, variances = [], []
    for one in np.unique(bin_N):
        places = np.flatnonzero(bin_N == one)
        gap, size = float(gap_N[places].mean()), len(places)
        own = None if cluster_N is None else np.unique(cluster_N[places], return_inverse=True)[1]
        sums_G = cluster_sums(gap_N[places] - gap, own)
        # a bin where all are right knows nothing of its chance by itself: that of its confidence is the least
        stated = float((confidence_N[places] * (1 - confidence_N[places])).sum())
        seen = float((sums_G**2).sum()) * len(sums_G) / max(1, len(sums_G) - 1)
        squares.append(size / n * gap**2)
        variances.append(size / n * (seen if seen > ROUNDING else stated) / size**2)
    return np.array(squares), np.array(variances)


def _interval(total: float, variances: Floats) -> tuple[float, float]:
    from scipy.optimize import brentq
    from scipy.special import chndtr, ndtri

    expected = float(variances.sum())
    if expected <= 0:
        return math.sqrt(total), math.sqrt(total)
    scale = float((variances**2).sum()) / expected  # Satterthwaite's
    freedom, seen, tail = expected / scale, total / scale, (1 - CONFIDENCE) / 2

    def least(share: float) -> float:
        """Return the noncentrality at which so large a share of samples lies below what was seen."""
        if seen > MANY:  # its root is normal with deviation 1 there, and scipy's series ends
            return float(math.sqrt(seen) - ndtri(share)) ** 2
        if chndtr(seen, freedom, 0.0) <= share:
            return 0.0
        high = 4.0 * (seen + 10)
        return float(brentq(lambda at: chndtr(seen, freedom, at) - share, 0.0, high))

    return math.sqrt(scale * least(1 - tail)), math.sqrt(scale * least(tail))
