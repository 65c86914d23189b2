"""A finished classifier on new text: `evaluate` with gold labels, `predict` without, streaming."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np

from entailor.data.example import Example
from entailor.data.readers import ReadOptions, iter_examples, read_examples
from entailor.engine.scorer import score
from entailor.errors import DataError, RunError
from entailor.methods import Classifier
from entailor.record import Prediction, RunFolder, RunRecord, atomic_path, read_json
from entailor.trial import CLASSIFIER_FILE, load_classifier

CHUNK = 1024
DEFAULT_BATCH_TOKENS = 8192


def find_trial(run: str | Path) -> Path:
    """Return a trial's folder; of a whole run, that of the winner.

    Raises:
        RunError: neither a trial nor a run with a winner.
    """
    folder = Path(run)
    if (folder / CLASSIFIER_FILE).exists():
        return folder
    whole = RunFolder(folder)
    if not whole.comparison_file.exists():
        raise RunError(
            f"{folder}: neither a trial (runs/NAME/trials/MODEL/METHOD/seed-N) nor a finished run. "
            "Give the folder that `entailor compare` or `entailor train` named"
        )
    winner = read_json(whole.comparison_file).get("winner")
    if not winner:
        raise RunError(f"{folder}: no trial of this run is complete, so there is no winner to load")
    trials = sorted(whole.trial(winner["model"], winner["method"], 0).parent.glob(f"seed-*/{CLASSIFIER_FILE}"))
    if not trials:
        raise RunError(f"{folder}: the winner's saved classifier is gone. Run the same compare command again")
    return trials[0].parent


def evaluate(run: str | Path, test: str, options: ReadOptions | None = None) -> RunRecord:
    """Score a labelled file with a finished classifier.

    Args:
        run: a trial's folder, or a run's (its winner).
        test: a file or data set with gold labels.
        options: columns and label names; the label set is the classifier's.

    Returns:
        A record with one prediction an example, for :func:`entailor.evaluation.metrics.evaluate_record`.

    Raises:
        DataError: the file cannot be read or its shape is another one.
    """
    trial = find_trial(run)
    classifier = load_classifier(trial)
    options = _with_labels(options or ReadOptions(), classifier.task.labels)
    examples = read_examples(test, options).examples
    _check_shape(classifier, examples[0], test)
    probabilities_EL = _probabilities(classifier, examples)
    saved = read_json(trial / CLASSIFIER_FILE)
    return RunRecord(
        model=saved["model"],
        name=saved["row"],
        method=saved["method"],
        seed=saved["seed"],
        labels=classifier.task.labels,
        predictions=tuple(
            Prediction(row.id, str(row.label), dict(zip(classifier.task.labels, map(float, p), strict=True)), row.group)
            for row, p in zip(examples, probabilities_EL, strict=True)
        ),
    )


def predict(
    run: str | Path,
    source: str,
    output: str | Path,
    options: ReadOptions | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> int:
    """Write label probabilities for every row of a file, a thousand rows in memory at a time.

    Args:
        run: a trial's folder, or a run's (its winner).
        source: a file or data set; labels are not needed.
        output: a .csv, .tsv or .jsonl file; written whole or not at all.
        options: columns.
        on_progress: called with the rows done so far.

    Returns:
        The number of rows written.

    Raises:
        DataError: the input cannot be read, or the output's ending says no known format.
    """
    path = Path(output)
    write = _writer(path)
    classifier = load_classifier(find_trial(run))
    options = options or ReadOptions(require_labels=False)
    done = 0

    def rows() -> Iterator[tuple[Example, Mapping[str, float]]]:
        nonlocal done
        for chunk in _chunks(iter_examples(source, options)):
            if done == 0:
                _check_shape(classifier, chunk[0], source)
            for example, p in zip(chunk, _probabilities(classifier, chunk), strict=True):
                yield example, dict(zip(classifier.task.labels, map(float, p), strict=True))
            done += len(chunk)
            if on_progress:
                on_progress(done)

    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        write(file, classifier.task.labels, rows())
    return done


def _with_labels(options: ReadOptions, labels: tuple[str, ...]) -> ReadOptions:
    from dataclasses import replace

    return replace(options, labels=labels)


def _chunks(examples: Iterator[Example]) -> Iterator[list[Example]]:
    while chunk := list(islice(examples, CHUNK)):
        yield chunk


def _probabilities(classifier: Classifier, examples: Sequence[Example]) -> Iterable[Iterable[float]]:
    return np.exp(score(classifier, classifier.encode(examples), DEFAULT_BATCH_TOKENS))


def _check_shape(classifier: Classifier, example: Example, source: str) -> None:
    if classifier.task.is_pair != (example.text_pair is not None):
        expected, found = ("pairs", "single texts") if classifier.task.is_pair else ("single texts", "pairs")
        raise DataError(
            f"the classifier was trained on {expected}, these are {found}",
            path=source,
            remedy="Map the columns with --columns premise=COLUMN,hypothesis=COLUMN (or text=COLUMN)",
        )


def _writer(path: Path) -> Callable[[TextIO, Sequence[str], Iterable[tuple[Example, Mapping[str, float]]]], None]:
    writers = {".csv": ",", ".tsv": "\t"}
    if path.suffix == ".jsonl":
        return _write_jsonl
    if path.suffix in writers:
        delimiter = writers[path.suffix]
        return lambda file, labels, rows: _write_table(file, labels, rows, delimiter)
    raise DataError(f"{path.suffix or 'no ending'} is no format to write", path=path, remedy="Use .csv, .tsv or .jsonl")


def _write_jsonl(file: TextIO, labels: Sequence[str], rows: Iterable[tuple[Example, Mapping[str, float]]]) -> None:
    for example, probabilities in rows:
        best = max(probabilities, key=probabilities.__getitem__)
        line = {"id": example.id, "label": best, "probabilities": dict(probabilities)}
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _write_table(
    file: TextIO, labels: Sequence[str], rows: Iterable[tuple[Example, Mapping[str, float]]], delimiter: str
) -> None:
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerow(["id", "label", *(f"probability_{label}" for label in labels)])
    for example, probabilities in rows:
        best = max(probabilities, key=probabilities.__getitem__)
        writer.writerow([example.id, best, *(f"{probabilities[label]:.8g}" for label in labels)])
