"""One trial: adapt, train or fit, score test once, save, and prove that what was saved gives the same scores."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from entailor.classifiers.base import Encoded, PromptedClassifier
from entailor.data.example import Example, Split
from entailor.engine.checkpoint import CheckpointStore, NoCheckpoints, Saving, Snapshot
from entailor.engine.memory import is_out_of_memory
from entailor.engine.meter import Meter, peak_gpu_memory_bytes, peak_memory_bytes, reset_peak_memory
from entailor.engine.ranks import ALONE
from entailor.engine.scorer import collect_features, score
from entailor.engine.stopping import UNATTENDED, RunContext
from entailor.engine.training import LoopRuntime, TrainingData, TrainingResult, seed_everything
from entailor.errors import DivergedError, EntailorError, MethodError, ProcessError, RunError, TrainingError
from entailor.evaluation.calibration import fit_temperature
from entailor.events import Event, Severity
from entailor.methods import Classifier, FittedClassifier, TrainedMethod
from entailor.models.memory import resident_bytes
from entailor.runs.files import write_json, write_text
from entailor.runs.integrity import disk_trouble
from entailor.runs.ownership import remove_files
from entailor.runs.record import DATA, PREDICTIONS_ON, SPLIT, Costs, CurvePoint, RunRecord
from entailor.runs.redaction import without_secrets
from entailor.runs.trial_folder import CHECKPOINT_FOLDER, WRITTEN_FILE, clear_trial, saved_folder
from entailor.shipping.restoring import CLASSIFIER_FILE, FP32, learned_folder
from entailor.study.finished import (
    blank_record,
    describe_classifier,
    failed_record,
    latency_of,
    move_thresholds,
    predictions_of,
    prompts_of,
    save_and_reload,
    truncation_note,
)
from entailor.study.identity import training_identity
from entailor.study.trial_plan import TrialPlan
from entailor.tasks import Task

if TYPE_CHECKING:
    from entailor.models.load import Backbone
    from entailor.study.distillation import Lesson

LAST_GOOD_FOLDER = "last_good"
RESTART_SEED_STEP = 1000
What = Literal["answers", "training", "validation"]
"""How far the processes run a trial together."""


def run_trial(
    plan: TrialPlan, task: Task, split: Split, folder: Path, run_context: RunContext = UNATTENDED
) -> RunRecord:
    """Run one trial and write its folder; an error is recorded as a failed trial, not raised.

    A training that was broken off goes on from its last checkpoint and gives the same record, times aside.

    Args:
        plan: what to run.
        task: labels and input shape.
        split: test is read once, after training is over.
        folder: the trial's folder; what an unfinished attempt left there is removed, but for its checkpoints.
        run_context: who is told how it goes, and who may stop it.

    Returns:
        The record, complete or failed, as written.

    Raises:
        RunError: the folder cannot be written. That is no failure of the trial, and the others would fail alike.
        Stopped: somebody asked for it.
    """
    started, begin = datetime.now(UTC), time.monotonic()
    trial = Trial(plan, replace(task, prompt=plan.prompt), split, folder, run_context)
    try:
        clear_trial(folder)
        folder.mkdir(parents=True, exist_ok=True)
        record = _outcome(trial)
        # the clock may be set back meanwhile
        ended = started + timedelta(seconds=time.monotonic() - begin)
        times = {"started": started.isoformat(timespec="seconds"), "ended": ended.isoformat(timespec="seconds")}
        record = replace(record, provenance={**record.provenance, **times, "wall_seconds": time.monotonic() - begin})
        record.write(folder)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"{folder}: cannot be written: {disk_trouble(error) or error}. Then run the same command again: "
            "it redoes nothing that is complete"
        ) from error
    if record.status == "complete" or trial.would_fail_again:
        trial.store.clear()
    return record


def _outcome(trial: Trial) -> RunRecord:
    """Run a trial; an error that is its own becomes a failed record."""
    try:
        with trial.together("answers"):
            return trial.run()
    except ProcessError:
        raise
    except DivergedError as error:
        trial.would_fail_again = True
        return trial.failed(error, trial.keep_last_good(error))
    except EntailorError as error:
        trial.would_fail_again = isinstance(error, (TrainingError, MethodError))
        return trial.failed(error, str(error))
    except Exception as error:  # a model's own code can raise anything, and the other trials go on
        if disk_trouble(error):
            raise
        if is_out_of_memory(error):
            return trial.failed(
                error,
                f"out of memory ({error}). Lower model.max_length, take a smaller model, or train on fewer examples "
                "(data.max_train_examples)",
            )
        details = trial.folder / "traceback.txt"
        write_text(details, without_secrets(traceback.format_exc()))
        return trial.failed(error, f"{error}. Where it was raised stands in {details}")


def follow(what: What, plan: TrialPlan, task: Task, split: Split, folder: Path, run_context: RunContext) -> None:
    """Do this process's part of a trial that another one, the first, runs: the same steps, and nothing is written.

    Args:
        what: how far it goes: to the answers of test, through the training, or to those of validation.
        plan: as the first process has it, like the next three.
        task: labels and input shape.
        split: train, validation and test.
        folder: the trial's.
        run_context: holds the processes.
    """
    trial = Trial(plan, task, split, folder, run_context)
    if what == "answers":
        trial.answers()
        return
    trial.is_enough = lambda point, seen: False  # the first process is asked in its place
    classifier = trial.learn()
    if what == "validation":
        trial.score_validation(classifier)


def discard_leftovers(folder: Path) -> None:
    """Remove what a training that is over needs no more: its checkpoints, and the list its record now holds."""
    CheckpointStore(folder / CHECKPOINT_FOLDER).clear()
    remove_files(folder, (WRITTEN_FILE,))


class Trial:
    """State of one trial; each method is one stage."""

    def __init__(self, plan: TrialPlan, task: Task, split: Split, folder: Path, run_context: RunContext) -> None:
        self.plan, self.task, self.split, self.folder = plan, task, split, folder
        self.observer, self.stop = run_context.observer, run_context.stop
        self.ranks = run_context.ranks if plan.method.needs_backbone else ALONE
        first = self.ranks.rank == 0
        place = folder / CHECKPOINT_FOLDER
        self.store = CheckpointStore(place, self.observer) if first else NoCheckpoints(place)
        self.divided = self.ranks.way == "fsdp" and isinstance(plan.method, TrainedMethod)
        self.classifier: Classifier | None = None
        self.would_fail_again = False
        self.meter = Meter()
        self.events: list[Event] = []
        if self.ranks.way == "fsdp" and not self.divided:
            self._note("distributed.strategy=fsdp: each process holds the whole model, which is not trained")
        self.costs = Costs()
        self.training = TrainingResult()
        # whether another seed would give another classifier decides what a single trial can say
        self.provenance: dict[str, Any] = {"deterministic": not plan.method.is_seeded, DATA: split.fingerprint()}
        self.provenance |= {SPLIT: plan.split} if plan.split else {}
        if self.ranks.way:
            self.provenance["processes"] = {"world_size": self.ranks.size, "way": "fsdp" if self.divided else "ddp"}
        self.provenance |= {"ordinal": True} if task.ordinal else {}
        # what ships after a cross-validation has no test; an export is held against its answers on validation
        self.asked = split.test or split.validation
        self.provenance |= {} if split.test else {PREDICTIONS_ON: "validation"}
        self.lesson: Lesson | None = None
        self.is_enough: Callable[[CurvePoint, int], bool] | None = None

    def together(self, what: What) -> AbstractContextManager[None]:
        """Let the other processes do their part while this one is inside the block."""
        return self.ranks.together(follow, what, self.plan, self.task, self.split, self.folder)

    def answers(self) -> tuple[Classifier, NDArray[np.float64], NDArray[np.float64]]:
        """Learn, and return the classifier with its log-probabilities on validation and on test."""
        classifier = self.learn()
        validation_EL = self.score_validation(classifier)
        if getattr(self.plan.method, "thresholds", "none") != "none":
            validation_EL, words = move_thresholds(classifier, self.plan.method, self.split, validation_EL)
            self._note(words)
        logprobs_EL = self._score_test(classifier)
        return self._put_together(classifier), validation_EL, logprobs_EL

    def run(self) -> RunRecord:
        """Run it to the end, and return the record of a complete trial."""
        if self.plan.method.needs_backbone:
            gc.collect()  # an earlier trial's model is full of cycles, and would count in this one's memory
        whole_peak = reset_peak_memory()
        classifier, validation_EL, logprobs_EL = self.answers()
        saved = self.folder / learned_folder(self.plan.method)
        if (prompts := prompts_of(classifier, self.task, self.split.validation)) is not None:
            self.provenance["prompts"] = [asdict(prompt) for prompt in prompts]
        self._note(*classifier.notes())
        # the peak is read before the reload check, which holds a second model for a moment
        memory = peak_memory_bytes()
        if not whole_peak:
            self._note("peak memory is that of the whole process: this system cannot reset it")
        if self.plan.keep:
            self.observer.stage("save")
            description = describe_classifier(self.plan, self.task, self.provenance, classifier)
            self.provenance["reload_gap"] = save_and_reload(
                classifier, self.folder, saved.name, description, self.split.validation
            )
        trainable, stored, total = classifier.parameter_counts()
        seconds = self.meter.seconds
        seen = self.training.examples_seen
        costs = Costs(
            load_seconds=seconds["load"],
            tokenize_seconds=seconds["tokenize"],
            train_seconds=seconds["train"],
            evaluate_seconds=seconds["evaluate"],
            train_examples_per_second=seen / self.training.train_seconds if self.training.train_seconds else None,
            test_examples_per_second=len(self.asked) / seconds["test"],
            **((latency_of(classifier, self.split.validation) if self.plan.keep else {}) | classifier.measured_costs()),
            peak_memory_bytes=memory,
            peak_gpu_memory_bytes=peak_gpu_memory_bytes(),
            trainable_parameters=trainable,
            stored_parameters=stored,
            total_parameters=total,
            stored_bytes=sum(file.stat().st_size for file in saved.rglob("*") if file.is_file()),
            epochs=self.training.epochs,
            truncated_share=self.truncated_share,
        )
        return replace(
            blank_record(self.plan, self.task),
            costs=costs,
            events=self._events(),
            provenance=self.provenance,
            curve=tuple(self.training.curve),
            predictions=predictions_of(self.asked, logprobs_EL, self.task.labels, texts=True),
            temperature=fit_temperature(np.exp(validation_EL), np.array(self.task.targets(self.split.validation))),
            validation_predictions=predictions_of(self.split.validation, validation_EL, self.task.labels, texts=False),
        )

    def failed(self, error: Exception, text: str) -> RunRecord:
        """Return what there is to say of a trial that was not finished."""
        failed = failed_record(self.plan, self.task, type(error).__name__, text)
        return replace(failed, events=self._events(), provenance=self.provenance)

    def _note(self, *texts: str, kind: str = "note", severity: Severity = "info") -> None:
        """Keep remarks for the record, each once: a restart makes them again."""
        known = {event.text for event in self.events}
        self.events.extend(Event(kind, severity, text) for text in texts if text not in known)

    def _events(self) -> tuple[Event, ...]:
        return tuple(replace(event, text=without_secrets(event.text)) for event in self.events)

    def keep_last_good(self, error: DivergedError) -> str:
        """Save the weights a broken training still holds, where `load_classifier` finds them; return what to say."""
        if error.kept is None or self.classifier is None:
            return f"{error}. No weights of before are left"
        if self.divided:
            return f"{error}. The weights of before, which are divided among processes, are not kept"
        place = self.folder / LAST_GOOD_FOLDER
        with saved_folder(self.folder, LAST_GOOD_FOLDER) as scratch:
            saved = scratch / learned_folder(self.plan.method)
            saved.mkdir()
            self.classifier.save(saved)
        description = describe_classifier(self.plan, self.task, self.provenance, self.classifier)
        write_json(place / CLASSIFIER_FILE, description.as_written())
        return f"{error}. {error.kept[0].upper()}{error.kept[1:]}, are kept in {place}"

    def learn(self) -> Classifier:
        """Adapt and train; start a collapsed training again with another seed, and say so."""
        if self.plan.method.learns_from_others:
            from entailor.study.distillation import lesson_of

            with self.meter.measure("train"):
                what = self.plan, self.task, self.split, self.folder, self.observer
                self.lesson = self.ranks.from_first(partial(lesson_of, *what))
            self._note(self.lesson.words)
        snapshot = self.ranks.snapshot_from_first(self._checkpoint)
        first = 0
        if snapshot is not None:
            context = snapshot.context
            first, self.events = snapshot.attempt, [Event(**event) for event in context["events"]]
            self.meter.seconds.update(context["seconds"])
            self.training = TrainingResult(
                train_seconds=context["train_seconds"], examples_seen=context["examples_seen"]
            )
            self.observer.note(f"{self.plan.candidate}: goes on from the checkpoint at step {snapshot.step}")
        for attempt in range(first, self.plan.restarts + 1):
            seed = self.plan.seed + attempt * RESTART_SEED_STEP
            classifier = self.classifier = self._adapt(seed)
            self._train(classifier, seed, attempt, snapshot if attempt == first else None)
            if not self.training.collapsed:
                break
            if attempt < self.plan.restarts:
                text = f"restart: the training with seed {seed} collapsed; again with another seed"
                self.events.append(Event("restart", "warning", text))
        if self.training.collapsed:
            text = "ALARM: the classifier predicts one class. Try another learning_rate (see the method's page in docs)"
            self.events.append(Event("one_class", "warning", text))
        return classifier

    def _checkpoint(self) -> Snapshot | None:
        """Return the checkpoint of an earlier sitting that this trial can go on from, or None."""
        if not self.store.files() or not isinstance(self.plan.method, TrainedMethod):
            return None
        digest = None
        if self.plan.method.needs_backbone:
            from entailor.models.load import open_model

            digest = open_model(self.plan.model, self.plan.settings).weights_sha256
        return self.store.newest(self._identity(digest))

    def _identity(self, digest: str | None) -> str:
        taught = {} if self.lesson is None else {"lesson": self.lesson.digest}
        return training_identity({**self.plan.decisive(), **taught}, self.task, self.split, digest)

    def _saving(self, attempt: int, resume_from: Snapshot | None) -> Saving:
        """Say when the training is saved, with what is needed to come back to this attempt."""
        digest = self.provenance.get("weights_sha256")
        return Saving(
            store=self.store,
            identity=self._identity(digest),
            every_steps=self.plan.checkpoint_steps,
            every_minutes=self.plan.checkpoint_minutes if self.ranks.rank == 0 else None,  # whose clock decides
            context={
                "events": [asdict(event) for event in self.events],
                "seconds": dict(self.meter.seconds),
                "train_seconds": self.training.train_seconds,
                "examples_seen": self.training.examples_seen,
            },
            attempt=attempt,
            resume_from=resume_from,
            stop=self.stop,
            ranks=self.ranks,
        )

    def _adapt(self, seed: int) -> Classifier:
        seed_everything(seed)
        self.observer.stage("load")
        with self.meter.measure("load"):
            backbone = self._load(seed)
            classifier = self.plan.method.adapt(backbone, self.task, seed)
        if backbone is not None:
            self._note(*backbone.warnings, severity="warning")
            self._note(*backbone.events)
        return classifier

    def _load(self, seed: int) -> Backbone | None:
        if not self.plan.method.needs_backbone:
            return None
        from entailor.models.load import load_backbone, open_model

        folder = open_model(self.plan.model, self.plan.settings)
        precision = self.plan.precision or FP32
        self.provenance.update(
            weights_sha256=folder.weights_sha256,
            model_files=dict(folder.files_sha256),
            model_commit=folder.commit,
            precision=precision.precision,
            precision_reason=precision.reason,
        )
        objective = self.plan.method.objective
        first = "placement" not in self.provenance  # a restart loads again, and must not end the peak of the trial
        before, reset = resident_bytes(), first and reset_peak_memory()
        settings = self.plan.settings
        if self.divided:  # no device need hold it whole
            settings = settings.model_copy(update={"device_map": "cpu"})
        backbone = load_backbone(folder, self.task, settings, precision, seed, objective)
        planned = backbone.placement
        if planned is not None and first:
            # the peak since the process began would say nothing of loading
            measured = {"measured_load_bytes": peak_memory_bytes() - before} if reset else {}
            self.provenance["placement"] = {**planned.as_record(), **measured}
            if isinstance(self.plan.method, TrainedMethod) and planned.offloaded_bytes:
                raise MethodError(
                    f"{self.plan.method.name}: part of the model stands on the disk, and nothing can be trained "
                    "through that. Set model.load_in_4bit=true, or take a smaller model"
                )
        return backbone

    def _encode(self, classifier: Classifier, examples: Sequence[Example]) -> Sequence[Encoded]:
        self.observer.stage("tokenize")
        with self.meter.measure("tokenize"):
            return classifier.encode(examples)

    def _train(self, classifier: Classifier, seed: int, attempt: int, resume_from: Snapshot | None) -> None:
        if isinstance(classifier, PromptedClassifier):
            self._demonstrate(classifier)
            return
        learned_from = self.split.train if self.lesson is None else self.lesson.examples
        train_inputs = self._encode(classifier, learned_from)
        validation_inputs = self._encode(classifier, self.split.validation)
        train_targets = self.task.targets(learned_from)
        validation_targets = self.task.targets(self.split.validation)
        if isinstance(classifier, FittedClassifier):
            with self.meter.measure("train"):
                limit = self.plan.scoring_batch_tokens
                features = collect_features(classifier, train_inputs, train_targets, limit, self.observer, self.ranks)
                validation_features = collect_features(
                    classifier, validation_inputs, validation_targets, limit, ranks=self.ranks
                )
                self.observer.stage("fit")
                self._note(*classifier.fit(features, validation_features))
            return
        if not isinstance(self.plan.method, TrainedMethod):
            raise MethodError(f"{self.plan.method.name}: neither fitted nor trained")
        import torch

        from entailor.engine.trainer import train

        if self.divided:
            self._note(self.ranks.divide(classifier))
        earlier = self.training
        soft_EL = None if self.lesson is None else self.lesson.soft_EL
        validation = validation_inputs, np.array(validation_targets)
        data = TrainingData(train_inputs, np.array(train_targets), *validation, soft_EL)
        runtime = LoopRuntime(
            seed=seed,
            autocast=torch.bfloat16 if self.provenance.get("precision") == "bf16" else None,
            scoring_batch_tokens=self.plan.scoring_batch_tokens,
            observer=self.observer,
            on_point=partial(self.observer.point, blank_record(self.plan, self.task), attempt),
            is_enough=self.is_enough,
            saving=self._saving(attempt, resume_from),
            ranks=self.ranks,
        )
        self.training = train(classifier, self.plan.method, data, runtime)
        self.meter.seconds["train"] += self.training.train_seconds
        self.meter.seconds["evaluate"] += self.training.evaluate_seconds
        self.training.train_seconds += earlier.train_seconds
        self.training.examples_seen += earlier.examples_seen
        self.events.extend(self.training.events)
        self.provenance.update(best_step=self.training.best_step, seed_used=seed)

    def _put_together(self, classifier: Classifier) -> Classifier:
        """Return a classifier on the CPU with the weights of one that is divided among processes, in the first."""
        tensors = self.ranks.put_together(classifier) if self.divided else {}
        if not tensors:
            return classifier
        from entailor.classifiers.transformer import TransformerClassifier

        whole = self.classifier = self._adapt(self.provenance["seed_used"])
        assert isinstance(classifier, TransformerClassifier)
        assert isinstance(whole, TransformerClassifier)
        whole.copy_tensors(tensors, self.folder)
        for held, buffer in zip(whole.buffers(), classifier.buffers(), strict=True):
            held.copy_(buffer)
        whole.offset_L = classifier.offset_L
        return whole

    def _demonstrate(self, classifier: PromptedClassifier) -> None:
        """Choose demonstrations and calibrate; the time for scoring validation counts as evaluation."""
        self.observer.stage("demonstrations")
        with self.meter.measure("evaluate"):
            self._note(*classifier.demonstrate(self.split.train))
        if not classifier.needs_validation:
            return
        inputs = self._encode(classifier, self.split.validation)
        with self.meter.measure("evaluate"):
            limit = self.plan.scoring_batch_tokens
            logprobs_EL = score(classifier, inputs, limit, self.observer, "validation", self.ranks)
            self._note(*classifier.calibrate(logprobs_EL, np.array(self.task.targets(self.split.validation))))

    def _score_test(self, classifier: Classifier) -> NDArray[np.float64]:
        inputs = self._encode(classifier, self.asked)
        self.truncated_share = len({item.example_index for item in inputs if item.truncated}) / max(1, len(self.asked))
        if self.truncated_share:
            longest, most = max(len(item) for item in inputs if item.truncated), self.plan.settings.max_length
            self._note(truncation_note(self.truncated_share, longest, most, classifier), kind="truncation")
        begin = time.perf_counter()
        logprobs_EL = score(classifier, inputs, self.plan.scoring_batch_tokens, self.observer, "test", self.ranks)
        self.meter.seconds["test"] = time.perf_counter() - begin
        self.meter.seconds["evaluate"] += self.meter.seconds["test"]
        if silent := int(np.isneginf(logprobs_EL).all(axis=1).sum()):
            text = f"{silent:,} of {len(logprobs_EL):,} test examples have no answer, and count as wrong"
            self.events.append(Event("no_answer", "warning", text))
        return logprobs_EL

    def score_validation(self, classifier: Classifier) -> NDArray[np.float64]:
        """Score validation with the final classifier: calibration is fitted on it, never on test."""
        inputs = self._encode(classifier, self.split.validation)
        with self.meter.measure("evaluate"):
            return score(classifier, inputs, self.plan.scoring_batch_tokens, ranks=self.ranks)
