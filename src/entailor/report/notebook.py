"""A finished run in the cell of a notebook: recommendation, table, plot, and a link to the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from entailor.report import plots, tables
from entailor.report.page import filled, safe
from entailor.runs.layout import RunFolder


def notebook_html(comparison: Mapping[str, Any], recommended: str, folder: RunFolder) -> str:
    """Return the fragment; every text of the user's is escaped.

    Args:
        comparison: the content of comparison.json.
        recommended: what is recommended, as a sentence.
        folder: the run's, whose report is linked by its path, as a notebook beside it needs it.
    """
    candidates, names = comparison["candidates"], tables.candidate_names(comparison)
    drawn = plots.accuracy_with_intervals(names, candidates, comparison["majority_accuracy"]) if candidates else ""
    return str(
        filled(
            "notebook.html.j2",
            sentence=comparison["sentence"],
            headings=[heading.strip() for heading in tables.headings(comparison)],
            lines=tables.cells(comparison),
            legend=tables.LEGEND,
            plot=safe(drawn),
            failures=tables.failures(comparison),
            recommended=recommended,
            report=folder.report_file.as_posix(),
        )
    )
