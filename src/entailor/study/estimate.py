"""How long a run will take and how much memory it needs, by a short probe of each candidate; then how good that was.

The probe loads the real model, takes a few real training steps and scores a few real batches; the rest is counting:
epochs, evaluations, seeds, tuning budget, learning curve. Test is not read: its size is known, its lengths are taken
from validation.
"""

from __future__ import annotations

import gc
import hashlib
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from entailor.classifiers.base import Encoded, FitData, PromptedClassifier
from entailor.config.experiment import BudgetSettings
from entailor.data.example import Example, Split
from entailor.engine.meter import peak_gpu_memory_bytes, peak_memory_bytes, reset_peak_memory
from entailor.engine.probe import (
    ScoringCost,
    line,
    probe_scoring,
    probe_training,
    run_without_gradients,
    scoring_tokens,
)
from entailor.engine.scorer import collect_features, without_gradients
from entailor.engine.training import Runtime, TrainingData, seed_everything
from entailor.errors import EntailorError, RunError
from entailor.methods import Classifier, FittedClassifier, TrainedMethod
from entailor.models.memory import resident_bytes
from entailor.runs.environment import loaded_torch
from entailor.runs.layout import RunFolder
from entailor.runs.record import RunRecord, read_checked_json, write_checked_json
from entailor.shipping.restoring import FP32
from entailor.study.learning_curve import PointPlan
from entailor.study.search import expected_share, is_tunable
from entailor.study.trial import LATENCY_EXAMPLES, RELOAD_EXAMPLES, TrialPlan
from entailor.tasks import Task

ESTIMATE_VERSION = 4
SAMPLE = (
    4096  # examples whose lengths stand for all, the longest among them: one long text makes the peak of a training
)
FIT_EXAMPLES, FIT_GROWTH = 48, 3  # a fit is tried on so many examples, then on three times as many, ...
FIT_ALLOWANCE = 1.5  # seconds; a fit that would take longer is extrapolated from the two before
SLOW_LOAD = 0.5  # seconds
STEPS_ALLOWANCE = 2.0  # seconds of one candidate's timed steps
SCORING_ALLOWANCE = 2.5  # seconds of its larger scoring batch


@dataclass(frozen=True)
class CandidateCost:
    """What one trial of a candidate is expected to take, in seconds and bytes.

    Attributes:
        model: as the user named it.
        method: the candidate's name.
        key: hash of what the figures depend on.
        load: reading and adapting the checkpoint, once.
        tokenize: text of all three parts to tokens.
        train: the whole training, or features and fit.
        evaluate: all evaluations of validation.
        test: scoring test once.
        finish: saving, loading again and checking, timing single answers.
        peak_memory_bytes: most memory resident at once.
        base_memory_bytes: of it, what was resident before.
        peak_gpu_memory_bytes: the same of the GPU, or None without one.
        probe_seconds: what finding out took.
        error: why it could not be found out, or None.
    """

    model: str
    method: str
    key: str
    load: float = 0.0
    tokenize: float = 0.0
    train: float = 0.0
    evaluate: float = 0.0
    test: float = 0.0
    finish: float = 0.0
    peak_memory_bytes: int = 0
    base_memory_bytes: int = 0
    peak_gpu_memory_bytes: int | None = None
    probe_seconds: float = 0.0
    error: str | None = None

    @property
    def trial_seconds(self) -> float:
        """One trial."""
        return self.load + self.tokenize + self.train + self.evaluate + self.test + self.finish


@dataclass(frozen=True)
class Work:
    """What is left to do.

    Attributes:
        plans: every trial of the run.
        left: those that are not complete.
        points: points of learning curves that are not complete.
        tuned: model and candidate of finished studies.
        budget: of tuning.
    """

    plans: Sequence[TrialPlan]
    left: Sequence[TrialPlan]
    points: Sequence[PointPlan]
    tuned: Set[tuple[str, str]]
    budget: BudgetSettings


def estimate_candidates(
    work: Work, task: Task, split: Split, earlier: Mapping[tuple[str, str], CandidateCost]
) -> list[dict[str, Any]]:
    """Return what each candidate with something left to do is expected to take.

    Args:
        work: what is left to do.
        task: labels and input shape.
        split: train and validation are sampled; of test only the size is looked at.
        earlier: what was found out before, by model and candidate.

    Returns:
        One mapping a candidate: the fields of :class:`CandidateCost`, `trial_seconds`, `trials`, `tuning_seconds`,
        `curve_seconds`, and `seconds` in all.
    """
    documents = []
    first: dict[tuple[str, str], TrialPlan] = {}
    for plan in work.plans:
        first.setdefault((plan.model, plan.candidate), plan)
    for name, plan in first.items():
        trials = sum((one.model, one.candidate) == name for one in work.left)
        points = [one for one in work.points if (one.plan.model, one.plan.candidate) == name]
        if not trials and not points:
            continue
        cost = earlier.get(name)
        if cost is None or cost.key != _key(plan, split) or cost.error:
            cost = probe_candidate(plan, task, split)
        tuning = 0.0 if name in work.tuned else _tuning_seconds(plan, work.budget, cost, len(split.train))
        curve = sum(_point_seconds(point, cost, split) for point in points)
        documents.append(
            {
                **asdict(cost),
                "trial_seconds": cost.trial_seconds,
                "trials": trials,
                "tuning_seconds": tuning,
                "curve_seconds": curve,
                "seconds": trials * cost.trial_seconds + tuning + curve,
            }
        )
    _start_from_here(documents)
    return documents


def _start_from_here(documents: Sequence[dict[str, Any]]) -> None:
    """Count from what is resident now: trials start from there, with the libraries of all candidates in memory."""
    gc.collect()
    reset_peak_memory()
    resident = resident_bytes()
    for document in (one for one in documents if one["error"] is None):
        document["peak_memory_bytes"] += max(0, resident - document["base_memory_bytes"])
        document["base_memory_bytes"] = resident


def probe_candidate(plan: TrialPlan, task: Task, split: Split) -> CandidateCost:
    """Find out what one trial takes; an error is written down, for the trial will meet it and say more."""
    begin, key = time.perf_counter(), _key(plan, split)
    try:
        cost = _Probe(plan, task, split, key).run()
    except (EntailorError, MemoryError, RuntimeError, ValueError, LookupError) as error:
        cost = CandidateCost(plan.model, plan.candidate, key, error=f"{type(error).__name__}: {error}")
    if plan.method.needs_backbone:
        gc.collect()  # a model is full of cycles, and the next candidate's memory is measured too
    return CandidateCost(**{**asdict(cost), "probe_seconds": time.perf_counter() - begin})


class _Probe:
    """State of one candidate's probe; each method is one stage."""

    def __init__(self, plan: TrialPlan, task: Task, split: Split, key: str) -> None:
        self.plan, self.task, self.key = plan, replace(task, prompt=plan.prompt), key
        self.split = split
        self.sample = _of_all_lengths(split.train)
        self.validation_sample = _of_all_lengths(split.validation)
        self.peak = 0
        self.prepare = 0.0  # seconds in front of the first scoring batch

    def run(self) -> CandidateCost:
        reset_peak_memory()
        resident = resident_bytes()
        seed_everything(self.plan.seed)
        classifier, load = self._load()
        begin = time.perf_counter()
        if isinstance(classifier, PromptedClassifier):
            classifier.demonstrate(self.split.train)
        shown = time.perf_counter() - begin
        begin = time.perf_counter()
        sample = () if isinstance(classifier, PromptedClassifier) else self.sample  # train is asked nothing
        train, validation = classifier.encode(sample), classifier.encode(self.validation_sample)
        per_example = (time.perf_counter() - begin) / (len(sample) + len(self.validation_sample))
        encoded = len(self.split.validation) + len(self.split.test) + (len(self.split.train) if sample else 0)
        self._note_peak()
        if isinstance(classifier, PromptedClassifier):
            train_seconds, evaluate, scoring, validation = self._prompted(classifier, validation, shown)
        elif isinstance(classifier, FittedClassifier):
            train_seconds, evaluate, scoring = self._fitted(classifier, train, validation)
        else:
            train_seconds, evaluate, scoring = self._trained(classifier, train, validation)
        latency = self._latency(classifier)
        test_tokens, largest = self._scored(validation, len(self.split.test))
        self.peak = max(self.peak, scoring.peak_bytes(largest))
        save, token = self._save(classifier), scoring.token_seconds
        again, _ = self._scored(validation, min(len(self.split.validation), RELOAD_EXAMPLES))
        return CandidateCost(
            model=self.plan.model,
            method=self.plan.candidate,
            key=self.key,
            load=load,
            tokenize=per_example * encoded,
            train=train_seconds,
            evaluate=evaluate,
            test=test_tokens * token + self.prepare,
            finish=save
            + load
            + latency * min(len(self.split.validation), LATENCY_EXAMPLES + 3)
            + 2 * (again * token + self.prepare),
            peak_memory_bytes=self.peak,
            base_memory_bytes=resident,
            peak_gpu_memory_bytes=peak_gpu_memory_bytes(),
        )

    def _load(self) -> tuple[Classifier, float]:
        """Adapt; a first time that takes long may have gone into imports, and is taken again."""
        begin = time.perf_counter()
        classifier = self._adapt()
        seconds = time.perf_counter() - begin
        if seconds < SLOW_LOAD:
            return classifier, seconds
        del classifier
        begin = time.perf_counter()
        classifier = self._adapt()
        return classifier, min(seconds, time.perf_counter() - begin)

    def _adapt(self) -> Classifier:
        plan, backbone = self.plan, None
        if plan.method.needs_backbone:
            from entailor.models.load import load_backbone, open_model

            folder = open_model(plan.model, plan.settings)
            precision = plan.precision or FP32
            backbone = load_backbone(folder, self.task, plan.settings, precision, plan.seed, plan.method.objective)
        return plan.method.adapt(backbone, self.task, plan.seed)

    def _note_peak(self) -> None:
        self.peak = max(self.peak, peak_memory_bytes())

    def _latency(self, classifier: Classifier) -> float:
        """Return the seconds of one answer."""
        run = run_without_gradients(classifier)
        times = []
        for example in (*self.validation_sample[:1], *self.validation_sample[:3]):
            begin = time.perf_counter()
            run(classifier.encode([example])[:1])
            times.append(time.perf_counter() - begin)
        return float(np.median(times[1:]))

    def _trained(
        self, classifier: Classifier, train: Sequence[Encoded], validation: Sequence[Encoded]
    ) -> tuple[float, float, ScoringCost]:
        import torch

        method = self.plan.method
        assert isinstance(method, TrainedMethod)
        limit = self.plan.scoring_batch_tokens
        scoring = probe_scoring(run_without_gradients(classifier), validation, limit, SCORING_ALLOWANCE)
        few = [item for item in validation if item.example_index < 4]
        data = TrainingData(
            train,
            np.array(self.task.targets(self.sample)),
            few,
            np.array(self.task.targets(self.validation_sample[:4])),
        )
        bf16 = self.plan.precision is not None and self.plan.precision.precision == "bf16"
        runtime = Runtime(self.plan.seed, torch.bfloat16 if bf16 else None, limit)
        inputs = round(len(self.split.train) * len(train) / len(self.sample))
        cost = probe_training(classifier, method, data, runtime, inputs, STEPS_ALLOWANCE)
        self.peak = max(self.peak, cost.peak_memory_bytes)
        tokens, largest = self._scored(validation, len(self.split.validation))
        self.peak = max(self.peak, scoring.peak_bytes(largest))
        return (
            cost.epoch_seconds * method.num_train_epochs,
            cost.evaluations * tokens * scoring.token_seconds,
            scoring,
        )

    def _fitted(
        self, classifier: FittedClassifier, train: Sequence[Encoded], validation: Sequence[Encoded]
    ) -> tuple[float, float, ScoringCost]:
        limit = self.plan.scoring_batch_tokens

        def run(members: Sequence[Encoded]) -> Any:
            return classifier.features(classifier.collate(members))

        scoring = probe_scoring(run, validation, limit, SCORING_ALLOWANCE)
        tokens = [scoring_tokens(inputs, count, limit) for inputs, count in self._parts(train, validation)]
        self.peak = max(self.peak, *(scoring.peak_bytes(largest) for _, largest in tokens))
        few_validation = _spread(validation, FIT_EXAMPLES * FIT_GROWTH)
        fit_validation = self._features(classifier, few_validation, self.task.targets(self.validation_sample))
        reset_peak_memory()
        examples: list[int] = []
        seconds: list[float] = []
        count, spent = FIT_EXAMPLES, 0.0
        while not examples or (
            examples[-1] < len(train) and (len(examples) < 2 or FIT_GROWTH * spent <= FIT_ALLOWANCE)
        ):
            begin = time.perf_counter()
            chosen = _spread(train, count)
            fit_train = self._features(classifier, chosen, self.task.targets(self.sample))
            fitting = time.perf_counter()
            classifier.fit(fit_train, fit_validation)
            examples.append(len(chosen))
            seconds.append(time.perf_counter() - fitting)
            count, spent = count * FIT_GROWTH, time.perf_counter() - begin
        base, slope = line(examples[-2:], seconds[-2:])  # a fit grows faster than its examples
        fit = base + slope * len(self.split.train)
        self._note_peak()
        return sum(total for total, _ in tokens) * scoring.token_seconds + fit, 0.0, scoring

    def _prompted(
        self, classifier: PromptedClassifier, validation: Sequence[Encoded], shown: float
    ) -> tuple[float, float, ScoringCost, Sequence[Encoded]]:
        """Count the choice of demonstrations, and validation where it calibrates; what is scored comes last."""
        limit = self.plan.scoring_batch_tokens
        begin = time.perf_counter()
        with without_gradients(classifier), classifier.scoring(validation) as prepared:
            self.prepare = time.perf_counter() - begin
            scoring = probe_scoring(run_without_gradients(classifier), prepared, limit, SCORING_ALLOWANCE)
        tokens, _ = self._scored(prepared, len(self.split.validation))
        calibrating = tokens * scoring.token_seconds + self.prepare if classifier.needs_validation else 0.0
        return 0.0, shown + calibrating, scoring, prepared

    def _scored(self, inputs: Sequence[Encoded], examples: int) -> tuple[int, int]:
        """Return tokens in all, and of the largest batch, of so many examples like those of the validation sample."""
        count = math.ceil(examples * len(inputs) / len(self.validation_sample))
        return scoring_tokens(inputs, count, self.plan.scoring_batch_tokens)

    def _parts(self, train: Sequence[Encoded], validation: Sequence[Encoded]) -> list[tuple[Sequence[Encoded], int]]:
        return [(train, len(self.split.train)), (validation, len(self.split.validation))]

    def _features(self, classifier: FittedClassifier, inputs: Sequence[Encoded], targets: Sequence[int]) -> FitData:
        chosen = [targets[item.example_index] for item in inputs]
        return collect_features(classifier, inputs, chosen, self.plan.scoring_batch_tokens)

    def _save(self, classifier: Classifier) -> float:
        with tempfile.TemporaryDirectory() as place:
            begin = time.perf_counter()
            classifier.save(Path(place))
            return time.perf_counter() - begin


def _of_all_lengths(examples: Sequence[Example]) -> tuple[Example, ...]:
    """Return all examples, or as many as are sampled, evenly spread over their lengths and the longest with them."""
    if len(examples) <= SAMPLE:
        return tuple(examples)
    ordered = sorted(examples, key=lambda example: -len(example.text) - len(example.text_pair or ""))
    return _spread(ordered, SAMPLE)


def _spread(examples: Sequence[Any], count: int) -> tuple[Any, ...]:
    """Return at most `count` examples, evenly spread."""
    if len(examples) <= count:
        return tuple(examples)
    return tuple(examples[index * len(examples) // count] for index in range(count))


def _tuning_seconds(plan: TrialPlan, budget: BudgetSettings, cost: CandidateCost, num_train: int) -> float:
    if not budget.is_set or not is_tunable(plan.method) or cost.error:
        return 0.0
    method = plan.method
    assert isinstance(method, TrainedMethod)
    training = cost.train + cost.evaluate
    start = cost.load + cost.tokenize
    if budget.minutes is not None:
        return 60 * budget.minutes
    evaluations = max(1, math.ceil(method.num_train_epochs))
    if budget.trials is not None:
        return budget.trials * (start + expected_share(budget, budget.trials, evaluations) * training)
    assert budget.examples is not None
    trainings = budget.examples / (num_train * method.num_train_epochs)
    begun = max(1, round(trainings / expected_share(budget, max(1, round(trainings)), evaluations)))
    return begun * start + trainings * training


def _point_seconds(point: PointPlan, cost: CandidateCost, split: Split) -> float:
    """Scale a trial to a smaller sample; classifiers of a curve are not saved."""
    examples = {name: len(part) for name, part in split.parts()}
    left = (point.num_train + examples["validation"] + examples["test"]) / sum(examples.values())
    train = cost.train * point.more_epochs * point.num_train / examples["train"]
    return cost.load + cost.tokenize * left + train + cost.evaluate * point.more_epochs + cost.test


def _key(plan: TrialPlan, split: Split) -> str:
    """Return a hash of what a candidate's figures depend on."""
    torch = loaded_torch()
    what = {
        "method": [plan.method.name, plan.method.model_dump(mode="json")],
        "model": [plan.model, plan.settings.model_dump(mode="json"), plan.scoring_batch_tokens],
        "prompt": plan.prompt.model_dump(mode="json"),
        "precision": plan.precision.precision if plan.precision else None,
        "examples": {name: len(examples) for name, examples in split.parts()},
        "threads": torch.get_num_threads() if torch and plan.method.needs_backbone else None,
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def estimate_trials(work: Work, task: Task, split: Split, folder: RunFolder) -> dict[str, Any]:
    """Estimate what is left to do, keep it in estimate.json for the comparison with what comes, and return it.

    Args:
        work: what is left to do.
        task: labels and input shape.
        split: train and validation are sampled.
        folder: where earlier estimates stand; figures of candidates that are unchanged are taken from there.

    Returns:
        `candidates`, `seconds` and `peak_memory_bytes` of all, `probe_seconds`, and `ends`, the local time at the end.
    """
    earlier = _earlier(folder)
    known = {(candidate["model"], candidate["method"]): _cost(candidate) for candidate in earlier}
    begin = time.perf_counter()
    candidates = estimate_candidates(work, task, split, known)
    probed = time.perf_counter() - begin
    now = datetime.now(UTC)
    seconds = sum(candidate["seconds"] for candidate in candidates)
    names = {(candidate["model"], candidate["method"]) for candidate in candidates}
    kept = [candidate for candidate in earlier if (candidate["model"], candidate["method"]) not in names]
    if candidates:
        document = {"version": ESTIMATE_VERSION, "made": now.isoformat(timespec="seconds"), "probe_seconds": probed}
        write_checked_json(folder.estimate_file, {**document, "candidates": [*kept, *candidates]})
    return {
        "candidates": candidates,
        "seconds": seconds,
        "peak_memory_bytes": max((candidate["peak_memory_bytes"] for candidate in candidates), default=0),
        "probe_seconds": probed,
        "ends": (now + timedelta(seconds=seconds)).astimezone().isoformat(timespec="seconds"),
    }


def _earlier(folder: RunFolder) -> list[dict[str, Any]]:
    """Return the candidates of the estimate in the folder; none where it is missing, damaged or old."""
    try:
        found = read_checked_json(folder.estimate_file, "")
        candidates: list[dict[str, Any]] = found["candidates"] if found["version"] == ESTIMATE_VERSION else []
        for candidate in candidates:
            _cost(candidate)
    except (RunError, KeyError, TypeError, AttributeError):
        return []
    return candidates


def _cost(candidate: Mapping[str, Any]) -> CandidateCost:
    return CandidateCost(**{name: candidate[name] for name in CandidateCost.__dataclass_fields__})


def estimate_document(
    folder: RunFolder, records: Iterable[RunRecord], tuning: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Return what comparison.json holds under `estimate`: what was expected of each candidate, and what it took.

    Args:
        folder: the run folder.
        records: every trial.
        tuning: the studies, as comparison.json holds them.

    Returns:
        `probe_seconds` and `candidates` with `model`, `method`, and for `trial_seconds`, `tuning_seconds` and
        `peak_memory_bytes` each what was `estimate`, what was `measured` (None where there is nothing yet), and their
        `ratio`; None where the folder has no estimate.
    """
    candidates = _earlier(folder)
    if not candidates:
        return None
    complete: dict[tuple[str, str], list[RunRecord]] = {}
    for record in records:
        if record.status == "complete":
            complete.setdefault((record.model, record.name), []).append(record)
    spent = {
        (one["model"], one["method"]): one["seconds"]
        for one in (tuning or {"studies": []})["studies"]
        if one["status"] == "finished"
    }
    documents = []
    for candidate in candidates:
        key = candidate["model"], candidate["method"]
        found = complete.get(key, [])
        walls = [record.provenance["wall_seconds"] for record in found if "wall_seconds" in record.provenance]
        peaks = [record.costs.peak_memory_bytes for record in found]
        documents.append(
            {
                "model": candidate["model"],
                "method": candidate["method"],
                "error": candidate["error"],
                "trial_seconds": _against(candidate["trial_seconds"], statistics.fmean(walls) if walls else None),
                "tuning_seconds": _against(candidate["tuning_seconds"], spent.get(key)),
                "peak_memory_bytes": _against(candidate["peak_memory_bytes"], max(peaks, default=None)),
            }
        )
    pairs = [
        (one["trial_seconds"]["estimate"] * len(complete[one["model"], one["method"]]), one)
        for one in documents
        if one["trial_seconds"]["measured"] is not None and not one["error"]
    ]
    measured = sum(one["trial_seconds"]["measured"] * len(complete[one["model"], one["method"]]) for _, one in pairs)
    total = _against(sum(estimate for estimate, _ in pairs), measured if pairs else None)
    return {
        "probe_seconds": read_checked_json(folder.estimate_file, "")["probe_seconds"],
        "candidates": documents,
        "all_trials": total,
    }


def _against(estimate: float, measured: float | None) -> dict[str, float | None]:
    return {"estimate": estimate, "measured": measured, "ratio": estimate / measured if measured else None}
