"""How far stated confidence and observed accuracy lie apart, one number that brings them together, and abstaining.

A temperature is fitted on validation and used on test; nothing here is ever fitted on test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NUM_BINS = 15
TEMPERATURES = (0.05, 20.0)
COVERAGES = tuple(step / 20 for step in range(20, 0, -1))
LEAST_PROBABILITY = 1e-300  # a stored probability of 0 was a logarithm below what a float holds


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


def fit_temperature(probabilities_NL: npt.NDArray[np.float64], gold_N: npt.NDArray[np.int64]) -> float:
    """Return the temperature whose probabilities give the least log loss on these examples.

    Logits are divided by it: above 1 it takes confidence away, below 1 it adds some, and which label is most probable
    never changes (Guo et al. 2017, section 4.2). The log loss is charged for half the square of the temperature's
    logarithm, summed over examples: what one example weighs, so that twenty examples that are all right do not ask for
    certainty.

    Args:
        probabilities_NL: of the validation split, shape (N, number of labels).
        gold_N: index of the gold label, shape (N,).

    Returns:
        Between 0.05 and 20.
    """
    from scipy.optimize import minimize_scalar

    logs_NL = np.log(np.maximum(probabilities_NL, LEAST_PROBABILITY))
    rows = np.arange(len(gold_N))

    def loss(log_temperature: float) -> float:
        scaled_NL = logs_NL / np.exp(log_temperature)
        return float((_log_sum_exp(scaled_NL) - scaled_NL[rows, gold_N]).sum() + 0.5 * log_temperature**2)

    low, high = np.log(TEMPERATURES)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def apply_temperature(probabilities_NL: npt.NDArray[np.float64], temperature: float) -> npt.NDArray[np.float64]:
    """Return the probabilities at another temperature, row by row; 1 changes nothing."""
    scaled_NL = np.log(np.maximum(probabilities_NL, LEAST_PROBABILITY)) / temperature
    return np.asarray(np.exp(scaled_NL - _log_sum_exp(scaled_NL)[:, None]))


def _log_sum_exp(values_NL: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    most_N = values_NL.max(axis=1)
    return np.asarray(most_N + np.log(np.exp(values_NL - most_N[:, None]).sum(axis=1)))


@dataclass(frozen=True, slots=True)
class CoveragePoint:
    """What abstaining below a confidence gives.

    Attributes:
        wanted: share of examples that were to be answered.
        coverage: share that is answered.
        accuracy: share of these that is right; None where none is answered.
        confidence: what to give as the least confidence to be answered.
    """

    wanted: float
    coverage: float
    accuracy: float | None
    confidence: float


def coverage_curve(
    confidence_N: npt.NDArray[np.float64], correct_N: npt.NDArray[np.bool_], coverages: Sequence[float] = COVERAGES
) -> tuple[CoveragePoint, ...]:
    """Return accuracy against coverage, with thresholds read off the examples that are judged.

    Such thresholds promise more than they keep; :func:`abstaining` chooses them on other examples.
    Examples of equal confidence stand or fall together in practice; here each of them counts with their mean, so that
    their order in the file decides nothing.

    Args:
        confidence_N: probability of the predicted label, shape (N,).
        correct_N: whether the prediction was right, shape (N,).
        coverages: shares of examples to answer, each above 0.
    """
    accuracy_N, confidence_N = _by_confidence(confidence_N, correct_N)
    n = len(confidence_N)
    kept = [(wanted, max(1, round(wanted * n))) for wanted in coverages]
    return tuple(
        CoveragePoint(wanted, k / n, float(accuracy_N[k - 1]), float(confidence_N[k - 1])) for wanted, k in kept
    )


def abstaining(
    validation_V: npt.NDArray[np.float64],
    confidence_N: npt.NDArray[np.float64],
    correct_N: npt.NDArray[np.bool_],
    coverages: Sequence[float] = COVERAGES,
) -> tuple[CoveragePoint, ...]:
    """Return what thresholds chosen on validation give on test.

    Args:
        validation_V: confidence on the validation split, shape (V,); its quantiles are the thresholds.
        confidence_N: confidence on test, shape (N,).
        correct_N: whether the prediction on test was right, shape (N,).
        coverages: shares of validation to answer, each above 0; 1 answers everything.
    """
    highest_V, points = np.sort(validation_V)[::-1], []
    for wanted in coverages:
        least = float(highest_V[max(1, round(wanted * len(highest_V))) - 1]) if wanted < 1 else 0.0
        answered_N = confidence_N >= least
        accuracy = float(correct_N[answered_N].mean()) if answered_N.any() else None
        points.append(CoveragePoint(wanted, float(answered_N.mean()), accuracy, least))
    return tuple(points)


def area_over_coverage(confidence_N: npt.NDArray[np.float64], correct_N: npt.NDArray[np.bool_]) -> float:
    """Return the mean error over all coverages: 0 where nothing is wrong, lower is better (Geifman et al. 2017)."""
    return 1 - float(_by_confidence(confidence_N, correct_N)[0].mean())


def _by_confidence(
    confidence_N: npt.NDArray[np.float64], correct_N: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return accuracy of the most confident 1, 2, ..., N examples, and the confidence of the last of each."""
    values, place_N, count = np.unique(-confidence_N, return_inverse=True, return_counts=True)
    shared = np.bincount(place_N, weights=correct_N, minlength=len(values)) / count
    accuracy_N = np.cumsum(np.repeat(shared, count)) / np.arange(1, len(confidence_N) + 1)
    return accuracy_N, -np.repeat(values, count)
