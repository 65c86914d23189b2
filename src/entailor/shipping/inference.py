"""A finished classifier on new text: `evaluate` with gold labels, `predict` without, streaming."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TextIO

from entailor.config.overrides import read_checked_yaml
from entailor.config.plain import share
from entailor.data.checks import GoldWords, dropped_rows
from entailor.data.example import Example
from entailor.data.labels import NO_GOLD
from entailor.data.readers import NumberedRow, NumberedRows, ReadOptions, read_examples
from entailor.data.splits import unused_names
from entailor.errors import DataError, RunError
from entailor.events import SILENT, Observer
from entailor.runs.documents import well_formed
from entailor.runs.layout import RunFolder
from entailor.runs.outputs import check_output, output_file
from entailor.runs.record import Prediction, RunRecord
from entailor.shipping.predictor import Answer, Predictor, check_confidence, wrong_shape
from entailor.shipping.restoring import read_saved

CHUNK = 1024
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")


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
        check_confidence(self.minimum)


@dataclass(frozen=True)
class AnsweredLine:
    """What is written for one example of the input.

    Attributes:
        line: where it stands: the line of a text file on which it begins, else the number of the record.
        id: of the example.
        answer: None where there is no text.
    """

    line: int
    id: str
    answer: Answer


def evaluate(
    run: str | Path,
    test: str,
    options: ReadOptions | None = None,
    observer: Observer = SILENT,
    *,
    trust_remote_code: bool = False,
) -> RunRecord:
    """Score a labelled file with a finished classifier.

    Args:
        run: a trial's folder, or a run's (its recommended candidate).
        test: a file or data set with gold labels.
        options: columns and label names; the label set is the classifier's. Label names and labels that mean "none"
            are taken from the run's experiment.yaml where they are not given.
        observer: told how many inputs are done, of examples without a gold label, which are left out, and of mapped
            labels that no example has.
        trust_remote_code: run code that comes with the base model, where it was trained so.

    Returns:
        A record with one prediction an example, for :func:`entailor.evaluation.metrics.evaluate_record`.

    Raises:
        DataError: the file cannot be read or its shape is another one.
        LabelError: a label the classifier does not know, or so many examples without a gold label that they may well
            be a class.
        RunError: there is no such trial, or it is damaged.
    """
    predictor = Predictor.load(run, trust_remote_code=trust_remote_code)
    trial, labels = predictor.place, predictor.labels
    saved = read_saved(trial)
    examples = read_labelled(trial, test, options, labels, observer)
    _check_shape(predictor, examples[0], test)
    probabilities_EL, cut = predictor.score(examples, observer=observer)
    tell_of_cut_texts(cut, len(examples), observer)
    return RunRecord(
        model=saved.model,
        name=saved.candidate,
        method=saved.method,
        seed=saved.seed,
        labels=labels,
        predictions=tuple(
            Prediction(example.id, str(example.label), dict(zip(labels, map(float, p), strict=True)), example.group)
            for example, p in zip(examples, probabilities_EL, strict=True)
        ),
    )


def read_labelled(
    trial: Path, source: str, options: ReadOptions | None, labels: tuple[str, ...], observer: Observer
) -> tuple[Example, ...]:
    """Return the examples of a file that a classifier is to be scored on.

    Args:
        trial: of the classifier.
        source: a file or data set with gold labels.
        options: as for :func:`evaluate`.
        labels: of the classifier.
        observer: as for :func:`evaluate`.

    Raises:
        DataError: the file cannot be read.
        LabelError: as for :func:`evaluate`.
    """
    given = options or ReadOptions()
    names_of_run, none_of_run = label_words_of_run(trial)
    names = given.label_names or names_of_run
    no_gold = none_of_run if given.no_gold is None else given.no_gold
    read = replace(given, labels=labels, label_names=names, no_gold=no_gold, flags=True)
    result = read_examples(source, read)
    usual = [marker for marker in NO_GOLD if marker and marker not in labels and no_gold is None]
    words = GoldWords(labels, names, no_gold or (), usual, flags=True)
    for found in dropped_rows("test", source, result, words):
        observer.warn(f"{found.severity}: {found.message}. {found.remedy}")
    for unused in unused_names(given.label_names, [result], "--label-names", labels):
        observer.warn(unused)
    return result.examples


COPY_BACK = "Put a copy of it back, or copy the trial out of the run and give the labels with --label-names"


def label_words_of_run(trial: Path) -> tuple[dict[str, str], tuple[str, ...] | None]:
    """Return how labels were written in the files of the run a trial stands in, and which of them mean none.

    Nothing is known of a trial that was moved elsewhere.
    """
    run = RunFolder.of_trial(trial)
    if run is None or not run.experiment_file.exists():
        return {}, None
    file = run.experiment_file
    with well_formed(RunError, file, COPY_BACK):
        data = read_checked_yaml(file, COPY_BACK).get("data") or {}
        names = {str(written): str(name) for written, name in (data.get("label_names") or {}).items()}
        return names, None if data.get("no_gold") is None else tuple(map(str, data["no_gold"]))


def predict(
    run: str | Path,
    source: str,
    output: str | Path,
    options: ReadOptions | None = None,
    observer: Observer = SILENT,
    *,
    confidence: Confidence | None = None,
    trust_remote_code: bool = False,
    overwrite: bool = False,
) -> int:
    """Write label probabilities for every example of a file, a thousand examples in memory at a time.

    Args:
        run: a trial's folder, or a run's (its recommended candidate).
        source: a file or data set; labels are not needed.
        output: a .csv, .tsv or .jsonl file; written whole or not at all.
        options: columns.
        observer: told how many examples are done, and of lines without a prediction.
        confidence: whether to abstain where the classifier is not sure, and whether to calibrate.
        trust_remote_code: run code that comes with the base model, where it was trained so.
        overwrite: replace an output that Entailor did not write.

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
    predictor = Predictor.load(run, trust_remote_code=trust_remote_code)
    inputs = (source, run, predictor.place, predictor.base_model)
    check_output(path, inputs, overwrite=overwrite)
    predictor.check_calibrated(confidence.calibrated)
    reading = NumberedRows(source, options or ReadOptions(), is_pair=predictor.is_pair)
    counts: Counter[str] = Counter()
    lines = _answered(predictor, reading, source, confidence, observer, counts)
    with (
        output_file(path, inputs, overwrite=overwrite) as temporary,
        temporary.open("w", encoding="utf-8", errors="replace", newline="") as file,
    ):
        write(file, predictor.labels, lines)
    for words in reading.notes():
        observer.note(words)
    tell_of_cut_texts(counts["cut"], counts["done"], observer)
    return counts["done"]


def _answered(
    predictor: Predictor,
    reading: NumberedRows,
    source: str,
    confidence: Confidence,
    observer: Observer,
    counts: Counter[str],
) -> Iterator[AnsweredLine]:
    """Yield the answer to each line, and count how many are done and how many were cut."""
    for chunk in _chunks(reading):
        examples = [example for _, example, _ in chunk]
        if not counts["done"]:
            _check_shape(predictor, examples[0], source)
        probabilities_EL, cut = predictor.score(examples, calibrated=confidence.calibrated)
        for (line, example, has_text), p in zip(chunk, probabilities_EL, strict=True):
            answer = predictor.answer(p, confidence.minimum) if has_text else Answer(None)
            yield AnsweredLine(line, example.id, answer)
        counts.update(cut=cut or 0, done=len(chunk))
        observer.stage("scoring", counts["done"])


def tell_of_cut_texts(cut: int | None, count: int, observer: Observer, where: str = "") -> None:
    """Say how many of some examples were cut, where any were."""
    if cut:
        observer.note(f"{where}{share(cut, count)} are longer than what the classifier reads, and were cut")


def _chunks(rows: Iterable[NumberedRow]) -> Iterator[list[NumberedRow]]:
    remaining = iter(rows)
    while chunk := list(islice(remaining, CHUNK)):
        yield chunk


def _check_shape(predictor: Predictor, example: Example, source: str) -> None:
    if predictor.is_pair != (example.text_pair is not None):
        fields = "premise=COLUMN,hypothesis=COLUMN" if predictor.is_pair else "text=COLUMN"
        raise wrong_shape(source, f"Map the columns with --columns {fields}", is_pair=predictor.is_pair)


def _writer(path: Path) -> Callable[[TextIO, Sequence[str], Iterable[AnsweredLine]], None]:
    writers = {".csv": ",", ".tsv": "\t"}
    if path.suffix == ".jsonl":
        return _write_jsonl
    if path.suffix in writers:
        delimiter = writers[path.suffix]
        return lambda file, labels, lines: _write_table(file, labels, lines, delimiter)
    raise DataError(f"{path.suffix or 'no ending'} is no format to write", path=path, remedy="Use .csv, .tsv or .jsonl")


def harmless(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula: an apostrophe goes before = + - @, tab and line break.

    Plain numbers stay as they are. JSON lines hold every text unchanged.
    """
    if not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) or _NUMBER.fullmatch(cell):
        return cell
    return f"'{cell}"


def _write_jsonl(file: TextIO, labels: Sequence[str], lines: Iterable[AnsweredLine]) -> None:
    for one in lines:
        probabilities = one.answer.probabilities or None
        line = {"line": one.line, "id": one.id, "label": one.answer.label, "probabilities": probabilities}
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _write_table(file: TextIO, labels: Sequence[str], lines: Iterable[AnsweredLine], delimiter: str) -> None:
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerow(["line", "id", "label", *(f"probability_{label}" for label in labels)])  # no formula begins so
    for one in lines:
        said = one.answer.probabilities
        probabilities = [f"{said[label]:.8g}" if said else "" for label in labels]
        writer.writerow([one.line, harmless(one.id), harmless(one.answer.label or ""), *probabilities])
