"""External sets: labelled files every finished classifier is scored on, after everything is chosen.

Nothing is trained or chosen here. Scores are kept in the trial's folder, so that the same file is scored once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
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
from entailor.evaluation.external import ScoredSet, UnscoredSet, compare_external
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


def external_rows(settings: DataSettings) -> int:
    """Return how many rows the external test sets hold; only one column is read, and nothing is looked at."""
    total = 0
    for source in settings.external:
        file = located(source)
        table = open_table(file, form=_options(file, settings, ()).form, split=None if is_file(file) else "test")
        total += sum(len(cells) for (cells,) in table.batches(table.columns[:1]))
    return total


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
) -> list[ScoredSet | UnscoredSet]:
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
    found = [_read(source, sources, settings, task, observer) for source in sources] if complete else []
    sets = [one for one in found if isinstance(one, ExternalSet)]
    scored: dict[str, list[RunRecord]] = {one.source: [] for one in sets}
    for done, (place, record) in enumerate(complete.items()):
        trial = _SavedTrial(place, record, trust_remote_code=trust_remote_code)
        for number, one in enumerate(sets):
            observer.stage(STAGE, done * len(sets) + number, len(complete) * len(sets), one.name)
            try:
                scored[one.source].append(trial.on(one, observer))
            except EntailorError as error:
                observer.warn(f"{one.name}: {record.name}, seed {record.seed}, could not be scored: {error}")
    return [
        compare_external(one.name, one.source, one.scoring.words, scored[one.source])
        if isinstance(one, ExternalSet)
        else one
        for one in found
    ]


@dataclass(frozen=True)
class ExternalSet:
    """What was read of an external test set.

    Attributes:
        name: in tables.
        source: as the user named it.
        examples: those with a gold label.
        scoring: how a classifier's labels answer the file's.
    """

    name: str
    source: str
    examples: Sequence[Example]
    scoring: Scoring


def _read(
    source: str, sources: Sequence[str], settings: DataSettings, task: Task, observer: Observer
) -> ExternalSet | UnscoredSet:
    """Read an external test set; what comparison.json holds of it where it cannot be used."""
    try:
        file = located(source)
        result = read_examples(file, _options(file, settings, task.labels))
        _tell_of_dropped(source, result, settings, task.labels, observer)
        _check_shape(result.examples, task, source)
        labels = list(dict.fromkeys(str(one.label) for one in result.examples))
        return ExternalSet(_name(source, sources), source, result.examples, scoring_for(task.labels, labels, source))
    except EntailorError as error:
        observer.warn(f"external test set left out: {error}")
        return {"name": _name(source, sources), "source": source, "error": str(error), "candidates": []}


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
    for found in dropped_rows("external test set", source, result, words):
        observer.warn(f"{found.severity}: {found.message}. {found.remedy}")


def _check_shape(examples: Sequence[Example], task: Task, source: str) -> None:
    if task.is_pair != (examples[0].text_pair is not None):
        expected, found = ("pairs", "single texts") if task.is_pair else ("single texts", "pairs")
        raise DataError(
            f"the classifiers were trained on {expected}, these are {found}",
            path=source,
            remedy="Leave the file out of --external, or give its columns the names that train has",
        )


class _SavedTrial:
    """A finished trial, whose classifier is loaded once, and only where a set has not been scored yet.

    Args:
        place: its folder.
        record: of it.
        trust_remote_code: run code that comes with its base model.
    """

    def __init__(self, place: Path, record: RunRecord, *, trust_remote_code: bool) -> None:
        self._place, self._record, self._trust_remote_code = place, record, trust_remote_code

    @cached_property
    def _scorer(self) -> ClassifierScorer:
        classifier = load_classifier(self._place, trust_remote_code=self._trust_remote_code)
        return ClassifierScorer(classifier, read_saved(self._place).scoring_batch_tokens)

    def on(self, asked: ExternalSet, observer: Observer) -> RunRecord:
        """Return the trial's record with its predictions on an external test set in place of those on test."""
        file = self._place / "external" / f"{folder_name(asked.source)}.json"
        fingerprint = _fingerprint(asked.examples, asked.scoring)
        stored: Mapping[str, Any] = {}
        with suppress(RunError):  # what is damaged is scored again
            stored = read_checked_json(file, "Run the command that made it again") if file.exists() else {}
        if (stored.get("version"), stored.get("fingerprint")) == (EXTERNAL_VERSION, fingerprint):
            with well_formed(RunError, file, "Delete it and run the command that made it again"):
                predictions = TypeAdapter(tuple[Prediction, ...]).validate_python(stored["predictions"])
        else:
            predictions, cut = self._predict(asked)
            about = f"{asked.source}: {self._record.name}, seed {self._record.seed}: "
            tell_of_cut_texts(cut, len(asked.examples), observer, about)
            words = asked.scoring.words
            head = {"version": EXTERNAL_VERSION, "source": asked.source, "fingerprint": fingerprint, "scoring": words}
            write_checked_json(file, {**head, "predictions": [asdict(candidate) for candidate in predictions]})
        return replace(self._record, labels=asked.scoring.labels, predictions=predictions, validation_predictions=())

    def _predict(self, asked: ExternalSet) -> tuple[tuple[Prediction, ...], int | None]:
        scoring, examples = asked.scoring, asked.examples
        probabilities_EL, cut = self._scorer.score(examples)
        goes_to = [scoring.labels.index(scoring.of_model[label]) for label in self._scorer.classifier.task.labels]
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
