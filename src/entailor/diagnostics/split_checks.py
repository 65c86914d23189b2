"""Repeated, contradicting and empty examples: what `compare` checks in every split, with the examples shown."""

from __future__ import annotations

from entailor.data.checks import Located, locate_findings
from entailor.diagnostics.base import CheckInput, CheckOutcome, DoctorFinding, check, of_rows

NAME = "repeated_rows"


@check(NAME, "the same text twice, in one part or in two; contradicting labels; empty texts")
def split_checks(evidence: CheckInput) -> CheckOutcome:
    """Run `check_split` and show the examples its findings name."""
    parts = dict(evidence.split.parts())
    findings = []
    for one in (*map(Located, evidence.reading), *locate_findings(evidence.split)):
        found, rows = one.finding, [parts[one.part][place] for place in one.places]
        words = found.kind, found.severity, found.message, found.remedy
        findings.append(DoctorFinding(NAME, *words, *of_rows(one.part, rows)))
    return CheckOutcome(tuple(findings))
