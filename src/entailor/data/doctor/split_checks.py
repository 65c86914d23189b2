"""Repeated, contradicting and empty rows: what `compare` checks in every split, with the rows shown."""

from __future__ import annotations

from entailor.data.checks import Finding, check_split
from entailor.data.doctor.base import Diagnosis, Evidence, Outcome, check, shown

NAME = "repeated_rows"


@check(NAME, "the same text twice, in one part or in two; contradicting labels; empty texts")
def split_checks(evidence: Evidence) -> Outcome:
    """Run `check_split` and show the rows its findings name."""
    places = {row.id: (part, row) for part, rows in evidence.split.parts() for row in rows}
    findings = []
    for found in check_split(evidence.split):
        rows = tuple(shown(*places[one]) for one in found.examples if one in places)
        findings.append(
            Diagnosis(NAME, found.kind, found.severity, found.message, _remedy(found), rows, found.examples)
        )
    return Outcome(tuple(findings))


def _remedy(found: Finding) -> str:
    return found.remedy or "Look at the rows"
