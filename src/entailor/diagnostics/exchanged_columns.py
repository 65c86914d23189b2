"""Pairs whose two texts stand in each other's column in all of validation or test.

A classifier learns from train which of two texts is the first. Where it knows that well and says the opposite of most
of another part, the columns of that part are exchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from entailor.data.example import Example
from entailor.diagnostics.base import MOST_SHOWN, CheckInput, CheckOutcome, DoctorFinding, check, shown

NAME = "exchanged_columns"
MOST_ROWS = 3_000  # of a part
KNOWS = 0.8  # right on so many pairs of train that were held out
FEWEST = 20


@check(NAME, "pairs whose first and second text are exchanged in one part")
def exchanged_columns(evidence: CheckInput) -> CheckOutcome:
    """Learn first from second texts in one half of train, and look at the other half, validation and test."""
    from scipy.sparse import csr_matrix, hstack, vstack
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression

    if not evidence.is_pair:
        return CheckOutcome(skipped="examples are single texts")
    parts = {part: rows[:MOST_ROWS] for part, rows in evidence.split.parts()}
    train = parts["train"]
    if reason := evidence.too_few():
        return CheckOutcome(skipped=reason)
    words = HashingVectorizer(n_features=2**14, alternate_sign=False, norm="l2")
    model = LogisticRegression(C=10.0, solver="liblinear", random_state=evidence.seed)

    def differences(rows: Sequence[Example]) -> Any:
        """Return the first text's features minus the second's, sparse."""
        firsts, seconds = [row.text for row in rows], [row.text_pair or "" for row in rows]
        lengths = np.log1p([[len(a)] for a in firsts]) - np.log1p([[len(b)] for b in seconds])
        return hstack([words.transform(firsts) - words.transform(seconds), csr_matrix(lengths)], format="csr")

    half = differences(train[::2])
    count = half.shape[0]
    model.fit(vstack([half, -half]), np.repeat([1, 0], count))
    right = {
        part: float(np.mean(model.decision_function(differences(rows)) > 0))
        for part, rows in {**parts, "train": train[1::2]}.items()
        if len(rows) >= FEWEST
    }
    facts = {"first_text_recognised": right}
    if right.get("train", 0.0) < KNOWS:
        return CheckOutcome((), facts)
    findings = tuple(
        DoctorFinding(
            NAME,
            "exchanged_columns",
            "warning",
            f"in {100 * (1 - share):.0f} % of the pairs of {part} the first text looks like a second text of train "
            f"(in train itself in {100 * (1 - right['train']):.0f} %)",
            f"Look whether the two text columns of {part} are exchanged; data.columns maps them",
            tuple(shown(part, row) for row in parts[part][:MOST_SHOWN]),
            figures=facts,
        )
        for part, share in right.items()
        if part != "train" and share < 1 - KNOWS
    )
    return CheckOutcome(findings, facts)
