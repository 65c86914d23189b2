"""Repeated, contradicting and empty examples: what `compare` checks in every split, with the examples shown."""

from __future__ import annotations

from entailor.data.checks import Located, locate_findings
from entailor.diagnostics.base import MOST_SHOWN, CheckInput, CheckOutcome, DoctorFinding, check, shown

NAME = "repeated_rows"


@check(NAME, "the same text twice, in one part or in two; contradicting labels; empty texts")
def split_checks(evidence: CheckInput) -> CheckOutcome:
    """Run `check_split` and show the examples its findings name."""
    parts = dict(evidence.split.parts())
    findings = []
    for one in (*map(Located, evidence.reading), *locate_findings(evidence.split)):
        found, rows = one.finding, [parts[one.part][place] for place in one.places]
        some = tuple(shown(one.part, row) for row in rows[:MOST_SHOWN])
        ids = tuple(row.id for row in rows)
        findings.append(DoctorFinding(NAME, found.kind, found.severity, found.message, found.remedy, some, ids))
    return CheckOutcome(tuple(findings))
