"""A finished classifier on new text: `evaluate` with gold labels, `predict` without, streaming."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from entailor.config.overrides import read_yaml
from entailor.data.example import Example
from entailor.data.readers import NumberedRow, NumberedRows, ReadOptions, read_examples
from entailor.engine.scorer import score
from entailor.errors import ConfigError, DataError, RunError
from entailor.evaluation.calibration import apply_temperature
from entailor.events import SILENT, Observer
from entailor.methods import Classifier
from entailor.runs.documents import well_formed
from entailor.runs.layout import RunFolder
from entailor.runs.outputs import check_output, output_file
from entailor.runs.record import RECORD_FILE, Prediction, RunRecord, read_checked_json, read_json, read_status
from entailor.shipping.restoring import CLASSIFIER_FILE, load_classifier, read_saved

CHUNK = 1024
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")

Said = Mapping[str, float]  # label to probability


@dataclass(frozen=True)
class Confidence:
    """How sure a prediction must be to be made, and how its probability is stated.

    Attributes:
        calibrated: state probabilities at the temperature that was fitted on validation.
        minimum: below this probability of the most probable label the label is left empty, 0 to 1.
    """

    calibrated: bool = False
    minimum: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.minimum <= 1:
            raise ConfigError(f"--min-confidence: a probability from 0 to 1 was expected, found {self.minimum}")

    def label(self, probabilities: Said) -> str | None:
        """Return the most probable label, or None where it is not probable enough."""
        best = max(probabilities, key=probabilities.__getitem__)
        return best if probabilities[best] >= self.minimum else None


@dataclass(frozen=True)
class Answer:
    """What is written for one example of the input.

    Attributes:
        line: where it stands: the line of a text file on which it begins, else the number of the record.
        id: of the example.
        label: None where the classifier is not sure, or there is no text.
        probabilities: by label; empty where there is no text.
    """

    line: int
    id: str
    label: str | None = None
    probabilities: Said = field(default_factory=dict)


def find_trial(run: str | Path) -> Path:
    """Return a trial's folder; of a whole run, that of the recommended candidate.

    Raises:
        RunError: neither a complete trial nor a run with a recommended candidate.
    """
    folder = Path(run)
    if not (folder / CLASSIFIER_FILE).exists():
        whole = RunFolder(folder)
        whole.check_version()
        if not whole.comparison_file.exists():
            raise RunError(
                f"{folder}: neither a trial (runs/NAME/trials/MODEL/METHOD/seed-N) nor a run. "
                "Give the folder that `entailor compare` or `entailor train` named"
            )
        comparison = read_checked_json(whole.comparison_file, "Run the same command again")
        with well_formed(RunError, whole.comparison_file, "Run the same command again"):
            winner = whole.winner(comparison)
        if winner is None and comparison.get("candidates"):
            raise RunError(
                f"{folder}: no candidate keeps within the limits of `recommend`, so there is none to load. Give "
                f"a trial's "
                f"folder (under {folder / 'trials'}), or run `entailor compare` again with other limits"
            )
        if winner is None:
            raise RunError(f"{folder}: no trial of this run is complete, so there is no winner to load")
        folder = winner
    if not (folder / CLASSIFIER_FILE).exists():
        raise RunError(f"{folder}: its saved classifier is gone. Delete the folder and run the same command again")
    if not (folder / RECORD_FILE).exists() or read_status(folder) != "complete":
        raise RunError(f"{folder}: this trial was not finished, or failed. Run the same command again")
    return folder


def evaluate(
    run: str | Path,
    test: str,
    options: ReadOptions | None = None,
    on_progress: Callable[[int], None] | None = None,
    *,
    trust_remote_code: bool = False,
) -> RunRecord:
    """Score a labelled file with a finished classifier.

    Args:
        run: a trial's folder, or a run's (its recommended candidate).
        test: a file or data set with gold labels.
        options: columns and label names; the label set is the classifier's. Without label names those of the run's
            experiment.yaml are taken.
        on_progress: called with the inputs done so far.
        trust_remote_code: run code that comes with the base model, where it was trained so.

    Returns:
        A record with one prediction an example, for :func:`entailor.evaluation.metrics.evaluate_record`.

    Raises:
        DataError: the file cannot be read or its shape is another one.
        LabelError: a label the classifier does not know.
        RunError: there is no such trial, or it is damaged.
    """
    trial, classifier, saved = _open(run, trust_remote_code=trust_remote_code)
    labels = classifier.task.labels
    options = options or ReadOptions()
    names = options.label_names or label_names_of_run(trial)
    examples = read_examples(test, replace(options, labels=labels, label_names=names)).examples
    _check_shape(classifier, examples[0], test)
    probabilities_EL = _probabilities(classifier, examples, saved["scoring_batch_tokens"], on_progress)
    return RunRecord(
        model=saved["model"],
        name=saved["candidate"],
        method=saved["method"],
        seed=saved["seed"],
        labels=labels,
        predictions=tuple(
            Prediction(example.id, str(example.label), dict(zip(labels, map(float, p), strict=True)), example.group)
            for example, p in zip(examples, probabilities_EL, strict=True)
        ),
    )


def _open(run: str | Path, *, trust_remote_code: bool) -> tuple[Path, Classifier, dict[str, Any]]:
    """Return a trial's folder, its classifier, and what is written down about it."""
    trial = find_trial(run)
    return trial, load_classifier(trial, trust_remote_code=trust_remote_code), read_saved(trial)


def label_names_of_run(trial: Path) -> dict[str, str]:
    """Return how labels were written in the files of the run a trial stands in; none for a trial moved elsewhere."""
    run = RunFolder.of_trial(trial)
    if run is None or not run.experiment_file.exists():
        return {}
    file = run.experiment_file
    with well_formed(RunError, file, "Give the labels with --label-names, or put a copy of the file back"):
        data = read_yaml(file).get("data") or {}
        return {str(written): str(name) for written, name in (data.get("label_names") or {}).items()}


def predict(  # noqa: PLR0913 - each is an option of the command
    run: str | Path,
    source: str,
    output: str | Path,
    options: ReadOptions | None = None,
    on_progress: Callable[[int], None] | None = None,
    *,
    confidence: Confidence | None = None,
    trust_remote_code: bool = False,
    overwrite: bool = False,
    note: Callable[[str], None] = lambda words: None,
) -> int:
    """Write label probabilities for every example of a file, a thousand examples in memory at a time.

    Args:
        run: a trial's folder, or a run's (its recommended candidate).
        source: a file or data set; labels are not needed.
        output: a .csv, .tsv or .jsonl file; written whole or not at all.
        options: columns.
        on_progress: called with the examples done so far.
        confidence: whether to abstain where the classifier is not sure, and whether to calibrate.
        trust_remote_code: run code that comes with the base model, where it was trained so.
        overwrite: replace an output that Entailor did not write.
        note: told of lines without a prediction.

    Returns:
        The number of examples written.

    Raises:
        OutputError: the output is an input, or a file that Entailor did not write.
        RunError: no temperature was fitted in this trial, and calibrated probabilities are asked for.
        DataError: the input cannot be read, or the output's ending says no known format.
    """
    path = Path(output)
    confidence = confidence or Confidence()
    write = _writer(path)
    check_output(path, (source, run), overwrite=overwrite)
    trial, classifier, saved = _open(run, trust_remote_code=trust_remote_code)
    inputs = (source, run, trial, saved["model"])
    check_output(path, inputs, overwrite=overwrite)
    temperature = _temperature(trial) if confidence.calibrated else 1.0
    reading = NumberedRows(source, options or ReadOptions(), is_pair=classifier.task.is_pair)
    done = 0

    def rows() -> Iterator[Answer]:
        nonlocal done
        for chunk in _chunks(reading):
            examples = [example for _, example, _ in chunk]
            if done == 0:
                _check_shape(classifier, examples[0], source)
            probabilities_EL = _probabilities(classifier, examples, saved["scoring_batch_tokens"])
            if temperature != 1.0:
                probabilities_EL = apply_temperature(probabilities_EL, temperature)
            for (line, example, has_text), p in zip(chunk, probabilities_EL, strict=True):
                said = dict(zip(classifier.task.labels, map(float, p), strict=True))
                yield Answer(line, example.id, confidence.label(said), said) if has_text else Answer(line, example.id)
            done += len(chunk)
            if on_progress:
                on_progress(done)

    with (
        output_file(path, inputs, overwrite=overwrite) as temporary,
        temporary.open("w", encoding="utf-8", errors="replace", newline="") as file,
    ):
        write(file, classifier.task.labels, rows())
    for words in reading.notes():
        note(words)
    return done


def _temperature(trial: Path) -> float:
    record = read_json(trial / RECORD_FILE)
    temperature = record.get("temperature") if isinstance(record, dict) else None
    if not isinstance(temperature, (int, float)) or not 1e-3 <= temperature <= 1e6:
        raise RunError(
            f"{trial}: no temperature was fitted in this trial, which an earlier version of Entailor ran. Leave out "
            "--calibrated, or delete the folder and run the same command again"
        )
    return float(temperature)


def _chunks(rows: Iterable[NumberedRow]) -> Iterator[list[NumberedRow]]:
    remaining = iter(rows)
    while chunk := list(islice(remaining, CHUNK)):
        yield chunk


def _probabilities(
    classifier: Classifier, examples: Sequence[Example], tokens: int, on_progress: Callable[[int], None] | None = None
) -> NDArray[np.float64]:
    """Return probabilities_EL."""
    observer = Observer(lambda event: on_progress(event.data.done)) if on_progress else SILENT
    return np.exp(score(classifier, classifier.encode(examples), tokens, observer))


def _check_shape(classifier: Classifier, example: Example, source: str) -> None:
    if classifier.task.is_pair != (example.text_pair is not None):
        expected, found = ("pairs", "single texts") if classifier.task.is_pair else ("single texts", "pairs")
        raise DataError(
            f"the classifier was trained on {expected}, these are {found}",
            path=source,
            remedy="Map the columns with --columns premise=COLUMN,hypothesis=COLUMN (or text=COLUMN)",
        )


def _writer(path: Path) -> Callable[[TextIO, Sequence[str], Iterable[Answer]], None]:
    writers = {".csv": ",", ".tsv": "\t"}
    if path.suffix == ".jsonl":
        return _write_jsonl
    if path.suffix in writers:
        delimiter = writers[path.suffix]
        return lambda file, labels, rows: _write_table(file, labels, rows, delimiter)
    raise DataError(f"{path.suffix or 'no ending'} is no format to write", path=path, remedy="Use .csv, .tsv or .jsonl")


def harmless(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula: an apostrophe goes before = + - @, tab and line break.

    Plain numbers stay as they are. JSON lines hold every text unchanged.
    """
    if not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) or _NUMBER.fullmatch(cell):
        return cell
    return f"'{cell}"


def _write_jsonl(file: TextIO, labels: Sequence[str], rows: Iterable[Answer]) -> None:
    for row in rows:
        probabilities = dict(row.probabilities) or None
        line = {"line": row.line, "id": row.id, "label": row.label, "probabilities": probabilities}
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _write_table(file: TextIO, labels: Sequence[str], rows: Iterable[Answer], delimiter: str) -> None:
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerow(["line", "id", "label", *(f"probability_{label}" for label in labels)])  # no formula begins so
    for row in rows:
        probabilities = [f"{row.probabilities[one]:.8g}" if row.probabilities else "" for one in labels]
        writer.writerow([row.line, harmless(row.id), harmless(row.label or ""), *probabilities])
