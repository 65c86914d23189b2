"""Decisions moved by validation: a shift of the labels' logits, so that whatever reads these decides by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from entailor.config.costs import Costs, cost_matrix
from entailor.errors import ConfigError

Thresholds = Annotated[
    Literal["none", "macro_f1", "mcc", "cost"],
    Field(
        description="What the labels' logits are shifted for, on validation, once the classifier is finished: a rare "
        "label then wins below 50 %. cost: the label of least expected cost. Probabilities move with them, in exports "
        "too. none: as they are."
    ),
]

ThresholdCosts = Annotated[
    Costs, Field(description="What answers cost where thresholds is cost; empty: those of recommend.costs.")
]

STEPS = np.arange(0, 31) / 20  # 0 leaves the biases; 1 takes all labels for equally frequent
LEAST_COST = 1e-9  # of a label that may be missed for nothing, as a share of the highest: it has a finite logit


def chosen_shift(
    method: Any,
    logits_VL: NDArray[np.float64],
    gold_V: NDArray[np.int64],
    counts_L: NDArray[np.int64],
    temperature: float,
    labels: Sequence[str],
) -> tuple[NDArray[np.float64], str]:
    """Return what a method's `thresholds` add to each label's logit, and that in words.

    Args:
        method: has `thresholds`, and `costs` where these are what counts.
        logits_VL: of validation.
        gold_V: its labels.
        counts_L: examples of each label in train.
        temperature: fitted on validation.
        labels: their names.
    """
    if method.thresholds != "cost":
        return adjusted_biases(logits_VL, gold_V, counts_L, method.thresholds)
    cost_LL = np.array(cost_matrix(method.costs, labels, "costs"))
    missed_L = missing_costs(cost_LL, labels, "costs")
    shift_L = temperature * np.log(np.maximum(missed_L / missed_L.max(), LEAST_COST))
    without, with_it = (cost_LL[gold_V, one_VL.argmax(axis=1)].mean() for one_VL in (logits_VL, logits_VL + shift_L))
    return shift_L, (
        f"thresholds: least expected cost at temperature {temperature:.3g} (mean cost on validation {with_it:.3g}, "
        f"without {without:.3g})"
    )


def missing_costs(cost_LL: NDArray[np.float64], labels: Sequence[str], where: str) -> NDArray[np.float64]:
    """Return what it costs to miss each label, above what finding it costs.

    Where every wrong answer to a label costs the same, its probability times this decides for the least expected cost
    (Elkan 2001, *The Foundations of Cost-Sensitive Learning*, section 1), and that is a shift of its logit.

    Args:
        cost_LL: of each predicted label (columns) for each gold one (rows).
        labels: their names.
        where: the key that holds the costs, for messages.

    Raises:
        ConfigError: wrong answers to one label differ in cost, or cost less than the right one.
    """
    excess_LL = cost_LL - cost_LL.diagonal()[:, None]
    for gold, excess_L in zip(labels, excess_LL, strict=True):
        wrong = [value for label, value in zip(labels, excess_L.tolist(), strict=True) if label != gold]
        if min(wrong) < max(wrong) or min(wrong) < 0:
            raise ConfigError(
                f"{where}: mistakes on {gold!r} cost {min(wrong):g} to {max(wrong):g} more than the right answer. "
                "thresholds=cost moves one threshold a label, which decides for the least expected cost only where all "
                "mistakes on a label cost the same, and no less than the right answer. Give each label one cost, or "
                "leave out thresholds"
            )
    return np.asarray(excess_LL.max(axis=1))


def adjusted_biases(
    logits_VL: NDArray[np.float64], gold_V: NDArray[np.int64], counts_L: NDArray[np.int64], metric: str
) -> tuple[NDArray[np.float64], str]:
    """Return what to add to each label's logit so that a metric is best on validation, and that in words.

    Post-hoc logit adjustment (Menon et al. 2021, *Long-tail Learning via Logit Adjustment*, section 4.1): a label's
    logit less tau times the log of its share in train. Only tau is chosen. Of two labels it sets the threshold on the
    probability of one; a threshold a label was chosen too closely on few examples (docs/decisions/0049).

    Args:
        logits_VL: of validation.
        gold_V: its labels.
        counts_L: examples of each label in train; one without any stays as it is.
        metric: macro_f1 (over the labels in gold) or mcc.
    """
    share_L = counts_L / counts_L.sum()
    rarer_L = -np.log(np.where(counts_L > 0, share_L, 1.0))
    values = [FIGURES[metric](gold_V, (logits_VL + tau * rarer_L).argmax(axis=1)) for tau in STEPS]
    tau = float(STEPS[int(np.argmax(values))])
    return (
        tau * rarer_L,
        f"thresholds: tau {tau:g} chosen on validation ({metric} {max(values):.3f}, without {values[0]:.3f})",
    )


def _macro_f1(gold_N: NDArray[np.int64], predicted_N: NDArray[np.int64]) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(gold_N, predicted_N, labels=np.unique(gold_N), average="macro", zero_division=0.0))


def _mcc(gold_N: NDArray[np.int64], predicted_N: NDArray[np.int64]) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(gold_N, predicted_N)) if np.ptp(gold_N) else 0.0


FIGURES: dict[str, Callable[[NDArray[np.int64], NDArray[np.int64]], float]] = {"macro_f1": _macro_f1, "mcc": _mcc}
"""Metrics that can choose, of gold and predicted labels as indices; macro F1 is over the labels in gold."""
