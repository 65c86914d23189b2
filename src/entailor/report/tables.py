"""A comparison and a classification report as text, and figures as people write them.

Everything here is for reading; programs read comparison.json.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from entailor.evaluation.comparison import short_model_names
from entailor.evaluation.recommendation import peak_memory as memory
from entailor.evaluation.wording import count, decimal, duration, interval, p_value, percent, points, rate, size
from entailor.runs.record import NO_MODEL

if TYPE_CHECKING:
    from rich.table import Table

    from entailor.evaluation.metrics import Metrics

__all__ = [
    "classification_report_text",
    "comparison_table",
    "count",
    "decimal",
    "duration",
    "failures",
    "interval",
    "mark",
    "memory",
    "p_value",
    "percent",
    "plain_table",
    "points",
    "rate",
    "row_names",
    "size",
]


def row_names(comparison: Mapping[str, Any]) -> list[str]:
    """Return what each row is called: the method, and the model's short name where there are several models."""
    rows = comparison["rows"]
    short = short_model_names([row["model"] for row in rows])
    named = short if len(short) > 1 else {}
    return [row["method"] + (f" · {named[row['model']]}" if row["model"] in named else "") for row in rows]


def mark(row: Mapping[str, Any]) -> str:
    """Return ``*`` for the best row, ``=`` for a row that does not differ significantly from it, else a blank."""
    if row["best"]:
        return "*"
    return "=" if row["tied_with_best"] else " "


HEADINGS = ("  method", "accuracy (95 %)", "same", "F1", "train", "memory", "params", "stored")
LEGEND = (
    "* best   = level with the best   same: rows that share a letter do not differ significantly   ° in the Pareto set   "
    "F1: macro   memory: peak   params: trained"
)


def _cells(comparison: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            f"{mark(row)} {name}{' (exploratory)' if row.get('exploratory') else ''}",
            "{mean:.1f} ({low:.1f}–{high:.1f})".format(
                **{k: 100 * row["accuracy"][k] for k in ("mean", "low", "high")}
            ),
            row["group"] + ("°" if row["pareto"] else ""),
            decimal(row["macro_f1"], 2),
            duration(row["train_seconds"] or None),
            size(memory(row)),
            count(row["trainable_parameters"]),
            size(row["stored_bytes"]),
        )
        for name, row in zip(row_names(comparison), comparison["rows"], strict=True)
    ]


def closing(comparison: Mapping[str, Any]) -> list[str]:
    """Return what is said below the rows: challenges, the test size's limit, what is recommended and when not."""
    lines = []
    for one in comparison.get("external", ()):
        if one["rows"]:
            best = one["rows"][0]
            figure = f"best {best['method']} with {percent(best['accuracy']['mean'])}"
            lines.append(
                f"challenge {one['name']}: {figure} (its most frequent label: {percent(one['majority_accuracy'])})"
            )
            lines.append(f"    {one['scoring']}")
        else:
            lines.append(f"challenge {one['name']}: left out: {one['error']}")
    recommended = comparison.get("recommendation")
    if recommended:
        lines += [recommended["sentence"], *recommended["changes"]]
    return lines


def failures(comparison: Mapping[str, Any]) -> list[str]:
    """Return one line a failed trial: method, model, seed and the first line of its error."""
    lines = []
    for one in comparison["failed"]:
        model = "" if one["model"] == NO_MODEL else f" on {one['model']}"
        lines.append(f"failed: {one['method']}{model}, seed {one['seed']}: {(one['error'].splitlines() or [''])[0]}")
    return lines


def comparison_table(comparison: Mapping[str, Any]) -> Table:
    """Return the rows of comparison.json for a terminal, best first; failed trials stand below.

    Args:
        comparison: what :func:`entailor.evaluation.comparison.compare_records` returned.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    caption = Text("\n".join([LEGEND, *failures(comparison), *closing(comparison)]))
    table = Table(box=box.SIMPLE_HEAD, title=Text(comparison["sentence"]), caption=caption, padding=(0, 1, 0, 0))
    table.title_justify = table.caption_justify = "left"
    table.show_edge = table.pad_edge = False
    table.add_column(HEADINGS[0], overflow="fold")
    for heading in HEADINGS[1:]:
        table.add_column(heading, justify="right", no_wrap=heading != "same", overflow="fold")
    for row, cells in zip(comparison["rows"], _cells(comparison), strict=True):
        style = "bold green" if row["best"] else "green" if row["tied_with_best"] else ""
        table.add_row(*(Text(cell) for cell in cells), style=style)
    return table


def plain_table(comparison: Mapping[str, Any]) -> str:
    """Return the rows as lines of columns parted by two or more spaces, for logs and pipes; no colours, no wrapping."""
    lines = align([HEADINGS, *_cells(comparison)], left={0}) if comparison["rows"] else []
    legend = [LEGEND] if comparison["rows"] else []
    return "\n".join([*lines, *legend, *failures(comparison), *closing(comparison), comparison["sentence"]])


def classification_report_text(metrics: Metrics) -> str:
    """Return precision, recall, F1 and support a label, the totals, and the confusion matrix, as aligned text.

    A figure that is not defined is called so: precision of a label never predicted is not 0.
    """
    lines: list[tuple[str, ...]] = [("", "precision", "recall", "F1", "support")]
    for label, line in metrics.per_label.items():
        lines.append((label, *map(_defined, (line.precision, line.recall, line.f1)), str(line.support)))
    totals = [
        ("accuracy", f"{percent(metrics.accuracy.value)} ({interval(metrics.accuracy.low, metrics.accuracy.high)})"),
        ("macro F1", _defined(metrics.macro_f1)),
        ("Matthews correlation", _defined(metrics.mcc)),
        ("log loss", _defined(metrics.log_loss)),
        ("calibration error", _defined(metrics.ece)),
    ]
    confusion = [("gold \\ predicted", *metrics.labels)]
    for label, row in zip(metrics.labels, metrics.confusion, strict=True):
        confusion.append((label, *map(str, row)))
    parts = (align(lines, left={0}), align(totals, left={0, 1}), align(confusion, left={0}))
    return "\n\n".join("\n".join(part) for part in parts)


def _defined(value: float | None) -> str:
    return "undefined" if value is None or math.isnan(value) else f"{value:.3f}"


def align(rows: Sequence[Sequence[str]], left: set[int]) -> list[str]:
    """Pad cells to columns; wide (CJK) characters count as the two cells they take."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        padded = []
        for i, cell in enumerate(row):
            space = " " * (widths[i] - cell_len(cell))
            padded.append(cell + space if i in left else space + cell)
        lines.append("  ".join(padded).rstrip())
    return lines
