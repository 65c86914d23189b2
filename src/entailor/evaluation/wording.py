"""Figures as people write them (percent, points, seconds, bytes), and what candidates are called.

For reading only; programs read the figures themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from entailor.runs.record import NO_MODEL

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


def lead(metric: str, difference: float) -> str:
    """Return a difference in a metric: points of accuracy, else three digits."""
    return points(difference) if metric == "accuracy" else f"{difference:+.3f}".replace("-", "−")


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


def milliseconds(value: float | None) -> str:
    """Return the time of one answer as ``12.3 ms``, ``<0.1 ms`` where that would round to nothing; a dash for None."""
    if value is None:
        return NOTHING
    return f"{value:,.1f} ms" if value >= 0.05 or value == 0 else "<0.1 ms"


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


def short_model_names(models: Sequence[str]) -> dict[str, str]:
    """Return model to last path component without `pypi:` and version; the full names where two would be the same.

    NO_MODEL, under which candidates without a model stand, is left out.
    """
    unique = [model for model in dict.fromkeys(models) if model != NO_MODEL]
    short = {model: model.removeprefix("pypi:").split("==")[0].rstrip("/").split("/")[-1] or model for model in unique}
    return short if len(set(short.values())) == len(unique) else {model: model for model in unique}


def candidate_titles(candidates: Sequence[Mapping[str, Any]], between: str = " on ") -> dict[tuple[str, str], str]:
    """Return what each candidate is called: the method, and behind it the model where there are several."""
    short = short_model_names([candidate["model"] for candidate in candidates])
    named = short if len(short) > 1 else {}
    return {
        (model, method): method + (f"{between}{named[model]}" if model in named else "")
        for model, method in ((candidate["model"], candidate["method"]) for candidate in candidates)
    }


def _scaled(value: float, units: Sequence[str]) -> str:
    power = 0
    while power + 1 < len(units) and value >= 999.5:
        value, power = value / 1000, power + 1
    return f"{value:.{1 if power and value < 99.95 else 0}f} {units[power]}"
