"""One trial: adapt, train or fit, score test once, save, and prove that what was saved gives the same scores."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from entailor.classifiers.base import Encoded, PromptedClassifier
from entailor.config.experiment import ModelSettings, PromptSettings
from entailor.data.example import Example, Split
from entailor.engine.batching import SCORING_TOKENS
from entailor.engine.checkpoint import CheckpointStore, Saving, Snapshot
from entailor.engine.memory import is_out_of_memory
from entailor.engine.meter import Meter, peak_gpu_memory_bytes, peak_memory_bytes, reset_peak_memory
from entailor.engine.scorer import collect_features, score, without_gradients
from entailor.engine.stopping import RunContext
from entailor.engine.training import Runtime, TrainingData, TrainingResult, seed_everything
from entailor.errors import DivergedError, EntailorError, MethodError, RunError, TrainingError
from entailor.evaluation.calibration import fit_temperature
from entailor.methods import Classifier, FittedClassifier, Method, TrainedMethod
from entailor.models.memory import resident_bytes
from entailor.models.precision import PrecisionChoice
from entailor.runs.integrity import disk_trouble
from entailor.runs.ownership import remove_files
from entailor.runs.record import (
    CHECKPOINT_FOLDER,
    WRITTEN_FILE,
    Costs,
    CurvePoint,
    Prediction,
    RunRecord,
    clear_trial,
    saved_folder,
    write_json,
    write_text,
)
from entailor.runs.redaction import without_secrets
from entailor.shipping.restoring import CLASSIFIER_FILE, CLASSIFIER_VERSION, FP32, learned_folder, load_classifier
from entailor.study.identity import training_identity
from entailor.tasks import Task

if TYPE_CHECKING:
    from entailor.models.load import Backbone

LAST_GOOD_FOLDER = "last_good"
RESTART_SEED_STEP = 1000
LATENCY_EXAMPLES = 40
RELOAD_EXAMPLES = 16
# Scores agree within this whatever the batching, and after saving and loading (log-probabilities).
SCORE_TOLERANCE = 1e-4

Progress = Callable[[str, int, int, str], None]


@dataclass(frozen=True)
class TrialPlan:
    """What one trial is: a candidate of the experiment and a seed.

    Attributes:
        candidate: its name.
        method: its settings.
        model: the model as the user named it, or "none" for methods without one.
        seed: of initialisation, data order and dropout.
        settings: how the model is loaded.
        prompt: how a decoder is asked.
        precision: arithmetic of training, chosen once a run; None for methods without a model.
        restarts: how often a collapsed training is started again.
        scoring_batch_tokens: tokens of one scoring batch.
        keep: whether the classifier is saved and proven to load; points of a learning curve keep their scores alone.
        checkpoint_steps: optimizer steps between two checkpoints, or None; changes no result.
        checkpoint_minutes: minutes between two checkpoints, or None; changes no result.
    """

    candidate: str
    method: Method
    model: str
    seed: int
    settings: ModelSettings
    precision: PrecisionChoice | None = None
    prompt: PromptSettings = field(default_factory=PromptSettings)
    restarts: int = 1
    scoring_batch_tokens: int = SCORING_TOKENS
    keep: bool = True
    checkpoint_steps: int | None = None
    checkpoint_minutes: float | None = None

    def decisive(self) -> dict[str, Any]:
        """Return what decides the result: all but how often a training is saved."""
        return {
            "candidate": self.candidate,
            "method": self.method.name,
            "hyperparameters": self.method.model_dump(mode="json"),
            "model": self.model,
            "seed": self.seed,
            "settings": self.settings.model_dump(mode="json"),
            "prompt": self.prompt.model_dump(mode="json"),
            "precision": self.precision.precision if self.precision else None,
            "restarts": self.restarts,
            "scoring_batch_tokens": self.scoring_batch_tokens,
        }


def run_trial(
    plan: TrialPlan,
    task: Task,
    split: Split,
    folder: Path,
    on_progress: Progress,
    run_context: RunContext | None = None,
) -> RunRecord:
    """Run one trial and write its folder; an error is recorded as a failed trial, not raised.

    A training that was broken off goes on from its last checkpoint and gives the same record, times aside.

    Args:
        plan: what to run.
        task: labels and input shape.
        split: test is read once, after training is over.
        folder: the trial's folder; what an unfinished attempt left there is removed, but for its checkpoints.
        on_progress: called with the stage, steps done, steps in all (0 where that is not known), and a few words.
        run_context: who may stop it, and who is told of checkpoints.

    Returns:
        The record, complete or failed, as written.

    Raises:
        RunError: the folder cannot be written. That is no failure of the trial, and the others would fail alike.
        Stopped: somebody asked for it.
    """
    started, begin = datetime.now(UTC), time.monotonic()
    prompted = replace(task, prompt=plan.prompt)
    trial = _Trial(plan, prompted, split, folder, on_progress, run_context or RunContext())
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


def _outcome(trial: _Trial) -> RunRecord:
    """Run a trial; an error that is its own becomes a failed record."""
    try:
        return trial.run()
    except DivergedError as error:
        trial.would_fail_again = True
        return trial.failed(f"{type(error).__name__}: {trial.keep_last_good(error)}")
    except EntailorError as error:
        trial.would_fail_again = isinstance(error, (TrainingError, MethodError))
        return trial.failed(f"{type(error).__name__}: {error}")
    except Exception as error:  # a model's own code can raise anything, and the other trials go on
        if disk_trouble(error):
            raise
        if is_out_of_memory(error):
            return trial.failed(
                f"{type(error).__name__}: out of memory ({error}). Lower model.max_length or scoring_batch_tokens, or "
                "take a smaller model"
            )
        details = trial.folder / "traceback.txt"
        write_text(details, without_secrets(traceback.format_exc()))
        return trial.failed(f"{type(error).__name__}: {error}. Where it was raised stands in {details}")


def train_only(
    plan: TrialPlan,
    task: Task,
    split: Split,
    folder: Path,
    on_progress: Progress,
    on_evaluation: Callable[[CurvePoint, int], bool],
    run_context: RunContext | None = None,
) -> TrainingResult:
    """Adapt and train once, without restarts, and save nothing but checkpoints: how settings are tried.

    A training that was broken off goes on from its last checkpoint; `on_evaluation` is then first told again of the
    evaluations before it, so that whoever listens comes to the same state.

    Args:
        plan: what to try.
        task: labels and input shape.
        split: train and validation; its test is not looked at, and may be empty.
        folder: where its checkpoints are kept; they stay until the caller calls :func:`discard_leftovers`.
        on_progress: as for :func:`run_trial`.
        on_evaluation: told of each evaluation of validation and the training examples seen so far; True stops training.
        run_context: as for :func:`run_trial`.
    """
    blind = replace(split, test=())
    trial = _Trial(plan, replace(task, prompt=plan.prompt), blind, folder, on_progress, run_context or RunContext())
    trial.on_evaluation = on_evaluation
    trial._learn()
    return trial.training


def discard_leftovers(folder: Path) -> None:
    """Remove what a training that is over needs no more: its checkpoints, and the list its record now holds."""
    CheckpointStore(folder / CHECKPOINT_FOLDER).clear()
    remove_files(folder, (WRITTEN_FILE,))


def _blank_record(plan: TrialPlan, task: Task, error: str | None = None) -> RunRecord:
    return RunRecord(
        model=plan.model,
        name=plan.candidate,
        method=plan.method.name,
        seed=plan.seed,
        labels=task.labels,
        status="failed" if error else "complete",
        hyperparameters=plan.method.model_dump(mode="json"),
        error=without_secrets(error) if error else None,
    )


class _Trial:
    """State of one trial; each method is one stage."""

    def __init__(
        self,
        plan: TrialPlan,
        task: Task,
        split: Split,
        folder: Path,
        on_progress: Progress,
        run_context: RunContext,
    ) -> None:
        self.plan, self.task, self.split, self.folder, self.on_progress = plan, task, split, folder, on_progress
        self.run_context = run_context
        self.store = CheckpointStore(folder / CHECKPOINT_FOLDER, run_context.note)
        self.classifier: Classifier | None = None
        self.would_fail_again = False
        self.meter = Meter()
        self.events: list[str] = []
        self.costs = Costs()
        self.training = TrainingResult()
        # whether another seed would give another classifier decides what a single trial can say
        self.provenance: dict[str, Any] = {"deterministic": not plan.method.is_seeded}
        self.on_evaluation: Callable[[CurvePoint, int], bool] | None = None

    def run(self) -> RunRecord:
        if self.plan.method.needs_backbone:
            gc.collect()  # an earlier trial's model is full of cycles, and would count in this one's memory
        whole_peak = reset_peak_memory()
        classifier = self._learn()
        self.events.extend(note for note in classifier.notes() if note not in self.events)
        saved = self.folder / learned_folder(self.plan.method)
        self._note_prompts(classifier)
        validation_EL = self._score_validation(classifier)
        logprobs_EL = self._score_test(classifier)
        # the peak is read before the reload check, which holds a second model for a moment
        memory = peak_memory_bytes()
        if not whole_peak:
            self.events.append("peak memory is that of the whole process: this system cannot reset it")
        if self.plan.keep:
            self._save_and_reload(classifier, saved)
        trainable, stored, total = classifier.parameter_counts()
        seconds = self.meter.seconds
        seen = self.training.examples_seen
        costs = Costs(
            load_seconds=seconds["load"],
            tokenize_seconds=seconds["tokenize"],
            train_seconds=seconds["train"],
            evaluate_seconds=seconds["evaluate"],
            train_examples_per_second=seen / self.training.train_seconds if self.training.train_seconds else None,
            test_examples_per_second=len(self.split.test) / seconds["test"],
            **(self._latency(classifier) if self.plan.keep else {}),
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
            _blank_record(self.plan, self.task),
            costs=costs,
            events=tuple(map(without_secrets, self.events)),
            provenance=self.provenance,
            curve=tuple(self.training.curve),
            predictions=self._predictions(self.split.test, logprobs_EL, texts=True),
            temperature=fit_temperature(np.exp(validation_EL), np.array(self.task.targets(self.split.validation))),
            validation_predictions=self._predictions(self.split.validation, validation_EL, texts=False),
        )

    def failed(self, error: str) -> RunRecord:
        """Return what there is to say of a trial that was not finished."""
        blank = _blank_record(self.plan, self.task, error)
        events = tuple(map(without_secrets, self.events))
        return replace(blank, events=events, provenance=self.provenance)

    def keep_last_good(self, error: DivergedError) -> str:
        """Save the weights a broken training still holds, where `load_classifier` finds them; return what to say."""
        if error.kept is None or self.classifier is None:
            return f"{error}. No weights of before are left"
        place = self.folder / LAST_GOOD_FOLDER
        with saved_folder(self.folder, LAST_GOOD_FOLDER) as scratch:
            saved = scratch / learned_folder(self.plan.method)
            saved.mkdir()
            self.classifier.save(saved)
        write_json(place / CLASSIFIER_FILE, describe_classifier(self.plan, self.task, self.provenance))
        return f"{error}. {error.kept[0].upper()}{error.kept[1:]}, are kept in {place}"

    def _learn(self) -> Classifier:
        """Adapt and train; start a collapsed training again with another seed, and say so."""
        snapshot = self._checkpoint()
        first = 0
        if snapshot is not None:
            context = snapshot.context
            first, self.events = snapshot.attempt, list(context["events"])
            self.meter.seconds.update(context["seconds"])
            self.training = TrainingResult(
                train_seconds=context["train_seconds"], examples_seen=context["examples_seen"]
            )
            self.run_context.note(f"{self.plan.candidate}: goes on from the checkpoint at step {snapshot.step}")
        for attempt in range(first, self.plan.restarts + 1):
            seed = self.plan.seed + attempt * RESTART_SEED_STEP
            classifier = self.classifier = self._adapt(seed)
            self._train(classifier, seed, attempt, snapshot if attempt == first else None)
            if not self.training.collapsed:
                break
            if attempt < self.plan.restarts:
                self.events.append(f"restart: the training with seed {seed} collapsed; again with another seed")
        if self.training.collapsed:
            self.events.append(
                "ALARM: the classifier predicts one class. Try another learning_rate (see the method's page in docs)"
            )
        return classifier

    def _checkpoint(self) -> Snapshot | None:
        """Return the checkpoint of an earlier sitting that this trial can go on from, or None."""
        if not self.store.files() or not isinstance(self.plan.method, TrainedMethod):
            return None
        digest = None
        if self.plan.method.needs_backbone:
            from entailor.models.load import open_model

            digest = open_model(self.plan.model, self.plan.settings).weights_sha256
        return self.store.newest(training_identity(self.plan.decisive(), self.task, self.split, digest))

    def _saving(self, attempt: int, resume_from: Snapshot | None) -> Saving:
        """Say when the training is saved, with what is needed to come back to this attempt."""
        digest = self.provenance.get("weights_sha256")
        return Saving(
            store=self.store,
            identity=training_identity(self.plan.decisive(), self.task, self.split, digest),
            every_steps=self.plan.checkpoint_steps,
            every_minutes=self.plan.checkpoint_minutes,
            context={
                "events": self.events,
                "seconds": dict(self.meter.seconds),
                "train_seconds": self.training.train_seconds,
                "examples_seen": self.training.examples_seen,
            },
            attempt=attempt,
            resume_from=resume_from,
            stop=self.run_context.stop,
        )

    def _adapt(self, seed: int) -> Classifier:
        seed_everything(seed)
        self.on_progress("load", 0, 0, "")
        with self.meter.measure("load"):
            backbone = self._load(seed)
            classifier = self.plan.method.adapt(backbone, self.task, seed)
        if backbone is not None:
            self.events.extend(event for event in backbone.events if event not in self.events)
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
            precision=precision.precision,
            precision_reason=precision.reason,
        )
        objective = self.plan.method.objective
        first = "placement" not in self.provenance  # a restart loads again, and must not end the peak of the trial
        before, reset = resident_bytes(), first and reset_peak_memory()
        backbone = load_backbone(folder, self.task, self.plan.settings, precision, seed, objective)
        planned = backbone.placement
        if planned is not None and first:
            # the peak since the process began would say nothing of loading
            measured = {"measured_load_bytes": peak_memory_bytes() - before} if reset else {}
            self.provenance["placement"] = {**planned.as_record(), **measured}
            if isinstance(self.plan.method, TrainedMethod) and planned.bytes_in("disk"):
                raise MethodError(
                    f"{self.plan.method.name}: part of the model stands on the disk, and nothing can be trained "
                    "through that. Set model.load_in_4bit=true, or take a smaller model"
                )
        return backbone

    def _encode(self, classifier: Classifier, examples: Sequence[Example]) -> Sequence[Encoded]:
        self.on_progress("tokenize", 0, 0, "")
        with self.meter.measure("tokenize"):
            return classifier.encode(examples)

    def _train(self, classifier: Classifier, seed: int, attempt: int, resume_from: Snapshot | None) -> None:
        if isinstance(classifier, PromptedClassifier):
            self._demonstrate(classifier)
            return
        train_inputs = self._encode(classifier, self.split.train)
        validation_inputs = self._encode(classifier, self.split.validation)
        train_targets, validation_targets = (
            self.task.targets(self.split.train),
            self.task.targets(self.split.validation),
        )
        if isinstance(classifier, FittedClassifier):
            with self.meter.measure("train"):
                limit = self.plan.scoring_batch_tokens
                features = collect_features(
                    classifier,
                    train_inputs,
                    train_targets,
                    limit,
                    lambda n, of: self.on_progress("features", n, of, ""),
                )
                validation_features = collect_features(classifier, validation_inputs, validation_targets, limit)
                self.on_progress("fit", 0, 0, "")
                self.events.extend(classifier.fit(features, validation_features))
            return
        if not isinstance(self.plan.method, TrainedMethod):
            raise MethodError(f"{self.plan.method.name}: neither fitted nor trained")
        import torch

        from entailor.engine.trainer import train

        earlier = self.training
        data = TrainingData(train_inputs, np.array(train_targets), validation_inputs, np.array(validation_targets))
        runtime = Runtime(
            seed=seed,
            autocast=torch.bfloat16 if self.provenance.get("precision") == "bf16" else None,
            scoring_batch_tokens=self.plan.scoring_batch_tokens,
            on_step=lambda done, of, words: self.on_progress("train", done, of, words),
            on_evaluation=self.on_evaluation,
            saving=self._saving(attempt, resume_from),
        )
        self.training = train(classifier, self.plan.method, data, runtime)
        self.meter.seconds["train"] += self.training.train_seconds
        self.meter.seconds["evaluate"] += self.training.evaluate_seconds
        self.training.train_seconds += earlier.train_seconds
        self.training.examples_seen += earlier.examples_seen
        self.events.extend(self.training.events)
        self.provenance.update(best_step=self.training.best_step, seed_used=seed)

    def _demonstrate(self, classifier: PromptedClassifier) -> None:
        """Choose demonstrations and calibrate; the time for scoring validation counts as evaluation."""
        self.on_progress("demonstrations", 0, 0, "")
        with self.meter.measure("evaluate"):
            self.events.extend(classifier.demonstrate(self.split.train))
        if not classifier.needs_validation:
            return
        inputs = self._encode(classifier, self.split.validation)
        with self.meter.measure("evaluate"):
            limit = self.plan.scoring_batch_tokens
            logprobs_EL = score(classifier, inputs, limit, lambda n, of: self.on_progress("validation", n, of, ""))
            self.events.extend(classifier.calibrate(logprobs_EL, np.array(self.task.targets(self.split.validation))))

    def _note_prompts(self, classifier: Classifier) -> None:
        """Keep the exact prompt of one validation example of each label, for the report."""
        from entailor.models.prompts import PromptEncoder

        encoder = getattr(classifier, "text_encoder", None)
        if not isinstance(encoder, PromptEncoder):
            return
        firsts = {row.label: row for row in reversed(self.split.validation)}
        examples = [firsts[label] for label in self.task.labels if label in firsts]
        items: Sequence[Any] = classifier.encode(examples)
        self.provenance["prompts"] = [
            {"label": row.label, "id": row.id, **encoder.shown(item, self.task.index_of(str(row.label)))}
            for row, item in zip(examples, items, strict=True)
        ]

    def _score_test(self, classifier: Classifier) -> NDArray[np.float64]:
        inputs = self._encode(classifier, self.split.test)
        self.truncated_share = len({item.example_index for item in inputs if item.truncated}) / max(
            1, len(self.split.test)
        )
        if self.truncated_share:
            longest = max(len(item) for item in inputs if item.truncated)
            self.events.append(
                f"{self.truncated_share:.1%} of test was truncated to {longest} tokens, longest text first. Raise "
                f"model.max_length (now {self.plan.settings.max_length}; the model's own limit caps it) or set "
                "model.long_texts=windows"
            )
        begin = time.perf_counter()
        logprobs_EL = score(
            classifier, inputs, self.plan.scoring_batch_tokens, lambda n, of: self.on_progress("test", n, of, "")
        )
        self.meter.seconds["test"] = time.perf_counter() - begin
        self.meter.seconds["evaluate"] += self.meter.seconds["test"]
        return logprobs_EL

    def _score_validation(self, classifier: Classifier) -> NDArray[np.float64]:
        """Score validation with the final classifier: calibration is fitted on it, never on test."""
        inputs = self._encode(classifier, self.split.validation)
        with self.meter.measure("evaluate"):
            return score(classifier, inputs, self.plan.scoring_batch_tokens)

    def _predictions(
        self, examples: Sequence[Example], logprobs_EL: NDArray[np.float64], *, texts: bool
    ) -> tuple[Prediction, ...]:
        return tuple(
            Prediction(
                id=row.id,
                label=str(row.label),
                probabilities=dict(zip(self.task.labels, (float(p) for p in np.exp(logprobs_L)), strict=True)),
                group=row.group,
                text=row.text if texts else "",
                text_pair=row.text_pair if texts else None,
            )
            for row, logprobs_L in zip(examples, logprobs_EL, strict=True)
        )

    def _latency(self, classifier: Classifier) -> dict[str, float]:
        """Time single examples of validation, text to logits, after three to warm up."""
        examples = self.split.validation[: LATENCY_EXAMPLES + 3]
        times = []
        with without_gradients(classifier):
            for example in examples:
                begin = time.perf_counter()
                classifier.logits(classifier.collate(classifier.encode([example])[:1]))
                times.append(1000 * (time.perf_counter() - begin))
        kept = times[3:] or times
        return {"latency_p50_ms": float(np.percentile(kept, 50)), "latency_p95_ms": float(np.percentile(kept, 95))}

    def _save_and_reload(self, classifier: Classifier, saved: Path) -> None:
        """Save, load the saved files afresh, and compare scores: a head left out would show here."""
        self.on_progress("save", 0, 0, "")
        with saved_folder(self.folder, saved.name) as scratch:
            classifier.save(scratch)
        write_json(self.folder / CLASSIFIER_FILE, describe_classifier(self.plan, self.task, self.provenance))
        sample = self.split.validation[:RELOAD_EXAMPLES]
        limit = self.plan.scoring_batch_tokens
        restored = load_classifier(self.folder, trust_remote_code=self.plan.settings.trust_remote_code)
        first = score(classifier, classifier.encode(sample), limit)
        second = score(restored, restored.encode(sample), limit)
        gap = float(np.abs(first - second).max())
        if gap > SCORE_TOLERANCE:
            raise TrainingError(
                f"{self.plan.candidate}: the saved classifier gives other scores than the trained one (by {gap:.2g}). "
                "Some trained tensor is not saved; please report this with the experiment.yaml"
            )
        self.provenance["reload_gap"] = gap


def describe_classifier(plan: TrialPlan, task: Task, provenance: dict[str, Any]) -> dict[str, Any]:
    """Return what :func:`load_classifier` needs to know."""
    return {
        "version": CLASSIFIER_VERSION,
        "method": plan.method.name,
        "hyperparameters": plan.method.model_dump(mode="json"),
        "candidate": plan.candidate,
        "model": plan.model,
        "model_settings": plan.settings.model_dump(mode="json"),
        "prompt": plan.prompt.model_dump(mode="json"),
        "weights_sha256": provenance.get("weights_sha256"),
        "model_files": provenance.get("model_files"),
        "labels": list(task.labels),
        "is_pair": task.is_pair,
        "date": task.day.isoformat(),
        "seed": provenance.get("seed_used", plan.seed),
        "scoring_batch_tokens": plan.scoring_batch_tokens,
    }
