"""Which candidate to ship, from the user's priorities: one pick with reasons, the runner-up, and what would change it.

Reads the candidates of a comparison and their pairwise tests; which candidates differ is decided in pairs.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from entailor.config.parts import Priorities
from entailor.evaluation.pairs import Pairs
from entailor.evaluation.power import examples_needed
from entailor.evaluation.wording import duration, percent, points, size

CLEARLY = 1.2  # a cost decides when it is at least this many times as high; less is within what a clock varies
ONE_TEXT_ALONE = "hypothesis_only"
MOST_EXAMPLES = 1_000_000  # more test examples than this are no advice

Candidate = Mapping[str, Any]
CandidateKey = tuple[str, str]


@dataclass(frozen=True)
class Cost:
    """One cost of a candidate.

    Attributes:
        name: as in `recommend.cheapest`.
        limit: the key of `recommend` that caps it.
        of: the figure of a candidate, or None where it was not measured.
        shown: the figure in words.
        least: what the candidate with least of it is called.
    """

    name: str
    limit: str
    of: Callable[[Candidate], float | None]
    shown: Callable[[float], str]
    least: str


def peak_memory(candidate: Candidate) -> int | None:
    """Return the peak that limits a run: of the GPU where there is one, else of the process, in bytes."""
    gpu: int | None = candidate["peak_gpu_memory_bytes"]
    host: int | None = candidate["peak_memory_bytes"]
    return host if gpu is None else gpu


COSTS = (
    Cost(
        "latency",
        "max_latency_ms",
        lambda candidate: candidate["latency_p50_ms"],
        lambda value: f"{value:.1f} ms an answer",
        "quickest to answer",
    ),
    Cost(
        "stored",
        "max_stored_bytes",
        lambda candidate: candidate["stored_bytes"],
        lambda value: f"{size(value)} stored",
        "smallest to store",
    ),
    Cost("memory", "max_memory_bytes", peak_memory, lambda value: f"{size(value)} of memory", "leanest in memory"),
    Cost(
        "train_time",
        "max_train_seconds",
        lambda candidate: candidate["train_seconds"],
        lambda value: f"trained in {duration(value)}" if value else "no training",
        "quickest to train",
    ),
)


def key_of(candidate: Candidate) -> CandidateKey:
    """Return what a candidate is known by."""
    return candidate["model"], candidate["method"]


def recommend(
    candidates: Sequence[Candidate],
    pairs: Pairs[CandidateKey],
    titles: Mapping[CandidateKey, str],
    priorities: Priorities,
    num_test: int,
) -> dict[str, Any] | None:
    """Return the candidate to ship, with reasons in words.

    Of the candidates within the limits the most accurate leads. Those that do not differ significantly from it are
    contenders, if
    their difference's own 95 % interval holds 0 too (the correction for many pairs keeps from claiming differences,
    and is no reason to give accuracy away), but for candidates no better than the majority baseline where the leader
    is above it. Costs decide among
    them in the order of `cheapest`: a candidate that costs clearly more (20 %) than the cheapest leaves; what
    remains is
    settled by accuracy.

    Args:
        candidates: of comparison.json, best first.
        pairs: their differences.
        titles: candidate to its name for a reader.
        priorities: limits, and which cost counts first.
        num_test: test examples.

    Returns:
        `model`, `method` (None where no candidate is within the limits), `sentence`, `reasons`, `runner_up`, `changes`,
        `contenders`, `excluded` (candidates beyond a limit, with why) and `rule`; None without candidates.
    """
    if not candidates:
        return None
    beyond = {key_of(candidate): found for candidate in candidates if (found := _beyond(candidate, priorities))}
    excluded = [{"model": key[0], "method": key[1], "reason": reason} for key, reason in beyond.items()]
    pick, contenders = _pick(candidates, pairs, priorities)
    if pick is None:
        return {
            "model": None,
            "method": None,
            "sentence": "No candidate keeps within the limits of `recommend`, so none is recommended.",
            "reasons": [f"{titles[key]}: {reason}" for key, reason in beyond.items()],
            "runner_up": None,
            "changes": _changes(candidates, pairs, titles, priorities, None),
            "contenders": [],
            "excluded": excluded,
            "rule": _rule(priorities),
        }
    second, _ = _pick([candidate for candidate in candidates if candidate is not pick], pairs, priorities)
    leader = contenders[0]
    return {
        "model": pick["model"],
        "method": pick["method"],
        "sentence": f"{titles[key_of(pick)]} is recommended: {_why(pick, contenders, titles, priorities)}.",
        "reasons": _reasons(pick, leader, contenders, pairs, titles, beyond),
        "runner_up": _runner_up(pick, second, pairs, titles),
        "changes": [
            *_changes(candidates, pairs, titles, priorities, pick),
            *_with_more_data(pick, leader, pairs, titles, num_test),
        ],
        "contenders": [{"model": candidate["model"], "method": candidate["method"]} for candidate in contenders],
        "excluded": excluded,
        "rule": _rule(priorities),
    }


def mark_pareto(candidates: Sequence[dict[str, Any]]) -> None:
    """Give every candidate `pareto`, and `pareto_by`: the costs against which alone it is on the front.

    A candidate is in the Pareto set when no other is at least as accurate and at most as costly in everything, and
    better in
    something. Candidates no better than the majority baseline are never in it: doing nothing is always cheapest.
    """
    for candidate in candidates:
        others = [other for other in candidates if other is not candidate and other["beats_majority"]]
        candidate["pareto_by"] = [
            cost.name
            for cost in COSTS
            if candidate["beats_majority"] and not any(_dominates(other, candidate, (cost,)) for other in others)
        ]
        candidate["pareto"] = candidate["beats_majority"] and not any(
            _dominates(other, candidate, COSTS) for other in others
        )


def _dominates(a: Candidate, b: Candidate, costs: Sequence[Cost]) -> bool:
    figures = [(_known(cost.of(a)), _known(cost.of(b))) for cost in costs]
    figures.append((-a["accuracy"]["mean"], -b["accuracy"]["mean"]))
    return all(x <= y for x, y in figures) and any(x < y for x, y in figures)


def _known(value: float | None) -> float:
    return math.inf if value is None else float(value)


def _pick(
    candidates: Sequence[Candidate], pairs: Pairs[CandidateKey], priorities: Priorities
) -> tuple[Candidate | None, list[Candidate]]:
    """Return the pick and the contenders, the leader first."""
    within = [candidate for candidate in candidates if not _beyond(candidate, priorities)]
    if not within:
        return None, []
    leader = within[0]
    contenders = [
        candidate
        for candidate in within
        if _level(candidate, leader, pairs) and (candidate["beats_majority"] or not leader["beats_majority"])
    ]
    if priorities.ties == "most_accurate":
        return leader, contenders
    left = contenders
    for cost in _ordered(priorities):
        left = _cheapest(left, cost)
    return left[0], contenders


def _level(candidate: Candidate, leader: Candidate, pairs: Pairs[CandidateKey]) -> bool:
    if candidate is leader:
        return True
    difference = pairs.between(key_of(candidate), key_of(leader))
    return not difference.significant and difference.low <= 0 <= difference.high


def _ordered(priorities: Priorities) -> list[Cost]:
    by_name = {cost.name: cost for cost in COSTS}
    return [by_name[name] for name in priorities.cheapest]


def _cheapest(candidates: Sequence[Candidate], cost: Cost) -> list[Candidate]:
    lowest = min(_known(cost.of(candidate)) for candidate in candidates)
    return [candidate for candidate in candidates if _known(cost.of(candidate)) <= CLEARLY * lowest]


def _beyond(candidate: Candidate, priorities: Priorities) -> str:
    """Return which limits a candidate exceeds, in words; empty where it exceeds none."""
    found = []
    for cost in COSTS:
        most, value = getattr(priorities, cost.limit), cost.of(candidate)
        if most is not None and value is None:
            found.append(f"{cost.limit} is set, and this was not measured")
        elif most is not None and value is not None and value > most:
            found.append(f"{cost.shown(value)}, where {cost.limit} allows {cost.shown(most)}")
    return "; ".join(found)


def _why(
    pick: Candidate, contenders: Sequence[Candidate], titles: Mapping[CandidateKey, str], priorities: Priorities
) -> str:
    within = " within the limits" if _limits(priorities) else ""
    if len(contenders) == 1:
        return f"no other candidate{within} is level with it in accuracy"
    if priorities.ties == "most_accurate":
        return f"it has the highest accuracy{within}, though {len(contenders) - 1} more do not differ significantly"
    deciding = _deciding(pick, contenders, priorities)
    if not deciding:
        return (
            f"of {len(contenders)} candidates{within} that do not differ significantly none costs clearly less, "
            "and it is the most accurate of them"
        )
    reasons = " and the ".join(deciding)
    return f"of {len(contenders)} candidates{within} that do not differ significantly it is the {reasons}"


def _deciding(pick: Candidate, contenders: Sequence[Candidate], priorities: Priorities) -> list[str]:
    """Return the costs by which contenders left, as what the pick is."""
    left, found = list(contenders), []
    for cost in _ordered(priorities):
        kept = _cheapest(left, cost)
        if len(kept) < len(left):
            found.append(cost.least)
        left = kept
    return found


def _limits(priorities: Priorities) -> list[Cost]:
    return [cost for cost in COSTS if getattr(priorities, cost.limit) is not None]


def _reasons(
    pick: Candidate,
    leader: Candidate,
    contenders: Sequence[Candidate],
    pairs: Pairs[CandidateKey],
    titles: Mapping[CandidateKey, str],
    beyond: Mapping[CandidateKey, str],
) -> list[str]:
    accuracy = pick["accuracy"]
    low, high = percent(accuracy["low"]), percent(accuracy["high"])
    costs = ", ".join(cost.shown(value) for cost in COSTS if (value := cost.of(pick)) is not None)
    reasons = [f"{percent(accuracy['mean'])} of test are right (95 % interval {low} to {high}); {costs}."]
    others = [titles[key_of(candidate)] for candidate in contenders if candidate is not pick]
    if others:
        reasons.append(f"Its accuracy does not differ significantly from that of {_listed(others)}.")
    if pick is not leader:
        difference = pairs.between(key_of(pick), key_of(leader))
        reasons.append(
            f"It was {points(difference.value)} points from {titles[key_of(leader)]}; the data allow "
            f"{points(difference.low)} to {points(difference.high)}. Where that is too much, set "
            "recommend.ties=most_accurate or give more test examples."
        )
    if any(candidate["registered_method"] == ONE_TEXT_ALONE for candidate in contenders):
        reasons.append(
            f"{ONE_TEXT_ALONE} never reads the first text and is level with the best: the labels can be guessed from "
            "the second text, or the other candidates have learnt nothing more. Look at the data before shipping."
        )
    if not pick["beats_majority"]:
        reasons.append("No candidate is better than the majority baseline: there is nothing here worth shipping yet.")
    if beyond:
        reasons.append(f"Beyond a limit: {'; '.join(f'{titles[key]} ({why})' for key, why in beyond.items())}.")
    return reasons


def _runner_up(
    pick: Candidate, second: Candidate | None, pairs: Pairs[CandidateKey], titles: Mapping[CandidateKey, str]
) -> dict[str, Any] | None:
    if second is None:
        return None
    difference = pairs.between(key_of(second), key_of(pick))
    worse = "significantly worse" if difference.significant and difference.value < 0 else "not significantly different"
    if difference.significant and difference.value > 0:
        worse = "significantly better, but dearer"
    costs = ", ".join(cost.shown(value) for cost in COSTS if (value := cost.of(second)) is not None)
    return {
        "model": second["model"],
        "method": second["method"],
        "sentence": f"{titles[key_of(second)]} comes next: {points(difference.value)} points ({worse}); {costs}.",
    }


def _changes(
    candidates: Sequence[Candidate],
    pairs: Pairs[CandidateKey],
    titles: Mapping[CandidateKey, str],
    priorities: Priorities,
    pick: Candidate | None,
) -> list[str]:
    """Return under which other priorities another candidate would be picked."""
    asked: list[tuple[str, Priorities]] = [
        (f"Without the limit {cost.limit}", priorities.model_copy(update={cost.limit: None}))
        for cost in _limits(priorities)
    ]
    asked += [
        (
            f"If {cost.name.replace('_', ' ')} counted first",
            priorities.model_copy(
                update={
                    "ties": "cheapest",
                    "cheapest": (cost.name, *(name for name in priorities.cheapest if name != cost.name)),
                }
            ),
        )
        for cost in COSTS
    ]
    asked.append(("If accuracy alone counted", priorities.model_copy(update={"ties": "most_accurate"})))
    conditions: dict[CandidateKey, list[str]] = {}
    for words, other in asked:
        found, _ = _pick(candidates, pairs, other)
        if found is not None and found is not pick:
            conditions.setdefault(key_of(found), []).append(words)
    return [f"{_either(words)}, it would be {titles[key]}." for key, words in conditions.items()]


def _with_more_data(
    pick: Candidate, leader: Candidate, pairs: Pairs[CandidateKey], titles: Mapping[CandidateKey, str], num_test: int
) -> list[str]:
    """Return how many test examples would tell the leader from the pick, if what was seen is true."""
    if pick is leader:
        return []
    difference = pairs.between(key_of(leader), key_of(pick))
    needed = examples_needed(difference.value, difference.discordant, len(pairs.differences))
    if not num_test < needed < MOST_EXAMPLES:
        return []
    rounded = math.ceil(needed / 10 ** (len(str(int(needed))) - 2)) * 10 ** (len(str(int(needed))) - 2)
    return [
        f"If the difference to {titles[key_of(leader)]} is real and as large as seen, about {rounded:,} test examples "
        f"would show it in 4 of 5 runs, and {titles[key_of(leader)]} would be picked."
    ]


def _rule(priorities: Priorities) -> str:
    limits = [f"{cost.limit}={getattr(priorities, cost.limit):g}" for cost in _limits(priorities)]
    within = f"Within {', '.join(limits)}: " if limits else ""
    if priorities.ties == "most_accurate":
        return f"{within}the highest mean accuracy."
    order = ", then ".join(name.replace("_", " ") for name in priorities.cheapest)
    return (
        f"{within}among the candidates that do not differ significantly from the most accurate one (and whose "
        f"difference to it "
        f"has 0 in its own 95 % interval), the cheapest by {order}; a cost decides where it is at least 20 % higher."
    )


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _either(conditions: Sequence[str]) -> str:
    first, *rest = conditions
    return " or ".join([first, *(word[0].lower() + word[1:] for word in rest)])
