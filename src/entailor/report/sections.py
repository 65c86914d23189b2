"""What the parts of the page on decisions show: the recommendation, all pairs, calibration, external test set.

Only arranges what stands in comparison.json, and passes over what does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SHOWN_COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.5)
MOST_ROWS = 16  # a larger matrix of pairs cannot be read; comparison.json holds it
MOST_GROUPS = 20

Row = Mapping[str, Any]


def recommended(comparison: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any] | None:
    """Return the recommendation, with the row it names where there is one."""
    found = comparison.get("recommendation")
    if not found:
        return None
    row = next((one for one in rows if (one["model"], one["method"]) == (found["model"], found["method"])), None)
    return {**found, "row": row}


def limit_of_test(comparison: Mapping[str, Any]) -> str | None:
    """Return the least difference this test size can show, as a sentence."""
    found = comparison.get("detectable")
    if not found:
        return None
    disagree = f"rows of this run disagree on {100 * found['discordant']:.0f} % of the examples (median)"
    if found["difference"] is None:
        return f"With {comparison['num_test']:,} test examples no difference can be shown: {disagree}."
    return (
        f"With {comparison['num_test']:,} test examples a difference of {100 * found['difference']:.1f} points is "
        f"found in 4 of 5 runs ({disagree}; corrected for {found['pairs']} pairs); smaller ones are easily missed, and "
        "more is needed where seeds differ."
    )


def pair_matrix(comparison: Mapping[str, Any], rows: Sequence[Row]) -> list[dict[str, Any]] | None:
    """Return for every row its difference to every other, or None where there are too few or too many rows."""
    if not 2 < len(rows) <= MOST_ROWS or "pairs" not in comparison:
        return None
    found: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    for one in comparison["pairs"]:
        a, b = ((one[side]["model"], one[side]["method"]) for side in ("a", "b"))
        found[*a, *b] = one
        found[*b, *a] = {**one, "value": -one["value"]}
    return [
        {
            "row": row,
            "cells": [found.get((row["model"], row["method"], other["model"], other["method"])) for other in rows],
        }
        for row in rows
    ]


def calibrations(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return a row's calibration and what it is right in when it answers some of the examples only."""
    if not all(row.get("coverage") for row in rows):
        return []
    return [
        {
            "row": row,
            "calibrated": row.get("calibrated"),
            "points": [
                min(row["coverage"], key=lambda point: abs(point["coverage"] - wanted)) for wanted in SHOWN_COVERAGES
            ],
        }
        for row in rows
    ]


def challenges(comparison: Mapping[str, Any], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the external test set, each row with its look and its title, and the groups as lines."""
    by_key = {(row["model"], row["method"]): row for row in rows}
    shown = []
    for one in comparison.get("external", ()):
        scored = [{**row, "of": by_key[row["model"], row["method"]]} for row in one["rows"]]
        groups = sorted(scored[0]["groups"].items(), key=lambda item: -item[1]["n"]) if scored else []
        shown.append(
            {
                **one,
                "rows": scored,
                "more": max(0, len(groups) - MOST_GROUPS),
                "lines": [
                    {"name": name, "n": first["n"], "accuracies": [row["groups"][name]["accuracy"] for row in scored]}
                    for name, first in groups[:MOST_GROUPS]
                ],
            }
        )
    return shown
