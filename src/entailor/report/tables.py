"""A comparison and a classification report as text, and figures as people write them.

Everything here is for reading; programs read comparison.json.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from entailor.evaluation.recommendation import peak_memory
from entailor.evaluation.resampling import Resampling
from entailor.evaluation.targets import METRICS
from entailor.evaluation.wording import candidate_titles, count, decimal, duration, interval, percent, size
from entailor.report.advice import advice, correction
from entailor.runs.record import NO_MODEL

if TYPE_CHECKING:
    from rich.table import Table

    from entailor.evaluation.metrics import Metrics


def candidate_names(comparison: Mapping[str, Any]) -> list[str]:
    """Return what each candidate is called: the method, and the model's short name where there are several models."""
    return list(candidate_titles(comparison["candidates"], " · ").values())


def mark(candidate: Mapping[str, Any]) -> str:
    """Return ``*`` for the best candidate, ``=`` for one without a significant difference from it, else a blank."""
    if candidate["best"]:
        return "*"
    return "=" if candidate["tied_with_best"] else " "


HEADINGS = ("  method", "accuracy (95 %)", "group", "F1", "train", "memory", "params", "stored")
ONE_SEED = "one seed, classifiers"  # in the head of the table where nothing is said of methods
LESS_NEEDED = ("params", "memory", "F1", "stored", "train", "group")  # columns a narrow terminal does without, in order
WHOLE_NAME = 26  # characters of the longest name for which columns go; they go for the longest word of any length
MARKS = "* best   = may be the best as well (95 %)   group: who shares a letter does not differ significantly"
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
    shown = (accuracy, group, "F1") if metric == "accuracy" else (f"{METRICS[metric].title} (95 %)", group, "accuracy")
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
            size(peak_memory(candidate)),
            count(candidate["trainable_parameters"]),
            size(candidate["stored_bytes"]),
        )
        for name, candidate in zip(candidate_names(comparison), comparison["candidates"], strict=True)
    ]


def _with_interval(metric: str, found: Mapping[str, float]) -> str:
    if metric == "accuracy":
        return "{value:.1f} ({low:.1f}–{high:.1f})".format(**{key: 100 * value for key, value in found.items()})
    return "{value:.3f} ({low:.3f}–{high:.3f})".format(**found)


def closing(comparison: Mapping[str, Any], *, verbose: bool = False) -> list[str]:
    """Return what stands below the table: failures, external test sets, the data, what is recommended.

    Args:
        comparison: the content of comparison.json.
        verbose: also how external sets were scored, what would change the recommendation, and who is best in words.
    """
    lines = failures(comparison)
    for one in comparison.get("external", ()):
        if one["candidates"]:
            best = one["candidates"][0]
            figure = f"best {best['method']} with {percent(best['accuracy']['mean'])}"
            lines.append(
                f"external test set {one['name']}: {figure} (its most frequent label: "
                f"{percent(one['majority_accuracy'])})"
            )
            if verbose:
                lines.append(f"    {one['scoring']}")
        else:
            lines.append(f"external test set {one['name']}: left out: {one['error']}")
    kappas = [one.get("weighted_kappa") for one in comparison["candidates"]]
    if any(kappa is not None for kappa in kappas):
        told = zip(candidate_names(comparison), kappas, strict=True)
        lines.append("quadratic weighted kappa: " + ", ".join(f"{name} {decimal(kappa, 2)}" for name, kappa in told))
    if corrected := correction(comparison):
        lines.append(corrected)
    if curve := comparison.get("learning_curve"):
        lines.append(curve["sentence"])
    lines += data_line(comparison)
    said = advice(comparison)
    if said:
        lines += [said.sentence, *(said.changes if verbose else ())]
    return [*lines, headline(comparison)] if verbose or not said else lines


def data_line(comparison: Mapping[str, Any]) -> list[str]:
    """Return how many examples there were and what was odd about them, as one line; none where that is not known."""
    sizes = comparison.get("sizes")
    if not sizes:
        return []
    counts = ", ".join(f"{number:,} {part}" for part, number in sizes.items())
    splits = resampling_words(comparison)
    findings = (comparison.get("data") or {}).get("findings", ())
    odd = sum(one["severity"] != "info" for one in findings)
    remark = f"; {odd} {'warning' if odd == 1 else 'warnings'}, which -v and the report tell" if odd else ""
    return [
        *splits,
        f"data: {counts} examples{' a split' if splits else ''}, {len(comparison['labels'])} labels{remark}",
    ]


def resampling_words(comparison: Mapping[str, Any]) -> list[str]:
    """Return how several splits were made and which classifier ships, as one line; none with one split."""
    found = Resampling.of(comparison)
    if found is None:
        return []
    count, examples = len(found.numbers), f"{found.num_test:,} examples"
    if found.kind == "splits":
        same = "the same test examples" if found.same_test else f"{examples} tested in all"
        return [f"{count} splits ({same}): intervals and tests hold the chance of the split. The first one's ships"]
    times = "once" if found.repeats == 1 else f"{found.repeats} times"
    again = f", repeated {found.repeats} times" if found.repeats > 1 else ""
    said = f"{count // found.repeats}-fold cross-validation{again}: each of {examples} is tested {times}"
    recommended = (comparison.get("recommendation") or {}).get("method")
    return [said + (f". {recommended} is fitted again on all of them, and ships" if recommended else "")]


def failures(comparison: Mapping[str, Any]) -> list[str]:
    """Return one line a failed trial: method, model, seed and the first line of its error."""
    lines = []
    for one in comparison["failed"]:
        model = "" if one["model"] == NO_MODEL else f" on {one['model']}"
        split = f", split {one['split']}" if "split" in one else ""
        why = (one["error"].splitlines() or [""])[0]
        lines.append(f"failed: {one['method']}{model}, seed {one['seed']}{split}: {why}")
    return lines


def comparison_table(comparison: Mapping[str, Any], *, width: int, verbose: bool = False) -> Table:
    """Return the candidates of comparison.json for a terminal, best first, with what stands below them.

    Args:
        comparison: what :func:`entailor.evaluation.comparison.compare_records` returned.
        width: of the terminal in characters; where it is too narrow the least needed columns go.
        verbose: explain every column, and say more below.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    rows = [headings(comparison), *cells(comparison)]
    shown = _fitting(rows, width)
    stacked = not shown
    if stacked:  # the figure below the name
        rows, shown = [("\n    ".join(row[:2]),) for row in rows], [0]
    heads, *lines = rows
    marks = [LEGEND if verbose else MARKS] if lines else []
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), expand=stacked)
    table.caption = Text("\n".join([*marks, *closing(comparison, verbose=verbose)]))
    table.caption_justify = "left"
    table.show_edge = table.pad_edge = False
    for i in shown:
        figures = i > 0
        wraps = heads[i] == "group" or not figures
        table.add_column(heads[i], overflow="fold", justify="right" if figures else "left", no_wrap=not wraps)
    for candidate, line in zip(comparison["candidates"], lines, strict=True):
        style = "bold green" if candidate["best"] else "green" if candidate["tied_with_best"] else ""
        table.add_row(*(Text(line[i]) for i in shown), style=style)
    return table


def _fitting(lines: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the columns that fit into a width; none where a word of a name would be broken beside its figure.

    A name is whole up to a length, then it may be broken between words, as its head may.
    """
    from rich.cells import cell_len

    needed = [max(map(cell_len, column)) + 2 for column in zip(*lines, strict=True)]  # with the gap behind
    names = [line[0] for line in lines[1:]]
    longest_word = max((cell_len(word) + 2 for name in names for word in name.split()), default=0)  # behind its mark
    needed[0] = max(min(max(map(cell_len, names), default=0), WHOLE_NAME), longest_word) + 2
    shown = list(range(len(needed)))
    for name in LESS_NEEDED:
        if sum(needed[i] for i in shown) <= width + 2:
            break
        shown.remove(HEADINGS.index(name))
    return shown if sum(needed[i] for i in shown) <= width + 2 else []


def headline(comparison: Mapping[str, Any]) -> str:
    """Return who wins, and whether that candidate was added when results on the same test split were known."""
    first = comparison["candidates"][:1]
    late = [candidate["method"] for candidate in first if candidate.get("exploratory")]
    remark = " {} is exploratory: it was added when results on the same test split were known."
    return str(comparison["sentence"]) + "".join(map(remark.format, late))


def plain_table(comparison: Mapping[str, Any], *, verbose: bool = False) -> str:
    """Return the candidates as lines of columns parted by two or more spaces, for logs and pipes.

    Args:
        comparison: the content of comparison.json.
        verbose: explain every column, and say more below.
    """
    lines = align([headings(comparison), *cells(comparison)], left={0}) if comparison["candidates"] else []
    marks = [LEGEND if verbose else MARKS] if lines else []
    return "\n".join([*lines, *marks, *closing(comparison, verbose=verbose)])


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
