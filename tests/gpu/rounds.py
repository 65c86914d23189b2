"""What every method does on a device, and what is watched meanwhile: the same on a pretend accelerator and on a GPU."""

import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.conftest import FP32, NLI_LABELS, make_examples

from entailor.classifiers.base import FittedClassifier, PromptedClassifier
from entailor.config.parts import ModelSettings
from entailor.engine.checkpoint import CheckpointStore, Saving
from entailor.engine.scorer import collect_features, score
from entailor.engine.training import LoopRuntime, TrainingData
from entailor.methods import TrainedMethod, build_method, registered_methods
from entailor.models.load import load_backbone
from entailor.models.resolve.source import resolve_model
from entailor.tasks import Task

TRAIN, VALIDATION, TEST = (make_examples(count, seed=seed) for seed, count in enumerate((28, 6, 9), 1))
TASK = Task(NLI_LABELS, is_pair=True)
TOKENS = 100  # of a scoring batch: several to a split
LOGGED = 3
SETTINGS: dict[str, Any] = {
    "num_train_epochs": 1.0,
    "per_device_train_batch_size": 4,
    "learning_rate": 0.01,
    "logging_steps": LOGGED,
    "num_virtual_tokens": 4,
    "num_fewshot": 2,
    "calibration": "batch",
    "fit_temperature": True,
}
ROUNDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "full_finetuning": ("full_finetuning", "bert", {}),
    "lora": ("lora", "roberta", {}),
    "lora-classifier": ("lora", "llama", {}),
    "lora-verbalizer": ("lora", "gpt2", {"head": "verbalizer"}),
    "p_tuning": ("p_tuning", "bert", {}),
    "p_tuning-peft": ("p_tuning", "roberta", {"layout": "peft", "init": "random", "pooling": "head"}),
    "prefix_tuning": ("prefix_tuning", "modernbert", {}),
    "prefix_tuning-decoder": ("prefix_tuning", "qwen2", {}),
    "peft": ("peft", "bert", {}),
    "ia3": ("ia3", "bert", {}),
    "bitfit": ("bitfit", "bert", {}),
    "prompt_tuning": ("prompt_tuning", "bert", {}),
    "linear_probe": ("linear_probe", "distilbert", {}),
    "knn": ("knn", "bert", {}),
    "zero_shot_embedding": ("zero_shot_embedding", "bert", {}),
    "zero_shot_nli": ("zero_shot_nli", "bert-nli", {}),
    "in_context": ("in_context", "llama", {}),
    "in_context-pmi": ("in_context", "gpt2", {"calibration": "pmi", "length_normalized": True, "num_fewshot": 0}),
    "lora-bf16": ("lora", "bert", {}),
    "lora-nf4": ("lora", "qwen2", {}),
    "in_context-nearest": ("in_context", "llama", {"demonstrations": "nearest", "calibration": "contextual"}),
}
"""Name to method, architecture and settings; `needs_backbone` methods that are not here fail the suite."""
NOT_PRETENDED = {
    "dora": "peft reads its norms off an identity matrix of three dimensions, which the pretence cannot fold",
    "distilled": "it is full fine-tuning on other targets",
    "setfit": "its trainer is that of another library",
}
"""Methods that are tried on a real device alone."""


WAITS_OF_LIBRARIES = {"peft_model.py": "peft makes the mask of its virtual tokens on the CPU at each step"}
TOLERANCE = 1e-4


@dataclass
class Seen:
    """What a round came to.

    Attributes:
        steps: optimizer steps.
        evaluations: of validation.
        gap: largest difference between scores on the device and those of the saved classifier there and on the CPU.
        resumed: whether a training that was broken off came to the same weights and curve, to the bit.
        device: where the parameters stood.
        peak: bytes the device handed out, by the package's own metering.
        shortcuts: whether each shortcut of prompts was proven on the device.
        reads_features: whether scikit-learn fits on the CPU.
        waits: what the host waited for, by stage and place.
    """

    steps: int = 0
    evaluations: int = 0
    gap: float = 0.0
    resumed: bool | None = None
    device: str = ""
    peak: int | None = None
    shortcuts: dict[str, bool] = field(default_factory=dict)
    reads_features: bool = False
    waits: dict[str, Counter[str]] = field(default_factory=dict)

    def problems(self, device: str) -> list[str]:
        """Return in words what is wrong on a kind of device."""
        found = [] if self.device.startswith(device) else [f"stood on {self.device}"]
        if not self.gap <= TOLERANCE:
            found.append(f"saved and loaded, scores differ by {self.gap:.1e}")
        if self.resumed is False:
            found.append("a training that was broken off came to another result")
        if not self.peak:
            found.append("the memory of the device was not measured")
        found += [f"{way} were not proven" for way, proven in self.shortcuts.items() if not proven]
        # values are read once a logging interval, and once more to see that every tensor gets a gradient
        allowed = {"train": math.ceil(self.steps / LOGGED) + 1, "evaluate": self.evaluations, "score": 1}
        for stage, most in allowed.items():
            own = {place: count for place, count in self.waits[stage].items() if not _is_a_library(place)}
            # what is fitted by scikit-learn reads the features of each batch; one that is shown examples has no steps
            if (self.steps or stage == "score") and not self.reads_features and sum(own.values()) > most:
                found.append(f"{stage}: {sum(own.values())} waits for the device, expected {most} at most: {own}")
        return found


def _proofs(classifier: Any) -> dict[str, bool]:
    return {way: verdict.proven for way, verdict in getattr(classifier, "_proven", {}).items()}


def _is_a_library(place: str) -> bool:
    return place.rpartition(" in ")[2] in WAITS_OF_LIBRARIES


class Watch:
    """Counts what the host waits for, by stage; `counter` is that of the pretend accelerator."""

    def __init__(self, counter: Counter[str]) -> None:
        self.counter = counter
        self.stages: dict[str, Counter[str]] = {"train": Counter(), "evaluate": Counter(), "score": Counter()}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        outside = Counter(self.counter)
        self.counter.clear()
        try:
            yield
        finally:
            self.stages[name].update(self.counter)
            self.counter.clear()
            self.counter.update(outside)


def adapt(
    name: str,
    folder: Path,
    seed: int = 0,
    *,
    saved: Path | None = None,
    changes: dict[str, Any] | None = None,
    **settings: Any,
) -> tuple[Any, Any]:
    """Return method and classifier of a round, on whatever device the package chooses."""
    method_name, _, more = ROUNDS[name]
    fields = registered_methods()[method_name].model_fields
    given = {key: value for key, value in (SETTINGS | more | (changes or {})).items() if key in fields}
    if more.get("demonstrations") == "nearest":
        given["retriever"] = str(folder.parent / "bert")
    method = build_method(method_name, given)
    whole = saved is not None and method.stores_whole_model
    settings |= {"load_in_4bit": True} if name.endswith("-nf4") else {}
    options = ModelSettings(**settings, **({"head": "checkpoint"} if whole else {}))
    source = resolve_model(str(saved if whole else folder))
    backbone = load_backbone(source, TASK, options, FP32, seed, method.objective)
    return method, method.adapt(backbone, TASK, seed)


def learn(method: Any, classifier: Any, saving: Saving | None = None, autocast: Any = None) -> Any:
    """Train, fit or show examples to a classifier, as a trial does; return what training saw."""
    if isinstance(classifier, PromptedClassifier):
        classifier.demonstrate(TRAIN)
        if classifier.needs_validation:
            scores_EL = score(classifier, classifier.encode(VALIDATION), TOKENS)
            classifier.calibrate(scores_EL, np.array(TASK.targets(VALIDATION)))
        return None
    train, validation = classifier.encode(TRAIN), classifier.encode(VALIDATION)
    targets, validation_targets = TASK.targets(TRAIN), TASK.targets(VALIDATION)
    if isinstance(classifier, FittedClassifier):
        classifier.fit(
            collect_features(classifier, train, targets, TOKENS),
            collect_features(classifier, validation, validation_targets, TOKENS),
        )
        return None
    from entailor.engine import trainer

    assert isinstance(method, TrainedMethod)
    data = TrainingData(train, np.array(targets), validation, np.array(validation_targets))
    runtime = LoopRuntime(0, autocast, scoring_batch_tokens=TOKENS, saving=saving)
    return trainer.train(classifier, method, data, runtime)


def play(name: str, folder: Path, counter: Counter[str], *, resume: bool = True) -> Seen:
    """Run a method from loading to loading again.

    Args:
        name: one of `ROUNDS`.
        folder: of its tiny model.
        counter: of the host's waits.
        resume: break a training off and go on as well.
    """
    from entailor.engine import trainer
    from entailor.engine.optimizer import skips_when_told
    from entailor.models.device import main_device, peak_bytes, reset_peak_bytes

    seen, watch = Seen(), Watch(counter)
    reset_peak_bytes()
    skips_when_told(main_device())  # tried once a process, which takes a value
    autocast = torch.bfloat16 if name.endswith("-bf16") else None
    method, classifier = adapt(name, folder)
    module = getattr(classifier, "reader", classifier)
    seen.reads_features = isinstance(classifier, FittedClassifier)
    seen.device = str(next(module.parameters()).device)
    plain = trainer.Training._evaluate

    def evaluate(training: Any) -> None:
        training._log()
        with watch.stage("evaluate"):
            plain(training)

    trainer.Training._evaluate = evaluate  # type: ignore[method-assign]
    try:
        with watch.stage("train"):
            result = learn(method, classifier, autocast=autocast)
    finally:
        trainer.Training._evaluate = plain  # type: ignore[method-assign]
    inputs = classifier.encode(TEST)
    with watch.stage("score"):
        scores_EL = score(classifier, inputs, TOKENS)
    seen.waits, seen.peak, seen.shortcuts = watch.stages, peak_bytes(), _proofs(classifier)
    with tempfile.TemporaryDirectory() as place:
        saved = Path(place) / "saved"
        saved.mkdir()
        classifier.save(saved)
        for settings in ({}, {"device_map": "cpu"}):
            _, again = adapt(name, folder, seed=1, saved=saved, **settings)
            again.load(saved)
            seen.gap = max(seen.gap, float(np.abs(score(again, again.encode(TEST), TOKENS) - scores_EL).max()))
        if result is not None:
            seen.steps, seen.evaluations = result.curve[-1].step, len(result.evaluated_after)
            if resume:
                seen.resumed = _goes_on(name, folder, Path(place), classifier, result, autocast)
    return seen


def _goes_on(name: str, folder: Path, place: Path, whole: Any, result: Any, autocast: Any) -> bool:
    """Tell whether a training broken off in the middle of a logging interval comes to the same."""
    import signal

    from entailor.engine.stopping import Stopped, StopSwitch

    stop, store = StopSwitch(), CheckpointStore(place / "checkpoints")
    for step in (LOGGED, None):
        method, classifier = adapt(name, folder)
        snapshot = store.newest("round")
        saving = Saving(store, "round", resume_from=snapshot, stop=stop if step else None)
        if step:
            saving.is_due = _ask_to_stop(stop, step, signal.SIGTERM)  # type: ignore[method-assign]
        torch.rand(3)  # whatever the process did meanwhile
        try:
            again = learn(method, classifier, saving, autocast)
        except Stopped:
            stop = StopSwitch()
    pairs = zip(whole.trained_state().values(), classifier.trained_state().values(), strict=True)
    return again.curve == result.curve and all(torch.equal(one.cpu(), other.cpu()) for one, other in pairs)


def _ask_to_stop(stop: Any, at: int, signum: int) -> Callable[[int], bool]:
    """Stand in for what is asked after every step; at one of them the process is asked to end."""

    def is_due(step: int) -> bool:
        if step == at and stop.signum is None:
            stop.request(signum)
        return False

    return is_due
