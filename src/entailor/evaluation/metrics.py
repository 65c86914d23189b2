"""Metrics of one trial: how often it is right, where, and how sure of itself.

Reads one record; comparing several is comparison.py. A figure that is not defined is None, never 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from entailor.errors import RunError
from entailor.evaluation.calibration import apply_temperature, expected_calibration_error
from entailor.evaluation.statistics import Proportion, accuracy_interval, number_clusters
from entailor.evaluation.variance import Scored
from entailor.runs.record import RunRecord, cluster_key

HAIR = 1e-9  # of probability


@dataclass(frozen=True)
class Outcome:
    """A record's predictions as arrays, labels as indices into ``record.labels``.

    Attributes:
        gold_N: gold label, shape (N,).
        predicted_N: most probable label, the first on a tie, shape (N,).
        probabilities_NL: shape (N, number of labels). Where there is no answer all are alike, but for a hair more of a
            label that is not gold: it is wrong by every metric, and not sure of it.
    """

    gold_N: npt.NDArray[np.int64]
    predicted_N: npt.NDArray[np.int64]
    probabilities_NL: npt.NDArray[np.float64]

    @property
    def correct_N(self) -> npt.NDArray[np.bool_]:
        """Whether each prediction is right, shape (N,)."""
        return np.equal(self.gold_N, self.predicted_N)

    @property
    def confidence_N(self) -> npt.NDArray[np.float64]:
        """Probability of the predicted label, shape (N,)."""
        return np.asarray(self.probabilities_NL.max(axis=1))


@dataclass(frozen=True, slots=True)
class LabelMetrics:
    """One line of the classification report.

    Attributes:
        precision: None when the label was never predicted.
        recall: None when the label never occurs.
        f1: None when the label neither occurs nor was predicted.
        support: number of examples with this gold label.
    """

    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclass(frozen=True, slots=True)
class GroupMetrics:
    """Accuracy within one group (genre, phenomenon) of `n` examples."""

    n: int
    accuracy: Proportion


@dataclass(frozen=True)
class Metrics:
    """What one trial's predictions are worth.

    Attributes:
        labels: label names; the order of `confusion`.
        num_examples: test examples.
        accuracy: share that is right, with its 95 % interval for this classifier.
        macro_f1: mean F1 of the labels that occur in gold, so that every candidate is averaged over the same ones.
        mcc: Matthews correlation, -1 to 1; 0 when one label is always predicted, None when only one label occurs.
        log_loss: mean of -log of the gold label's probability, nats.
        ece: expected calibration error, 0 to 1.
        per_label: label to its line of the classification report.
        confusion: counts; rows gold, columns predicted; examples without an answer stand in no column.
        groups: group to accuracy, in order of first appearance; examples without a group are left out.
        majority_share: share of predictions that name the most predicted label; 1 is a collapse.
        weighted_kappa: quadratic weighted kappa, -1 to 1, where the labels are steps of a scale; else None.
    """

    labels: tuple[str, ...]
    num_examples: int
    accuracy: Proportion
    macro_f1: float | None
    mcc: float | None
    log_loss: float
    ece: float
    per_label: dict[str, LabelMetrics]
    confusion: tuple[tuple[int, ...], ...]
    groups: dict[str, GroupMetrics]
    majority_share: float
    weighted_kappa: float | None = None


def outcome(record: RunRecord) -> Outcome:
    """Return a record's predictions as arrays.

    Raises:
        RunError: the record failed, is empty, or names labels that are not its own.
    """
    place = f"{record.model}, {record.name}, seed {record.seed}"
    if record.status != "complete":
        raise RunError(f"{place}: this trial failed ({record.error}), so there is nothing to evaluate. Run it again")
    if not record.predictions:
        raise RunError(f"{place}: the record holds no predictions. Delete the trial's folder and run again")
    index = {label: i for i, label in enumerate(record.labels)}
    for one in record.predictions:
        if one.label not in index or one.probabilities.keys() != index.keys():
            raise RunError(
                f"{place}, example {one.id!r}: gold label {one.label!r} and probabilities for "
                f"{', '.join(one.probabilities)} do not fit the labels {', '.join(record.labels)}. "
                "Delete the trial's folder and run again"
            )
    rows = [[one.probabilities[label] for label in record.labels] for one in record.predictions]
    probabilities_NL = np.array(rows, dtype=np.float64)
    if not np.isfinite(probabilities_NL).all():
        raise RunError(f"{place}: probabilities that are no finite numbers. Delete the trial's folder and run again")
    gold_N = np.array([index[one.label] for one in record.predictions])
    silent_N = ~probabilities_NL.any(axis=1)
    probabilities_NL[silent_N] = 1 / len(index)
    probabilities_NL[silent_N, (gold_N[silent_N] + 1) % len(index)] += HAIR
    return Outcome(gold_N, probabilities_NL.argmax(axis=1), probabilities_NL)


def clusters(record: RunRecord) -> npt.NDArray[np.int64] | None:
    """Return the cluster of each test example: those with the same first text, case and spaces aside.

    None where no two share one. `group` (a genre, a phenomenon) is no cluster: a handful of strata that the test set
    holds on purpose, and not a sample of them.
    """
    return number_clusters(
        [one.cluster or (cluster_key(one.text) if one.text else one.id) for one in record.predictions]
    )


def calibrated(result: Outcome, temperature: float) -> Outcome:
    """Return the same predictions with confidence at another temperature; which label is predicted stays."""
    return replace(result, probabilities_NL=apply_temperature(result.probabilities_NL, temperature))


def beyond_chance(result: Outcome, *, by_probability: bool = False) -> npt.NDArray[np.float64]:
    """Return values an example whose mean is the covariance of gold and predicted labels, shape (N,).

    It is the numerator of Matthews correlation (Gorodkin 2004): agreement less what the two sets of label frequencies
    give by chance. 0 in the mean for a classifier whose answers do not depend on gold, the majority baseline included.

    Args:
        result: of one record.
        by_probability: the probabilities stand for the answers: a label that is never the most probable one may still
            be more probable where it is right.
    """
    n, num_labels = result.probabilities_NL.shape
    gold_L = np.bincount(result.gold_N, minlength=num_labels) / n
    said_NL = result.probabilities_NL if by_probability else np.eye(num_labels)[result.predicted_N]
    said_L = said_NL.mean(axis=0)
    hit_N = said_NL[np.arange(n), result.gold_N]
    return np.asarray(hit_N - said_L[result.gold_N] - said_NL @ gold_L + float(gold_L @ said_L))


def most_frequent(result: Outcome) -> Outcome:
    """Return the answers of the majority baseline, the frequencies of the labels its probabilities."""
    n, num_labels = result.probabilities_NL.shape
    gold_L = np.bincount(result.gold_N, minlength=num_labels) / n
    return Outcome(result.gold_N, np.full(n, gold_L.argmax()), np.tile(gold_L, (n, 1)))


def log_loss(result: Outcome) -> float:
    """Return the mean of -log of the gold label's probability, nats."""
    gold_probability_N = result.probabilities_NL[np.arange(len(result.gold_N)), result.gold_N]
    return float(-np.log(np.clip(gold_probability_N, np.finfo(float).eps, 1.0)).mean())


def evaluate_record(record: RunRecord) -> Metrics:
    """Return every metric of one complete record.

    Raises:
        RunError: the record failed, is empty, or names labels that are not its own.
    """
    from sklearn.metrics import confusion_matrix

    result = outcome(record)
    scored = Scored(result.correct_N[None], cluster_N=clusters(record))
    n, num_labels = result.probabilities_NL.shape
    per_label = _per_label(result, record.labels)
    occurring = [line.f1 for line in per_label.values() if line.support and line.f1 is not None]
    answered_N = np.array([any(one.probabilities.values()) for one in record.predictions])
    confusion = np.zeros((num_labels, num_labels), dtype=np.int64)
    if answered_N.any():
        answers = result.gold_N[answered_N], result.predicted_N[answered_N]
        confusion = confusion_matrix(*answers, labels=range(num_labels))
    return Metrics(
        labels=record.labels,
        num_examples=n,
        accuracy=accuracy_interval(scored),
        macro_f1=sum(occurring) / len(occurring) if occurring else None,
        mcc=_matthews(result),
        log_loss=log_loss(result),
        ece=expected_calibration_error(result.confidence_N, result.correct_N),
        per_label=per_label,
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        groups=_groups(record, scored),
        majority_share=float(np.bincount(result.predicted_N).max() / n),
        weighted_kappa=weighted_kappa(result.gold_N, result.predicted_N) if record.provenance.get("ordinal") else None,
    )


def _per_label(result: Outcome, labels: tuple[str, ...]) -> dict[str, LabelMetrics]:
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(
        result.gold_N, result.predicted_N, labels=range(len(labels)), zero_division=np.nan
    )
    return {
        label: LabelMetrics(_defined(precision), _defined(recall), _defined(f1), int(support))
        for label, precision, recall, f1, support in zip(labels, *columns, strict=True)
    }


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _matthews(result: Outcome) -> float | None:
    from sklearn.metrics import matthews_corrcoef

    if np.ptp(result.gold_N) == 0:  # decided by the test set, so that all candidates have the figure or none has it
        return None
    return float(matthews_corrcoef(result.gold_N, result.predicted_N))


def weighted_kappa(gold_N: npt.NDArray[np.int64], predicted_N: npt.NDArray[np.int64]) -> float | None:
    """Return agreement beyond chance with errors weighted by the square of their steps (Cohen 1968, *Weighted Kappa*).

    Args:
        gold_N: places of the gold labels on the scale.
        predicted_N: of the predicted ones.

    Returns:
        1 for all right, 0 for answers that do not depend on gold; None where only one label occurs in gold.
    """
    from sklearn.metrics import cohen_kappa_score

    if np.ptp(gold_N) == 0:
        return None
    steps = range(1 + int(max(gold_N.max(), predicted_N.max())))
    return float(cohen_kappa_score(gold_N, predicted_N, labels=steps, weights="quadratic"))


def _groups(record: RunRecord, scored: Scored) -> dict[str, GroupMetrics]:
    members: dict[str, list[int]] = {}
    for i, one in enumerate(record.predictions):
        if one.group is not None:
            members.setdefault(one.group, []).append(i)
    return {group: GroupMetrics(len(rows), accuracy_interval(scored.among(rows))) for group, rows in members.items()}
