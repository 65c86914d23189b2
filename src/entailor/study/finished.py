"""What is kept of a finished classifier: its answers, its time, its prompts, and files that are proven to load."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entailor.classifiers.base import Classifier
from entailor.classifiers.thresholds import chosen_shift
from entailor.data.example import Example, Split
from entailor.engine.scorer import log_softmax, run_without_gradients, score
from entailor.errors import RunError, TrainingError
from entailor.evaluation.calibration import LEAST_PROBABILITY, fit_temperature
from entailor.methods import Method
from entailor.runs.files import write_json
from entailor.runs.record import SPLIT, Prediction, RunRecord, ShownPrompt
from entailor.runs.redaction import without_secrets
from entailor.runs.trial_folder import clear_trial, saved_folder
from entailor.shipping.restoring import CLASSIFIER_FILE, CLASSIFIER_VERSION, SavedClassifier, load_classifier
from entailor.study.trial_plan import TrialPlan
from entailor.tasks import Task

LATENCY_EXAMPLES = 40
RELOAD_EXAMPLES = 16
# Scores agree within this whatever the batching, and after saving and loading (log-probabilities).
SCORE_TOLERANCE = 1e-4


def blank_record(plan: TrialPlan, task: Task) -> RunRecord:
    """Return the record of a trial before anything is known of it."""
    return RunRecord(
        model=plan.model,
        name=plan.candidate,
        method=plan.method.name,
        seed=plan.seed,
        labels=task.labels,
        hyperparameters=plan.method.model_dump(mode="json"),
        provenance={SPLIT: plan.split} if plan.split else {},
    )


def failed_record(plan: TrialPlan, task: Task, kind: str, text: str) -> RunRecord:
    """Return the record of a trial that was not finished: the name of its error, and what it says."""
    blank = blank_record(plan, task)
    return replace(blank, status="failed", error=without_secrets(f"{kind}: {text}"), error_type=kind)


def complete_record(plan: TrialPlan, folder: Path) -> RunRecord | None:
    """Return the record in a trial's folder where it is complete and was run with these hyperparameters."""
    try:
        record = RunRecord.read(folder)
    except RunError:
        return None
    same = record.hyperparameters == plan.method.model_dump(mode="json")
    return record if same and record.status == "complete" else None


def lost_trial(plan: TrialPlan, task: Task, folder: Path, reason: str) -> RunRecord:
    """Write the record of a trial whose process died again and again; its checkpoints stay.

    Args:
        plan: what was run.
        task: labels and input shape.
        folder: the trial's.
        reason: what is known of it, and the next step.

    Returns:
        The failed record, as written.
    """
    clear_trial(folder)
    record = failed_record(plan, task, "WorkerDied", reason)
    record.write(folder)
    return record


def prompts_of(classifier: Classifier, task: Task, validation: Sequence[Example]) -> list[ShownPrompt] | None:
    """Return the exact prompt of one validation example of each label, for the report; None without prompts."""
    from entailor.models.prompts import PromptEncoder

    encoder = getattr(classifier, "text_encoder", None)
    if not isinstance(encoder, PromptEncoder):
        return None
    firsts = {example.label: example for example in reversed(validation)}
    examples = [firsts[label] for label in task.labels if label in firsts]
    items: Sequence[Any] = classifier.encode(examples)
    return [
        ShownPrompt(str(example.label), example.id, *encoder.shown(item, task.index_of(str(example.label))))
        for example, item in zip(examples, items, strict=True)
    ]


def move_thresholds(
    classifier: Classifier, method: Method, split: Split, logprobs_VL: NDArray[np.float64]
) -> tuple[NDArray[np.float64], str]:
    """Shift a finished classifier's logits as its method's `thresholds` say.

    Args:
        classifier: changed in place.
        method: its settings.
        split: train gives the labels' shares, validation chooses.
        logprobs_VL: of validation, by the classifier as it is.

    Returns:
        The same after the shift, and what was chosen in words.
    """
    task = classifier.task
    gold_V, counts_L = (np.array(task.targets(part)) for part in (split.validation, split.train))
    counts_L = np.bincount(counts_L, minlength=len(task.labels))
    temperature = fit_temperature(np.exp(logprobs_VL), gold_V)
    shift_L, words = chosen_shift(method, logprobs_VL, gold_V, counts_L, temperature, task.labels)
    if shift_L.any():
        classifier.shift(shift_L)
    return log_softmax(logprobs_VL + shift_L), words


def predictions_of(
    examples: Sequence[Example], logprobs_EL: NDArray[np.float64], labels: Sequence[str], *, texts: bool
) -> tuple[Prediction, ...]:
    """Return what a record holds of each example.

    Args:
        examples: that were scored.
        logprobs_EL: of the labels.
        labels: in their order.
        texts: keep the texts as well.
    """
    return tuple(
        Prediction(
            id=example.id,
            label=str(example.label),
            probabilities=dict(zip(labels, (float(p) for p in np.exp(logprobs_L)), strict=True)),
            group=example.group,
            text=example.text if texts else "",
            text_pair=example.text_pair if texts else None,
        )
        for example, logprobs_L in zip(examples, logprobs_EL, strict=True)
    )


def accuracy_and_loss(logprobs_EL: NDArray[np.float64], gold_E: NDArray[np.int64]) -> tuple[float, float]:
    """Return the share that is right, and the log loss in nats; no answer is wrong, and finitely so."""
    answered_E = np.isfinite(logprobs_EL).all(axis=1)
    gold_logprob_E = np.maximum(logprobs_EL[np.arange(len(gold_E)), gold_E], np.log(LEAST_PROBABILITY))
    return float((answered_E & (logprobs_EL.argmax(axis=1) == gold_E)).mean()), -float(gold_logprob_E.mean())


def latency_of(classifier: Classifier, validation: Sequence[Example]) -> dict[str, float]:
    """Time single examples, text to logits, after three to warm up, as a server is asked; milliseconds."""
    times, run = [], run_without_gradients(classifier)
    for example in validation[: LATENCY_EXAMPLES + 3]:
        begin = time.perf_counter()
        with classifier.scoring(classifier.encode([example])[:1]) as inputs:
            run(inputs)
        times.append(1000 * (time.perf_counter() - begin))
    kept = times[3:] or times
    return {"latency_p50_ms": float(np.percentile(kept, 50)), "latency_p95_ms": float(np.percentile(kept, 95))}


def save_and_reload(
    classifier: Classifier, folder: Path, saved: str, description: SavedClassifier, validation: Sequence[Example]
) -> float:
    """Save, load the saved files afresh, and compare scores: a head left out would show here.

    Args:
        classifier: in evaluation mode.
        folder: the trial's.
        saved: name of the folder in it that takes the weights.
        description: as :func:`describe_classifier` gives it.
        validation: the first of these are scored.

    Returns:
        The largest difference of a log-probability.

    Raises:
        TrainingError: it is more than rounding.
    """
    with saved_folder(folder, saved) as scratch:
        classifier.save(scratch)
    write_json(folder / CLASSIFIER_FILE, description.as_written())
    sample, limit = validation[:RELOAD_EXAMPLES], description.scoring_batch_tokens
    restored = load_classifier(folder, trust_remote_code=description.model_settings["trust_remote_code"])
    first = score(classifier, classifier.encode(sample), limit)
    second = score(restored, restored.encode(sample), limit)
    gap = float(np.abs(np.exp(first) - np.exp(second)).max() if classifier.abstains else np.abs(first - second).max())
    if gap > SCORE_TOLERANCE:
        raise TrainingError(
            f"{description.candidate}: the saved classifier gives other scores than the trained one (by {gap:.2g}). "
            "Some trained tensor is not saved; please report this with the experiment.yaml"
        )
    return gap


def describe_classifier(
    plan: TrialPlan, task: Task, provenance: Mapping[str, Any], classifier: Classifier
) -> SavedClassifier:
    """Return what :func:`load_classifier` needs to know."""
    return SavedClassifier(
        version=CLASSIFIER_VERSION,
        method=plan.method.name,
        hyperparameters=plan.method.model_dump(mode="json"),
        candidate=plan.candidate,
        model=plan.model,
        # a branch of the Hub moves on, its commit does not
        model_settings=plan.settings.model_dump(mode="json")
        | ({"revision": commit} if (commit := provenance.get("model_commit")) else {}),
        prompt=plan.prompt.model_dump(mode="json"),
        weights_sha256=provenance.get("weights_sha256"),
        model_files=provenance.get("model_files"),
        labels=list(task.labels),
        is_pair=task.is_pair,
        date=task.day.isoformat(),
        seed=provenance.get("seed_used", plan.seed),
        scoring_batch_tokens=plan.scoring_batch_tokens,
        offsets=None if classifier.offset_L is None else classifier.offset_L.tolist(),
    )


def truncation_note(share: float, longest: int, max_length: int, classifier: Classifier) -> str:
    """Say how many examples of test were cut, and what this classifier can do about it.

    Args:
        share: of the examples.
        longest: tokens of the longest input that was cut.
        max_length: as the settings say.
        classifier: what reads them; windows are for those that pool tokens of an encoder.
    """
    encoder = getattr(classifier, "text_encoder", None)
    reader = encoder or getattr(getattr(classifier, "reader", None), "text_encoder", None)
    ways = []
    if reader is None or reader.context > max_length:
        most = f"takes {reader.context:,}" if reader else "may take no more"
        ways.append(f"raise model.max_length (now {max_length}; the model {most})")
    if encoder is not None and hasattr(encoder, "stride"):  # a decoder has none, and takes no windows
        stride = f"lower model.window_stride (now {encoder.stride})"
        ways.append(stride if encoder.windows else "set model.long_texts=windows")
    remedy = " or ".join(ways) or "take a model that reads longer texts"
    cut = f"{share:.1%} of test was truncated to {longest} tokens, longest text first"
    return f"{cut}. {remedy[0].upper()}{remedy[1:]}"
