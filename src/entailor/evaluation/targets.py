"""Metrics as a mean over examples, so that one variance serves the interval, the tests and the choice by any of them.

Accuracy, log loss and Brier score are such means. The others are smooth functions of shares: to first order the metric
of a sample is the metric itself plus the mean of its influence values (the infinitesimal jackknife, Jaeckel 1972; Efron
1982, *The Jackknife, the Bootstrap and Other Resampling Plans*, chapter 6), whose variance is that of the bootstrap for
many examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from entailor.config.costs import cost_matrix
from entailor.config.parts import Priorities
from entailor.evaluation.metrics import Outcome
from entailor.evaluation.statistics import Proportion, accuracy_interval
from entailor.evaluation.variance import SAME, Scored, spread_of_mean

Floats = npt.NDArray[np.float64]
Values = Floats | npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Metric:
    """What a metric is called, and which way is better.

    Attributes:
        name: as in `recommend.metric` and comparison.json.
        title: what it is called in a sentence.
        sign: 1 where more is better, -1 where less is.
    """

    name: str
    title: str
    sign: int


@dataclass(frozen=True)
class Target(Metric):
    """A metric that candidates may be ordered, tested and recommended by.

    Attributes:
        low: the least it can be.
        high: the most.
        values_N: of an outcome, what each example contributes; the mean is the metric. NaN where it is not defined.
    """

    low: float
    high: float
    values_N: Callable[[Outcome], Values]

    def gain(self, outcomes: Sequence[Outcome], varies: bool, cluster_N: npt.NDArray[np.int64] | None) -> Scored:
        """Return what each seed gives for each example, turned so that more is better."""
        values_SN = np.array([self.values_N(one) for one in outcomes])
        # counts of right and wrong stay counts: McNemar's test asks for them
        return Scored(values_SN if self.sign > 0 else -values_SN, varies, cluster_N)

    def interval(self, scored: Scored) -> Proportion:
        """Return the metric with its 95 % interval, not turned; `scored` is what :meth:`gain` gave."""
        if scored.values_SN.dtype == bool:
            return accuracy_interval(scored)
        value = self.sign * scored.mean
        if math.isfinite(self.high) and np.ptp(scored.values_SN) <= SAME and {self.low, self.high} & {round(value, 9)}:
            return self._at_an_end(value, scored)
        # what every example gives is there by definition: the area under the curve of one score for everything
        half = spread_of_mean(scored).half_width() if np.ptp(scored.values_SN) > SAME else 0.0
        return Proportion(value, max(self.low, value - half), min(self.high, value + half))

    def _at_an_end(self, value: float, scored: Scored) -> Proportion:
        """Return the interval where every example gives the best or the worst there is: that of all right, to scale."""
        wide = self.high - self.low
        share = accuracy_interval(replace(scored, values_SN=np.full(scored.values_SN.shape, value > self.low)))
        return Proportion(value, self.low + wide * share.low, self.low + wide * share.high)


def _log_loss(result: Outcome) -> Floats:
    gold_N = result.probabilities_NL[np.arange(len(result.gold_N)), result.gold_N]
    return np.asarray(-np.log(np.clip(gold_N, np.finfo(float).eps, 1.0)))


def _brier(result: Outcome) -> Floats:
    """Sum over labels of the squared distance to 0 or 1 (Brier 1950): 0 to 2."""
    rest_NL = result.probabilities_NL - np.eye(result.probabilities_NL.shape[1])[result.gold_N]
    return np.asarray((rest_NL**2).sum(axis=1))


def _macro_f1(result: Outcome) -> Floats:
    """Mean over the labels that occur in gold of F1 = 2 TP / (gold + predicted)."""
    num_labels = result.probabilities_NL.shape[1]
    gold_NL, said_NL = np.eye(num_labels)[result.gold_N], np.eye(num_labels)[result.predicted_N]
    occurs_L = gold_NL.any(axis=0)
    gold_NL, said_NL = gold_NL[:, occurs_L], said_NL[:, occurs_L]
    hit_NL, all_NL = 2 * gold_NL * said_NL, gold_NL + said_NL
    hit_L, all_L = hit_NL.mean(axis=0), all_NL.mean(axis=0)
    influence_NL = (hit_NL - hit_L) / all_L - hit_L * (all_NL - all_L) / all_L**2
    return np.asarray((hit_L / all_L + influence_NL).mean(axis=1))


def _mcc(result: Outcome) -> Floats:
    """Covariance of gold and predicted labels over the root of their variances (Gorodkin 2004)."""
    n, num_labels = result.probabilities_NL.shape
    gold_L = np.bincount(result.gold_N, minlength=num_labels) / n
    said_L = np.bincount(result.predicted_N, minlength=num_labels) / n
    var_gold, var_said = 1 - float(gold_L @ gold_L), 1 - float(said_L @ said_L)
    if var_gold <= 0:
        return np.full(n, np.nan)
    if var_said <= 0:  # one label for everything: agreement is that of chance
        return np.zeros(n)
    both = float(gold_L @ said_L)
    agreement = float(result.correct_N.mean()) - both
    change_N = (
        result.correct_N - result.correct_N.mean() - said_L[result.gold_N] - gold_L[result.predicted_N] + 2 * both
    )
    gold_N = 2 * (float(gold_L @ gold_L) - gold_L[result.gold_N])
    said_N = 2 * (float(said_L @ said_L) - said_L[result.predicted_N])
    root = np.sqrt(var_gold * var_said)
    value = agreement / root
    return np.asarray(value + change_N / root - value / 2 * (gold_N / var_gold + said_N / var_said))


def _over_labels(one: Callable[[npt.NDArray[np.bool_], Floats], Floats]) -> Callable[[Outcome], Floats]:
    """Return the mean over the labels that occur in gold, and are not all of it, of each against the rest."""

    def mean(result: Outcome) -> Floats:
        found = [
            one(result.gold_N == label, result.probabilities_NL[:, label])
            for label in range(result.probabilities_NL.shape[1])
            if 0 < (result.gold_N == label).sum() < len(result.gold_N)
        ]
        return np.asarray(np.mean(found, axis=0)) if found else np.full(len(result.gold_N), np.nan)

    return mean


def _area_under_roc(is_label_N: npt.NDArray[np.bool_], score_N: Floats) -> Floats:
    """Share of pairs in the right order, ties half; an example's part is that of DeLong et al. 1988."""
    from scipy.stats import rankdata

    n, positives = len(score_N), int(is_label_N.sum())
    negatives = n - positives
    rank_N = rankdata(score_N)
    within_N = np.empty(n)
    within_N[is_label_N], within_N[~is_label_N] = rankdata(score_N[is_label_N]), rankdata(score_N[~is_label_N])
    other_N = rank_N - within_N  # examples of the other kind that are scored lower, ties half
    right_N = np.where(is_label_N, other_N / negatives, 1 - other_N / positives)
    area = float(right_N[is_label_N].mean())
    weight_N = np.where(is_label_N, n / positives, n / negatives)
    return np.asarray(area + weight_N * (right_N - area))


def _average_precision(is_label_N: npt.NDArray[np.bool_], score_N: Floats) -> Floats:
    """Mean over the label's examples of the precision at their score, as scikit-learn has it."""
    n, positives = len(score_N), int(is_label_N.sum())
    scores_D, place_N = np.unique(-score_N, return_inverse=True)  # highest first
    hits_D = np.bincount(place_N, weights=is_label_N, minlength=len(scores_D))
    above_D = np.cumsum(np.bincount(place_N, minlength=len(scores_D)))
    precision_D = np.cumsum(hits_D) / above_D
    area = float(hits_D @ precision_D) / positives
    # an example changes the precision at every score that is not above its own
    more_D = np.cumsum((hits_D / above_D)[::-1])[::-1]
    less_D = np.cumsum((hits_D * precision_D / above_D)[::-1])[::-1]
    own_N = is_label_N * (precision_D[place_N] - area)
    change_N = n / positives * (own_N + is_label_N * more_D[place_N] - less_D[place_N])
    return np.asarray(area + change_N)


TARGETS = {
    one.name: one
    for one in (
        Target("accuracy", "accuracy", 1, 0.0, 1.0, lambda result: result.correct_N),
        Target("macro_f1", "macro F1", 1, 0.0, 1.0, _macro_f1),
        Target("mcc", "Matthews correlation", 1, -1.0, 1.0, _mcc),
        Target("log_loss", "log loss", -1, 0.0, np.inf, _log_loss),
        Target("brier", "Brier score", -1, 0.0, 2.0, _brier),
        Target("auroc", "area under the ROC curve", 1, 0.0, 1.0, _over_labels(_area_under_roc)),
        Target("average_precision", "average precision", 1, 0.0, 1.0, _over_labels(_average_precision)),
    )
}

OF_PROBABILITIES = frozenset({"log_loss", "brier", "auroc", "average_precision"})  # whatever the answers are
NEED_TWO_LABELS = ("mcc", "auroc", "average_precision")  # not defined where all test examples have one label
COST = Metric("cost", "mean cost", -1)
METRICS: dict[str, Metric] = {**TARGETS, COST.name: COST}  # all of them, for those who read a comparison


def undefined(target: Metric) -> str:
    """Say that test has no such figure, and what to do."""
    return (
        f"recommend.metric={target.name}: {target.title} is not defined where all test examples have one label. "
        "Set recommend.metric=accuracy, or test on examples of every label"
    )


def targets_of(priorities: Priorities, labels: Sequence[str]) -> dict[str, Target]:
    """Return name to metric, the mean cost among them where there are costs.

    Raises:
        ConfigError: the costs are not those of the labels.
    """
    if not priorities.costs:
        return TARGETS
    cost_LL = np.array(cost_matrix(priorities.costs, labels, "recommend.costs"))

    def cost_N(result: Outcome) -> Floats:
        return np.asarray(cost_LL[result.gold_N, result.predicted_N])

    cost = Target(COST.name, COST.title, COST.sign, float(cost_LL.min()), float(cost_LL.max()), cost_N)
    return {**TARGETS, COST.name: cost}
