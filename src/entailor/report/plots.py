"""The report's plots as SVG text that stands inside a page: small, deterministic, without outside references.

Drawn with matplotlib's object interface, so that no global figure state is touched. Text stays text and takes the
page's font; ink takes the page's colour, so that one figure serves light and dark.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from entailor.evaluation.recommendation import peak_memory
from entailor.evaluation.wording import duration, size
from entailor.runs.record import CurvePoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which readers with any colour vision can tell apart. Its yellow does not show on white and
# is replaced by grey; its black becomes the page's ink. Marker and dash differ as well, so colour is never alone.
INK = "#010203"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK, "#808080")
MARKERS = "os^Dv*Xp"
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.2)), (0, (1.2, 1)), (0, (5, 1, 1.2, 1)))

WIDTH, HEIGHT = 420 / 96, 300 / 96  # inches at the 96 pixels of CSS
FONT_SIZE = 9.5
MOST_POINTS = 200  # of one curve; more cannot be seen at this size
TICKS = (0.1, 1, 10, 60, 600, 3600, 36_000, 360_000)  # seconds


@dataclass(frozen=True, slots=True)
class Style:
    """How one candidate is drawn in every plot."""

    colour: str
    marker: str
    dash: Any


def style(index: int) -> Style:
    """Return the look of the candidate at a position of the comparison; looks differ up to candidate 32."""
    return Style(PALETTE[index % 8], MARKERS[index % 8], DASHES[index // 8 % 4])


def swatch(index: int) -> str:
    """Return a candidate's line and marker as a small SVG for a legend."""

    def draw(axes: Axes) -> None:
        look = style(index)
        axes.set_axis_off()
        axes.set_position((0, 0, 1, 1))
        axes.set(xlim=(0, 2), ylim=(-1, 1))
        (line,) = axes.plot([0, 1, 2], [0, 0, 0], color=look.colour, linestyle=look.dash, marker=look.marker)
        line.set(markevery=[1], markersize=5, clip_on=False)

    return _draw(f"swatch{index}", "", draw, width=26 / 96, height=12 / 96)


def loss_by_epoch(names: Sequence[str], curves: Sequence[Sequence[Sequence[CurvePoint]]]) -> str | None:
    """Return training loss (thin) and validation loss (with markers) by epoch, or None when no candidate was trained.

    Args:
        names: candidate names.
        curves: for each candidate, for each seed, its curve; the mean over seeds is drawn.
    """
    return _curves("loss", "Loss by epoch", "loss (nats)", curves, ("train_loss", "validation_loss"), names)


def validation_accuracy_by_epoch(names: Sequence[str], curves: Sequence[Sequence[Sequence[CurvePoint]]]) -> str | None:
    """Return accuracy on the validation split by epoch, or None when it was never evaluated; arguments as above."""
    return _curves(
        "validation", "Validation accuracy by epoch", "validation accuracy (%)", curves, ("validation_accuracy",), names
    )


def accuracy_with_intervals(
    names: Sequence[str], candidates: Sequence[Mapping[str, Any]], majority_accuracy: float | None
) -> str:
    """Return each candidate's test accuracy with its interval, best on top, and the majority baseline (a forest plot).

    Letters at the right edge: candidates that share one do not differ significantly.
    """

    def draw(axes: Axes) -> None:
        for i, candidate in enumerate(candidates):
            look, accuracy = style(i), candidate["accuracy"]
            axes.plot([100 * accuracy["low"], 100 * accuracy["high"]], [i, i], color=look.colour, linewidth=1.6)
            axes.plot([100 * accuracy["mean"]], [i], color=look.colour, marker=look.marker, markersize=6)
            place = axes.get_yaxis_transform()
            axes.text(1.015, i, candidate.get("group", ""), transform=place, verticalalignment="center", color=INK)
        if majority_accuracy is not None:
            axes.axvline(100 * majority_accuracy, color=INK, linewidth=0.8, linestyle=(0, (2, 2)))
        axes.set_yticks(range(len(candidates)), [_shortened(name) for name in names])
        axes.set(ylim=(len(candidates) - 0.4, -0.6), xlabel="test accuracy (%), 95 % interval")
        axes.grid(visible=False, axis="y")

    return _draw("forest", "Test accuracy by candidate", draw, height=max(HEIGHT, 0.26 * len(candidates) + 0.6))


def accuracy_by_train_time(names: Sequence[str], candidates: Sequence[Mapping[str, Any]]) -> str:
    """Return test accuracy against training time on a log scale; training-free candidates stand at the left edge."""
    trained = [candidate["train_seconds"] for candidate in candidates if candidate["train_seconds"]]
    none = min(trained, default=1.0) / 4  # where candidates without training stand

    def draw(axes: Axes) -> None:
        axes.set_xscale("log")
        _scatter(axes, candidates, [candidate["train_seconds"] or none for candidate in candidates], "train_time")
        axes.set_xlim(none / 1.6, max(trained, default=1.0) * 1.8)
        low, high = axes.get_xlim()
        ticks = [(tick, duration(tick)) for tick in TICKS if low < tick < high and (tick > none * 2 or not free)]
        if len(ticks) < 2 and trained:  # all within one decade
            ticks = [(value, duration(value)) for value in sorted({min(trained), max(trained)})]
        ticks = [*([(none, "none")] if free else []), *ticks]
        axes.set_xticks([tick for tick, _ in ticks], [text for _, text in ticks])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("training time, log scale")

    free = len(trained) < len(candidates)
    return _draw("time", _described("Test accuracy against training time", names), draw)


def accuracy_by_memory(names: Sequence[str], candidates: Sequence[Mapping[str, Any]]) -> str:
    """Return test accuracy against peak memory, of the GPU where there is one, else of the process."""

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        _scatter(axes, candidates, [peak_memory(candidate) or 0 for candidate in candidates], "memory")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(lambda value, _: size(value))
        axes.set_xlabel(
            "peak memory"
            + (" of the GPU" if any(candidate["peak_gpu_memory_bytes"] for candidate in candidates) else "")
        )

    return _draw("memory", _described("Test accuracy against peak memory", names), draw)


def accuracy_by_latency(names: Sequence[str], candidates: Sequence[Mapping[str, Any]]) -> str | None:
    """Return test accuracy against the median time of one answer, or None where it was not measured."""
    if any(candidate["latency_p50_ms"] is None for candidate in candidates):
        return None

    def draw(axes: Axes) -> None:
        axes.set_xscale("log")
        _scatter(axes, candidates, [max(candidate["latency_p50_ms"], 1e-3) for candidate in candidates], "latency")
        _log_ticks(axes, lambda value: f"{value:g} ms")
        axes.set_xlabel("one answer, median, log scale")

    return _draw("latency", _described("Test accuracy against the time of one answer", names), draw)


def accuracy_by_stored(names: Sequence[str], candidates: Sequence[Mapping[str, Any]]) -> str:
    """Return test accuracy against the bytes that are saved, on a log scale."""

    def draw(axes: Axes) -> None:
        axes.set_xscale("log")
        _scatter(axes, candidates, [max(candidate["stored_bytes"] or 0, 1) for candidate in candidates], "stored")
        _log_ticks(axes, size)
        axes.set_xlabel("stored, log scale")

    return _draw("stored", _described("Test accuracy against stored size", names), draw)


def reliability(names: Sequence[str], candidates: Sequence[Mapping[str, Any]]) -> str:
    """Return accuracy against stated confidence; on the diagonal, confidence can be taken at its word."""
    return _reliability("reliability", names, [candidate["reliability"] for candidate in candidates])


def reliability_calibrated(names: Sequence[str], candidates: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the same after temperature scaling, or None where no candidate has a temperature."""
    bins = [candidate["calibrated"]["reliability"] if candidate.get("calibrated") else [] for candidate in candidates]
    return _reliability("calibrated", names, bins) if any(bins) else None


def _reliability(key: str, names: Sequence[str], bins_of: Sequence[Sequence[Mapping[str, float]]]) -> str:
    def draw(axes: Axes) -> None:
        axes.plot([0, 100], [0, 100], color=INK, linewidth=0.8, linestyle=(0, (2, 2)))
        for i, found in reversed(list(enumerate(bins_of))):
            look = style(i)
            total = sum(one["n"] for one in found)
            bins = [one for one in found if one["n"] >= 0.01 * total]  # a handful of examples is noise
            x, y = [100 * one["confidence"] for one in bins], [100 * one["accuracy"] for one in bins]
            axes.plot(x, y, color=look.colour, marker=look.marker, linestyle=look.dash, markersize=3.5, linewidth=1.2)
        lowest = min((one["confidence"] for found in bins_of for one in found), default=0)
        axes.set(xlim=(100 * lowest - 3, 102), ylim=(-3, 103))
        axes.set(xlabel="confidence (%)", ylabel="accuracy (%)")

    return _draw(key, _described("Accuracy by confidence", names), draw)


def accuracy_by_coverage(names: Sequence[str], candidates: Sequence[Mapping[str, Any]]) -> str | None:
    """Return accuracy on the examples that are answered when the least sure ones are not, or None without them."""
    if not all(candidate.get("coverage") for candidate in candidates):
        return None

    def draw(axes: Axes) -> None:
        for i, candidate in reversed(list(enumerate(candidates))):
            look = style(i)
            points = [point for point in candidate["coverage"] if point["accuracy"] is not None]
            x, y = ([100 * point[name] for point in points] for name in ("coverage", "accuracy"))
            line = axes.plot(x, y, color=look.colour, marker=look.marker, linestyle=look.dash, linewidth=1.2)[0]
            line.set(markersize=3.5, markevery=4)
        axes.set_xlim(102, 0)
        axes.set(xlabel="answered (%), the surest first", ylabel="accuracy on these (%)")

    return _draw("coverage", _described("Accuracy by coverage", names), draw)


def tuning_trials(names: Sequence[str], looks: Sequence[int], studies: Sequence[Mapping[str, Any]]) -> str | None:
    """Return validation accuracy by learning rate of every setting that was tried, or None where there is none.

    Args:
        names: of the studies' candidates.
        looks: the place of each study's candidate in the comparison.
        studies: as comparison.json holds them. Filled: trained to the end; hollow: stopped on the way; ringed: chosen.
    """
    shown = [
        [
            one
            for one in study["trials"]
            if one["validation_accuracy"] is not None and "learning_rate" in one["settings"]
        ]
        for study in studies
    ]
    if not any(shown):
        return None

    def draw(axes: Axes) -> None:
        for look, study, trials in zip(map(style, looks), studies, shown, strict=True):
            for one in trials:
                x, y = one["settings"]["learning_rate"], 100 * one["validation_accuracy"]
                face = look.colour if one["state"] == "complete" else "none"
                axes.plot([x], [y], color=look.colour, marker=look.marker, markerfacecolor=face, linestyle="")
                if one["number"] == study["best"]:
                    axes.plot([x], [y], color=INK, marker="o", markersize=12, markerfacecolor="none", linestyle="")
        axes.set_xscale("log")
        axes.set(xlabel="learning rate, log scale", ylabel="validation accuracy (%)")

    return _draw("tuning", _described("Validation accuracy of every setting tried", names), draw)


def learning_curves(
    names: Sequence[str],
    looks: Sequence[int],
    candidates: Sequence[Mapping[str, Any]],
    overtakes_untrained: Sequence[Mapping[str, Any]] = (),
) -> str | None:
    """Return test accuracy by number of labels with intervals, and what is predicted up to ten times as many.

    Args:
        names: of the candidates.
        looks: the place of each candidate in the comparison.
        candidates: of the learning curve, as comparison.json holds them.
        overtakes_untrained: of the learning curve; drawn as a level line, with the interval of where it is overtaken.
    """
    if not candidates:
        return None

    def draw(axes: Axes) -> None:
        for look, candidate in zip(map(style, looks), candidates, strict=True):
            x = [point["n"] for point in candidate["points"]]
            for point in candidate["points"]:
                ends = [100 * point["accuracy"]["low"], 100 * point["accuracy"]["high"]]
                axes.plot([point["n"]] * 2, ends, color=look.colour, linewidth=1.0, alpha=0.5)
            y = [100 * point["accuracy"]["mean"] for point in candidate["points"]]
            axes.plot(x, y, color=look.colour, marker=look.marker, linestyle="-", markersize=5, linewidth=1.4)
            told = [one for one in candidate["predicted"] if "refused" not in one]
            ahead = [(x[-1], y[-1]), *((one["n"], 100 * one["accuracy"]) for one in told)]
            axes.plot(*zip(*ahead, strict=True), color=look.colour, linestyle=(0, (2, 2)), linewidth=1.0)
            for one in told:
                axes.plot([one["n"]] * 2, [100 * one["low"], 100 * one["high"]], color=look.colour, linewidth=1.0)
        axes.set_xscale("log")
        ticks = sorted({point["n"] for candidate in candidates for point in candidate["points"]})
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.set_xticks([], minor=True)
        for number, one in zip(looks, overtakes_untrained, strict=False):  # one a candidate, or none at all
            level = 100 * one["accuracy_untrained"]
            axes.axhline(level, color=INK, linewidth=0.8, linestyle=(0, (2, 2)))
            ends = [one["low"] or ticks[0], one["high"] or ticks[-1]]
            axes.plot(ends, [level] * 2, color=style(number).colour, linewidth=3.0, alpha=0.5)
        axes.set(xlabel="training labels, log scale", ylabel="test accuracy (%)")

    return _draw("curve", _described("Test accuracy by number of training labels", names), draw)


def _scatter(axes: Axes, candidates: Sequence[Mapping[str, Any]], x: Sequence[float], cost: str) -> None:
    """Draw candidates with their intervals; a ring marks those no other beats in accuracy and this cost."""
    for i, candidate in reversed(list(enumerate(candidates))):
        look, accuracy = style(i), candidate["accuracy"]
        low, high = 100 * accuracy["low"], 100 * accuracy["high"]
        axes.plot([x[i], x[i]], [low, high], color=look.colour, linewidth=1.0, alpha=0.6)
        axes.plot([x[i]], [100 * accuracy["mean"]], color=look.colour, marker=look.marker, markersize=7, linestyle="")
    front = sorted(
        (x[i], 100 * candidate["accuracy"]["mean"])
        for i, candidate in enumerate(candidates)
        if cost in candidate["pareto_by"]
    )
    if front:
        across, up = zip(*front, strict=True)
        axes.plot(across, up, color=INK, linewidth=0.7, alpha=0.6, drawstyle="steps-post", zorder=1)
        axes.plot(across, up, color=INK, marker="o", markersize=13, fillstyle="none", linestyle="", markeredgewidth=0.8)
    axes.set_ylabel("test accuracy (%)")


def _log_ticks(axes: Axes, words: Callable[[float], str]) -> None:
    """Name whole powers of ten within the axis, or its ends where there are fewer than two."""
    import math

    low, high = axes.get_xlim()
    ticks = [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    if len(ticks) < 2:
        ticks = [float(f"{value:.2g}") for value in (low * (high / low) ** 0.15, low * (high / low) ** 0.85)]
    ticks = ticks[:: -(-len(ticks) // 5)]
    axes.set_xticks(ticks, [words(tick) for tick in ticks])
    axes.set_xticks([], minor=True)


def _curves(
    key: str,
    title: str,
    label: str,
    curves: Sequence[Sequence[Sequence[CurvePoint]]],
    fields: Sequence[str],
    names: Sequence[str],
) -> str | None:
    lines = [[_mean_curve(seeds, field) for field in fields] for seeds in curves]
    if not any(line for candidate in lines for line in candidate):
        return None
    scale = 100 if fields == ("validation_accuracy",) else 1

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        for i, candidate in reversed(list(enumerate(lines))):
            look = style(i)
            for field, points in zip(fields, candidate, strict=True):
                x, y = [point[0] for point in points], [scale * point[1] for point in points]
                tuned = field.startswith("validation")
                axes.plot(
                    x,
                    y,
                    color=look.colour,
                    linestyle=look.dash if tuned else "-",
                    linewidth=1.6 if tuned else 0.8,
                    alpha=1.0 if tuned else 0.7,
                    marker=look.marker if tuned and len(x) <= 24 else "",
                    markersize=4.5,
                )
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=axes.get_xlim()[1] > 3))
        axes.set(xlabel="epoch", ylabel=label)

    return _draw(key, _described(title, names), draw)


def _mean_curve(seeds: Sequence[Sequence[CurvePoint]], field: str) -> list[tuple[float, float]]:
    """Return (epoch, mean over seeds) where the field was logged, thinned to what can be seen."""
    values: dict[float, list[float]] = {}
    for curve in seeds:
        for point in curve:
            value = getattr(point, field)
            if value is not None:
                values.setdefault(round(point.epoch, 4), []).append(value)
    points = [(epoch, sum(found) / len(found)) for epoch, found in sorted(values.items())]
    stride = -(-len(points) // MOST_POINTS) or 1
    return points if stride == 1 else [*points[:-1:stride], points[-1]]


def _described(title: str, names: Sequence[str]) -> str:
    return f"{title}: {', '.join(names)}"


def _shortened(name: str, most: int = 26) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _draw(key: str, title: str, draw: Callable[[Axes], None], *, width: float = WIDTH, height: float = HEIGHT) -> str:
    """Draw one figure and return it as SVG for the inside of a page."""
    _import_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": key,
        "text.parse_math": False,  # a candidate may be called a$b$
        "axes.unicode_minus": False,
        "font.size": FONT_SIZE,
        **{f"{part}.color": INK for part in ("text", "xtick", "ytick", "grid")},
        **{f"axes.{part}color": INK for part in ("label", "edge")},
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "axes.grid": True,
        "grid.alpha": 0.14,
        "grid.linewidth": 0.6,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
    }
    with rc_context(settings), warnings.catch_warnings():
        # The browser has the fonts; that matplotlib's own lacks a sign does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        draw(axes)
        return _inline(_svg(figure), key, title)


def _import_matplotlib() -> None:
    """Import it also where MPLBACKEND names what is not there, as notebooks set it for their shells: none is needed."""
    try:
        import matplotlib
    except ValueError:
        backend = os.environ.pop("MPLBACKEND", None)
        if backend is None:
            raise
        import matplotlib  # noqa: F401

        os.environ["MPLBACKEND"] = backend


def _svg(figure: Figure) -> str:
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(buffer, metadata=metadata)
    return buffer.getvalue()


def _inline(svg: str, key: str, title: str) -> str:
    """Make a stand-alone SVG file fit to stand inside a page beside others.

    The XML head, comments and the style sheet (which would reach the whole page) go; ids keep only where something
    refers to them, and carry the figure's key so that they do not clash; ink becomes the page's colour.
    """
    from markupsafe import escape

    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*</defs>", "", svg)
    svg = svg.replace("xlink:href=", "href=").replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "")
    referred = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    svg = re.sub(r'id="([^"]+)"', lambda m: f'id="{key}-{m[1]}"' if m[1] in referred else "", svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{key}-", svg)
    svg = svg.replace(INK, "currentColor")
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"font-family: [^;\"]*; | transform=\"rotate\(-?0 [^\"]*\"", "", svg)
    name = f'role="img" aria-label="{escape(title)}"' if title else 'aria-hidden="true"'
    frame = re.search(r'viewBox="[^"]+"', svg)
    assert frame is not None
    svg = f"<svg {name} {_HEAD} {frame[0]}>{svg[svg.index('>') + 1 :]}"
    return re.sub(r"\s*\n\s*", "\n", re.sub(r" +(?=>|/>)", "", svg)).strip()


_HEAD = 'xmlns="http://www.w3.org/2000/svg" stroke-linejoin="round" stroke-linecap="butt"'
