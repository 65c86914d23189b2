"""Decision thresholds chosen on validation and kept as biases, so that whatever reads the biases decides by them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

Thresholds = Annotated[
    Literal["none", "macro_f1", "mcc"],
    Field(
        description="What the biases of the labels are shifted for, on validation, once the model is fitted: a rare "
        "label then wins below 50 %. Probabilities move with them, in exports too. none: the fit's own biases."
    ),
]

STEPS = np.arange(0, 31) / 20  # 0 leaves the biases; 1 takes all labels for equally frequent


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
