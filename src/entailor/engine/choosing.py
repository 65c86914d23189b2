"""What validation chooses by, and how much each training label counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from entailor.classifiers.thresholds import FIGURES
from entailor.config.costs import cost_matrix
from entailor.methods.base import TrainedMethod


def figure_of_choice(
    method: TrainedMethod, predicted_E: NDArray[np.int64], gold_E: NDArray[np.int64], labels: Sequence[str]
) -> float | None:
    """Return macro F1 over the labels in gold, Matthews correlation, quadratic weighted kappa or minus the mean cost.

    None where accuracy or the loss chooses.

    Args:
        method: whose `metric_for_best_model` says which.
        predicted_E: predicted labels, as indices.
        gold_E: gold labels.
        labels: their names.
    """
    if method.metric_for_best_model in FIGURES:
        return FIGURES[method.metric_for_best_model](gold_E, predicted_E)
    if method.metric_for_best_model == "weighted_kappa":
        from sklearn.metrics import cohen_kappa_score

        if np.ptp(gold_E) == 0:
            return 0.0
        steps = range(1 + int(max(gold_E.max(), predicted_E.max())))
        return float(cohen_kappa_score(gold_E, predicted_E, labels=steps, weights="quadratic"))
    if method.metric_for_best_model == "cost":
        cost_LL = np.array(cost_matrix(method.costs, labels, "recommend.costs"))
        return -float(cost_LL[gold_E, predicted_E].mean())
    return None


def merit(metric: str, accuracy: float, loss: float, figure: float | None) -> tuple[float, float]:
    """Return what is compared, first by the metric and then by the loss; more is better.

    Args:
        metric: as in `TrainedMethod.metric_for_best_model`.
        accuracy: 0 to 1.
        loss: nats.
        figure: of `figure_of_choice`.
    """
    if metric == "loss":
        return -loss, accuracy
    return (accuracy if figure is None else figure), -loss


def weights_of_labels(targets_E: NDArray[np.int64], num_labels: int) -> NDArray[np.float32]:
    """Return weight_L, the inverse frequency of each label, one on average over examples; 0 for labels train lacks."""
    counts_L = np.bincount(targets_E, minlength=num_labels)
    present = np.count_nonzero(counts_L)
    weight_L = np.zeros(num_labels, np.float32)
    weight_L[counts_L > 0] = len(targets_E) / (present * counts_L[counts_L > 0])
    return weight_L
