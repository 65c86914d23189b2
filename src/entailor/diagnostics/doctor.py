"""The data doctor: reads the data, runs every check over them, and says what is wrong and what to do about it.

The checks stand in `diagnostics/`, one file each; this module adds what needs a model, and writes doctor.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entailor.config.parts import DataSettings, ModelSettings, PromptSettings
from entailor.data.splits import LoadedData, load_data
from entailor.diagnostics.base import (
    SEVERITIES,
    CheckInput,
    CheckOutcome,
    CheckResult,
    DoctorFinding,
    EncoderFeatures,
    examine,
)
from entailor.errors import MethodError, ModelError, RunError
from entailor.events import SILENT, Observer
from entailor.models.precision import PrecisionChoice
from entailor.runs.files import read_checked_json, write_checked_json, write_json
from entailor.runs.layout import RunFolder
from entailor.runs.outputs import output_file
from entailor.tasks import Task

if TYPE_CHECKING:
    from entailor.models.load import Backbone

VERSION = 1


@dataclass(frozen=True)
class DoctorReport:
    """What the doctor found.

    Attributes:
        checks: every check with what it gave, those that found nothing included.
        data: what was looked at.
        model: the model whose tokenizer and features were used, or None.
    """

    checks: tuple[CheckResult, ...]
    data: LoadedData
    model: str | None = None

    @property
    def findings(self) -> tuple[DoctorFinding, ...]:
        """Everything that was found, the gravest first."""
        every = [found for one in self.checks for found in one.outcome.findings]
        return tuple(sorted(every, key=lambda found: SEVERITIES.index(found.severity)))

    def document(self) -> Mapping[str, Any]:
        """Return what doctor.json holds."""
        return {
            "version": VERSION,
            "fingerprint": self.data.fingerprint,
            "sizes": {name: len(rows) for name, rows in self.data.split.parts()},
            "labels": list(self.data.labels),
            "model": self.model,
            "notes": list(self.data.notes),
            "checks": [
                {
                    "name": one.name,
                    "title": one.title,
                    "findings": len(one.outcome.findings),
                    "skipped": one.outcome.skipped,
                    "facts": dict(one.outcome.facts),
                }
                for one in self.checks
            ],
            "findings": [asdict(found) for found in self.findings],
        }

    def write(self, path: str | Path, *, inputs: Iterable[str | Path | None] = (), overwrite: bool = False) -> None:
        """Write the document as JSON, whole or not at all.

        Args:
            path: the file.
            inputs: files that must not be written over.
            overwrite: replace a file that Entailor did not write.

        Raises:
            OutputError: it may not be written there.
        """
        with output_file(path, inputs, overwrite=overwrite) as temporary:
            write_json(temporary, self.document())


def validate(
    data: DataSettings | None = None,
    *,
    model: str | None = None,
    model_settings: ModelSettings | None = None,
    prompt: PromptSettings | None = None,
    observer: Observer = SILENT,
) -> DoctorReport:
    """Look for mistakes in labelled data: leaks, repetitions, wrong labels, artefacts, broken texts.

    Train is looked at whole: nothing is split off where there are no files for validation and test.

    Args:
        data: where the data come from. None: the bundled data.
        model: a model whose tokenizer counts tokens, and whose features make wrong labels easier to find.
        model_settings: how it is loaded.
        prompt: how a decoder is asked; its label words are looked at.
        observer: told what is being done.

    Raises:
        DataError: a source, column or example cannot be read.
        ConfigError: the prompt cannot be used.
        ModelError: the model cannot be found or loaded.
    """
    loaded = load_data(data or DataSettings(), whole=True)
    for note in loaded.notes:
        observer.note(note.rstrip())
    if model is None:
        return examine_data(loaded, observer)
    from entailor.diagnostics.tokens import token_checks
    from entailor.models.load import load_backbone, open_model

    observer.note(f"loading {model}")
    task = Task(loaded.labels, loaded.is_pair, prompt or PromptSettings())
    settings = (model_settings or ModelSettings()).model_copy(update={"head": "new"})
    precision = PrecisionChoice("fp32", "the doctor computes in fp32")
    backbone = load_backbone(open_model(model, settings), task, settings, precision, seed=0)
    evidence = CheckInput(loaded.split, loaded.labels, loaded.is_pair, reading=loaded.reading)
    tokens = token_checks(backbone.text_encoder, model, evidence)
    try:
        observer.note(f"reading the examples with {model}")
        features = encoder_features(backbone, model, task, evidence)
    except MethodError as error:
        reason = CheckResult("encoder_features", "features of the model", CheckOutcome(skipped=str(error)))
        return DoctorReport((*examine(evidence, observer), *tokens, reason), loaded, model)
    seen = replace(evidence, encoder=features)
    return DoctorReport((*examine(seen, observer), *tokens), loaded, model)


def examine_data(data: LoadedData, observer: Observer = SILENT) -> DoctorReport:
    """Run every check that needs no model over data that were read."""
    return DoctorReport(
        examine(CheckInput(data.split, data.labels, data.is_pair, reading=data.reading), observer), data
    )


def examine_run(folder: RunFolder, data: LoadedData, observer: Observer) -> None:
    """Write doctor.json for a run's split unless it is there; tell what the checks of every run do not say already."""
    if folder.doctor_file.exists() and _examined(folder) == data.fingerprint:
        return
    observer.note("looking for mistakes in the data")
    found = examine_data(data)
    write_checked_json(folder.doctor_file, found.document())
    for one in found.findings:
        if one.severity != "info" and one.check != "repeated_rows":
            observer.note(f"{one.severity}: {one.message}. {one.remedy}")


def encoder_features(backbone: Backbone, model: str, task: Task, evidence: CheckInput) -> EncoderFeatures:
    """Return the features a linear probe reads of the training examples.

    Raises:
        MethodError: a linear probe cannot read this model.
    """
    from entailor.engine.scorer import collect_features, usual_batch_tokens
    from entailor.methods import build_method
    from entailor.methods.linear_probe import LinearProbeClassifier

    classifier = build_method("linear_probe", {}).adapt(backbone, task, 0)
    if not isinstance(classifier, LinearProbeClassifier):
        raise ModelError(f"{model}: no linear probe can be put on it")
    inputs = classifier.encode(evidence.fitted.rows)
    data = collect_features(classifier, inputs, evidence.targets.tolist(), usual_batch_tokens())
    return EncoderFeatures(model, data.features)


def _examined(folder: RunFolder) -> str | None:
    """Return the fingerprint of the data that doctor.json is about; None where it is damaged, so it is made again."""
    try:
        return str(read_checked_json(folder.doctor_file, "It is made again").get("fingerprint"))
    except RunError:
        return None
