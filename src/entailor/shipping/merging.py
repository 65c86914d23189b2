"""Writes a trained adapter into its base model in full precision, and holds the result against recorded scores.

Merging into 4-bit weights would round the update away (peft#2321, #1043), so the base is read again in full precision.
For an adapter that was trained on 4-bit weights that is another base: what this costs is measured, and said.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from entailor.config.experiment import ModelSettings, parse_settings
from entailor.data.example import Example
from entailor.data.readers import ReadOptions
from entailor.engine.scorer import score
from entailor.errors import MethodError, RunError
from entailor.methods import Classifier
from entailor.models.load import quiet_libraries
from entailor.runs.outputs import output_folder
from entailor.runs.record import RUN_AGAIN, RunRecord, write_json
from entailor.shipping.inference import read_labelled
from entailor.shipping.restoring import CLASSIFIER_FILE, find_trial, load_classifier, read_saved

MERGE_FILE = "merge.json"
PROBABILITY_TOLERANCE = 1e-3
"""Most by which a probability may change where base and arithmetic are those of the training."""


@dataclass(frozen=True)
class MergeReport:
    """What merging changed.

    Attributes:
        output: the folder of the merged checkpoint.
        examples: how many were scored before and after.
        accuracy_before: of the adapter as it was trained, 0 to 1.
        accuracy_after: of the merged checkpoint, read back from disk.
        flips: examples whose predicted label changed.
        largest_change: most by which a probability changed.
        trained_on: full precision, nf4, fp4 or int8: the weights under the adapter while it was trained.
    """

    output: str
    examples: int
    accuracy_before: float
    accuracy_after: float
    flips: int
    largest_change: float
    trained_on: str

    def __str__(self) -> str:
        price = "" if self.trained_on == "full precision" else f" (the price of training on {self.trained_on} weights)"
        return (
            f"merged into {self.output}: accuracy {self.accuracy_before:.2%} before, {self.accuracy_after:.2%} after, "
            f"{self.flips} of {self.examples:,} labels changed, largest change of a probability "
            f"{self.largest_change:.2g}{price}"
        )


def merge(
    run: str | Path,
    output: str | Path,
    test: str | None = None,
    options: ReadOptions | None = None,
    *,
    trust_remote_code: bool = False,
    note: Callable[[str], None] = lambda words: None,
) -> MergeReport:
    """Merge a trial's adapter into its base model in full precision, save that, and score it again.

    Args:
        run: a trial's folder, or a run's (its winner).
        output: a folder that does not exist or is empty; a plain checkpoint of `transformers` is written there.
        test: a labelled file to score before and after; None: the recorded predictions on the run's test split.
        options: columns and label names of that file.
        trust_remote_code: run code that comes with a base model, where it was trained so.
        note: told what is left out of that file.

    Raises:
        MethodError: the trial has no adapter that can be merged.
        OutputError: the output is in use, or lies among the files of a run.
        RunError: there is no such trial, or the merged model scores otherwise although base and
            arithmetic are those of the training. Nothing is left in the output then.
    """
    trial, target = find_trial(run), Path(output)
    saved = read_saved(trial)
    inputs = (run, trial, test, saved["model"])
    with output_folder(target, inputs) as scratch:
        before = partial(_before, trial, saved, test, options, note, trust_remote_code=trust_remote_code)
        return _merge(trial, scratch, target, before, trust_remote_code=trust_remote_code)


def _merge(
    trial: Path,
    scratch: Path,
    target: Path,
    before: Callable[[], tuple[list[Example], NDArray[np.float64]]],
    *,
    trust_remote_code: bool,
) -> MergeReport:
    saved = read_saved(trial)
    settings = parse_settings(ModelSettings, saved["model_settings"], where="model")
    examples, before_EL = before()
    classifier: Any = load_classifier(trial, full_precision=True, trust_remote_code=trust_remote_code)
    model = _mergeable(classifier, saved["method"]).merge_and_unload()
    after_EL = _save_and_score(classifier, model, scratch, examples, saved["scoring_batch_tokens"])
    report = _compare(str(target), classifier, examples, before_EL, after_EL, _trained_on(settings))
    if report.trained_on == "full precision" and report.largest_change > PROBABILITY_TOLERANCE:
        raise RunError(
            f"{report}. More than {PROBABILITY_TOLERANCE:g} is not rounding, so nothing was written; "
            "please report this with the trial's record.json"
        )
    write_json(scratch / MERGE_FILE, {**asdict(report), "trial": str(trial), "weights_sha256": saved["weights_sha256"]})
    return report


def _trained_on(settings: ModelSettings) -> str:
    if settings.load_in_8bit:
        return "int8"
    return settings.bnb_4bit_quant_type if settings.load_in_4bit else "full precision"


def _before(
    trial: Path,
    saved: dict[str, Any],
    test: str | None,
    options: ReadOptions | None,
    note: Callable[[str], None],
    *,
    trust_remote_code: bool,
) -> tuple[list[Example], NDArray[np.float64]]:
    """Return examples and their probabilities_EL: as recorded, or of a file by the classifier as it was trained."""
    labels = tuple(saved["labels"])
    if test is None:
        rows = RunRecord.read(trial).predictions
        if not rows or rows[0].probabilities.keys() != set(labels):
            raise RunError(f"{trial}: its record and {CLASSIFIER_FILE} name other labels. {RUN_AGAIN}")
        examples = [Example(row.id, row.text, row.text_pair, row.label, row.group) for row in rows]
        return examples, np.array([[row.probabilities[label] for label in labels] for row in rows])
    examples = list(read_labelled(trial, test, options, labels, note))
    classifier = load_classifier(trial, trust_remote_code=trust_remote_code)
    return examples, np.exp(score(classifier, classifier.encode(examples), saved["scoring_batch_tokens"]))


def _mergeable(classifier: Classifier, method: str) -> Any:
    """Return the `peft` model of a classifier.

    Raises:
        MethodError: there is none, or its adapter is no change of weights.
    """
    model: Any = getattr(classifier, "model", None)
    configs = getattr(model, "peft_config", {}).values()
    if not configs or any(config.is_prompt_learning for config in configs):
        raise MethodError(
            f"{method}: has no adapter that changes weights, so there is nothing to merge. LoRA and similar can be "
            "merged; what full_finetuning saved is a whole checkpoint already (the trial's folder model/)"
        )
    if not hasattr(model.base_model, "merge_and_unload"):
        kinds = ", ".join(sorted({config.peft_type.value for config in configs}))
        raise MethodError(f"{method}: peft cannot merge {kinds}. Ship the adapter beside its base model instead")
    return model


def _save_and_score(
    classifier: Any, model: Any, target: Path, examples: list[Example], batch_tokens: int
) -> NDArray[np.float64]:
    """Write the merged checkpoint, read it back, and return probabilities_EL of the classifier on top of it."""
    with quiet_libraries():
        model.save_pretrained(target, safe_serialization=True)
        classifier.text_encoder.tokenizer.save_pretrained(target)
        reloaded = type(model).from_pretrained(target, dtype=torch.float32, use_safetensors=True)
    classifier.model = reloaded.to(model.device).eval()
    return np.exp(score(classifier, classifier.encode(examples), batch_tokens))


def _compare(
    output: str,
    classifier: Classifier,
    examples: list[Example],
    before_EL: NDArray[np.float64],
    after_EL: NDArray[np.float64],
    trained_on: str,
) -> MergeReport:
    gold_E = np.array(classifier.task.targets(examples))
    labels_before_E, labels_after_E = before_EL.argmax(axis=1), after_EL.argmax(axis=1)
    return MergeReport(
        output=output,
        examples=len(examples),
        accuracy_before=float((labels_before_E == gold_E).mean()),
        accuracy_after=float((labels_after_E == gold_E).mean()),
        flips=int((labels_before_E != labels_after_E).sum()),
        largest_change=float(np.abs(before_EL - after_EL).max()),
        trained_on=trained_on,
    )
