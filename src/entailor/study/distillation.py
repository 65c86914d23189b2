"""Who teaches a distilled candidate, and what it says of each text: probabilities to train on. Trains nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from entailor.data.example import Example, Split
from entailor.data.readers import NumberedRows, ReadOptions
from entailor.engine.scorer import score
from entailor.errors import MethodError
from entailor.events import Observer
from entailor.methods.distilled import Distilled
from entailor.runs.layout import RunFolder
from entailor.runs.record import RunRecord
from entailor.shipping.restoring import load_classifier, read_saved
from entailor.study.trial_plan import TrialPlan
from entailor.tasks import Task


@dataclass(frozen=True)
class Lesson:
    """What is taught.

    Attributes:
        examples: train, then the texts without labels, each with the teacher's answer as its label.
        soft_EL: target of each, a distribution over the labels.
        words: who taught, for the record.
    """

    examples: tuple[Example, ...]
    soft_EL: NDArray[np.float64]
    words: str

    @property
    def digest(self) -> str:
        """Hash of all that is trained on."""
        told = hashlib.sha256(self.soft_EL.astype(np.float32).tobytes())
        for one in self.examples:
            told.update(f"{one.text}\0{one.text_pair}\0{one.label}\n".encode("utf-8", "surrogatepass"))
        return told.hexdigest()


def lesson_of(plan: TrialPlan, task: Task, split: Split, trial: Path, observer: Observer) -> Lesson:
    """Return what a candidate is taught by another.

    Args:
        plan: of the candidate.
        task: labels and input shape.
        split: train; its validation chose the teacher, and its test is not looked at.
        trial: folder of the candidate's trial, in the run whose other candidates may teach.
        observer: told how far the teacher is.

    Raises:
        MethodError: there is no such teacher, or it gives no answers.
        DataError: the file of further texts cannot be read, or has another shape.
    """
    method = plan.method
    assert isinstance(method, Distilled)
    place, record, accuracy = _teacher(method, trial)
    classifier = load_classifier(place, trust_remote_code=plan.settings.trust_remote_code)
    further = _further(method, task)
    texts, tokens = [*split.train, *further], read_saved(place).scoring_batch_tokens
    said_EL = np.exp(score(classifier, classifier.encode(texts), tokens, observer, "teacher") / method.temperature)
    answered_E = np.any(np.asarray(said_EL) > 0, axis=1)
    if not answered_E.any():
        raise MethodError(
            f"{method.name}: {record.name} gives no answer to any text, so it cannot teach. Name another: teacher=NAME"
        )
    said_EL[answered_E] /= said_EL[answered_E].sum(axis=1, keepdims=True)
    gold_EL = np.eye(len(task.labels))[task.targets(split.train)]
    share_E = np.where(answered_E[: len(gold_EL)], method.soft_share, 0.0)[:, None]
    kept = [row for row in range(len(gold_EL), len(texts)) if answered_E[row]]
    taught = tuple(replace(texts[row], label=task.labels[int(said_EL[row].argmax())]) for row in kept)
    return Lesson(
        (*split.train, *taught),
        np.concatenate([share_E * said_EL[: len(gold_EL)] + (1 - share_E) * gold_EL, said_EL[kept]]),
        f"taught by {record.name} on {record.model} (validation {100 * accuracy:.1f} %), {len(gold_EL):,} labelled and "
        f"{len(taught):,} further texts",
    )


def _further(method: Distilled, task: Task) -> Sequence[Example]:
    if method.unlabelled is None:
        return ()
    rows = NumberedRows(method.unlabelled, ReadOptions(), is_pair=task.is_pair)
    return [example for _, example, has_text in islice(rows, method.max_unlabelled) if has_text]


def _teacher(method: Distilled, trial: Path) -> tuple[Path, RunRecord, float]:
    """Return the first trial of the candidate that is best on validation, over its seeds, with its accuracy."""
    run = RunFolder.split_of_trial(trial)  # a teacher of another split has seen what this one is tested on
    finished: dict[tuple[str, str], list[tuple[Path, RunRecord]]] = {}
    for place, record in run.records() if run is not None else ():
        if record.status == "complete" and record.method != method.name and record.validation_predictions:
            finished.setdefault((record.model, record.name), []).append((place, record))
    named = {key: found for key, found in finished.items() if method.teacher in (None, key[1])}
    if not named:
        there = ", ".join(dict.fromkeys(name for _, name in finished)) or "none"
        wanted = "no candidate" if method.teacher is None else f"no candidate {method.teacher}"
        raise MethodError(
            f"{method.name}: {wanted} of this run is finished, so nobody can teach. Finished are: {there}. Add the "
            "teacher to methods"
        )
    accuracy = {
        key: float(np.mean([one.predicted == one.label for _, own in found for one in own.validation_predictions]))
        for key, found in named.items()
    }
    best = max(named, key=lambda key: accuracy[key])
    return (*named[best][0], accuracy[best])
