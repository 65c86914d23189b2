"""What a candidate is searched over: hyperparameters, and prompts, its own first and then those the user lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from entailor.config.parts import BudgetSettings, PromptSearch
from entailor.errors import ConfigError
from entailor.methods.base import Range, TrainedMethod
from entailor.study.sampler import search_ranges
from entailor.study.trial_plan import TrialPlan
from entailor.tasks import Task
from entailor.tasks.templates import build_template

PARTS = {"prompt.template": "templates", "prompt.instruction": "instructions", "prompt.verbalizer": "verbalizers"}
SHOWN = 60  # characters of a prompt in a table


def prompt_choices(plan: TrialPlan) -> dict[str, tuple[Any, ...]]:
    """Return each part of the prompt that is searched to what it may be; the first is the candidate's own."""
    if not plan.method.reads_prompt:
        return {}
    prompt = plan.prompt
    found = {}
    for name, listed in PARTS.items():
        values = [getattr(prompt, name.removeprefix("prompt.")), *getattr(prompt.search, listed)]
        different = tuple(value for index, value in enumerate(values) if value not in values[:index])
        if len(different) > 1:
            found[name] = different
    return found


def prompt_ranges(plan: TrialPlan) -> dict[str, Range]:
    """Return the same as ranges of places in those lists."""
    return {
        name: Range(0, len(values) - 1, log=False, choices=tuple(map(_shown, values)))
        for name, values in prompt_choices(plan).items()
    }


def ranges_of(plan: TrialPlan) -> dict[str, Range]:
    """Return where a candidate is searched: hyperparameters of a trained method, and parts of the prompt it reads."""
    trained = search_ranges(plan.method) if isinstance(plan.method, TrainedMethod) else {}
    return {**trained, **prompt_ranges(plan)}


def _shown(value: Any) -> str:
    text = "its own" if value in (None, {}) else ", ".join(value.values()) if isinstance(value, Mapping) else str(value)
    text = text.replace("\n", "⏎")
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def with_prompt(plan: TrialPlan, settings: Mapping[str, float]) -> TrialPlan:
    """Return a plan with the prompt that stands at these places, and nothing left to search."""
    choices = prompt_choices(plan)
    chosen = {name.removeprefix("prompt."): choices[name][int(settings[name])] for name in choices if name in settings}
    if not chosen:
        return plan
    return replace(plan, prompt=plan.prompt.model_copy(update={**chosen, "search": PromptSearch()}))


def untried(ranges: Mapping[str, Range], tried: Sequence[Mapping[str, float]]) -> list[dict[str, float]] | None:
    """Return the combinations of choices that were not tried yet; None where a number is searched as well."""
    if not all(one.choices for one in ranges.values()):
        return None
    places = [range(len(one.choices)) for one in ranges.values()]
    combinations = [dict(zip(ranges, map(float, one), strict=True)) for one in product(*places)]
    return [one for one in combinations if one not in tried]


def check_prompts(plans: Sequence[TrialPlan], task: Task, budget: BudgetSettings) -> None:
    """Look at every prompt that is listed before anything is asked.

    Raises:
        ConfigError: there is no budget to try them under, no candidate reads a prompt, or one cannot be used.
    """
    listing = [plan for plan in plans if plan.prompt.search != PromptSearch()]
    if listing and not budget.is_set:
        raise ConfigError("prompt.search: prompts are tried under a budget. Give one, for example budget.trials=8")
    if listing and not any(plan.method.reads_prompt for plan in plans):
        raise ConfigError("prompt.search: no candidate reads a prompt. Add in_context or llm_api, or leave it out")
    for plan in {(plan.model, plan.candidate): plan for plan in listing}.values():
        for name, values in prompt_choices(plan).items():
            for value in values:
                prompt = plan.prompt.model_copy(update={name.removeprefix("prompt."): value})
                build_template(prompt, task.labels, is_pair=task.is_pair, day=task.day)
