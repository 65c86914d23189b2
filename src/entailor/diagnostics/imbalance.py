"""Label counts: labels that are rare, and parts in which labels stand in other proportions than in train."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from entailor.data.checks import Severity
from entailor.diagnostics.base import CheckInput, CheckOutcome, DoctorFinding, check, listed

NAME = "imbalance"
FEW_ROWS = 20  # fewer rows of a label teach little and make its test figures guesses
RATIO_INFO, RATIO_WARNING = 3.0, 10.0
SHIFT = 0.1  # of the total variation distance between two parts' label shares
SURE = 0.001  # p-value below which a shift is no chance


@check(NAME, "labels that are rare, or in other proportions in validation and test")
def imbalance(evidence: CheckInput) -> CheckOutcome:
    """Compare counts of labels within train and across parts."""
    found = {part: Counter(row.label for row in rows) for part, rows in evidence.split.parts() if rows}
    counts = {part: {label: some[label] for label in evidence.labels} for part, some in found.items()}
    findings = (*_within(counts["train"]), *_across(counts))
    return CheckOutcome(findings, {"labels": counts})


def _within(counts: dict[str, int]) -> Iterator[DoctorFinding]:
    most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    ratio = counts[most] / max(1, counts[least])
    if ratio >= RATIO_INFO:
        message = (
            f"{most!r} has {ratio:.1f} times the examples of {least!r} in train ({counts[most]:,} and "
            f"{counts[least]:,})"
        )
        remedy = "Read macro F1 and MCC beside accuracy: naming the most frequent label alone already scores well"
        severity: Severity = "warning" if ratio >= RATIO_WARNING else "info"
        yield DoctorFinding(NAME, "imbalance", severity, message, remedy, figures={"ratio": ratio})
    rare = [label for label, count in counts.items() if count < FEW_ROWS]
    if rare:
        message = f"fewer than {FEW_ROWS} examples of train have the label {listed(rare)}"
        remedy = "Label more of them, or merge the label into another with data.label_names"
        yield DoctorFinding(NAME, "rare_labels", "warning", message, remedy, figures={"labels": rare})


def _across(counts: dict[str, dict[str, int]]) -> Iterator[DoctorFinding]:
    from scipy.stats import chi2_contingency

    train = np.array(list(counts["train"].values()))
    for part in ("validation", "test"):
        if part not in counts:
            continue
        other = np.array(list(counts[part].values()))
        distance = float(np.abs(train / train.sum() - other / other.sum()).sum() / 2)
        present = (train + other) > 0
        p_value = float(chi2_contingency(np.stack([train, other])[:, present]).pvalue)
        if distance > SHIFT and p_value < SURE:
            moved = max(
                counts["train"], key=lambda label: abs(_part(counts, "train", label) - _part(counts, part, label))
            )
            message = (
                f"labels stand in other proportions in {part} than in train: {moved!r} is "
                f"{100 * _part(counts, 'train', moved):.0f} % of train and "
                f"{100 * _part(counts, part, moved):.0f} % of {part}"
            )
            remedy = "Draw both from the same source, or read the figures of each label instead of accuracy"
            figures = {"part": part, "distance": distance, "p_value": p_value}
            yield DoctorFinding(NAME, "label_shift", "warning", message, remedy, figures=figures)


def _part(counts: dict[str, dict[str, int]], part: str, label: str) -> float:
    return counts[part][label] / sum(counts[part].values())
