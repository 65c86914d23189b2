"""Exports a finished classifier: written, proven in a fresh process, and only then given its name."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from entailor.config.experiment import parse_settings
from entailor.config.parts import ModelSettings
from entailor.data.example import Example
from entailor.engine.scorer import score
from entailor.errors import ConfigError, OutputError
from entailor.evaluation.wording import milliseconds
from entailor.events import SILENT, Observer
from entailor.methods import Classifier
from entailor.methods.registry import build_method
from entailor.methods.static_embedding import StaticEmbeddingClassifier
from entailor.models.load import open_model
from entailor.models.resolve.package import KNOWN_PACKAGES
from entailor.models.resolve.source import ModelFolder
from entailor.runs.files import write_text
from entailor.runs.integrity import disk_trouble, file_sha256
from entailor.runs.layout import RunFolder
from entailor.runs.outputs import refuse_inputs, resolved
from entailor.runs.paths import make_folder, user_path
from entailor.runs.record import RunRecord
from entailor.runs.trial_folder import RECORD_FILE
from entailor.shipping import onnx_export
from entailor.shipping.card import model_card
from entailor.shipping.external_sets import ExternalSet, judge_external, read_external, readable
from entailor.shipping.formats import (
    LINEAR,
    check_format,
    input_settings,
    token_settings,
    write_adapter,
    write_gguf,
    write_linear,
    write_transformers,
)
from entailor.shipping.gguf_export import GGUF_TYPES
from entailor.shipping.manifest import CARD_FILE, MANIFEST_VERSION, PROOF_FILE, library_versions, write_manifest
from entailor.shipping.restoring import BaseWeights, find_trial, load_classifier, read_saved
from entailor.shipping.runtimes.linear_runtime import LinearInput
from entailor.shipping.runtimes.tokens import InputSettings
from entailor.shipping.verification import Proof, Reference, ask_in_fresh_process, fuzz_texts, job_of, judge

DEFAULT_MARGIN = 0.01
ROUNDED = ("onnx-int8", "gguf-f16")
"""Formats that round weights."""
FUZZ_WORDS = ("cat", "dog", "red", "some", "no", "yes")
Ask = Callable[[Path, Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class ExportReport:
    """One format of one export.

    Attributes:
        format: its name.
        folder: where it stands; ends in `.rejected` where it did not pass.
        proof: what was found.
        variant: which of several ways to write it was taken, in words; empty where there is one.
    """

    format: str
    folder: Path
    proof: Proof
    variant: str = ""

    def __str__(self) -> str:
        proof = self.proof
        found = (
            f"{len(proof.flips)} of {proof.examples:,} labels changed, largest change of a log-probability "
            f"{proof.largest_change:.2g}, {proof.size_bytes / 1e6:.1f} MB, {milliseconds(proof.p50_ms)} an example"
        )
        if proof.engine:
            found += f", run by {proof.engine}"
        if proof.passed:
            return f"{self.format}: {self.folder} ({found}{f'; {self.variant}' if self.variant else ''})"
        return f"{self.format}: refused, kept as {self.folder}: {'; '.join(proof.problems)}"


class Source:
    """A finished trial that is exported.

    Args:
        run: a trial's folder, or a run's (its recommended candidate).
        external: external test sets that belong into the proof.
        trust_remote_code: run code that comes with the base model, where it was trained so.
    """

    def __init__(self, run: str | Path, external: Sequence[str] = (), *, trust_remote_code: bool = False) -> None:
        self.external, self.trust_remote_code = tuple(external), trust_remote_code
        self.trial = find_trial(run)
        self.saved = read_saved(self.trial)
        self.record = RunRecord.read(self.trial)
        self.settings = parse_settings(ModelSettings, self.saved.model_settings, where="model")
        self.classifier: Classifier = load_classifier(
            self.trial, weights=BaseWeights.UNPACKED, trust_remote_code=trust_remote_code
        )

    @cached_property
    def base(self) -> ModelFolder | None:
        """The base model; None where there is none, or the trial holds the whole model."""
        method = build_method(self.saved.method, self.saved.hyperparameters)
        if not method.needs_backbone or method.stores_whole_model:
            return None
        return open_model(self.saved.model, self.settings)

    @cached_property
    def merged(self) -> Any:
        """The plain model, the adapter merged in full precision; merging takes it off `classifier`."""
        _ = self.reference, self.external_sets  # of the classifier as it was trained
        model: Any = self.classifier.model  # type: ignore[attr-defined]
        return model.merge_and_unload() if hasattr(model, "peft_config") else model

    @cached_property
    def reference(self) -> Reference:
        """What every export must answer."""
        task, record = self.classifier.task, self.record
        inputs = [(one.text, one.text_pair) for one in record.predictions]
        most = 64 if isinstance(self.classifier, LINEAR) else token_settings(self.classifier)["max_length"]
        fuzz = fuzz_texts(is_pair=task.is_pair, max_length=most, words=FUZZ_WORDS)
        encoded = self.classifier.encode([Example(str(n), *one) for n, one in enumerate(inputs)])
        fuzz_encoded = self.classifier.encode([Example(str(n), *one) for n, one in enumerate(fuzz)])
        probabilities = np.array([[one.probabilities[label] for label in task.labels] for one in record.predictions])
        return Reference(
            labels=task.labels,
            inputs=inputs,
            logprobs_EL=np.log(np.maximum(probabilities, 1e-300)),
            gold_E=np.array([task.index_of(one.label) for one in record.predictions]),
            ids=self._ids(inputs, encoded),
            fuzz=fuzz,
            fuzz_ids=self._ids(fuzz, fuzz_encoded),
            fuzz_logprobs_EL=score(self.classifier, fuzz_encoded, self.saved.scoring_batch_tokens),
            temperature=record.temperature,
            exact=not self.settings.load_in_8bit,
        )

    @cached_property
    def over_original_EL(self) -> NDArray[np.float64]:
        """Log-probabilities of the made-up texts where the base model has the weights of its files."""
        classifier = load_classifier(self.trial, weights=BaseWeights.ORIGINAL, trust_remote_code=self.trust_remote_code)
        examples = [Example(str(n), *one) for n, one in enumerate(self.reference.fuzz)]
        return score(classifier, classifier.encode(examples), self.saved.scoring_batch_tokens)

    @cached_property
    def external_sets(self) -> list[ExternalSet]:
        """The same on external test sets."""
        task = self.classifier.task

        def scored(examples: Sequence[Example]) -> NDArray[np.float64]:
            return score(self.classifier, self.classifier.encode(examples), self.saved.scoring_batch_tokens)

        return read_external(self.trial, self.external, task.labels, is_pair=task.is_pair, score=scored)

    def _ids(self, inputs: Sequence[Any], encoded: Sequence[Any]) -> list[Any]:
        """Return what the export's tokenizer must give, as it gives it."""
        in_order = sorted(encoded, key=lambda item: item.example_index)
        if hasattr(encoded[0], "input_ids"):
            return [[[*one.input_ids], [*(one.token_type_ids or ())]] for one in in_order]
        if hasattr(encoded[0], "parts"):
            return [
                [[*ids] for part in one.parts for ids in (part.input_ids, part.token_type_ids or ())]
                for one in in_order
            ]
        if isinstance(self.classifier, StaticEmbeddingClassifier):
            return [[list(ids) for ids in one.texts] for one in in_order]
        vectorizers = getattr(self.classifier, "vectorizers", [])
        texts = [item.texts for item in encoded] if vectorizers else [()] * len(inputs)
        return [
            [
                sorted(vectorizer.transform([text]).indices.tolist())
                for vectorizer, text in zip(vectorizers, row, strict=True)
            ]
            for row in texts
        ]

    def manifest(self, name: str) -> Mapping[str, Any]:
        """Return what the manifest says, but for the checksums."""
        run = RunFolder.of_trial(self.trial)
        split = run.split_file if run is not None and run.split_file.is_file() else None
        base = None
        if self.saved.model != "none" and self.saved.weights_sha256:
            known = next((one for one in KNOWN_PACKAGES if one.spec == self.saved.model), None)
            base = {
                "name": self.saved.model,
                "revision": (self.base.commit or self.base.revision) if self.base else None,
                "licence": known.licence if known else None,
                "weights_sha256": self.saved.weights_sha256,
            }
        return {
            "version": MANIFEST_VERSION,
            "format": name,
            "name": self.saved.candidate,
            "method": self.saved.method,
            "labels": list(self.classifier.task.labels),
            "is_pair": self.classifier.task.is_pair,
            "temperature": self.record.temperature,
            "input": self.input,
            "base_model": base,
            "trial_sha256": file_sha256(self.trial / RECORD_FILE),
            "split_sha256": file_sha256(split) if split else None,
            "libraries": library_versions(),
        }

    @cached_property
    def input(self) -> InputSettings | LinearInput:
        """What predict.py must know of the way from text to input."""
        return input_settings(self.classifier)


def export(
    run: str | Path,
    formats: Sequence[str],
    out: str | Path,
    *,
    margin: float = DEFAULT_MARGIN,
    external: Sequence[str] | None = None,
    trust_remote_code: bool = False,
    observer: Observer = SILENT,
    ask: Ask = ask_in_fresh_process,
) -> list[ExportReport]:
    """Export a finished classifier, and prove each export before its folder gets its name.

    Args:
        run: a trial's folder, or a run's (its recommended candidate).
        formats: some of transformers, adapter, sklearn, onnx, onnx-int8, gguf, gguf-f16.
        out: a folder that does not exist; with several formats each gets a folder of its name in it.
        margin: accuracy that a format which rounds weights may lose, 0 to 1.
        external: external test sets to score as well; None: those the trial was scored on, where they can be read.
        trust_remote_code: run code that comes with the base model, where it was trained so.
        observer: told what is being done.
        ask: what has an export answer; a process of its own but in tests.

    Returns:
        One report a format. What did not pass stands in a folder that ends in `.rejected`.

    Raises:
        ConfigError: no format, one twice, or a margin that is none.
        MethodError: a format does not fit the method; nothing was written.
        OutputError: the output exists, lies among the files of a run, or the disk fails.
        RunError: there is no finished trial, or it is damaged.
    """
    if not 0 <= margin < 1:
        raise ConfigError(f"--margin: a share of accuracy from 0 to 1 was expected, found {margin}")
    if not formats or len(set(formats)) < len(formats):
        raise ConfigError("--format: name each format once, for example --format transformers,onnx")
    place = user_path(out)
    targets = [place / name if len(formats) > 1 else place for name in formats]
    for target in targets:
        if not target.name:  # an empty path, `.` or `/`
            raise OutputError(f"{target}: exists already. Give another --out")
        refuse_inputs(target, resolved(target), (run,))
        _check_free(target)
    if external is None:
        external = readable(find_trial(run), observer)
    source = Source(run, external, trust_remote_code=trust_remote_code)
    for name in formats:
        check_format(name, source.classifier, source.saved.method)
        onnx_export.check_installed(name)
    return [
        _export_one(source, name, target, margin, observer, ask) for name, target in zip(formats, targets, strict=True)
    ]


def _check_free(target: Path) -> None:
    for place in (target, target.with_name(target.name + ".rejected")):
        if place.exists() or place.is_symlink():
            raise OutputError(f"{place}: exists already. Give another --out, or delete it")


@contextmanager
def scratch_beside(target: Path) -> Iterator[Path]:
    """Give a folder beside the target; it is gone afterwards, unless it was renamed.

    Raises:
        OutputError: the disk fails, whichever library was writing.
    """
    made = [folder for folder in target.parents if not folder.exists()]
    scratch = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        make_folder(scratch)
        yield scratch
    except Exception as error:  # safetensors has exceptions of its own for a full disk
        if problem := disk_trouble(error):
            raise OutputError(f"{target}: not written: {problem}") from error
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        for folder in made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _export_one(source: Source, name: str, target: Path, margin: float, observer: Observer, ask: Ask) -> ExportReport:
    observer.note(f"writing {name}")
    with scratch_beside(target) as scratch:
        variant = ""
        if name == "onnx-int8":
            variant, proof = _smallest(source, scratch, margin, observer, ask)
        else:
            write_format(source, name, scratch)
            observer.note(f"proving {name}")
            proof = prove(source, name, scratch, margin, ask)
        final = finish(source, name, scratch, target, proof)
    return ExportReport(name, final, proof, variant)


def _smallest(source: Source, folder: Path, margin: float, observer: Observer, ask: Ask) -> tuple[str, Proof]:
    """Write the smallest int8 form that passes the proof, or the last one tried; return its name and its proof."""
    write_format(source, "onnx", folder)
    model = folder / onnx_export.MODEL_FILE
    whole = model.rename(folder.with_name(f"{folder.name}.onnx"))  # beside it: all in the folder is released
    try:
        for variant, write in onnx_export.INT8_VARIANTS.items():
            observer.note(f"proving onnx-int8, {variant}")
            write(whole, model)
            write_manifest(folder, source.manifest("onnx-int8"))
            proof = prove(source, "onnx-int8", folder, margin, ask)
            if proof.passed:
                return variant, proof
    finally:
        whole.unlink()
    return f"none of {len(onnx_export.INT8_VARIANTS)} ways passed", proof


def write_format(source: Source, name: str, folder: Path) -> None:
    """Write the files of a format, and the manifest."""
    if name == "sklearn":
        write_linear(source.classifier, folder)
    elif name == "adapter":
        write_adapter(source.classifier, folder, source.trial, source.saved.model)
    elif name == "transformers":
        write_transformers(source.classifier, folder, source.merged)
    elif name in GGUF_TYPES:
        write_gguf(source.classifier, folder, source.merged, GGUF_TYPES[name])
    else:
        onnx_export.write_onnx(source, folder)
    write_manifest(folder, source.manifest(name))


def prove(source: Source, name: str, folder: Path, margin: float, ask: Ask = ask_in_fresh_process) -> Proof:
    """Ask an export what is recorded, and hold its answers against the record."""
    reference = source.reference
    if name in ROUNDED:
        tries = len(onnx_export.INT8_VARIANTS) if name == "onnx-int8" else 1
        reference = replace(reference, exact=False, quantised=True, tries=tries)
    elif name == "adapter" and source.settings.quantized:
        # it meets the base model's weights as they are, with which nothing is recorded
        reference = replace(reference, exact=False, fuzz_logprobs_EL=source.over_original_EL)
    base = str(source.base.path) if name == "adapter" and source.base else None
    has_head = "head" not in source.input and "frame" not in source.input
    others = {one.name: one.inputs for one in source.external_sets}
    job = job_of(reference, base=base, pipeline=name == "transformers" and has_head, external=others)
    with torch.random.fork_rng(devices=[]):
        found = ask(folder, job)
        proof = judge(folder, reference, found, margin)
    if "external" not in found:
        return proof
    proofs, problems = judge_external(source.external_sets, reference, found, margin)
    return replace(proof, external=[asdict(one) for one in proofs], problems=[*proof.problems, *problems])


def finish(source: Source, name: str, scratch: Path, target: Path, proof: Proof) -> Path:
    """Write proof, card and manifest, and give the folder its name."""
    proof.write(scratch / PROOF_FILE)
    values = source.manifest(name)
    write_text(scratch / CARD_FILE, model_card(values, source.record, proof))
    write_manifest(scratch, values)
    final = target if proof.passed else target.with_name(target.name + ".rejected")
    try:
        scratch.rename(final)
    except OSError:
        _check_free(target)  # another process may have been quicker
        raise
    return final
