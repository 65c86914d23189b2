"""How far stated confidence and observed accuracy lie apart.

Measures calibration; does not mend it (no temperature is fitted here).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NUM_BINS = 15


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Predictions whose confidence falls into one interval ``(low, high]``.

    Attributes:
        low: lower edge of confidence, exclusive (the first bin holds 0 as well).
        high: upper edge, inclusive.
        n: number of predictions.
        confidence: their mean confidence.
        accuracy: the share of them that is right.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def reliability_bins(
    confidence_N: npt.NDArray[np.float64], correct_N: npt.NDArray[np.bool_], num_bins: int = NUM_BINS
) -> tuple[ReliabilityBin, ...]:
    """Return the bins of equal width that hold at least one prediction, lowest first.

    Args:
        confidence_N: probability of the predicted label, 0 to 1, shape (N,).
        correct_N: whether the prediction was right, shape (N,).
        num_bins: bins between 0 and 1.
    """
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    bin_N = np.clip(np.searchsorted(edges, confidence_N, side="left") - 1, 0, num_bins - 1)
    n = np.bincount(bin_N, minlength=num_bins)
    confidence = np.bincount(bin_N, weights=confidence_N, minlength=num_bins)
    right = np.bincount(bin_N, weights=correct_N, minlength=num_bins)
    return tuple(
        ReliabilityBin(
            low=float(edges[i]),
            high=float(edges[i + 1]),
            n=int(n[i]),
            confidence=float(confidence[i] / n[i]),
            accuracy=float(right[i] / n[i]),
        )
        for i in np.flatnonzero(n)
    )


def expected_calibration_error(
    confidence_N: npt.NDArray[np.float64], correct_N: npt.NDArray[np.bool_], num_bins: int = NUM_BINS
) -> float:
    """Return the mean gap between confidence and accuracy over the bins, weighted by their sizes (0 to 1).

    Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks (ICML 2017), with 15 bins of equal width.
    """
    bins = reliability_bins(confidence_N, correct_N, num_bins)
    return sum(b.n * abs(b.accuracy - b.confidence) for b in bins) / len(confidence_N)
