"""What choosing settings, more labels and the run itself took: tuning, learning curves, the estimate, reads of test.

Only reads comparison.json; as lines for a terminal, and as a section of the page.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from entailor.config.plain import figure
from entailor.evaluation.recommendation import key_of
from entailor.evaluation.wording import candidate_titles, count, duration, interval, percent, size
from entailor.report import plots
from entailor.report.page import filled, safe
from entailor.report.tables import align

ESTIMATE_HEADINGS = ("  candidate", "trials", "one trial", "tuning", "curve", "external", "in all", "memory")
SHOWN_SLOWDOWN = 1.5
"""From here on an estimate says that the machine is busy."""
TRUTH_HEADINGS = ("  candidate", "one trial: estimate", "measured", "ratio", "memory: estimate", "measured", "ratio")


def estimate_lines(expected: Mapping[str, Any]) -> list[str]:
    """Return what is expected of a run as aligned lines, and when it will end.

    Args:
        expected: as :func:`entailor.estimate` returns it.
    """
    names = _names(expected["candidates"])
    lines: list[tuple[str, ...]] = [ESTIMATE_HEADINGS]
    for name, candidate in zip(names, expected["candidates"], strict=True):
        if candidate["error"]:
            lines.append((f"  {name}", str(candidate["trials"]), *["?"] * 6))
            continue
        parts = (
            candidate["trial_seconds"],
            candidate["tuning_seconds"] or None,
            candidate["curve_seconds"] or None,
            candidate["external_seconds"] or None,
            candidate["seconds"],
        )
        lines.append(
            (f"  {name}", str(candidate["trials"]), *map(duration, parts), size(candidate["peak_memory_bytes"]))
        )
    failed = [
        f"  {name}: {candidate['error']}"
        for name, candidate in zip(names, expected["candidates"], strict=True)
        if candidate["error"]
    ]
    return [*align(lines, left={0}), *failed, _whole_line(expected)]


def _whole_line(expected: Mapping[str, Any]) -> str:
    """Return the range of all that can be told, by when it is over, and what other work has to do with it."""
    unknown = [candidate for candidate in expected["candidates"] if candidate["error"]]
    if len(unknown) == len(expected["candidates"]):
        return f"no estimate: {unknown[0]['error']}"
    low, high = (duration(float(f"{expected[name]:.2g}")) for name in ("low", "high"))
    ends, days = datetime.fromisoformat(expected["ends"]), int(expected["high"] // 86_400)
    later = f" {days} {'day' if days == 1 else 'days'} later" if days else ""
    memory = size(expected["peak_memory_bytes"])
    words = f"estimate: {low} to {high}, done by {ends:%H:%M}{later} at the latest, up to {memory} of memory"
    if unknown:
        words += f"; not in it: {', '.join(_names(unknown))}"
    if expected["slowdown"] >= SHOWN_SLOWDOWN:
        words += f"; other work makes it {expected['slowdown']:.1f} times slower"
    return words


def effort_lines(comparison: Mapping[str, Any]) -> list[str]:
    """Return tuning, learning curve, estimate against truth and later reads of test as lines, where they are there."""
    return [
        *_tuning_lines(comparison.get("tuning")),
        *_curve_lines(comparison.get("learning_curve")),
        *_truth_lines(comparison.get("estimate")),
        *_read_lines(comparison),
    ]


def _names(candidates: Sequence[Mapping[str, Any]]) -> list[str]:
    titles = candidate_titles(candidates, " · ")
    return [
        titles[key_of(candidate)]
        + (f", split {candidate['split']}" if candidate.get("split") else "")
        + (f", search {candidate['repeat']}" if candidate.get("repeat", 1) > 1 else "")
        for candidate in candidates
    ]


def budget_words(budget: Mapping[str, Any]) -> str:
    """Return ``4 trials``, ``10 minutes`` or ``20,000 training examples``."""
    if budget["trials"] is not None:
        return f"{budget['trials']} trials"
    if budget["minutes"] is not None:
        return f"{budget['minutes']:.15g} minutes"
    return f"{budget['examples']:,} training examples"


def settings_words(settings: Mapping[str, float], space: Mapping[str, Any]) -> str:
    """Return ``learning_rate 0.0012``, several with commas; of a prompt its words.

    Args:
        settings: hyperparameter to value, or to its place among the choices.
        space: where they were searched, as comparison.json has it.
    """
    told = []
    for name, value in settings.items():
        choices = (space.get(name) or {}).get("choices")
        told.append(f"{name} {choices[int(value)] if choices else figure(value)}")
    return ", ".join(told)


def _tuning_lines(tuning: Mapping[str, Any] | None) -> list[str]:
    if not tuning:
        return []
    lines: list[tuple[str, ...]] = [("  candidate", "tried", "stopped", "examples", "time", "validation", "chosen")]
    for name, study in zip(_names(tuning["studies"]), tuning["studies"], strict=True):
        trials = study["trials"]
        best = None if study["best"] is None else trials[study["best"]]
        stopped = sum(one["state"] in ("pruned", "cut") for one in trials)
        lines.append(
            (
                f"  {name}",
                str(len(trials)),
                str(stopped),
                count(study["examples_seen"]),
                duration(study["seconds"]),
                percent(best["validation_accuracy"]) if best else "–",
                settings_words(study["chosen"], study["search_space"]) or "its own settings",
            )
        )
    return [
        f"tuning, {budget_words(tuning['budget'])} a candidate, on validation alone:",
        *align(lines, left={0, 6}),
        *(f"  {words}" for words in repeat_words(tuning["studies"])),
    ]


def repeat_words(studies: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return how far the choices of repeated searches lie apart, a sentence a candidate; nothing without repeats."""
    repeated: dict[tuple[str, str, int], list[Mapping[str, Any]]] = {}
    for study in studies:
        repeated.setdefault((study["model"], study["method"], study.get("split", 0)), []).append(study)
    found = []
    for group in (one for one in repeated.values() if len(one) > 1):
        chose = [study for study in group if study["best"] is not None]
        (name, *_) = _names(group)
        told = [_setting_words(key, space, chose) for key, space in group[0]["search_space"].items() if chose]
        scores = [percent(study["trials"][study["best"]]["validation_accuracy"]) for study in chose]
        found.append(
            f"{name}, {len(group)} searches: "
            + ("; ".join([*told, f"validation {', '.join(scores)}"]) if chose else "none could use any setting")
        )
    return found


def _setting_words(key: str, space: Mapping[str, Any], chose: Sequence[Mapping[str, Any]]) -> str:
    """Return the chosen values of one setting, and their standard deviation as a share of the range they are from."""
    values = [study["chosen"][key] for study in chose]
    words = ", ".join(settings_words({key: value}, {key: space}).removeprefix(f"{key} ") for value in values)
    if space.get("choices") or len(values) < 2 or space["high"] == space["low"]:
        return f"{key} {words}"
    scale = math.log if space["log"] else float
    span = scale(space["high"]) - scale(space["low"])
    return f"{key} {words} (standard deviation {100 * statistics.stdev(map(scale, values)) / span:.0f} % of the range)"


def _curve_lines(curve: Mapping[str, Any] | None) -> list[str]:
    if not curve or not curve["candidates"]:
        return []
    sizes = sorted({point["n"] for candidate in curve["candidates"] for point in candidate["points"]})
    lines: list[tuple[str, ...]] = [("  candidate", *(f"{n:,}" for n in sizes), "twice as many", "ten times")]
    for name, candidate in zip(_names(curve["candidates"]), curve["candidates"], strict=True):
        found = {point["n"]: percent(point["accuracy"]["mean"]) for point in candidate["points"]}
        lines.append((f"  {name}", *(found.get(n, "–") for n in sizes), *_predicted(candidate)))
    return [
        "accuracy by number of training labels:",
        *align(lines, left={0}),
        *(f"  {words}" for words in (*crossing_words(curve), *overtaking_words(curve))),
        curve["sentence"],
    ]


def _predicted(candidate: Mapping[str, Any]) -> tuple[str, str]:
    told = {one["factor"]: one for one in candidate["predicted"] if "refused" not in one}

    def words(factor: int) -> str:
        one = told.get(factor)
        return f"{percent(one['accuracy'])} ({interval(one['low'], one['high'])})" if one else "–"

    return words(2), words(10)


def crossing_words(curve: Mapping[str, Any]) -> list[str]:
    """Return one sentence a crossing: which candidate overtakes which, and at how many labels."""
    return [
        f"{one['method']} overtakes {one['over_method']} at about {one['at']:,} labels "
        f"(between {one['between'][0]:,} and {one['between'][1]:,})"
        for one in curve["crossings"]
    ]


def overtaking_words(curve: Mapping[str, Any]) -> list[str]:
    """Return one sentence a candidate: with how many labels it becomes better than the best that needs none."""
    lines = []
    for one in curve["overtakes_untrained"]:
        low = f"from {one['low']:,}" if one["low"] else "from fewer than the smallest size"
        high = f"to {one['high']:,}" if one["high"] else "to more than the largest size"
        if one["at"]:
            where = f"at about {one['at']:,} labels"
        else:
            where = "below the smallest size" if one["before_first"] else "at none of these sizes"
        lines.append(
            f"{one['method']} overtakes {one['over_method']}, which needs no labels "
            f"({percent(one['accuracy_untrained'])}), {where} (95 %: {low} {high})"
        )
    return lines


def _truth_lines(estimate: Mapping[str, Any] | None) -> list[str]:
    if not estimate:
        return []
    lines: list[tuple[str, ...]] = [TRUTH_HEADINGS]
    for name, candidate in zip(_names(estimate["candidates"]), estimate["candidates"], strict=True):
        time, memory = candidate["trial_seconds"], candidate["peak_memory_bytes"]
        if time["measured"] is not None and not candidate["error"]:
            lines.append(
                (
                    f"  {name}",
                    duration(time["estimate"]),
                    duration(time["measured"]),
                    f"{time['ratio']:.2f}" if time["ratio"] is not None else "–",
                    size(memory["estimate"]),
                    size(memory["measured"]),
                    f"{memory['ratio']:.2f}" if memory["ratio"] is not None else "–",
                )
            )
    if len(lines) == 1:
        return []
    whole = estimate["all_trials"]
    total = f"  all trials: {duration(whole['estimate'])} expected, {duration(whole['measured'])} measured"
    return ["estimate against truth:", *align(lines, left={0}), f"{total}, ratio {whole['ratio']:.2f}"]


def _read_lines(comparison: Mapping[str, Any]) -> list[str]:
    late = [candidate["method"] for candidate in comparison["candidates"] if candidate.get("exploratory")]
    if not late:
        return []
    return [f"exploratory, since test had been read before they were added: {', '.join(late)}"]


def effort_section(comparison: Mapping[str, Any]) -> Any:
    """Return the sections of the page about tuning, learning curves, reads of test and the estimate, as safe HTML."""
    tuning, curve, estimate = (comparison.get(name) for name in ("tuning", "learning_curve", "estimate"))
    return filled(
        "effort.html.j2",
        budget_words=budget_words,
        settings_words=settings_words,
        tuning=tuning,
        studies=_named(tuning["studies"]) if tuning else [],
        repeats=repeat_words(tuning["studies"]) if tuning else [],
        tuning_plot=safe(_drawn(plots.tuning_trials, comparison, tuning["studies"])) if tuning else None,
        curve=curve if curve and curve["candidates"] else None,
        curves=_named(curve["candidates"]) if curve else [],
        crossings=[*crossing_words(curve), *overtaking_words(curve)] if curve else [],
        curve_plot=safe(_drawn(plots.learning_curves, comparison, curve["candidates"], curve["overtakes_untrained"]))
        if curve
        else None,
        estimate=estimate,
        estimates=_named(estimate["candidates"]) if estimate else [],
        reads=comparison.get("test_access"),
    )


def _named(candidates: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [{**candidate, "title": name} for name, candidate in zip(_names(candidates), candidates, strict=True)]


def _drawn(
    draw: Callable[..., str | None],
    comparison: Mapping[str, Any],
    candidates: Sequence[Mapping[str, Any]],
    *more: Any,
) -> str | None:
    """Draw candidates as they look elsewhere on the page; one that failed comes behind all others."""
    places = {key_of(candidate): index for index, candidate in enumerate(comparison["candidates"])}
    looks = [places.get(key_of(candidate), len(places)) for candidate in candidates]
    return draw(_names(candidates), looks, candidates, *more)
