"""Train, validation and test from the user's files: read, split where a part is missing, sampled, checked and frozen.

The only module that puts the data folder together; it knows nothing of tokens or models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from entailor.config.parts import DataSettings
from entailor.data.bundled import located, with_bundled
from entailor.data.checks import Finding, GoldWords, check_split, drop_leaks, dropped_rows, label_spelling
from entailor.data.example import Example, Split
from entailor.data.files import is_file
from entailor.data.labels import MOST_LISTED, ONE_LABEL, SEVERAL_REMEDY, joined_labels, list_word, listed, most_labels
from entailor.data.readers import ReadOptions, ReadResult, read_examples
from entailor.data.shards import has_splits
from entailor.data.stratify import Rows, folds, sample, split_off
from entailor.errors import ConfigError, DataError, LabelError, near_miss
from entailor.runs.paths import user_path
from entailor.runs.record import MOST_LABELS

NLI_LABELS = ("entailment", "neutral", "contradiction")
TWO_WAY_LABELS = ("entailment", "not_entailment")


@dataclass(frozen=True)
class LoadedData:
    """A split that is ready to use, and what a reader of the results must know about it.

    Attributes:
        split: train, validation and test.
        labels: label names in the order of the classifiers' outputs.
        is_pair: whether examples are pairs of texts.
        notes: what was read, dropped, split off and sampled.
        findings: what the checks say of the split.
        fingerprint: hash of ids, texts and labels (32 hex digits).
        reading: those of `findings` that come from how the files were read: the split alone does not show them.
        further: more splits of the same examples. Of a cross-validation these are its folds, and `split` has all
            examples but no test.
        repeats: how often `further` tests every example of a cross-validation; None without one.
    """

    split: Split
    labels: tuple[str, ...]
    is_pair: bool
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]
    fingerprint: str
    reading: tuple[Finding, ...] = ()
    further: tuple[Split, ...] = ()
    repeats: int | None = None

    @property
    def splits(self) -> tuple[Split, ...]:
        """All of them by their number."""
        return (self.split, *self.further)

    @property
    def tested(self) -> dict[int, Split]:
        """The splits that candidates are tested on, by number: 0 is `split`."""
        return {number: one for number, one in enumerate(self.splits) if one.test}

    def test_examples(self) -> tuple[Example, ...]:
        """Return every example that is tested, each once."""
        return tuple({one.id: one for split in self.tested.values() for one in split.test}.values())


def load_data(settings: DataSettings, *, whole: bool = False) -> LoadedData:
    """Read, split, sample and check the data of an experiment; the same settings and files give the same split.

    A part without a file is taken from train, in the proportions of the labels and so that no premise (or single
    text) stands in two parts. Without any file the bundled data is used (:mod:`entailor.data.bundled`).

    Args:
        settings: where the data come from and how they are split.
        whole: leave train as it is; a part without a file stays empty.

    Raises:
        DataError: a source or example cannot be read; one class only; pairs here and single texts there; too few
        examples.
        LabelError: a label outside the label set, or in validation or test and not in train.
        ConfigError: settings that do not go together.
    """
    settings = with_bundled(settings)
    parts, notes, reading = _from_sources(settings)
    crossed = settings.cv is not None and not whole
    if not whole:
        _check_resampled(parts, settings)
    split, made = _cut(parts, settings, whole=whole or crossed)
    labels = _label_order(split, settings)
    reading += label_spelling(split, settings.label_names)
    further, said = list[Split](), ""
    if crossed:
        split, further, said = _crossed(split.train, settings)
    elif settings.splits > 1 and not whole:
        further, said = _cut_again(parts, split, settings)
    notes += [*made, *filter(None, [said])]
    notes.append(", ".join(f"{name} {len(rows):,}" for name, rows in split.parts()) + f"; labels {_in_words(labels)}")
    return LoadedData(
        split=split,
        labels=labels,
        is_pair=split.train[0].text_pair is not None,
        notes=tuple(notes),
        findings=(*reading, *check_split(split)),
        fingerprint=_fingerprint([split, *further]),
        reading=tuple(reading),
        further=tuple(further),
        repeats=settings.cv_repeats if crossed else None,
    )


def split_document(split: Split, further: Sequence[Split] = ()) -> Mapping[str, Any]:
    """Return what ``split.json`` holds: ids of train, validation and test in order, and the hash of their content.

    Args:
        split: the first.
        further: more splits of the same examples; their ids stand under ``splits``.
    """
    ids, *others = ({name: [row.id for row in rows] for name, rows in one.parts()} for one in (split, *further))
    return {"fingerprint": _fingerprint([split, *further]), **ids, **({"splits": others} if others else {})}


def _fingerprint(splits: Sequence[Split]) -> str:
    return joined_fingerprint([one.fingerprint() for one in splits])


def joined_fingerprint(prints: Sequence[str]) -> str:
    """Return the one hash that stands for those of several splits."""
    return prints[0] if len(prints) == 1 else hashlib.blake2b("".join(prints).encode(), digest_size=16).hexdigest()


def _check_resampled(parts: Mapping[str, Rows], settings: DataSettings) -> None:
    """Refuse parts that several splits would leave out; data in memory may bring them."""
    if settings.cv is not None and (given := [name for name in ("test", "validation") if name in parts]):
        raise ConfigError(f"data.cv: every example of train is tested once, and {given[0]} is given too. Leave it out")
    if settings.splits > 1 and "validation" in parts:
        raise ConfigError("data.splits: validation is cut from train, and is given too. Leave it out")


def _crossed(rows: Rows, settings: DataSettings) -> tuple[Split, list[Split], str]:
    """Return all examples with a validation part, the folds of a cross-validation, and what was done in words."""
    source, number = settings.train or "", settings.cv or 2

    def without_test(rest: Rows) -> dict[str, Rows]:
        size = _row_count(settings, "validation_size", len(rest))
        return split_off(rest, {"validation": size}, settings.split_seed, source)

    found = [
        Split(**without_test(rest), test=test)
        for repeat in range(settings.cv_repeats)
        for rest, test in folds(rows, number, (settings.split_seed, 2, repeat), source)
    ]
    again = f", repeated {settings.cv_repeats} times" if settings.cv_repeats > 1 else ""
    kept = "premise" if rows[0].text_pair is not None else "text"
    said = (
        f"{number}-fold cross-validation{again} with seed {settings.split_seed}: {len(rows):,} examples are tested, "
        f"and no {kept} stands in two folds"
    )
    return Split(**without_test(rows), test=()), found, said


def _cut_again(parts: Mapping[str, Rows], first: Split, settings: DataSettings) -> tuple[list[Split], str]:
    """Return other cuts of the same examples, and what was done in words."""
    found = []
    for number in range(1, settings.splits):
        own = settings.model_copy(update={"split_seed": settings.split_seed + number})
        again, _ = _cut(parts, own)
        found.append(replace(again, test=first.test) if "test" in parts else again)
    cut = "train and validation" if "test" in parts else "train, validation and test"
    seeds = f"seeds {settings.split_seed} to {settings.split_seed + settings.splits - 1}"
    return found, f"{settings.splits} cuts of train into {cut}, with {seeds}"


def _cut(parts: Mapping[str, Rows], settings: DataSettings, *, whole: bool = False) -> tuple[Split, list[str]]:
    """Cut what has no file from train, drop leaks and draw samples; return the split and notes on what was done."""
    notes = []
    missing = [name for name in ("test", "validation") if name not in parts]
    parts = dict(parts)
    if whole:
        parts |= dict.fromkeys(missing, ())
    elif missing:
        total, kept = len(parts["train"]), "text" if parts["train"][0].text_pair is None else "premise"
        sizes = {name: _row_count(settings, f"{name}_size", total) for name in missing}
        parts |= split_off(parts["train"], sizes, settings.split_seed, settings.train or "")
        made = " and ".join(f"{name} ({len(parts[name]):,} examples)" for name in missing)
        notes.append(f"{made} taken from train with seed {settings.split_seed}; no {kept} stands in two of these parts")
    split = Split(parts["train"], parts["validation"], parts["test"])
    if settings.drop_leaks:
        before = {row.label for row in split.train}
        split, dropped = drop_leaks(split)
        if lost := before - {row.label for row in split.train}:
            raise DataError(
                f"every example with the label {listed(sorted(map(str, lost)))} also stands in validation or test, so "
                "that data.drop_leaks leaves none to learn from",
                path=settings.train,
                remedy="Set data.drop_leaks=false, or give other files for validation and test",
            )
        notes.append(f"train: {dropped:,} examples dropped because their text also stands in validation or test")
    split, sampling = _sampled(split, settings)
    return split, [*notes, *sampling]


def _in_words(labels: Sequence[str]) -> str:
    more = len(labels) - MOST_LISTED
    return ", ".join(labels[:MOST_LISTED]) + (f" and {more:,} more" if more > 0 else "")


def _from_sources(settings: DataSettings) -> tuple[dict[str, Rows], list[str], list[Finding]]:
    """Read the parts that have a source."""
    sources = dict(_sources(settings))
    options = ReadOptions.of(settings, labels=settings.labels, config_name=settings.config_name)
    results: dict[str, ReadResult] = {}
    trained: tuple[str, ...] = ()
    for name, (source, split_name) in sources.items():
        results[name] = read_examples(source, replace(options, split=split_name, trained=name != "train"))
        if name == "train":
            few = _labels_in(results[name].examples)
            trained = _labels_of(results[name].examples, source, _dropped(results, sources, few, settings))
            _check_classes(trained, len(results["train"].examples), source, settings)
            options = replace(options, labels=tuple(label for label in settings.labels or trained if label in trained))
    _check_same_shape(results, sources)
    notes = [note for name, result in results.items() for note in _notes(name, sources[name][0], result)]
    findings = list(_dropped(results, sources, trained, settings))
    notes += unused_names(settings.label_names, results.values(), "data.label_names", trained)
    return {name: result.examples for name, result in results.items()}, notes, findings


def _dropped(
    results: Mapping[str, ReadResult],
    sources: Mapping[str, tuple[str, str | None]],
    trained: Sequence[str],
    settings: DataSettings,
) -> Iterator[Finding]:
    """Say of every part what was left out of it; a label that train has not can be mapped, but not added."""
    everywhere = tuple(marker for result in results.values() for marker in result.no_gold)
    words = GoldWords(settings.labels or trained, settings.label_names, settings.no_gold or (), everywhere)
    for name, result in results.items():
        extends = set(result.no_gold) <= set(results["train"].no_gold)
        yield from dropped_rows(name, sources[name][0], result, replace(words, extends=extends))


def unused_names(
    label_names: Mapping[str, str], results: Iterable[ReadResult], key: str, labels: Sequence[str]
) -> Iterator[str]:
    """Say which labels are mapped that no example has: a mapping with a slip of the pen does nothing.

    Args:
        label_names: label as written to label name.
        results: all that was read with it.
        key: what the mapping is called.
        labels: those that were read.
    """
    seen = frozenset[str]().union(*(result.mapped for result in results))
    if unused := [written for written in label_names if written not in seen]:
        hint = near_miss(unused[0], labels) if len(unused) == 1 else ""
        yield f"{key}: no example has the label {listed(unused)}, so mapping it does nothing.{hint}"


def _sources(settings: DataSettings) -> Iterator[tuple[str, tuple[str, str | None]]]:
    """Say where each part is read from: part, and source with the split of a data set."""
    assert settings.train is not None
    train = located(settings.train)
    yield "train", (train, settings.train_split if _has_splits(train) else None)
    for name, usual in (("validation", "validation"), ("test", "test")):
        source, split_name = getattr(settings, name), getattr(settings, f"{name}_split")
        if source is None and split_name is None:
            continue
        source = train if source is None else located(source)
        if _has_splits(source):
            yield name, (source, split_name or usual)
        else:
            if split_name is not None:
                raise ConfigError(f"data.{name}_split: {source} is a file and has no splits. Give data.{name} alone")
            yield name, (source, None)


def _has_splits(source: str) -> bool:
    """Tell whether a source is a data set of the Hub or a saved `DatasetDict`, of which one split is read."""
    return not is_file(source) or has_splits(user_path(source))


def _labels_in(rows: Sequence[Example]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row.label for row in rows if row.label is not None))


def _labels_of(rows: Sequence[Example], source: str, dropped: Iterable[Finding] = ()) -> tuple[str, ...]:
    """Return the labels of examples; where there is one alone, the other may be among those that were left out."""
    labels = _labels_in(rows)
    if len(labels) < 2:
        left_out = [f"{finding.message}. {finding.remedy}" for finding in dropped]
        found = f"every example has the label {labels[0]!r}" if labels else "no labelled examples are left"
        raise DataError(
            f"{found}, expected at least two classes",
            path=source,
            remedy=". ".join([*left_out, "Check the label column (--columns label=COL) and data.label_names"]),
        )
    return labels


def _check_classes(labels: Sequence[str], num_rows: int, source: str, settings: DataSettings) -> None:
    """Refuse labels that look like several in one, measurements, ids or free text, unless the user names them."""
    if settings.labels is None and (joined := joined_labels(labels)):
        raise LabelError(
            f"labels such as {listed(joined[:3])} look like several in one. {ONE_LABEL}",
            path=source,
            remedy=f"{SEVERAL_REMEDY}; if these are classes, name all of them: data.labels=[...]",
        )
    named = settings.labels is not None
    most = MOST_LABELS if named else min(MOST_LABELS, settings.max_labels or most_labels(labels, num_rows))
    if len(labels) > most:
        remedy = "Map another column with --columns label=COL, or write ranges of the numbers as labels"
        if len(labels) <= MOST_LABELS:
            remedy += f"; if these are classes, say so: data.max_labels={len(labels)}"
        raise LabelError(
            f"{len(labels):,} different labels in {num_rows:,} examples ({listed(labels[:3])}, ...): this looks like "
            f"numbers, ids or free text, not classes; expected at most {most:,}",
            path=source,
            remedy=remedy,
        )


def _check_same_shape(results: Mapping[str, ReadResult], sources: Mapping[str, tuple[str, str | None]]) -> None:
    shapes = {name: "pairs" if "text_pair" in result.columns else "single texts" for name, result in results.items()}
    for name, shape in shapes.items():
        if shape != shapes["train"]:
            columns = ", ".join(f"{key}={column}" for key, column in results[name].columns.items())
            raise DataError(
                f"{name} holds {shape} ({columns}), but train holds {shapes['train']}",
                path=sources[name][0],
                remedy="Name the columns with --columns so that both hold the same",
            )


def _notes(name: str, source: str, result: ReadResult) -> Iterator[str]:
    columns = ", ".join(f"{field}={column}" for field, column in result.columns.items())
    yield f"{name}: {result.rows_read:,} examples of {source} ({columns})"
    yield from result.notes


def _sampled(split: Split, settings: DataSettings) -> tuple[Split, list[str]]:
    parts: dict[str, Rows] = {}
    notes = []
    for number, (name, rows) in enumerate(split.parts()):
        key = f"max_{name}_examples"
        size = getattr(settings, key)
        num_labels = len({row.label for row in rows})  # a rare one may be in train alone
        if size is not None and size < num_labels:
            raise ConfigError(f"data.{key}: {size} is less than the labels of {name}. Give at least {num_labels}")
        parts[name] = tuple(rows) if size is None else sample(tuple(rows), size, (settings.split_seed, 1, number))
        if len(parts[name]) < len(rows):
            notes.append(
                f"{name}: a sample of {len(parts[name]):,} of {len(rows):,} examples, in the labels' proportions"
            )
    return Split(**parts), notes


def _label_order(split: Split, settings: DataSettings) -> tuple[str, ...]:
    found = set(_labels_of(split.train, settings.train or "the bundled data"))
    if settings.labels is not None:
        unseen = [label for label in settings.labels if label not in found]
        if unseen:
            seen = list_word("labels", (label for label in settings.labels if label in found))
            raise LabelError(
                f"no example of train has the label {listed(unseen)}, which data.labels names",
                path=settings.train,
                remedy=f"Leave it out: {seen}",
            )
        return settings.labels
    if settings.ordinal:
        return _by_size(found, settings)
    for known in (NLI_LABELS, TWO_WAY_LABELS):
        if found <= set(known):
            return tuple(label for label in known if label in found)
    return tuple(sorted(found))


def _by_size(labels: Iterable[str], settings: DataSettings) -> tuple[str, ...]:
    """Return labels that are numbers by their size.

    Raises:
        ConfigError: one is no number.
    """
    try:
        return tuple(sorted(labels, key=lambda label: float(label.replace(",", "."))))
    except ValueError:
        said = f"data.ordinal: the labels of {settings.train} are no numbers ({listed(sorted(labels))})"
        raise ConfigError(f"{said}. Give their order, lowest first: data.labels=[...]") from None


def _row_count(settings: DataSettings, key: str, total: int) -> int:
    """Return a size as a number of examples: below 1 it is a share."""
    size = getattr(settings, key)
    if size >= 1 and size != int(size):
        raise ConfigError(f"data.{key}: {size} is neither a share below 1 nor a whole number of examples")
    return int(size) if size >= 1 else max(1, round(size * total))
