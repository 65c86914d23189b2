"""The one way to use a finished classifier: load it once, ask it as often as wanted, from as many threads as wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from entailor.data.columns import find_columns
from entailor.data.example import Example
from entailor.data.in_memory import as_text, is_missing, is_table, plain_list, table_columns
from entailor.engine.scorer import log_softmax, score
from entailor.errors import ConfigError, DataError, RunError
from entailor.evaluation.calibration import apply_temperature
from entailor.events import SILENT, Observer
from entailor.methods import Classifier
from entailor.models.resolve.source import resolve_model
from entailor.runs.files import read_json
from entailor.runs.ownership import MANIFEST_FILE
from entailor.runs.trial_folder import RECORD_FILE
from entailor.shipping.manifest import read_manifest
from entailor.shipping.restoring import find_trial, load_classifier, read_saved

RUNTIMES = {
    "transformers": "torch_runtime",
    "adapter": "torch_runtime",
    "sklearn": "linear_runtime",
    "onnx": "onnx_runtime",
    "onnx-int8": "onnx_runtime",
    "gguf": "gguf_runtime",
    "gguf-f16": "gguf_runtime",
}


@dataclass(frozen=True)
class Answer:
    """What is said of one text or pair.

    Attributes:
        label: the most probable label; None where it is not probable enough, or there is no text.
        probabilities: by label, in the classifier's order, 0 to 1; empty where there is no text.
    """

    label: str | None
    probabilities: dict[str, float] = field(default_factory=dict)


class Scored(NamedTuple):
    """What a scorer gives.

    Attributes:
        probabilities_EL: 0 to 1.
        cut: how many examples were longer than what the classifier reads; None where that is not counted.
    """

    probabilities_EL: NDArray[np.float64]
    cut: int | None = None


class Scorer(Protocol):
    """What gives probabilities: a trial's classifier, or the runtime of an exported format."""

    def score(self, examples: Sequence[Example], observer: Observer = SILENT) -> Scored:
        """Return probabilities that are not calibrated."""
        ...


class ClassifierScorer:
    """A trial's classifier.

    Args:
        classifier: in evaluation mode.
        batch_tokens: most tokens of a batch, padding included.
    """

    def __init__(self, classifier: Classifier, batch_tokens: int) -> None:
        self.classifier, self.batch_tokens = classifier, batch_tokens

    def score(self, examples: Sequence[Example], observer: Observer = SILENT) -> Scored:
        """Return probabilities, and how many texts were cut."""
        inputs = self.classifier.encode(examples)
        cut = len({one.example_index for one in inputs if one.truncated})
        return Scored(np.exp(score(self.classifier, inputs, self.batch_tokens, observer)), cut)


class RuntimeScorer:
    """The runtime of an exported format."""

    def __init__(self, runtime: Any) -> None:
        self.runtime = runtime

    def score(self, examples: Sequence[Example], observer: Observer = SILENT) -> Scored:
        """Return probabilities, and how many texts were cut."""
        inputs = [(one.text, one.text_pair) for one in examples]
        logits_EL = self.runtime.logits(inputs)
        observer.stage("scoring", len(examples), len(examples))
        tokens = getattr(self.runtime, "tokens", None)  # words are read whole
        cut = sum(tokens.cuts(*one) for one in inputs) if tokens else 0
        return Scored(np.exp(log_softmax(np.asarray(logits_EL, dtype=np.float64))), cut)


class Predictor:
    """A finished classifier. Calls from several threads are answered one after the other.

    Args:
        scorer: gives probabilities.
        labels: label names in the order of the classifier's outputs.
        is_pair: True where an input is two texts.
        name: of the candidate.
        temperature: fitted on validation; None where there is none.
        place: the folder it was loaded from.
        base_model: as the user named it; None where the folder holds all there is.
    """

    def __init__(
        self,
        scorer: Scorer,
        labels: Sequence[str],
        *,
        is_pair: bool,
        name: str,
        temperature: float | None,
        place: Path,
        base_model: str | None = None,
    ) -> None:
        self.scorer, self.labels, self.is_pair, self.name = scorer, tuple(labels), is_pair, name
        self.temperature, self.place, self.base_model = temperature, place, base_model
        self._lock = Lock()

    @classmethod
    def load(cls, path: str | Path, *, trust_remote_code: bool = False) -> Self:
        """Load a finished classifier.

        Args:
            path: a run's folder (its recommended candidate), a trial's, or one that `entailor export` wrote.
            trust_remote_code: run code that comes with the base model, where it was trained so.

        Raises:
            RunError: there is no such trial or export, or it is damaged.
        """
        if (Path(path) / MANIFEST_FILE).is_file():
            return cls._of_export(Path(path))
        trial = find_trial(path)
        saved = read_saved(trial)
        classifier = load_classifier(trial, trust_remote_code=trust_remote_code)
        return cls(
            ClassifierScorer(classifier, saved.scoring_batch_tokens),
            saved.labels,
            is_pair=saved.is_pair,
            name=saved.candidate,
            temperature=_temperature(trial),
            place=trial,
            base_model=saved.model,
        )

    @classmethod
    def _of_export(cls, folder: Path) -> Self:
        """Load an exported folder by Entailor's own runtime of its format; its predict.py may be a stranger's."""
        manifest = read_manifest(folder)
        module = import_module(f"entailor.shipping.runtimes.{RUNTIMES[manifest.format]}")
        base = None
        if manifest.format == "adapter" and manifest.base_model is not None:
            found = resolve_model(manifest.base_model.name, revision=manifest.base_model.revision)
            if found.weights_sha256 != manifest.base_model.weights_sha256:
                raise RunError(
                    f"{folder}: made for other weights of {found.name} than {found.path} holds. Give back the same "
                    "checkpoint, or export again"
                )
            base = str(found.path)
        runtime = _load_runtime(module, folder, base)
        return cls(
            RuntimeScorer(runtime),
            manifest.labels,
            is_pair=manifest.is_pair,
            name=manifest.name,
            temperature=manifest.temperature,
            place=folder,
        )

    def predict(self, inputs: Any, *, calibrated: bool = False, min_confidence: float | None = None) -> list[Answer]:
        """Return one answer an input, in order.

        Args:
            inputs: a list of texts or of pairs of texts; or a table with columns of usual names (text; text and
                text_pair; premise and hypothesis): a DataFrame of pandas or polars, a `datasets.Dataset`, a mapping of
                column name to list.
            calibrated: state probabilities at the temperature that was fitted on validation.
            min_confidence: below this probability of the most probable label, 0 to 1, there is no label.

        Raises:
            ConfigError: min_confidence is no probability.
            DataError: single texts where pairs are expected or the other way round, or something that is no text.
            RunError: no temperature was fitted, and calibrated probabilities are asked for.
        """
        least = check_confidence(min_confidence or 0.0)
        texts = texts_of(inputs, is_pair=self.is_pair)
        present = [index for index, text in enumerate(texts) if text is not None]
        examples = [Example(str(index), *texts[index]) for index in present]  # type: ignore[misc]
        answers = [Answer(None)] * len(texts)
        rows_EL = self.probabilities(examples, calibrated=calibrated)
        for index, row in zip(present, rows_EL, strict=True):
            answers[index] = self.answer(row, least)
        return answers

    def probabilities(self, examples: Sequence[Example], *, calibrated: bool = False) -> NDArray[np.float64]:
        """Return probabilities_EL, as :meth:`score` does."""
        return self.score(examples, calibrated=calibrated).probabilities_EL

    def score(self, examples: Sequence[Example], *, calibrated: bool = False, observer: Observer = SILENT) -> Scored:
        """Return probabilities_EL, and how many examples were cut.

        Args:
            examples: of the classifier's shape.
            calibrated: at the fitted temperature.
            observer: told how many inputs are done.

        Raises:
            DataError: pairs or single texts where the other is expected.
            RunError: no temperature was fitted, and calibrated probabilities are asked for.
        """
        self.check_calibrated(calibrated)
        if not examples:
            return Scored(np.zeros((0, len(self.labels))), 0)
        with self._lock:
            rows_EL, cut = self.scorer.score(examples, observer)
        if rows_EL.shape[1] != len(self.labels):  # of an export whose files were put together by hand
            problem = f"{rows_EL.shape[1]} scores for {len(self.labels)} labels"
            raise RunError(f"{self.place}: {problem}: its files do not belong together. Export it again")
        if calibrated and self.temperature:  # no answer stays none
            rows_EL = np.where(rows_EL.any(axis=1, keepdims=True), apply_temperature(rows_EL, self.temperature), 0.0)
        return Scored(rows_EL, cut)

    def check_calibrated(self, wanted: bool) -> None:
        """Raise RunError where calibrated probabilities are wanted and no temperature was fitted."""
        if wanted and self.temperature is None:
            raise RunError(
                f"{self.place}: no temperature was fitted in this trial, which an earlier version of Entailor ran. "
                "Leave out --calibrated, or delete the folder and run the command that made it again"
            )

    def answer(self, row: NDArray[np.float64], min_confidence: float = 0.0) -> Answer:
        """Return the answer that one row of probabilities gives; no label where all are 0, as without an answer."""
        said = dict(zip(self.labels, map(float, row), strict=True))
        best = max(said, key=said.__getitem__)
        return Answer(best if said[best] > 0 and said[best] >= min_confidence else None, said)


def _load_runtime(module: Any, folder: Path, base: str | None) -> Any:
    """Return the loaded export; whatever a stranger's files make the libraries raise is one error.

    Raises:
        ModelError: its tokenizer cannot be used.
        RunError: the rest cannot, or a library is missing.
    """
    from entailor.models.load import quiet_libraries
    from entailor.models.tokenizer import check_tokenizer

    check_tokenizer(folder)
    try:
        with quiet_libraries():
            return module.Runtime(folder, base)
    except ModuleNotFoundError as error:
        raise RunError(f"{folder}: {error.name} is not installed. Run: pip install {error.name}") from None
    except Exception as error:  # each library has exceptions of its own
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise RunError(f"{folder}: cannot be loaded ({words}). Export it again") from error


def check_confidence(least: float) -> float:
    """Return a least probability.

    Raises:
        ConfigError: it is none.
    """
    if not 0 <= least <= 1:
        raise ConfigError(f"--min-confidence: a probability from 0 to 1 was expected, found {least}")
    return least


def texts_of(inputs: Any, *, is_pair: bool) -> list[tuple[str, str | None] | None]:
    """Return text and second text of every input; None where there is no text.

    Raises:
        DataError: another shape than expected, or something that is no text.
    """
    if isinstance(inputs, (str, bytes)):
        one = "(premise, hypothesis)" if is_pair else repr(inputs[:20])
        raise DataError("one text was given, a list was expected", remedy=f"Write predict([{one}])")
    if is_table(inputs):
        columns = _columns(inputs, is_pair=is_pair)
        rows: list[Any] = list(zip(*columns, strict=True)) if is_pair else columns[0]
    else:
        rows = plain_list(inputs, "inputs", "a list of texts, or of pairs of texts")
    return [_texts(row, index, is_pair=is_pair) for index, row in enumerate(rows)]


def _columns(table: Any, *, is_pair: bool) -> list[list[Any]]:
    """Return the columns of texts of a table."""
    source = type(table).__name__
    wanted = "premise and hypothesis" if is_pair else "text"
    remedy = f"Give a table with columns of the names {wanted}"

    def pick(names: list[str]) -> list[str]:
        single = {} if is_pair or "text" not in names else {"text": "text"}
        try:
            found = find_columns(names, single, source=source, require_labels=False)
        except DataError as error:  # which proposes an option of the command line
            raise DataError(error.problem, path=source, remedy=remedy) from None
        if ("text_pair" in found) != is_pair:
            raise wrong_shape(source, remedy, is_pair=is_pair)
        return [found[name] for name in ("text", "text_pair") if name in found]

    return list(table_columns(table, source, pick).values())


def _texts(row: Any, index: int, *, is_pair: bool) -> tuple[str, str | None] | None:
    parts = [as_text(part) for part in row] if isinstance(row, (tuple, list)) else [as_text(row)]
    if all(is_missing(part) for part in parts):
        return None
    if len(parts) != 1 + is_pair:
        form = "(premise, hypothesis) for" if is_pair else "one text for"
        raise wrong_shape(f"input {index}", f"Give {form} each input", is_pair=is_pair)
    for part in parts:
        if not isinstance(part, str) and not is_missing(part):
            raise DataError(f"{type(part).__name__} found, a text was expected", path=f"input {index}")
    first, *second = ("" if is_missing(part) else part for part in parts)
    return first, second[0] if second else None


def wrong_shape(source: object, remedy: str, *, is_pair: bool) -> DataError:
    """Return the error for single texts where pairs are expected, or the other way round."""
    expected, found = ("pairs", "single texts") if is_pair else ("single texts", "pairs")
    return DataError(f"the classifier was trained on {expected}, these are {found}", path=source, remedy=remedy)


def _temperature(trial: Path) -> float | None:
    record = read_json(trial / RECORD_FILE)
    temperature = record.get("temperature") if isinstance(record, dict) else None
    fits = isinstance(temperature, (int, float)) and 1e-3 <= temperature <= 1e6
    return float(temperature) if fits else None  # type: ignore[arg-type]
