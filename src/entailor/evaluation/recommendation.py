"""Which candidate to ship, from the user's priorities: one pick with reasons, the runner-up, and what would change it.

Reads the candidates of a comparison and their differences (pairs.py). Everything here is typed; sentences are made in
report/advice.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from entailor.config.parts import Priorities
from entailor.evaluation.pairs import Pairs
from entailor.evaluation.power import examples_for_margin, examples_needed
from entailor.evaluation.targets import Target

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
    """

    name: str
    limit: str
    of: Callable[[Candidate], float | None]


def peak_memory(candidate: Candidate) -> int | None:
    """Return the peak that limits a run: of the GPU where there is one, else of the process, in bytes."""
    gpu: int | None = candidate["peak_gpu_memory_bytes"]
    host: int | None = candidate["peak_memory_bytes"]
    return host if gpu is None else gpu


COSTS = (
    Cost("latency", "max_latency_ms", lambda candidate: candidate["latency_p50_ms"]),
    Cost("stored", "max_stored_bytes", lambda candidate: candidate["stored_bytes"]),
    Cost("memory", "max_memory_bytes", peak_memory),
    Cost("train_time", "max_train_seconds", lambda candidate: candidate["train_seconds"]),
)


@dataclass(frozen=True, slots=True)
class Name:
    """A candidate, as comparison.json names it."""

    model: str
    method: str


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of `recommend` that a candidate exceeds; `value` is None where the cost was not measured."""

    limit: str
    value: float | None
    most: float


@dataclass(frozen=True, slots=True)
class Excluded:
    """A candidate beyond limits."""

    model: str
    method: str
    limits: tuple[Limit, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """Other priorities: without a limit, another cost first, or accuracy alone; `cost` names the cost or limit."""

    kind: Literal["without_limit", "cost_first", "most_accurate"]
    cost: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """Which candidate would be picked under other priorities."""

    model: str
    method: str
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AgainstLeader:
    """How a candidate stands to the most accurate one within the limits.

    Attributes:
        difference: its metric minus the leader's.
        lower_bound: one-sided, at `recommend.level`.
        non_inferior: whether the bound is above minus the margin.
        examples_needed: test examples that would show it non-inferior in 4 of 5 runs if it is as good as the leader;
            None where it is shown already, where only more seeds would, or where it takes more than a million.
    """

    model: str
    method: str
    difference: float
    lower_bound: float
    non_inferior: bool
    examples_needed: int | None


@dataclass(frozen=True, slots=True)
class RunnerUp:
    """What would be picked next, with its difference to the pick."""

    model: str
    method: str
    difference: float
    verdict: Literal["significantly worse", "significantly better", "not significantly different"]


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to ship and why.

    Attributes:
        outcome: whether a candidate is recommended, or why none is.
        model: of the pick, or None.
        method: name of the pick, or None.
        leader: the most accurate candidate within the limits that beats the majority baseline, or None.
        contenders: the leader and the candidates that are non-inferior to it, the leader first.
        against_leader: every other candidate within the limits that beats the majority baseline.
        below_majority: candidates within the limits that do not beat the majority baseline.
        excluded: candidates beyond a limit.
        decided_by: costs by which contenders left, in order.
        reads_one_text: whether a contender never reads the first text.
        runner_up: or None.
        changes: which candidate other priorities would pick.
        to_tell_leader: test examples that would show the leader's lead over the pick, if it is as large as seen.
    """

    outcome: Literal["recommended", "none_within_limits", "none_beats_majority"]
    model: str | None
    method: str | None
    leader: Name | None = None
    contenders: tuple[Name, ...] = ()
    against_leader: tuple[AgainstLeader, ...] = ()
    below_majority: tuple[Name, ...] = ()
    excluded: tuple[Excluded, ...] = ()
    decided_by: tuple[str, ...] = ()
    reads_one_text: bool = False
    runner_up: RunnerUp | None = None
    changes: tuple[Change, ...] = ()
    to_tell_leader: int | None = None


def key_of(candidate: Candidate) -> CandidateKey:
    """Return what a candidate is known by."""
    return candidate["model"], candidate["method"]


def recommend(
    candidates: Sequence[Candidate], pairs: Pairs[CandidateKey], priorities: Priorities, num_test: int
) -> Mapping[str, Any] | None:
    """Return the fields of :class:`Recommendation` and `rule`, the priorities it followed; None without candidates.

    Of the candidates within the limits that beat the majority baseline the best by the metric leads. Contenders are
    those non-inferior to it: the one-sided lower bound of their difference to it lies above minus the margin, with the
    chance of examples, clusters and seeds in it. So what was merely not shown to be worse is not taken for equal. Costs
    decide among contenders in the order of `cheapest`: a candidate that costs clearly more (20 %) than the cheapest
    leaves; what remains is settled by the metric.

    Args:
        candidates: of comparison.json, best first.
        pairs: their differences.
        priorities: limits, margin, and which cost counts first.
        num_test: test examples.
    """
    if not candidates:
        return None
    excluded = tuple(
        Excluded(*key_of(candidate), limits) for candidate in candidates if (limits := _beyond(candidate, priorities))
    )
    within = [candidate for candidate in candidates if not _beyond(candidate, priorities)]
    pick, contenders = _pick(candidates, pairs, priorities)
    below = tuple(Name(*key_of(candidate)) for candidate in within if not candidate["beats_majority"])
    changes = _changes(candidates, pairs, priorities, pick)
    if pick is None:
        outcome: Literal["none_beats_majority", "none_within_limits"]
        outcome = "none_beats_majority" if within else "none_within_limits"
        found = Recommendation(outcome, None, None, below_majority=below, excluded=excluded, changes=changes)
    else:
        leader = contenders[0]
        second, _ = _pick([candidate for candidate in candidates if candidate is not pick], pairs, priorities)
        found = Recommendation(
            "recommended",
            *key_of(pick),
            leader=Name(*key_of(leader)),
            contenders=tuple(Name(*key_of(candidate)) for candidate in contenders),
            against_leader=tuple(
                _against(candidate, leader, pairs, priorities, num_test)
                for candidate in within
                if candidate is not leader and candidate["beats_majority"]
            ),
            below_majority=below,
            excluded=excluded,
            decided_by=() if priorities.ties == "most_accurate" else _deciding(contenders, priorities),
            reads_one_text=any(candidate["registered_method"] == ONE_TEXT_ALONE for candidate in contenders),
            runner_up=_runner_up(pick, second, pairs),
            changes=changes,
            to_tell_leader=_to_tell(pick, leader, pairs, num_test),
        )
    return {**asdict(found), "rule": priorities.model_dump(mode="json")}


def mark_pareto(candidates: Sequence[dict[str, Any]], target: Target) -> None:
    """Give every candidate `pareto`, and `pareto_by`: the costs against which alone it is on the front.

    A candidate is in the Pareto set when no other is at least as good by the metric and at most as costly in
    everything, and better in something. Candidates no better than the majority baseline are never in it: doing nothing
    is always cheapest.
    """
    for candidate in candidates:
        others = [other for other in candidates if other is not candidate and other["beats_majority"]]
        candidate["pareto_by"] = [
            cost.name
            for cost in COSTS
            if candidate["beats_majority"]
            and not any(_dominates(other, candidate, (cost,), target) for other in others)
        ]
        candidate["pareto"] = candidate["beats_majority"] and not any(
            _dominates(other, candidate, COSTS, target) for other in others
        )


def _dominates(a: Candidate, b: Candidate, costs: Sequence[Cost], target: Target) -> bool:
    figures = [(_known(cost.of(a)), _known(cost.of(b))) for cost in costs]
    merit_a, merit_b = (target.sign * one["intervals"][target.name]["value"] for one in (a, b))
    figures.append((-merit_a, -merit_b))
    return all(x <= y for x, y in figures) and any(x < y for x, y in figures)


def _known(value: float | None) -> float:
    return math.inf if value is None else float(value)


def _pick(
    candidates: Sequence[Candidate], pairs: Pairs[CandidateKey], priorities: Priorities
) -> tuple[Candidate | None, list[Candidate]]:
    """Return the pick and the contenders, the leader first."""
    eligible = [
        candidate for candidate in candidates if candidate["beats_majority"] and not _beyond(candidate, priorities)
    ]
    if not eligible:
        return None, []
    leader = eligible[0]
    contenders = [candidate for candidate in eligible if _non_inferior(candidate, leader, pairs, priorities)]
    if priorities.ties == "most_accurate":
        return leader, contenders
    left = contenders
    for cost in _ordered(priorities):
        left = _cheapest(left, cost)
    return left[0], contenders


def _non_inferior(candidate: Candidate, leader: Candidate, pairs: Pairs[CandidateKey], priorities: Priorities) -> bool:
    if candidate is leader:
        return True
    bound = pairs.between(key_of(candidate), key_of(leader)).lower_bound(priorities.level)
    return bound > -priorities.margin


def _against(
    candidate: Candidate, leader: Candidate, pairs: Pairs[CandidateKey], priorities: Priorities, num_test: int
) -> AgainstLeader:
    difference = pairs.between(key_of(candidate), key_of(leader))
    bound = difference.lower_bound(priorities.level)
    shown = bound > -priorities.margin
    needed = None
    if not shown and priorities.margin > 0:
        needed = _advised(
            examples_for_margin(priorities.margin, priorities.level, difference.spread, num_test), num_test
        )
    return AgainstLeader(*key_of(candidate), difference.value, bound, shown, needed)


def _advised(needed: float, num_test: int) -> int | None:
    """Round to two digits, up; None where it is no advice."""
    if not num_test < needed < MOST_EXAMPLES:
        return None
    unit = int(10 ** max(0, len(str(int(needed))) - 2))
    return int(math.ceil(needed / unit) * unit)


def _ordered(priorities: Priorities) -> list[Cost]:
    by_name = {cost.name: cost for cost in COSTS}
    return [by_name[name] for name in priorities.cheapest]


def _cheapest(candidates: Sequence[Candidate], cost: Cost) -> list[Candidate]:
    lowest = min(_known(cost.of(candidate)) for candidate in candidates)
    return [candidate for candidate in candidates if _known(cost.of(candidate)) <= CLEARLY * lowest]


def _beyond(candidate: Candidate, priorities: Priorities) -> tuple[Limit, ...]:
    """Return which limits a candidate exceeds."""
    found = []
    for cost in COSTS:
        most, value = getattr(priorities, cost.limit), cost.of(candidate)
        if most is not None and (value is None or value > most):
            found.append(Limit(cost.limit, value, most))
    return tuple(found)


def _deciding(contenders: Sequence[Candidate], priorities: Priorities) -> tuple[str, ...]:
    """Return the costs by which contenders left."""
    left, found = list(contenders), []
    for cost in _ordered(priorities):
        kept = _cheapest(left, cost)
        if len(kept) < len(left):
            found.append(cost.name)
        left = kept
    return tuple(found)


def _runner_up(pick: Candidate, second: Candidate | None, pairs: Pairs[CandidateKey]) -> RunnerUp | None:
    if second is None:
        return None
    difference = pairs.between(key_of(second), key_of(pick))
    verdict: Literal["significantly worse", "significantly better", "not significantly different"]
    verdict = "not significantly different"
    if difference.significant:
        verdict = "significantly worse" if difference.value < 0 else "significantly better"
    return RunnerUp(*key_of(second), difference.value, verdict)


def _changes(
    candidates: Sequence[Candidate], pairs: Pairs[CandidateKey], priorities: Priorities, pick: Candidate | None
) -> tuple[Change, ...]:
    """Return under which other priorities another candidate would be picked."""
    asked: list[tuple[Condition, Mapping[str, object]]] = [
        (Condition("without_limit", cost.limit), {cost.limit: None})
        for cost in COSTS
        if getattr(priorities, cost.limit) is not None
    ]
    for cost in COSTS:
        order = (cost.name, *(name for name in priorities.cheapest if name != cost.name))
        asked.append((Condition("cost_first", cost.name), {"ties": "cheapest", "cheapest": order}))
    asked.append((Condition("most_accurate"), {"ties": "most_accurate"}))
    conditions: dict[CandidateKey, list[Condition]] = {}
    for condition, update in asked:
        found, _ = _pick(candidates, pairs, priorities.model_copy(update=update))
        if found is not None and found is not pick:
            conditions.setdefault(key_of(found), []).append(condition)
    return tuple(Change(*key, tuple(found)) for key, found in conditions.items())


def _to_tell(pick: Candidate, leader: Candidate, pairs: Pairs[CandidateKey], num_test: int) -> int | None:
    """Return how many test examples would show the leader's lead over the pick, if what was seen is true."""
    if pick is leader:
        return None
    difference = pairs.between(key_of(leader), key_of(pick))
    comparisons = len(pairs.candidates) - 1
    return _advised(examples_needed(difference.value, difference.spread, num_test, comparisons), num_test)
