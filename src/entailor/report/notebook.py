"""A finished run in the cell of a notebook: recommendation, table, plot, and a link to the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from entailor.report import plots, tables
from entailor.runs.layout import RunFolder

TEMPLATE = """\
{% if recommended %}<p><b>{{ recommended }}</b></p>{% endif %}
<p>{{ sentence }}</p>
{% if lines %}<table>
<thead><tr>{% for one in headings %}<th>{{ one }}</th>{% endfor %}</tr></thead>
<tbody>{% for line in lines %}<tr>{% for cell in line %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</tbody>
</table>
<p style="white-space: pre-wrap"><small>{{ legend }}</small></p>
<div style="max-width: 520px">{{ plot }}</div>{% endif %}
{% for line in failures %}<p>{{ line }}</p>{% endfor %}
<p><a href="{{ report }}">{{ report }}</a></p>
"""


def notebook_html(comparison: Mapping[str, Any], recommended: str, folder: RunFolder) -> str:
    """Return the fragment; every text of the user's is escaped.

    Args:
        comparison: the content of comparison.json.
        recommended: what is recommended, as a sentence.
        folder: the run's, whose report is linked by its path, as a notebook beside it needs it.
    """
    from jinja2 import Environment
    from markupsafe import Markup

    candidates, names = comparison["candidates"], tables.candidate_names(comparison)
    drawn = plots.accuracy_with_intervals(names, candidates, comparison["majority_accuracy"]) if candidates else ""
    return (
        Environment(autoescape=True)
        .from_string(TEMPLATE)
        .render(
            sentence=comparison["sentence"],
            headings=[heading.strip() for heading in tables.headings(comparison)],
            lines=tables.cells(comparison),
            legend=tables.LEGEND,
            plot=Markup(drawn),  # noqa: S704 - matplotlib escapes the names in it
            failures=tables.failures(comparison),
            recommended=recommended,
            report=folder.report_file.as_posix(),
        )
    )
