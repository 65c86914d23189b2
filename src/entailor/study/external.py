"""External sets: labelled files every finished classifier is scored on, after everything is chosen.

Nothing is trained or chosen here. Scores are kept in the trial's folder, so that the same file is scored once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from entailor.config.parts import DataSettings
from entailor.data.bundled import PREFIX, located
from entailor.data.checks import GoldWords, dropped_rows
from entailor.data.example import Example
from entailor.data.files import is_file
from entailor.data.labels import NO_GOLD
from entailor.data.readers import ReadOptions, ReadResult, iter_examples, read_examples
from entailor.data.tables import open_table
from entailor.errors import DataError, EntailorError, LabelError, RunError
from entailor.evaluation.external import compare_external
from entailor.events import Observer
from entailor.runs.documents import well_formed
from entailor.runs.files import read_checked_json, write_checked_json
from entailor.runs.record import Prediction, RunRecord, cluster_key
from entailor.runs.trial_folder import folder_name
from entailor.shipping.inference import tell_of_cut_texts
from entailor.shipping.predictor import ClassifierScorer
from entailor.shipping.restoring import load_classifier, read_saved
from entailor.tasks import Task

EXTERNAL_VERSION = 3
STAGE = "external"
THREE_WAY = frozenset(("entailment", "neutral", "contradiction"))
TWO_WAY = ("entailment", "not_entailment")
OTHERS = dict.fromkeys(THREE_WAY - {"entailment"}, "not_entailment")
# How people write the two labels of a two-way set, in lower case with underscores.
YES = frozenset(("entailment", "entailed", "entails", "entail"))
NO = frozenset(
    (
        "not_entailment",
        "not_entailed",
        "not_entail",
        "non_entailment",
        "non_entailed",
        "no_entailment",
        "nonentailment",
        "notentailment",
    )
)


@dataclass(frozen=True)
class Scoring:
    """How a classifier's labels answer a file's.

    Attributes:
        labels: the labels that are scored.
        of_model: label of the classifier to the label its probability goes to.
        of_file: label as read to the label it is scored as.
        words: what a reader must know.
    """

    labels: tuple[str, ...]
    of_model: Mapping[str, str]
    of_file: Mapping[str, str]
    words: str


def scoring_for(labels: tuple[str, ...], found: Sequence[str], source: str) -> Scoring:
    """Decide how classifiers with some labels are scored on a file with others.

    Args:
        labels: of the classifiers.
        found: labels that stand in the file.
        source: the file, for errors.

    Raises:
        LabelError: the two do not fit together.
    """
    known = {label: label for label in labels}
    if known.keys() >= set(found):
        return Scoring(labels, known, known, "labels as trained")
    two_way = {label: side for label in found if (side := _side(label))}
    if len(two_way) == len(found) and frozenset(labels) == THREE_WAY:
        merged = {label: TWO_WAY[label != TWO_WAY[0]] for label in labels}
        words = (
            "two-way: the probabilities of neutral and contradiction are summed to not_entailment, and the larger of "
            "the two sides is the answer"
        )
        return Scoring(TWO_WAY, merged, two_way, words)
    sides = {side: label for label in labels if (side := _side(label))}
    if len(sides) == 2 and len(labels) == 2:
        of_file = {label: sides[side] for label in found if (side := _side(label) or OTHERS.get(label))}
        if len(of_file) == len(found):
            gathered = "; neutral and contradiction count as not entailed" if set(found) - two_way.keys() else ""
            return Scoring(labels, known, of_file, f"labels as trained, in another spelling{gathered}")
    odd = next(label for label in found if label not in known)
    raise LabelError(
        f"label {odd!r}, expected {', '.join(map(repr, labels))}, or entailment and not_entailment",
        path=source,
        remedy="Map the labels with data.label_names, or leave the file out of --external",
    )


def _side(label: str) -> str | None:
    plain = label.strip().casefold().replace("-", "_").replace(" ", "_")
    return TWO_WAY[0] if plain in YES else TWO_WAY[1] if plain in NO else None


def check_external(settings: DataSettings) -> None:
    """Open every external test set file and find its columns, so that a wrong name is told before hours of training.

    No candidate is looked at.

    Raises:
        DataError: a file is missing, of no known kind, or has no column of texts or labels.
    """
    for source in settings.external:
        file = located(source)
        iter_examples(file, _options(file, settings, ()))


def known_external(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the external test sets of an earlier experiment and of this one, each once."""
    both = [*((earlier.get("data") or {}).get("external") or ()), *now["data"]["external"]]
    return list(dict.fromkeys(both))


def score_external(
    sources: Sequence[str],
    settings: DataSettings,
    records: Mapping[Path, RunRecord],
    task: Task,
    observer: Observer,
    *,
    trust_remote_code: bool = False,
) -> list[dict[str, Any]]:
    """Score every complete trial on every external test set, and return what comparison.json holds of them.

    Args:
        sources: the files.
        settings: how the experiment's files are read: columns and label names.
        records: trials by folder.
        task: of the classifiers.
        observer: told how many trials are done, and what could not be scored; such a set stands in the result with its
            error.
        trust_remote_code: run code that comes with a base model, where it was trained so.
    """
    complete = {place: record for place, record in records.items() if record.status == "complete"}
    found = []
    for source in sources if complete else ():
        try:
            file = located(source)
            result = read_examples(file, _options(file, settings, task.labels))
            examples = result.examples
            _tell_of_dropped(source, result, settings, task.labels, observer)
            _check_shape(examples, task, source)
            scoring = scoring_for(task.labels, list(dict.fromkeys(str(one.label) for one in examples)), source)
        except EntailorError as error:
            observer.warn(f"external test set left out: {error}")
            found.append({"name": _name(source, sources), "source": source, "error": str(error), "candidates": []})
            continue
        scored = []
        for done, (place, record) in enumerate(complete.items()):
            observer.stage(STAGE, done, len(complete), _name(source, sources))
            try:
                scored.append(
                    _score_trial(
                        place, record, source, examples, scoring, observer, trust_remote_code=trust_remote_code
                    )
                )
            except EntailorError as error:
                observer.warn(
                    f"{_name(source, sources)}: {record.name}, seed {record.seed}, could not be scored: {error}"
                )
        found.append(compare_external(_name(source, sources), source, scoring.words, scored))
    return found


def _name(source: str, sources: Sequence[str]) -> str:
    """Return a file's name without its endings; the whole path where two are called the same."""
    short = {one: Path(one.removeprefix(PREFIX)).name.split(".")[0] or one for one in sources}
    return short[source] if list(short.values()).count(short[source]) == 1 else source


def _options(source: str, settings: DataSettings, labels: Sequence[str]) -> ReadOptions:
    """Read an external test set as train is read; a mapping of columns it does not have is not asked of it.

    A label of the classifiers is one here too, even where it is -1.
    """
    columns = settings.columns
    options = ReadOptions.of(
        settings,
        label_names={**{label: label for label in labels if label.casefold() in NO_GOLD}, **settings.label_names},
        split=None if is_file(source) else "test",
    )
    if columns and is_file(source) and not set(columns.values()) <= set(open_table(source, form=options.form).columns):
        columns = {}
    return replace(options, columns=columns)


def _tell_of_dropped(
    source: str, result: ReadResult, settings: DataSettings, labels: Sequence[str], observer: Observer
) -> None:
    """Say how many examples were left out for lack of a gold label, as of train and test.

    Raises:
        LabelError: so many that they may well be a class.
    """
    usual = [marker for marker in NO_GOLD if marker and marker not in labels and settings.no_gold is None]
    words = GoldWords(labels, settings.label_names, settings.no_gold or (), usual)
    if found := dropped_rows("external test set", source, result.no_gold, result.rows_read, words):
        observer.warn(f"{found.severity}: {found.message}. {found.remedy}")


def _check_shape(examples: Sequence[Example], task: Task, source: str) -> None:
    if task.is_pair != (examples[0].text_pair is not None):
        expected, found = ("pairs", "single texts") if task.is_pair else ("single texts", "pairs")
        raise DataError(
            f"the classifiers were trained on {expected}, these are {found}",
            path=source,
            remedy="Leave the file out of --external, or give its columns the names that train has",
        )


def _score_trial(
    place: Path,
    record: RunRecord,
    source: str,
    examples: Sequence[Example],
    scoring: Scoring,
    observer: Observer,
    *,
    trust_remote_code: bool,
) -> RunRecord:
    """Return the trial's record with its predictions on the external test set in place of those on test."""
    file = place / "external" / f"{folder_name(source)}.json"
    fingerprint = _fingerprint(examples, scoring)
    stored: dict[str, Any] = {}
    with suppress(RunError):  # what is damaged is scored again
        stored = read_checked_json(file, "Run the command that made it again") if file.exists() else {}
    if (stored.get("version"), stored.get("fingerprint")) == (EXTERNAL_VERSION, fingerprint):
        with well_formed(RunError, file, "Delete it and run the command that made it again"):
            predictions = TypeAdapter(tuple[Prediction, ...]).validate_python(stored["predictions"])
    else:
        predictions, cut = _predict(place, examples, scoring, trust_remote_code=trust_remote_code)
        tell_of_cut_texts(cut, len(examples), observer, f"{source}: {record.name}, seed {record.seed}: ")
        head = {"version": EXTERNAL_VERSION, "source": source, "fingerprint": fingerprint, "scoring": scoring.words}
        write_checked_json(file, {**head, "predictions": [asdict(candidate) for candidate in predictions]})
    return replace(record, labels=scoring.labels, predictions=predictions, validation_predictions=())


def _predict(
    place: Path, examples: Sequence[Example], scoring: Scoring, *, trust_remote_code: bool
) -> tuple[tuple[Prediction, ...], int | None]:
    classifier = load_classifier(place, trust_remote_code=trust_remote_code)
    scorer = ClassifierScorer(classifier, read_saved(place)["scoring_batch_tokens"])
    probabilities_EL, cut = scorer.score(examples)
    goes_to = [scoring.labels.index(scoring.of_model[label]) for label in classifier.task.labels]
    summed_EL = np.zeros((len(examples), len(scoring.labels)))
    for column, target in enumerate(goes_to):
        summed_EL[:, target] += probabilities_EL[:, column]
    predictions = tuple(
        Prediction(
            id=one.id,
            label=scoring.of_file[str(one.label)],
            probabilities=dict(zip(scoring.labels, map(float, summed_L), strict=True)),
            group=one.group,
            cluster=cluster_key(one.text),
        )
        for one, summed_L in zip(examples, summed_EL, strict=True)
    )
    return predictions, cut


def _fingerprint(examples: Sequence[Example], scoring: Scoring) -> str:
    """Return a hash of everything the scores follow from, but for the classifier."""
    digest = hashlib.blake2b(digest_size=16)
    for one in examples:
        for value in (one.id, one.text, one.text_pair, one.label, one.group):
            digest.update(b"\x00" if value is None else value.encode("utf-8", "surrogatepass") + b"\x01")
    digest.update("\x00".join((*scoring.labels, *scoring.of_model, *scoring.of_model.values())).encode())
    return digest.hexdigest()
