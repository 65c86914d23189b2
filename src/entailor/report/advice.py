"""The recommendation in words: what to ship, why, what comes next, and what would change it.

Reads the typed recommendation of comparison.json; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from entailor.evaluation.pairs import SIGNIFICANCE
from entailor.evaluation.recommendation import COSTS, CandidateKey, key_of
from entailor.evaluation.targets import METRICS, OF_PROBABILITIES
from entailor.evaluation.wording import candidate_titles, duration, interval, lead, milliseconds, percent, size

SHOWN: dict[str, Callable[[float], str]] = {
    "latency": lambda value: f"{milliseconds(value)} an answer",
    "stored": lambda value: f"{size(value)} stored",
    "memory": lambda value: f"{size(value)} of memory",
    "train_time": lambda value: f"trained in {duration(value)}" if value else "no training",
}
LEAST = {
    "latency": "quickest to answer",
    "stored": "smallest to store",
    "memory": "leanest in memory",
    "train_time": "quickest to train",
}
COST_OF_LIMIT = {cost.limit: cost.name for cost in COSTS}


@dataclass(frozen=True)
class Advice:
    """The recommendation as sentences.

    Attributes:
        sentence: what is recommended, or why nothing is.
        reasons: what speaks for it and against it.
        runner_up: what comes next, or None.
        changes: what would be picked under other priorities or with more data.
        rule: how the pick was made.
    """

    sentence: str
    reasons: tuple[str, ...]
    runner_up: str | None
    changes: tuple[str, ...]
    rule: str


def advice(comparison: Mapping[str, Any]) -> Advice | None:
    """Return the recommendation of comparison.json in words, or None where there is none."""
    found = comparison.get("recommendation")
    if not found:
        return None
    titles = candidate_titles(comparison["candidates"])
    by_key = {key_of(one): one for one in comparison["candidates"]}
    outcome = found["outcome"]
    reasons: list[str] = []
    if outcome == "recommended":
        pick = by_key[key_of(found)]
        sentence = f"{titles[key_of(found)]} is recommended: {_why(found, by_key)}."
        reasons = [*_figures(pick), *_standing(found, titles)]
        reasons += _beaten_though_agreeing(found, titles, by_key)
    elif outcome == "none_beats_majority":
        within = " within the limits of `recommend`" if found["excluded"] else ""
        sentence = f"Nothing here is worth shipping yet: no candidate{within} beats the majority baseline."
        reasons = _beaten_though_agreeing(found, titles, by_key) or [
            f"The {'probabilities' if comparison['metric'] in OF_PROBABILITIES else 'answers'} of none agree with the "
            "labels more than chance gives (one-sided test at 5 %, corrected for the number of candidates)."
        ]
    else:
        sentence = "No candidate keeps within the limits of `recommend`, so none is recommended."
    if found["excluded"]:
        told = [f"{titles[key_of(one)]} ({'; '.join(map(_limit, one['limits']))})" for one in found["excluded"]]
        reasons.append(f"Beyond a limit: {'; '.join(told)}.")
    return Advice(sentence, tuple(reasons), _next(found, titles, by_key), _changes(found, titles), _rule(found["rule"]))


def _beaten_though_agreeing(
    found: Mapping[str, Any], titles: Mapping[CandidateKey, str], by_key: Mapping[CandidateKey, Mapping[str, Any]]
) -> list[str]:
    """Return what is said of candidates that know something of the labels and are worse than the majority baseline."""
    keys = [key_of(one) for one in found["below_majority"]]
    names = [titles[key] for key in keys if by_key[key]["p_majority"] < SIGNIFICANCE]
    if not names:
        return []
    metric, several = found["rule"]["metric"], len(names) > 1
    said = (
        f"By {METRICS[metric].title} {_listed(names)} {'are' if several else 'is'} significantly worse than always "
        f"naming the most frequent label, though {'their' if several else 'its'} answers agree with the labels more "
        "than chance gives."
    )
    other = "macro_f1" if metric != "macro_f1" else "mcc"
    when = "answers matter and not probabilities" if metric in OF_PROBABILITIES else "rare labels matter most"
    return [f"{said} If {when}, set recommend.metric={other}."]


def _why(found: Mapping[str, Any], by_key: Mapping[CandidateKey, Mapping[str, Any]]) -> str:
    rule = found["rule"]
    within = " within the limits" if any(rule[limit] is not None for limit in COST_OF_LIMIT) else ""
    if any(_better(by_key[key_of(one)], by_key[key_of(found["leader"])], rule) for one in found["below_majority"]):
        within += " of those that beat the majority baseline"
    margin, count = _margin(rule), len(found["contenders"])
    if rule["ties"] == "most_accurate":
        return f"it has the {_highest(rule)}{within}"
    if count == 1:
        others = bool(found["against_leader"])
        return f"it has the {_highest(rule)}{within}" + (
            f", and no other is shown to be within {margin}" if others else ""
        )
    if not found["decided_by"]:
        return f"of {count} candidates{within} shown to be within {margin} of the {_best(rule)} none costs clearly less"
    least = " and the ".join(LEAST[name] for name in found["decided_by"])
    return f"of {count} candidates{within} shown to be within {margin} of the {_best(rule)} it is the {least}"


def _better(a: Mapping[str, Any], b: Mapping[str, Any], rule: Mapping[str, Any]) -> bool:
    values = [METRICS[rule["metric"]].sign * one["intervals"][rule["metric"]]["value"] for one in (a, b)]
    return bool(values[0] > values[1])


def _margin(rule: Mapping[str, Any]) -> str:
    return f"{100 * rule['margin']:g} points" if rule["metric"] == "accuracy" else f"{rule['margin']:g}"


def _best(rule: Mapping[str, Any]) -> str:
    return "most accurate" if rule["metric"] == "accuracy" else "best"


def _highest(rule: Mapping[str, Any]) -> str:
    target = METRICS[rule["metric"]]
    return f"{'highest' if target.sign > 0 else 'lowest'} {target.title}"


def _lead(rule: Mapping[str, Any], difference: float) -> str:
    """Return a difference in the metric, above 0 where it is for the better."""
    return (
        f"{lead(rule['metric'], difference)} points"
        if rule["metric"] == "accuracy"
        else lead(rule["metric"], difference)
    )


def correction(comparison: Mapping[str, Any]) -> str | None:
    """Return what the best candidate's figure is without the part that comes from having been chosen by it."""
    found = (comparison.get("winner") or {}).get("corrected")
    if not found or round(found["optimism"], 3) == 0:
        return None
    if comparison["metric"] == "accuracy":
        figure = f"{percent(found['value'])} ({interval(found['low'], found['high'])})"
    else:
        figure = f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
    return (
        f"The best of {found['candidates']} looks better than it is on the examples it was chosen by: corrected for "
        f"that, {METRICS[comparison['metric']].title} {figure}."
    )


def _figures(pick: Mapping[str, Any]) -> list[str]:
    accuracy = pick["accuracy"]
    low, high = percent(accuracy["low"]), percent(accuracy["high"])
    costs = ", ".join(SHOWN[cost.name](value) for cost in COSTS if (value := cost.of(pick)) is not None)
    return [f"{percent(accuracy['mean'])} of test are right (95 % interval {low} to {high}); {costs}."]


def _standing(found: Mapping[str, Any], titles: Mapping[CandidateKey, str]) -> list[str]:
    reasons = []
    rule, leader = found["rule"], key_of(found["leader"])
    against = {key_of(one): one for one in found["against_leader"]}
    if key_of(found) != leader:
        own = against[key_of(found)]
        least = _lead(rule, max(0.0, -own["lower_bound"])).lstrip("+")
        reasons.append(
            f"It was {_lead(rule, own['difference'])} from {titles[leader]}; with {percent(rule['level'])} "
            f"confidence it gives away no more than {least}. Where that is "
            "too much, set recommend.margin lower or recommend.ties=most_accurate."
        )
    open_ones = [one for one in against.values() if not one["non_inferior"]]
    needed = [one for one in open_ones if one["examples_needed"] is not None]
    if len(found["contenders"]) == 1 and needed:
        nearest = max(needed, key=lambda one: float(one["lower_bound"]))
        worst = lead(rule["metric"], nearest["lower_bound"])
        reasons.append(
            f"That {titles[key_of(nearest)]} is within {_margin(rule)} of {titles[leader]} is not shown "
            f"({_lead(rule, nearest['difference'])} seen, at worst {worst}); if both are "
            f"equally good, about {nearest['examples_needed']:,} test examples would show it in 4 of 5 runs."
        )
    if found["reads_one_text"]:
        reasons.append(
            "A candidate that never reads the first text is within the margin of the best: the labels can be guessed "
            "from the second text, or the other candidates have learnt nothing more. Look at the data before shipping."
        )
    if found["below_majority"]:
        names = _listed([titles[key_of(one)] for one in found["below_majority"]])
        reasons.append(f"Not better than the majority baseline, and so never recommended: {names}.")
    return reasons


def _limit(one: Mapping[str, Any]) -> str:
    shown = SHOWN[COST_OF_LIMIT[one["limit"]]]
    if one["value"] is None:
        return f"{one['limit']} is set, and this was not measured"
    value, most = shown(one["value"]), shown(one["most"])
    if value == most:  # they round to the same
        value, most = f"{one['value']:g}", f"{one['most']:g}"
    return f"{value}, where {one['limit']} allows {most}"


def _next(
    found: Mapping[str, Any], titles: Mapping[CandidateKey, str], by_key: Mapping[CandidateKey, Mapping[str, Any]]
) -> str | None:
    second = found["runner_up"]
    if second is None:
        return None
    candidate = by_key[key_of(second)]
    costs = ", ".join(SHOWN[cost.name](value) for cost in COSTS if (value := cost.of(candidate)) is not None)
    behind = _lead(found["rule"], second["difference"])
    return f"{titles[key_of(second)]} comes next: {behind} ({second['verdict']}); {costs}."


def _changes(found: Mapping[str, Any], titles: Mapping[CandidateKey, str]) -> tuple[str, ...]:
    changes = [
        f"{_either(one['conditions'], found['rule'])}, it would be {titles[key_of(one)]}." for one in found["changes"]
    ]
    if found["to_tell_leader"] is not None:
        leader = titles[key_of(found["leader"])]
        changes.append(
            f"If the difference to {leader} is real and as large as seen, about {found['to_tell_leader']:,} test "
            "examples would show it in 4 of 5 runs."
        )
    return tuple(changes)


def _either(conditions: Sequence[Mapping[str, Any]], rule: Mapping[str, Any]) -> str:
    words = []
    for one in conditions:
        if one["kind"] == "without_limit":
            words.append(f"without the limit {one['cost']}")
        elif one["kind"] == "cost_first":
            words.append(f"if {one['cost'].replace('_', ' ')} counted first")
        else:
            words.append(f"if {METRICS[rule['metric']].title} alone counted")
    said = " or ".join(words)
    return said[0].upper() + said[1:]


def _rule(rule: Mapping[str, Any]) -> str:
    limits = [f"{limit}={rule[limit]:.15g}" for limit in COST_OF_LIMIT if rule[limit] is not None]
    within = f"Within {', '.join(limits)}: " if limits else ""
    if rule["ties"] == "most_accurate":
        mean = _highest(rule).replace(" ", " mean ", 1)
        said = f"the {mean} of the candidates that beat the majority baseline."
        return within + (said if within else said[0].upper() + said[1:])
    order = ", then ".join(name.replace("_", " ") for name in rule["cheapest"])
    said = (
        f"among the candidates that beat the majority baseline and are shown ({percent(rule['level'])} confidence) to "
        f"be within {_margin(rule)} of the {_best(rule)} of them, the cheapest by {order}; a cost decides where it is "
        "at least 20 % higher."
    )
    return within + (said if within else said[0].upper() + said[1:])


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
