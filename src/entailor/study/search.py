"""Equal tuning: every candidate with a search space tries settings under one budget, on train and validation alone.

Draws and pruning are optuna's; here stand the budget, the record of what was tried, and the choice. Test is no part of
the split these functions work on.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from entailor.config.parts import BudgetSettings
from entailor.config.plain import figure
from entailor.data.example import Split
from entailor.engine.choosing import merit
from entailor.engine.stopping import RunContext
from entailor.engine.training import TrainingResult
from entailor.errors import DivergedError, EntailorError, ProcessError, RunError, TrainingError
from entailor.events import Event, Observer, StageProgress
from entailor.methods import TrainedMethod
from entailor.runs.documents import well_formed
from entailor.runs.environment import utc_now
from entailor.runs.files import read_checked_json, write_checked_json
from entailor.runs.integrity import disk_trouble
from entailor.runs.layout import RunFolder
from entailor.runs.record import CurvePoint
from entailor.runs.redaction import without_secrets
from entailor.runs.trial_folder import STUDY_FILE
from entailor.study.attempts import ask_validation, train_only
from entailor.study.jobs import HERE, Job, Pool
from entailor.study.prompt_search import PARTS, ranges_of, untried, with_prompt
from entailor.study.sampler import Failure, Tried, distributions, optuna_study
from entailor.study.trial import discard_leftovers
from entailor.study.trial_plan import TrialPlan
from entailor.tasks import Task

STUDY_VERSION = 4
STUDY_KEYS = ("model", "method", "status", "budget", "search_space", "chosen", "best")
STUDY_REMEDY = "Delete its folder and run again"
CRASHES = 3  # without a single success, after which no other setting is expected to help
REPEAT_STEP = 1_000_003  # between the seeds of repeated searches; a search adds the number of its trial to its own
COMPLETE_EPOCHS = 1e-9  # what rounding may take off the last epoch


@dataclass(frozen=True)
class Study:
    """What a candidate's budget gave.

    Attributes:
        model: as the user named it.
        candidate: the candidate's name.
        tried: every setting, in order.
        best: number of the chosen one; None where none could be used, so that the candidate keeps its own settings.
    """

    model: str
    candidate: str
    tried: tuple[Tried, ...]
    best: int | None

    @property
    def chosen(self) -> dict[str, float]:
        """The chosen hyperparameters; empty where the candidate keeps its own."""
        return {} if self.best is None else self.tried[self.best].settings


def search_candidates(
    plans: Sequence[TrialPlan],
    budget: BudgetSettings,
    task: Task,
    split: Split,
    folder: RunFolder,
    run_context: RunContext,
    pool: Pool = HERE,
) -> list[TrialPlan]:
    """Spend the budget on each candidate that can be tuned; return the plans with the chosen settings.

    A study that is finished is read from the run folder; one that was broken off goes on from the last checkpoint of
    the setting that was being tried.

    Args:
        plans: every trial that will be run.
        budget: what each candidate may spend.
        task: labels and input shape.
        split: its test is not looked at.
        folder: where studies are kept.
        run_context: who is told how each training goes, with a line for each setting; and who may stop
            it.
        pool: where the studies are run.

    Raises:
        Stopped: somebody asked for it.
    """
    blind = replace(split, test=())
    firsts: dict[tuple[str, str], TrialPlan] = {}
    for plan in plans:
        if ranges_of(plan):
            firsts.setdefault((plan.model, plan.candidate), plan)
    jobs = [
        Job(
            title=f"tuning {plan.candidate}" + (f", search {repeat}" if repeat > 1 else ""),
            work=partial(run_study, own),
            plan=plan,
            task=task,
            split=blind,
            folder=place,
            lost=partial(_lost_study, plan, run_context.observer),
            found=_Tuner(plan, own, task, blind, place, run_context).finished(),
            counted=False,
        )
        for plan in firsts.values()
        for repeat in range(1, budget.repeats + 1)
        for own, place in [(_of_repeat(budget, repeat), folder.study(plan.model, plan.candidate, repeat))]
    ]
    chosen = [folder.study(*key) for key in firsts]  # the first searches choose
    done = [pair for batch in pool.run(jobs, run_context) for pair in batch]
    studies = {(study.model, study.candidate): study for job, study in done if job.folder in chosen}
    keys = [(plan.model, plan.candidate) for plan in plans]
    return [
        with_settings(plan, studies[key].chosen) if key in studies else plan
        for plan, key in zip(plans, keys, strict=True)
    ]


def _of_repeat(budget: BudgetSettings, repeat: int) -> BudgetSettings:
    seed = (budget.search_seed + REPEAT_STEP * (repeat - 1)) % (1 << 32)
    return budget.model_copy(update={"search_seed": seed})


def run_study(
    budget: BudgetSettings, plan: TrialPlan, task: Task, split: Split, folder: Path, run_context: RunContext
) -> Study:
    """Spend the budget on one candidate, or read its study where that is finished.

    Args:
        budget: what it may spend.
        plan: one of its trials.
        task: labels and input shape.
        split: without test.
        folder: the study's.
        run_context: as for :func:`search_candidates`.
    """
    return _Tuner(plan, budget, task, split, folder, run_context).run()


def _lost_study(plan: TrialPlan, observer: Observer, reason: str) -> Study:
    observer.warn(f"tuning {plan.candidate} on {plan.model}: {reason}. The candidate keeps its own settings")
    return Study(plan.model, plan.candidate, (), None)


def search_document(folder: RunFolder) -> Mapping[str, Any] | None:
    """Return what comparison.json holds under `tuning`: every study of the folder, or None where there is none."""
    studies = []
    files = [
        (number, int(place.name.removeprefix("search-")) if repeated else 1, place / STUDY_FILE)
        for number, split in folder.splits()
        for repeated, pattern in enumerate(("tuning/*/*", "tuning/*/*/search-*"))
        for place in sorted(split.path.glob(pattern))
        if (place / STUDY_FILE).is_file()
    ]
    for number, repeat, file in files:
        study = read_checked_json(file, STUDY_REMEDY)
        tried = _read_tried(file, study)
        kept = [key for key in Tried.__dataclass_fields__ if key not in ("rungs", "evaluations")]
        with well_formed(RunError, file, STUDY_REMEDY):
            head = {key: study[key] for key in STUDY_KEYS}
        studies.append(
            {
                **head,
                "split": number,
                "repeat": repeat,
                "seconds": sum(one.seconds for one in tried),
                "examples_seen": sum(one.examples_seen for one in tried),
                "trials": [{key: asdict(one)[key] for key in kept} for one in tried],
            }
        )
    return {"budget": studies[0]["budget"], "studies": studies} if studies else None


def with_settings(plan: TrialPlan, settings: Mapping[str, float]) -> TrialPlan:
    """Return a plan with other hyperparameters, checked as if the user had written them, and another prompt."""
    own = {name: value for name, value in settings.items() if name not in PARTS}
    if own:
        plan = replace(plan, method=type(plan.method).model_validate({**plan.method.model_dump(), **own}))
    return with_prompt(plan, settings)


class _Tuner:
    """State of one candidate's study; each method is one stage."""

    def __init__(
        self,
        plan: TrialPlan,
        budget: BudgetSettings,
        task: Task,
        split: Split,
        folder: Path,
        run_context: RunContext,
    ) -> None:
        self.plan, self.method = replace(plan, seed=budget.search_seed, restarts=0), plan.method
        self.budget, self.task, self.split, self.folder = budget, task, split, folder
        self.observer, self.run_context = run_context.observer, run_context
        self.metric = plan.method.metric_for_best_model if isinstance(plan.method, TrainedMethod) else "accuracy"
        self.ranges = ranges_of(plan)
        self.tried: list[Tried] = []

    def finished(self) -> Study | None:
        """Return the study where an earlier run finished it under the same settings."""
        return self._study() if self._read() == "finished" else None

    def run(self) -> Study:
        status = self._read()
        if status is None:
            discard_leftovers(self.folder)
            self._write_study("running", None)
        while status != "finished" and self._affordable():
            self.tried.append(self._try())
            self._write_study("running", None)
            discard_leftovers(self.folder)
            self.observer.note(self._words(self.tried[-1]))
        discard_leftovers(self.folder)  # which a kill right after a study was written leaves behind
        study = self._study()
        if status != "finished":
            self._write_study("finished", study)
        if study.best is None:
            self.observer.note(
                f"tuning {self.plan.candidate} on {self.plan.model}: none of {len(self.tried)} settings could "
                f"be used. See "
                "the errors above; the candidate keeps its own settings"
            )
        return study

    def _study(self) -> Study:
        best = _best(self.tried, self.metric)
        return Study(self.plan.model, self.plan.candidate, tuple(self.tried), best)

    def _read(self) -> str | None:
        """Read what an earlier run tried under the same settings; return the status of its study, or None."""
        try:
            earlier = read_checked_json(self.folder / STUDY_FILE, STUDY_REMEDY)
            if earlier.get("version") == STUDY_VERSION and earlier.get("key") == self._key():
                self.tried = _read_tried(self.folder / STUDY_FILE, earlier)
                return str(earlier.get("status"))
        except RunError:
            self.tried = []
        return None

    def _write_study(self, status: str, study: Study | None) -> None:
        document = {
            "version": STUDY_VERSION,
            "model": self.plan.model,
            "method": self.plan.candidate,
            "key": self._key(),
            "status": status,
            "written": utc_now(),
            "budget": self.budget.model_dump(mode="json"),
            "search_space": {name: asdict(found) for name, found in self.ranges.items()},
            "best": study.best if study else None,
            "chosen": study.chosen if study else {},
            "trials": [asdict(one) for one in self.tried],
        }
        write_checked_json(self.folder / STUDY_FILE, document)

    def _key(self) -> str:
        """Return a hash of all a study depends on; test is not among it."""
        what = {
            "budget": self.budget.model_dump(mode="json", exclude={"repeats"}),
            "method": [self.method.name, self.method.model_dump(mode="json")],
            "ranges": {name: asdict(found) for name, found in self.ranges.items()},
            "model": [self.plan.model, self.plan.settings.model_dump(mode="json")],
            "prompt": self.plan.prompt.model_dump(mode="json"),
            "precision": self.plan.precision.precision if self.plan.precision else None,
            "split": self.split.fingerprint(),
        }
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    def _affordable(self) -> bool:
        if not self.tried:
            return True
        if _hopeless(self.tried) or self._left() == []:
            return False
        if self.budget.trials is not None:
            return len(self.tried) < self.budget.trials
        return self._spent() + self._least_cost() <= self._limit()

    def _left(self) -> list[dict[str, float]] | None:
        return untried(self.ranges, [one.settings for one in self.tried])

    def _draw(self) -> tuple[Any, Any]:
        """Return a study and its next trial; where only choices are searched none is tried twice."""
        study = optuna_study(self.budget, self.ranges, self.tried, self.method)
        trial = study.ask(distributions(self.ranges))
        left = self._left()
        if left is not None and dict(trial.params) not in left:
            study = optuna_study(self.budget, self.ranges, self.tried, self.method)
            study.enqueue_trial(random.Random(self.budget.search_seed + len(self.tried)).choice(left))
            trial = study.ask(distributions(self.ranges))
        return study, trial

    def _limit(self) -> float:
        return float(self.budget.examples or 60 * (self.budget.minutes or 0))

    def _spent(self) -> float:
        return sum(one.examples_seen if self.budget.examples else one.seconds for one in self.tried)

    def _least_cost(self) -> float:
        """Return what a trial costs up to its first evaluation, by those before."""
        costs = [
            (one.examples_seen if self.budget.examples else one.seconds) / len(one.evaluations)
            for one in self.tried
            if one.evaluations
        ]
        return min(costs, default=0.0)

    def _try(self) -> Tried:
        """Train one setting, as far as pruner and budget let it; a prompt is asked about all of validation."""
        from optuna.trial import TrialState

        study, trial = self._draw()
        settings = {name: float(trial.params[name]) for name in self.ranges}
        attempt = _Attempt(self, trial)
        number, result = len(self.tried), TrainingResult()
        error: Exception | None = None
        # the name keeps checkpoints of two settings apart, also where the same values are drawn twice
        plan = replace(with_settings(self.plan, settings), candidate=f"{self.plan.candidate}, setting {number + 1}")
        try:
            context = replace(self.run_context, observer=Observer(attempt.relay))
            if isinstance(self.method, TrainedMethod):
                result = train_only(plan, self.task, self.split, self.folder, attempt.is_enough, context)
            else:
                result = ask_validation(plan, self.task, self.split, self.folder, context)
                attempt.evaluations.append(result.best_accuracy)
        except Exception as raised:  # a model's own code can raise anything, and other settings may do without
            if disk_trouble(raised) or isinstance(raised, ProcessError):
                raise
            error = raised
        told = study.tell(trial, state=TrialState.FAIL if error else TrialState.PRUNED)
        return Tried(
            number=number,
            settings=settings,
            state="failed" if error else attempt.state,
            validation_accuracy=None if error else result.best_accuracy,
            validation_loss=None if error else result.best_loss,
            validation_figure=None if error else result.best_figure,
            evaluations=tuple(attempt.evaluations),
            rungs={key: value for key, value in told.system_attrs.items() if key != "fixed_params"},
            examples_seen=attempt.examples_begun if error else result.examples_seen,
            epochs=attempt.epochs if error else result.epochs,
            # what an earlier sitting spent on this setting counts as well
            seconds=max(time.perf_counter() - attempt.began, result.train_seconds + result.evaluate_seconds),
            ended=utc_now(),
            error=without_secrets(f"{type(error).__name__}: {error}") if error else None,
            error_type=type(error).__name__ if error else None,
            failure=_failure(error) if error else None,
        )

    def _used_up(self, examples_seen: int, seconds: float, evaluations: int) -> bool:
        """Tell whether training on to the next evaluation would go over the budget."""
        if self.budget.trials is not None:
            return False
        cost = examples_seen if self.budget.examples else seconds
        return self._spent() + cost * (1 + 1 / evaluations) > self._limit()

    def _words(self, one: Tried) -> str:
        settings = ", ".join(
            f"{key} {found.choices[int(one.settings[key])] if found.choices else figure(one.settings[key])}"
            for key, found in self.ranges.items()
        )
        outcome = one.error or f"validation {100 * (one.validation_accuracy or 0):.1f} %"
        state = {"pruned": f", stopped after {figure(one.epochs, 3)} epochs", "cut": ", cut by the budget"}.get(
            one.state, ""
        )
        of = f" of {self.budget.trials}" if self.budget.trials else ""
        place = f"{self.plan.candidate} on {self.plan.model}, {one.number + 1}{of}"
        return f"tuning {place}: {settings}: {outcome}{state} ({one.seconds:.1f} s)"


class _Attempt:
    """One setting while it is trained: what was evaluated, and whether to go on."""

    def __init__(self, tuner: _Tuner, trial: Any) -> None:
        self.tuner, self.trial = tuner, trial
        self.title = f"tuning {tuner.plan.candidate}, setting {len(tuner.tried) + 1}"
        self.began = time.perf_counter()
        self.state: Literal["complete", "pruned", "cut"] = "complete"
        self.evaluations: list[float] = []
        self.epochs = 0.0
        method = tuner.method
        self.step_examples = 0  # of what is not trained
        if isinstance(method, TrainedMethod):
            self.step_examples = method.per_device_train_batch_size * method.gradient_accumulation_steps
        self.examples_begun = self.step_examples  # a setting that fails has cost its failing step at least

    def relay(self, event: Event) -> None:
        """Pass an event on; its stage says of which setting it is, and its steps how many examples were begun."""
        stage = event.data
        if isinstance(stage, StageProgress):
            if stage.name == "train":
                self.examples_begun = (stage.done + 1) * self.step_examples
            event = replace(event, data=replace(stage, name=f"{self.title}: {stage.name}"))
        self.tuner.observer.on_event(event)

    def is_enough(self, point: CurvePoint, examples_seen: int) -> bool:
        method = self.tuner.method
        assert isinstance(method, TrainedMethod)
        self.epochs = point.epoch
        self.evaluations.append(_value(method, point))
        self.trial.report(self.evaluations[-1], len(self.evaluations))
        behind = bool(self.trial.should_prune())  # asked at the last one as well: the pruner writes its rungs down
        self.state = "complete"  # going on from a checkpoint repeats the evaluations before it, and the last decides
        if point.epoch >= method.num_train_epochs - COMPLETE_EPOCHS:
            return False
        if behind:
            self.state = "pruned"
        elif self.tuner._used_up(examples_seen, time.perf_counter() - self.began, len(self.evaluations)):
            self.state = "cut"
        return self.state != "complete"


def _failure(error: Exception) -> Failure:
    """Return the kind of an error; what our own checks refuse is refused with every learning rate."""
    if isinstance(error, DivergedError):
        return "diverged"
    return "refused" if isinstance(error, EntailorError) and not isinstance(error, TrainingError) else "crashed"


def _hopeless(tried: Sequence[Tried]) -> bool:
    """Tell whether the candidate fails for a reason that no other setting changes; its trials will say which."""
    crashed = len(tried) >= CRASHES and all(one.failure == "crashed" for one in tried)
    return crashed or tried[0].failure == "refused"


def _value(method: TrainedMethod, point: CurvePoint) -> float:
    """Return what trials are compared by; more is better."""
    accuracy, loss = point.validation_accuracy or 0.0, point.validation_loss or 0.0
    return merit(method.metric_for_best_model, accuracy, loss, point.validation_figure)[0]


def _best(tried: Sequence[Tried], metric: str) -> int | None:
    """Return the number of the best setting that was not given up; the earlier one on a tie."""

    def of(one: Tried) -> tuple[float, float]:
        return merit(metric, one.validation_accuracy or 0.0, one.validation_loss or 0.0, one.validation_figure)

    usable = [one for one in tried if one.state in ("complete", "cut") and one.validation_accuracy is not None]
    return max(usable, key=of).number if usable else None


def _read_tried(path: Path, study: Mapping[str, Any]) -> list[Tried]:
    with well_formed(RunError, path, STUDY_REMEDY):
        tried: list[Tried] = TypeAdapter(list[Tried]).validate_python(study["trials"])
    return tried
