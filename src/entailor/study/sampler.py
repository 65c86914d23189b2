"""Where settings are drawn from and which trials go on, by Optuna; and what pruning is expected to save."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from entailor.config.parts import BudgetSettings
from entailor.methods import Method
from entailor.methods.base import Range

SIMULATIONS = 20  # of a study, to estimate what pruning saves
STARTUP_TRIALS = 5  # drawn evenly before the sampler has something to go by

Failure = Literal["diverged", "refused", "crashed"]


@dataclass(frozen=True)
class Tried:
    """One setting that was tried.

    Attributes:
        number: place in the study, from 0; the first is the candidate's own settings.
        settings: the hyperparameters that were drawn.
        state: complete; pruned (behind others at a rung); cut (the budget was used up); failed, with `error`.
        validation_accuracy: of the best weights, 0 to 1; None where validation was never scored.
        validation_loss: log loss of the same weights, nats.
        validation_figure: what chooses, where that is neither accuracy nor the loss; more is better.
        evaluations: value by which trials are compared, after each evaluation of validation.
        rungs: what the pruner wrote down.
        examples_seen: training examples, with repetition.
        epochs: epochs run.
        seconds: all the trial took, loading included.
        ended: UTC time.
        error: what went wrong, or None.
        error_type: the name of its exception class, or None.
        failure: the kind of `error`: diverged (another setting may not); refused (whatever the setting); crashed (out
            of memory, or an error of the model's own code); None without an error, and in older studies.
    """

    number: int
    settings: dict[str, int | float]
    state: Literal["complete", "pruned", "cut", "failed"]
    validation_accuracy: float | None = None
    validation_loss: float | None = None
    evaluations: tuple[float, ...] = ()
    rungs: Mapping[str, Any] | None = None
    examples_seen: int = 0
    epochs: float = 0.0
    seconds: float = 0.0
    ended: str = ""
    error: str | None = None
    error_type: str | None = None
    failure: Failure | None = None
    validation_figure: float | None = None


def expected_share(budget: BudgetSettings, trials: int, evaluations: int) -> float:
    """Return which share of all evaluations is run once the pruner has had its say, by trying it on random values.

    Args:
        budget: its pruner.
        trials: settings that are tried.
        evaluations: evaluations of validation in a whole training.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rng = random.Random(budget.search_seed)
    run = 0
    for _ in range(SIMULATIONS):
        study = optuna.create_study(study_name="tuning", direction="maximize", pruner=pruner(budget))
        for _ in range(trials):
            trial, value = study.ask(), rng.random()
            for step in range(1, evaluations + 1):
                trial.report(value, step)
                run += 1
                if trial.should_prune():
                    break
            study.tell(trial, value)
    return run / (SIMULATIONS * trials * evaluations)


def search_ranges(method: Method) -> dict[str, Range]:
    """Return the search space, widened where the candidate's own settings lie outside it: they are tried first."""
    ranges = {}
    for name, found in method.search_space().items():
        own = _own_value(method, name)
        ranges[name] = replace(found, low=min(found.low, own), high=max(found.high, own))
    return ranges


def _own_value(method: Method, name: str) -> float:
    """Return a candidate's own setting; a learning rate that is not given is the general one."""
    value = getattr(method, name)
    return float(getattr(method, "learning_rate") if value is None else value)  # noqa: B009 - trained methods have it


def distributions(ranges: Mapping[str, Range]) -> Mapping[str, Any]:
    """Return the ranges as Optuna has them; choices by their places."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    return {
        name: CategoricalDistribution([float(place) for place in range(len(one.choices))])
        if one.choices
        else FloatDistribution(one.low, one.high, log=one.log)
        for name, one in ranges.items()
    }


def optuna_study(budget: BudgetSettings, ranges: Mapping[str, Range], tried: Sequence[Tried], method: Method) -> Any:
    """Return a study that stands where these trials left it.

    It is made again for each trial, with a seed of its own, so that a study that was broken off draws what it would
    have
    drawn.
    """
    import optuna
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = budget.search_seed + len(tried)
    samplers: dict[str, Callable[[], Any]] = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
    }
    study = optuna.create_study(
        study_name="tuning",  # hyperband deals trials to its brackets by the name
        direction="maximize",
        sampler=samplers[budget.sampler](),
        pruner=pruner(budget),
    )
    states = {"complete": TrialState.COMPLETE, "failed": TrialState.FAIL}
    for one in tried:
        state = states.get(one.state, TrialState.PRUNED)
        study.add_trial(
            create_trial(
                state=state,
                value=max(one.evaluations) if state == TrialState.COMPLETE else None,
                params=one.settings,
                distributions=distributions(ranges),
                intermediate_values=dict(enumerate(one.evaluations, start=1)),
                system_attrs=dict(one.rungs or {}),
            )
        )
    if not tried:
        study.enqueue_trial({name: 0.0 if one.choices else _own_value(method, name) for name, one in ranges.items()})
    return study


def pruner(budget: BudgetSettings) -> Any:
    """Return the pruner; its resource is evaluations of validation, one at least."""
    from optuna import pruners

    if budget.pruner == "none":
        return pruners.NopPruner()
    kind = pruners.HyperbandPruner if budget.pruner == "hyperband" else pruners.SuccessiveHalvingPruner
    return kind(min_resource=1, reduction_factor=budget.reduction_factor)
