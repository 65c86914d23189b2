"""A comparison and a classification report as text, and figures as people write them.

Everything here is for reading; programs read comparison.json.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from entailor.evaluation.comparison import short_model_names
from entailor.evaluation.recommendation import peak_memory as memory
from entailor.evaluation.targets import TARGETS
from entailor.evaluation.wording import count, decimal, duration, interval, p_value, percent, points, rate, size
from entailor.report.advice import advice, correction
from entailor.runs.record import NO_MODEL

if TYPE_CHECKING:
    from rich.table import Table

    from entailor.evaluation.metrics import Metrics

__all__ = [
    "candidate_names",
    "cells",
    "classification_report_text",
    "comparison_table",
    "count",
    "decimal",
    "duration",
    "failures",
    "headings",
    "interval",
    "mark",
    "memory",
    "p_value",
    "percent",
    "plain_table",
    "points",
    "rate",
    "size",
]


def candidate_names(comparison: Mapping[str, Any]) -> list[str]:
    """Return what each candidate is called: the method, and the model's short name where there are several models."""
    candidates = comparison["candidates"]
    short = short_model_names([candidate["model"] for candidate in candidates])
    named = short if len(short) > 1 else {}
    return [
        candidate["method"] + (f" · {named[candidate['model']]}" if candidate["model"] in named else "")
        for candidate in candidates
    ]


def mark(candidate: Mapping[str, Any]) -> str:
    """Return ``*`` for the best candidate, ``=`` for one without a significant difference from it, else a blank."""
    if candidate["best"]:
        return "*"
    return "=" if candidate["tied_with_best"] else " "


HEADINGS = ("  method", "accuracy (95 %)", "group", "F1", "train", "memory", "params", "stored")
ONE_SEED = "one seed, classifiers"  # in the head of the table where nothing is said of methods
LEGEND = (
    "* best   = may be the best as well (95 %)   group: candidates that share a letter do not differ significantly   "
    "° in the Pareto set   "
    "F1: macro   memory: peak   params: trained"
)


def headings(comparison: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the heads of the columns; with one seed the first says what is compared."""
    first, accuracy, group, _, *rest = HEADINGS
    if comparison.get("claims") == "classifiers":
        first = f"{first} ({ONE_SEED})"
    metric = comparison["metric"]
    shown = (accuracy, group, "F1") if metric == "accuracy" else (f"{TARGETS[metric].title} (95 %)", group, "accuracy")
    return (first, *shown, *rest)


def cells(comparison: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the cells of each candidate, under `HEADINGS`."""
    metric = comparison["metric"]
    return [
        (
            f"{mark(candidate)} {name}{' (exploratory)' if candidate.get('exploratory') else ''}",
            _with_interval(metric, candidate["intervals"][metric]),
            candidate["group"] + ("°" if candidate["pareto"] else ""),
            decimal(candidate["macro_f1"], 2) if metric == "accuracy" else percent(candidate["accuracy"]["mean"]),
            duration(candidate["train_seconds"] or None),
            size(memory(candidate)),
            count(candidate["trainable_parameters"]),
            size(candidate["stored_bytes"]),
        )
        for name, candidate in zip(candidate_names(comparison), comparison["candidates"], strict=True)
    ]


def _with_interval(metric: str, found: Mapping[str, float]) -> str:
    if metric == "accuracy":
        return "{value:.1f} ({low:.1f}–{high:.1f})".format(**{key: 100 * value for key, value in found.items()})
    return "{value:.3f} ({low:.3f}–{high:.3f})".format(**found)


def closing(comparison: Mapping[str, Any]) -> list[str]:
    """Return what is said below the candidates: external test sets, the power of the test, what is recommended."""
    lines = []
    for one in comparison.get("external", ()):
        if one["candidates"]:
            best = one["candidates"][0]
            figure = f"best {best['method']} with {percent(best['accuracy']['mean'])}"
            lines.append(
                f"external test set {one['name']}: {figure} (its most frequent label: "
                f"{percent(one['majority_accuracy'])})"
            )
            lines.append(f"    {one['scoring']}")
        else:
            lines.append(f"external test set {one['name']}: left out: {one['error']}")
    kappas = [one.get("weighted_kappa") for one in comparison["candidates"]]
    if any(kappa is not None for kappa in kappas):
        told = zip(candidate_names(comparison), kappas, strict=True)
        lines.append("quadratic weighted kappa: " + ", ".join(f"{name} {decimal(kappa, 2)}" for name, kappa in told))
    if corrected := correction(comparison):
        lines.append(corrected)
    said = advice(comparison)
    if said:
        lines += [said.sentence, *said.changes]
    return lines


def failures(comparison: Mapping[str, Any]) -> list[str]:
    """Return one line a failed trial: method, model, seed and the first line of its error."""
    lines = []
    for one in comparison["failed"]:
        model = "" if one["model"] == NO_MODEL else f" on {one['model']}"
        lines.append(f"failed: {one['method']}{model}, seed {one['seed']}: {(one['error'].splitlines() or [''])[0]}")
    return lines


def comparison_table(comparison: Mapping[str, Any]) -> Table:
    """Return the candidates of comparison.json for a terminal, best first; failed trials stand below.

    Args:
        comparison: what :func:`entailor.evaluation.comparison.compare_records` returned.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    caption = Text("\n".join([LEGEND, *failures(comparison), *closing(comparison)]))
    table = Table(box=box.SIMPLE_HEAD, title=Text(headline(comparison)), caption=caption, padding=(0, 1, 0, 0))
    table.title_justify = table.caption_justify = "left"
    table.show_edge = table.pad_edge = False
    first, *others = headings(comparison)
    table.add_column(first, overflow="fold")
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=heading != "group", overflow="fold")
    for candidate, shown in zip(comparison["candidates"], cells(comparison), strict=True):
        style = "bold green" if candidate["best"] else "green" if candidate["tied_with_best"] else ""
        table.add_row(*(Text(cell) for cell in shown), style=style)
    return table


def headline(comparison: Mapping[str, Any]) -> str:
    """Return who wins, and whether that candidate was added when results on the same test split were known."""
    first = comparison["candidates"][:1]
    late = [candidate["method"] for candidate in first if candidate.get("exploratory")]
    remark = " {} is exploratory: it was added when results on the same test split were known."
    return str(comparison["sentence"]) + "".join(map(remark.format, late))


def plain_table(comparison: Mapping[str, Any]) -> str:
    """Return the candidates as lines of columns parted by two or more spaces, for logs and pipes."""
    lines = align([headings(comparison), *cells(comparison)], left={0}) if comparison["candidates"] else []
    legend = [LEGEND] if comparison["candidates"] else []
    return "\n".join([*lines, *legend, *failures(comparison), *closing(comparison), headline(comparison)])


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
        *([] if metrics.weighted_kappa is None else [("quadratic weighted kappa", _defined(metrics.weighted_kappa))]),
        ("log loss", _defined(metrics.log_loss)),
        ("calibration error", _defined(metrics.ece)),
    ]
    confusion = [("gold \\ predicted", *metrics.labels)]
    for label, candidate in zip(metrics.labels, metrics.confusion, strict=True):
        confusion.append((label, *map(str, candidate)))
    parts = (align(lines, left={0}), align(totals, left={0, 1}), align(confusion, left={0}))
    return "\n\n".join("\n".join(part) for part in parts)


def _defined(value: float | None) -> str:
    return "undefined" if value is None or math.isnan(value) else f"{value:.3f}"


def align(candidates: Sequence[Sequence[str]], left: set[int]) -> list[str]:
    """Pad cells to columns; wide (CJK) characters count as the two cells they take."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(*candidates, strict=True)]
    lines = []
    for candidate in candidates:
        padded = []
        for i, cell in enumerate(candidate):
            space = " " * (widths[i] - cell_len(cell))
            padded.append(cell + space if i in left else space + cell)
        lines.append("  ".join(padded).rstrip())
    return lines
