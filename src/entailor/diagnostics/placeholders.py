"""Texts that stand for a missing one: "nan", "None", "null" as other programs write an empty cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from entailor.config.plain import share
from entailor.data.example import Example
from entailor.diagnostics.base import CheckInput, CheckOutcome, DoctorFinding, check, of_rows
from entailor.diagnostics.lengths import FIELDS

NAME = "placeholders"
MANY = 0.001  # of a part; a few may be meant
WORDS = frozenset({"nan", "none", "null", "n/a", "na", "<na>", "nil", "undefined", "#n/a", "#value!", "#ref!", "nat"})


@check(NAME, 'texts that say "nan", "None" or the like where there is none')
def placeholders(evidence: CheckInput) -> CheckOutcome:
    """Look for texts that are nothing but such a word."""
    fields = list(FIELDS) if evidence.is_pair else ["text"]
    return CheckOutcome(
        tuple(one for part, rows in evidence.split.parts() for field in fields for one in _in(part, rows, field))
    )


def _in(part: str, rows: Sequence[Example], field: str) -> Iterator[DoctorFinding]:
    found = np.flatnonzero([(getattr(row, field) or "").strip().casefold() in WORDS for row in rows])
    if not len(found):
        return
    words = ", ".join(repr(word) for word in dict.fromkeys(getattr(rows[at], field).strip() for at in found.tolist()))
    counted = share(len(found), len(rows))
    yield DoctorFinding(
        NAME,
        "placeholder_text",
        "warning" if len(found) > MANY * len(rows) else "info",
        f"the {FIELDS[field]} of {counted} of {part} is nothing but {words}, as other programs write an empty cell",
        "Fill the texts in or leave the examples out",
        *of_rows(part, [rows[at] for at in found.tolist()]),
    )
