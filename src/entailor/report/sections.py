"""What the parts of the page on decisions show: the recommendation, all pairs, calibration, external test set.

Only arranges what stands in comparison.json, and skips what does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from entailor.evaluation.recommendation import CandidateKey, key_of
from entailor.evaluation.targets import METRICS
from entailor.evaluation.wording import NOTHING, lead
from entailor.report.advice import advice

SHOWN_COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.5)
MOST_ROWS = 16  # a larger matrix of pairs cannot be read; comparison.json holds it
MOST_GROUPS = 20

Candidate = Mapping[str, Any]


def recommended(comparison: Mapping[str, Any], candidates: Sequence[Candidate]) -> Mapping[str, Any] | None:
    """Return the recommendation in words, with the candidate it names where there is one."""
    found, said = comparison.get("recommendation"), advice(comparison)
    if not found or said is None:
        return None
    return {**asdict(said), "candidate": next((one for one in candidates if key_of(one) == key_of(found)), None)}


def notices(
    comparison: Mapping[str, Any], candidates: Sequence[Candidate], doctor: Mapping[str, Any] | None
) -> list[dict[str, str]]:
    """Return what a reader must know before trusting the table: one line each, with the part that says more."""
    found = []
    if number := len(comparison["failed"]):
        found.append(("events", f"{number} {_counted(number, 'trial')} failed"))
    if number := sum(bool(candidate["events"]) for candidate in candidates):
        found.append(("events", f"{number} {_counted(number, 'candidate')} raised an alarm"))
    for severity in ("error", "warning"):
        if number := sum(one["severity"] == severity for one in (doctor or {}).get("findings", ())):
            found.append(("doctor", f"{number} {_counted(number, severity)} about the data"))
    if number := sum(bool(candidate.get("exploratory")) for candidate in candidates):
        found.append(("test-reads", f"{number} {_counted(number, 'candidate')} added after test had been read"))
    return [{"place": place, "words": words} for place, words in found]


def _counted(number: int, word: str) -> str:
    return word if number == 1 else f"{word}s"


def limit_of_test(comparison: Mapping[str, Any]) -> str | None:
    """Return the least lead of the best that this test can show, as a sentence."""
    found = comparison.get("detectable")
    if not found:
        return None
    if found["difference"] is None:
        return f"With {comparison['num_test']:,} test examples no difference can be shown: all candidates answer alike."
    seeds = found["seed_share"]
    more = f"; {100 * seeds:.0f} % of the variance is between seeds, where only more seeds help" if seeds > 0.1 else ""
    return (
        f"With {comparison['num_test']:,} test examples a lead of {_lead(comparison, found['difference'])} over "
        f"another candidate is found in 4 of 5 runs (corrected for {found['comparisons']} comparisons with the "
        f"best{more}); smaller ones are easily missed."
    )


def _lead(comparison: Mapping[str, Any], difference: float) -> str:
    shown = lead(comparison["metric"], difference).lstrip("+")
    return (
        f"{shown} points" if comparison["metric"] == "accuracy" else f"{shown} in {METRICS[comparison['metric']].title}"
    )


def hanging_together(comparison: Mapping[str, Any]) -> str | None:
    """Return how far examples that share their first text count as fewer, as a sentence; None where none do."""
    found = comparison.get("clustering")
    if not found or found["design_effect"] is None:
        return None
    return (
        f"The {comparison['num_test']:,} test examples come in {found['clusters']:,} clusters that share their first "
        f"text (intraclass correlation of right and wrong {found['intraclass_correlation']:.2f}, design effect "
        f"{found['design_effect']:.2f}): they show as much as {found['effective_examples']:,} independent ones. Every "
        "interval and test holds that."
    )


def variances(comparison: Mapping[str, Any], candidates: Sequence[Candidate]) -> list[Mapping[str, Any]]:
    """Return of each candidate how far another test sample, seed and split would move its figure, as text."""

    def words(value: float | None) -> str:
        if value is None:
            return NOTHING
        return f"±{100 * value:.1f}" if comparison["metric"] == "accuracy" else f"±{value:.3f}"

    return [
        {"candidate": one, **{name: words(value) for name, value in one["variance"].items()}}
        for one in candidates
        if "variance" in one
    ]


def pair_matrix(comparison: Mapping[str, Any], candidates: Sequence[Candidate]) -> list[Mapping[str, Any]] | None:
    """Return for every candidate its difference to every other; None for too few or too many."""
    if not 2 < len(candidates) <= MOST_ROWS or "pairs" not in comparison:
        return None
    found: dict[tuple[CandidateKey, CandidateKey], Mapping[str, Any]] = {}
    for one in comparison["pairs"]:
        a, b = key_of(one["a"]), key_of(one["b"])
        found[a, b], found[b, a] = one, {**one, "value": -one["value"]}
    return [
        {"candidate": candidate, "cells": [found.get((key_of(candidate), key_of(other))) for other in candidates]}
        for candidate in candidates
    ]


def calibrations(candidates: Sequence[Candidate]) -> list[Mapping[str, Any]]:
    """Return a candidate's calibration and what it is right in when it answers some of the examples only."""
    if not all(candidate.get("coverage") for candidate in candidates):
        return []
    return [
        {
            "candidate": candidate,
            "calibrated": candidate.get("calibrated"),
            "points": [
                min(candidate["coverage"], key=lambda point: abs(point["wanted"] - wanted))
                for wanted in SHOWN_COVERAGES
            ],
        }
        for candidate in candidates
    ]


def external(comparison: Mapping[str, Any], candidates: Sequence[Candidate]) -> list[Mapping[str, Any]]:
    """Return the external test set, each candidate with its look and its title, and the groups as lines."""
    by_key = {key_of(candidate): candidate for candidate in candidates}
    shown: list[Mapping[str, Any]] = []
    for one in comparison.get("external", ()):
        scored = [{**candidate, "of": by_key[key_of(candidate)]} for candidate in one["candidates"]]
        shown.append({**one, "candidates": scored, **by_group(scored, MOST_GROUPS)})
    return shown


def by_group(candidates: Sequence[Candidate], most: int) -> Mapping[str, Any]:
    """Return accuracy by group and candidate as lines, the largest groups first, and how many groups are left out."""
    groups = sorted(candidates[0]["groups"].items(), key=lambda item: -item[1]["n"]) if candidates else []
    lines = [
        {
            "name": name,
            "n": first["n"],
            "accuracies": [candidate["groups"][name]["accuracy"] for candidate in candidates],
        }
        for name, first in groups[:most]
    ]
    return {"more": max(0, len(groups) - most), "lines": lines}
