"""From an experiment to the list of its trials: what each candidate is, what it runs on, and in which order.

Plans only; nothing is trained here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from entailor.classifiers.thresholds import missing_costs
from entailor.config.costs import cost_matrix
from entailor.config.experiment import DEFAULT_METHODS, Experiment, parse_settings
from entailor.config.parts import ModelSettings, Priorities, PromptSettings, Settings
from entailor.config.plain import shown
from entailor.engine.batching import SCORING_TOKENS
from entailor.engine.scorer import usual_batch_tokens
from entailor.errors import ConfigError, near_miss
from entailor.events import Observer
from entailor.methods import Method, TrainedMethod, build_method
from entailor.methods.registry import CANDIDATE_KEYS
from entailor.models.precision import PrecisionChoice
from entailor.models.sizes import required_size, text_size
from entailor.runs.environment import RunEnvironment
from entailor.runs.files import write_checked_json
from entailor.runs.layout import RunFolder
from entailor.runs.record import NO_MODEL
from entailor.study.prompt_search import check_prompts
from entailor.study.trial_plan import TrialPlan
from entailor.tasks import Task
from entailor.tasks.templates import with_template_text

if TYPE_CHECKING:
    from entailor.models.load import Family

ANY_SEED = (0,)  # of methods in which a seed changes nothing: one trial, whatever seeds the others have


@dataclass(frozen=True)
class Candidate:
    """One candidate of the table: a method, and what holds for it alone.

    Attributes:
        method: its settings.
        models: the models it runs on.
        model: how they are loaded.
        prompt: how decoders are asked.
        own: the keys among `models`, `model` and `prompt` that the candidate sets itself, as written.
    """

    method: Method
    models: tuple[str, ...]
    model: ModelSettings
    prompt: PromptSettings
    own: Mapping[str, Any]


def build_candidate(name: str, settings: Mapping[str, Any], experiment: Experiment) -> Candidate:
    """Lay a candidate's own settings over the experiment's.

    Raises:
        ConfigError: an unknown key, a value out of range, or a model the experiment does not list.
    """
    own = {key: settings[key] for key in CANDIDATE_KEYS[1:] if key in settings}
    where = f"methods.{name}"
    model = parse_settings(ModelSettings, _over(experiment.model, own.get("model"), f"{where}.model"), f"{where}.model")
    prompt = _over(experiment.prompt, own.get("prompt"), f"{where}.prompt")
    models = own.get("models", experiment.models)
    if isinstance(models, str):
        models = [part.strip() for part in models.split(",")]
    if not isinstance(models, (list, tuple)) or not all(isinstance(one, str) for one in models):
        raise ConfigError(f"{where}.models: names of models were expected, found {shown(models)}")
    models = tuple(models)
    if unknown := [one for one in models if one not in experiment.models]:
        raise ConfigError(
            f"{where}.models: {shown(unknown[0])} is none of the experiment's models ({', '.join(experiment.models)})."
            f"{near_miss(unknown[0], experiment.models)}"
        )
    asked = with_template_text(parse_settings(PromptSettings, prompt, f"{where}.prompt"))
    method = build_method(name, settings)
    if _by_cost(method) and not method.costs:  # type: ignore[attr-defined]
        method = method.model_copy(update={"costs": experiment.recommend.costs})
    return Candidate(method, models, model, asked, own)


def _over(settings: Settings, own: Any, where: str) -> Mapping[str, Any]:
    if own is not None and not isinstance(own, dict):
        raise ConfigError(f"{where}: keys with values were expected, found {shown(own)}")
    return {**settings.model_dump(), **(own or {})}


def resolve(experiment: Experiment, candidates: dict[str, Candidate]) -> Mapping[str, Any]:
    """Return the experiment with every default written out, as experiment.yaml holds it."""
    values = experiment.model_dump(mode="json")
    values["prompt"] = with_template_text(experiment.prompt).model_dump(mode="json")
    values["methods"] = {
        name: {"method": candidate.method.name, **candidate.method.model_dump(mode="json"), **_written_out(candidate)}
        for name, candidate in candidates.items()
    }
    return values


def _written_out(candidate: Candidate) -> dict[str, Any]:
    own = dict(candidate.own)
    if "prompt" in own:
        written = candidate.prompt.model_dump(mode="json")
        own["prompt"] = {key: written[key] for key in own["prompt"]}
    return own


def plan_trials(
    experiment: Experiment,
    candidates: dict[str, Candidate],
    task: Task,
    folder: RunFolder,
    environment: RunEnvironment,
    observer: Observer,
) -> list[TrialPlan]:
    """Return the trials in the order they run: baselines once, unseeded methods once a model, others once a seed.

    Raises:
        ConfigError: no method fits the data and the models.
    """
    if NO_MODEL in experiment.models:
        raise ConfigError(f"models: {NO_MODEL!r} stands for no model. Write a folder of this name as ./{NO_MODEL}")
    fitting = {
        name: candidate for name, candidate in candidates.items() if task.is_pair or not candidate.method.needs_pair
    }
    for name in [name for name in candidates if name not in fitting]:
        observer.warn(f"{name} is left out: it reads the second text of a pair, and the data have single texts")
    if not fitting:
        raise ConfigError("none of the chosen methods fits single texts. Choose others with --methods")
    needed = [name for name in experiment.models if any(_runs_on(candidate, name) for candidate in fitting.values())]
    choices, families = {}, {}
    for name in needed:
        choices[name], families[name] = open_for_run(name, experiment, folder, environment, observer)
    _check_read(fitting, families)
    environment["placement"].update(place_models(needed, families, fitting, task, observer))
    write_checked_json(folder.environment_file, environment)
    plans = []
    for model in (NO_MODEL, *needed):
        on_it = {name: candidate for name, candidate in fitting.items() if _runs_on(candidate, model)}
        misfits = [
            name for name, candidate in on_it.items() if families.get(model, "encoder") not in candidate.method.families
        ]
        if misfits and model != NO_MODEL:
            kind = "an encoder" if families[model] == "encoder" else "a decoder"
            observer.warn(f"left out on {model}, {kind}: {', '.join(misfits)}")
        usable = {name: candidate for name, candidate in on_it.items() if name not in misfits}
        for name, reason in misfits_of(model, families.get(model), usable).items():
            if set(candidates) != set(DEFAULT_METHODS):
                raise ConfigError(f"methods: {name} cannot work on {model}: {reason}. Take {name} out of methods")
            misfits.append(name)
            observer.warn(f"{name} is left out on {model}: {reason}")
        for name, candidate in on_it.items():
            if name not in misfits:
                plans += _plans_of(name, candidate, model, choices.get(model), experiment)
    if not plans:
        raise ConfigError("none of the chosen methods fits the models. Choose others with --methods or --model")
    plans.sort(key=lambda plan: plan.method.learns_from_others)  # the others keep their order
    check_prompts(plans, task, experiment.budget)
    by_kappa = [one.candidate for one in plans if getattr(one.method, "metric_for_best_model", "") == "weighted_kappa"]
    if by_kappa and not task.ordinal:
        raise ConfigError(
            f"methods.{by_kappa[0]}.metric_for_best_model: weighted_kappa needs labels in an order. Set "
            "data.ordinal=true, and data.labels=[...] in their order, lowest first, where they are no numbers"
        )
    check_costs(plans, experiment.recommend, task)
    return plans


def _check_read(candidates: Mapping[str, Candidate], families: Mapping[str, Family]) -> None:
    """Refuse what a candidate sets for itself and nothing would ever read.

    Raises:
        ConfigError: a model for a method without one, or a prompt where neither method nor model reads any.
    """
    for name, candidate in candidates.items():
        method, own = candidate.method, candidate.own
        unread = () if method.needs_backbone else [key for key in ("models", "model") if key in own]
        for key in unread:
            raise ConfigError(f"methods.{name}.{key}: {method.name} loads no model. Leave {key} out")
        decoders = [one for one in candidate.models if families.get(one) == "decoder" and method.needs_backbone]
        if "prompt" in own and not method.reads_prompt and not decoders:
            where = f" on {', '.join(candidate.models)}, no decoder" if method.needs_backbone else ""
            words = (
                f", and say what labels mean in methods.{name}.descriptions" if hasattr(method, "descriptions") else ""
            )
            raise ConfigError(
                f"methods.{name}.prompt: {method.name} puts no prompt around the text{where}. Leave prompt out{words}"
            )


def check_costs(plans: Iterable[TrialPlan], priorities: Priorities, task: Task) -> None:
    """Refuse costs that are not those of the task's labels, before anything is trained.

    Raises:
        ConfigError: a label that is none of the task's, or a mistake without a cost.
    """
    if priorities.costs:
        cost_matrix(priorities.costs, task.labels, "recommend.costs")
    for plan in plans:
        where, method = f"methods.{plan.candidate}", plan.method
        if keys := _by_cost(method):
            costs = method.costs  # type: ignore[attr-defined]
            if not costs:
                raise ConfigError(
                    f"{where}.{keys[0]}: cost needs costs. Give recommend.costs, gold label to predicted label to cost"
                )
            matrix = cost_matrix(costs, task.labels, f"{where}.costs")
            if "thresholds" in keys:
                missing_costs(np.array(matrix), task.labels, f"{where}.costs")


def _by_cost(method: Method) -> list[str]:
    """Return the settings of a method that ask for its costs."""
    return [key for key in ("metric_for_best_model", "thresholds") if getattr(method, key, "none") == "cost"]


def place_models(
    models: list[str], families: dict[str, Family], candidates: dict[str, Candidate], task: Task, observer: Observer
) -> dict[str, list[Mapping[str, Any]]]:
    """Plan the memory of each model in each way it is loaded; show the plans and return them for environment.json.

    Raises:
        ModelError: one cannot fit.
    """
    planned: dict[str, list[Mapping[str, Any]]] = {}
    if not models:
        return planned
    from entailor.models.load import plan_model
    from entailor.models.memory_plan import expected_speed

    for model in models:
        ways: dict[str, list[str]] = {}
        for name, candidate in candidates.items():
            if _runs_on(candidate, model) and families[model] in candidate.method.families:
                ways.setdefault(f"{candidate.model!r} {candidate.method.objective}", []).append(name)
        for names in ways.values():
            candidate = candidates[names[0]]
            plan = plan_model(model, candidate.model, task, candidate.method.objective)
            speed = expected_speed(plan)
            observer.note(f"memory of {model} for {', '.join(names)}: {plan}; {speed}")
            planned.setdefault(model, []).append({"candidates": names, **plan.as_record(), "speed": speed})
    return planned


def misfits_of(model: str, family: Family | None, candidates: dict[str, Candidate]) -> dict[str, str]:
    """Return the candidates that cannot work on a model, each with the reason."""
    whole = {
        name: "it reads whole texts, and model.long_texts is windows; "
        f"methods.{name}.model.long_texts=truncate sets it for {name} alone"
        for name, candidate in candidates.items()
        if candidate.method.needs_backbone and candidate.model.long_texts == "windows"
        if family == "decoder" or not candidate.method.reads_windows
    }
    whole |= {
        name: "it is trained, and model.stream reads one layer at a time to score; "
        f"methods.{name}.model.stream=false sets it for {name} alone"
        for name, candidate in candidates.items()
        if isinstance(candidate.method, TrainedMethod) and candidate.model.stream
    }
    checked = {
        name: candidate
        for name, candidate in candidates.items()
        if candidate.method.objective == "classify" and type(candidate.method).misfit is not Method.misfit
    }
    if not checked:
        return whole
    from entailor.models.load import bare_architecture

    architecture = bare_architecture(model, next(iter(checked.values())).model)
    reasons = {name: candidate.method.misfit(architecture) for name, candidate in checked.items()}
    return whole | {name: reason for name, reason in reasons.items() if reason is not None}


def _runs_on(candidate: Candidate, model: str) -> bool:
    return model in candidate.models if candidate.method.needs_backbone else model == NO_MODEL


def _plans_of(
    name: str, candidate: Candidate, model: str, precision: PrecisionChoice | None, experiment: Experiment
) -> list[TrialPlan]:
    return [
        TrialPlan(
            candidate=name,
            method=candidate.method,
            model=model,
            seed=seed,
            settings=candidate.model,
            prompt=candidate.prompt,
            # what is not trained is computed in fp32, and its record shall say so
            precision=precision if isinstance(candidate.method, TrainedMethod) else None,
            restarts=experiment.restarts,
            scoring_batch_tokens=experiment.scoring_batch_tokens
            or (usual_batch_tokens() if candidate.method.needs_backbone else SCORING_TOKENS),
            checkpoint_steps=experiment.checkpoint_steps,
            checkpoint_minutes=experiment.checkpoint_minutes,
        )
        for seed in (experiment.seeds if candidate.method.is_seeded else ANY_SEED)
    ]


def open_for_run(
    model: str, experiment: Experiment, folder: RunFolder, environment: RunEnvironment, observer: Observer
) -> tuple[PrecisionChoice, Family]:
    """Fetch a model, tell what it is, and measure once a run which arithmetic trains it fastest.

    The choice is kept for every trial and every resumption.

    Raises:
        ModelError: the model cannot be had, or its configuration is not one of `transformers`.
    """
    from entailor.models.load import family_of, open_model, read_config

    known = environment["precision"]
    if model not in known:
        observer.note(f"model {model}")
    config = read_config(open_model(model, experiment.model), experiment.model)
    if model not in known:
        hidden = required_size(config, "hidden_size")
        inner = text_size(config, "intermediate_size") or 4 * hidden
        import torch

        from entailor.engine.precision import choose_precision
        from entailor.models.device import main_device

        asked = experiment.model.device_map
        device = main_device() if asked in (None, "auto") else torch.device(asked)
        known[model] = asdict(choose_precision(experiment.model.precision, hidden, inner, device))
        write_checked_json(folder.environment_file, environment)
        observer.note(f"precision {known[model]['precision']}: {known[model]['reason']}")
    return PrecisionChoice(**known[model]), family_of(config.model_type)
