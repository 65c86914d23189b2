"""A comparison and a classification report as text, and figures as people write them.

Everything here is for reading; programs read comparison.json.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from entailor.evaluation.comparison import short_model_names
from entailor.record import NO_MODEL

if TYPE_CHECKING:
    from rich.table import Table

    from entailor.evaluation.metrics import Metrics

NOTHING = "–"


def percent(share: float | None) -> str:
    """Return ``61.2 %`` for 0.612, a dash for None."""
    return NOTHING if share is None else f"{100 * share:.1f} %"


def interval(low: float, high: float) -> str:
    """Return ``58.1 to 64.2`` (percent) for two shares."""
    return f"{100 * low:.1f} to {100 * high:.1f}"


def points(share: float) -> str:
    """Return a difference of shares as ``+1.2`` or ``−3.4`` percentage points."""
    return f"{100 * share:+.1f}".replace("-", "−")


def decimal(value: float | None, digits: int = 3) -> str:
    """Return ``0.612``, a dash for None."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def duration(seconds: float | None) -> str:
    """Return seconds as ``0.4 s``, ``75 s``, ``12 min``, ``3.3 h``; a dash for None."""
    if seconds is None:
        return NOTHING
    if seconds < 9.95:
        return f"{seconds:.1f} s" if seconds >= 0.05 or seconds == 0 else "<0.1 s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3570 else f"{seconds / 3600:.1f} h"


def size(num_bytes: float | None) -> str:
    """Return bytes as ``812 B``, ``3.4 MB``, ``707 MB`` (powers of 1,000); a dash for None."""
    return NOTHING if num_bytes is None else _scaled(num_bytes, ("B", "kB", "MB", "GB", "TB"))


def count(number: float | None) -> str:
    """Return a number of parameters as ``812``, ``12.3 k``, ``297 k``, ``8.0 B``; a dash for None."""
    return NOTHING if number is None else _scaled(number, ("", "k", "M", "B")).strip()


def rate(per_second: float | None) -> str:
    """Return examples a second as ``1,234`` or ``3.4``; a dash for None."""
    if per_second is None:
        return NOTHING
    return f"{per_second:.1f}" if per_second < 9.95 else f"{per_second:,.0f}"


def p_value(p: float) -> str:
    """Return ``p = 0.03`` with two digits that count, or ``p < 0.001``."""
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.01 else f"p = {p:.2f}"


def _scaled(value: float, units: Sequence[str]) -> str:
    power = 0
    while power + 1 < len(units) and value >= 999.5:
        value, power = value / 1000, power + 1
    return f"{value:.{1 if power and value < 99.95 else 0}f} {units[power]}"


def row_names(comparison: Mapping[str, Any]) -> list[str]:
    """Return what each row is called: the method, and the model's short name where there are several models."""
    rows = comparison["rows"]
    short = short_model_names([row["model"] for row in rows])
    named = short if len(short) > 1 else {}
    return [row["method"] + (f" · {named[row['model']]}" if row["model"] in named else "") for row in rows]


def mark(row: Mapping[str, Any]) -> str:
    """Return ``*`` for the best row, ``=`` for a row that cannot be told apart from it, else a blank."""
    if row["best"]:
        return "*"
    return "=" if row["cannot_tell_apart_from_best"] else " "


HEADINGS = ("  method", "accuracy (95 %)", "F1", "train", "ex/s", "memory", "params", "stored")
LEGEND = "* best   = level with the best   F1: macro   ex/s: in training   memory: peak   params: trained"


def _cells(comparison: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            f"{mark(row)} {name}{' (exploratory)' if row.get('exploratory') else ''}",
            "{mean:.1f} ({low:.1f}–{high:.1f})".format(
                **{k: 100 * row["accuracy"][k] for k in ("mean", "low", "high")}
            ),
            decimal(row["macro_f1"]),
            duration(row["train_seconds"] or None),
            rate(row["examples_per_second"]),
            size(memory(row)),
            count(row["trainable_parameters"]),
            size(row["stored_bytes"]),
        )
        for name, row in zip(row_names(comparison), comparison["rows"], strict=True)
    ]


def memory(row: Mapping[str, Any]) -> int | None:
    """Return the peak that limits a run: of the GPU where there is one, else of the process, in bytes."""
    gpu: int | None = row["peak_gpu_memory_bytes"]
    host: int | None = row["peak_memory_bytes"]
    return host if gpu is None else gpu


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

    caption = Text("\n".join([LEGEND, *failures(comparison)]))
    table = Table(box=box.SIMPLE_HEAD, title=Text(comparison["sentence"]), caption=caption, padding=(0, 1, 0, 0))
    table.title_justify = table.caption_justify = "left"
    table.show_edge = table.pad_edge = False
    table.add_column(HEADINGS[0], overflow="fold")
    for heading in HEADINGS[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    for row, cells in zip(comparison["rows"], _cells(comparison), strict=True):
        style = "bold green" if row["best"] else "green" if row["cannot_tell_apart_from_best"] else ""
        table.add_row(*(Text(cell) for cell in cells), style=style)
    return table


def plain_table(comparison: Mapping[str, Any]) -> str:
    """Return the rows as lines of columns parted by two or more spaces, for logs and pipes; no colours, no wrapping."""
    lines = align([HEADINGS, *_cells(comparison)], left={0}) if comparison["rows"] else []
    legend = [LEGEND] if comparison["rows"] else []
    return "\n".join([*lines, *legend, *failures(comparison), comparison["sentence"]])


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
