"""What is wrong with a split: examples that leak from test into train, labels that contradict each other, empty texts.

Looks at texts and labels only; whether a file can be read at all is for `readers`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from entailor.config.plain import share
from entailor.data.example import Example, Split
from entailor.data.labels import alike, class_word, label_key, list_word, listed, mapping_word, visible
from entailor.data.text_keys import EMPTY, Keys, TextKeys, is_among, text_keys
from entailor.errors import LabelError

if TYPE_CHECKING:
    from entailor.data.readers import ReadResult

MOST_EXAMPLES = 5
FEW_SHARED_PREMISES = 0.01
MANY_REPEATED = 0.05  # share of validation or test
MOST_DUPLICATES = 0.5  # above this share, test is train over again
NO_GOLD_LABEL = "no_gold_label"
MANY_DROPPED, MOST_DROPPED = 0.01, 0.05  # shares of rows without a gold label
PARTS = (("train", "test"), ("train", "validation"), ("validation", "test"))

Severity = Literal["info", "warning", "error"]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Finding:
    """One thing a reader of the results must know about the data.

    Attributes:
        kind: exact_duplicates, near_duplicates, shared_premises, conflicting_labels, repeated_rows, empty_texts,
            label_spelling, absent_labels or no_gold_label.
        severity: info, warning or error.
        message: what was found, with counts.
        examples: ids of a few examples it was found in.
        remedy: the next step.
    """

    kind: str
    severity: Severity
    message: str
    examples: tuple[str, ...] = ()
    remedy: str = ""


@dataclass(frozen=True)
class Located:
    """A finding with all the examples it was found in: ids alone do not say which part they stand in.

    Attributes:
        finding: what was found.
        part: train, validation or test.
        places: indices of the examples in their part.
    """

    finding: Finding
    part: str = "train"
    places: tuple[int, ...] = ()


def check_split(split: Split) -> tuple[Finding, ...]:
    """Find what would make scores on this split better or worse than they ought to be; one pass over the texts."""
    return tuple(one.finding for one in locate_findings(split))


def locate_findings(split: Split) -> tuple[Located, ...]:
    """Return what `check_split` does, each finding with all its examples."""
    keys = {name: text_keys(rows) for name, rows in split.parts()}
    rows = dict(split.parts())
    findings: list[Located] = []
    for one, other in PARTS:
        findings += _across(one, other, rows[other], keys[one], keys[other])
    for name, some in split.parts():
        findings += _within(name, some, keys[name])
    findings += _empty_texts(split, keys)
    findings += map(Located, _absent_labels(split))
    return tuple(findings)


def drop_leaks(split: Split) -> tuple[Split, int]:
    """Leave out the training examples whose text also stands in validation or test, be it in other case or punctuation.

    Returns:
        The split with what is left of train, and the number of examples left out.
    """
    held_out = np.concatenate([text_keys(split.validation).row, text_keys(split.test).row])
    leaks = is_among(text_keys(split.train).row, held_out)
    kept = tuple(row for row, leak in zip(split.train, leaks.tolist(), strict=True) if not leak)
    return Split(kept, split.validation, split.test), int(leaks.sum())


def _across(one: str, other: str, rows: Sequence[Example], ones: TextKeys, others: TextKeys) -> Iterator[Located]:
    """Find examples of `other` that `one` has too: each kind of likeness among those that have the looser one."""
    premise = is_among(others.premise, ones.premise)
    either = _among(premise, others.row, ones.row)
    exact = _among(either, others.exact, ones.exact)
    remedy = "Set data.drop_leaks=true to train without them" if one == "train" else "Leave them out of one of the two"
    for kind, mask, how in (
        ("exact_duplicates", exact, "word for word"),
        ("near_duplicates", either & ~exact, "but for case, punctuation or spaces"),
    ):
        if mask.any():
            message = f"{_share(mask)} of {other} also stand in {one}, {how}: scores on {other} come out too high"
            severity: Severity = "error" if mask.mean() > MOST_DUPLICATES else "warning"
            yield _located(Finding(kind, severity, message, _some_ids(rows, mask), remedy), other, mask)
    if premise.any() and rows[0].text_pair is not None:  # of single texts these are the duplicates
        message = f"{_share(premise)} of {other} have a premise that also stands in {one}, with whatever hypothesis"
        severity = "warning" if premise.mean() > FEW_SHARED_PREMISES else "info"
        remedy = f"Keep in mind that {other} is easier than new premises would be, or let Entailor make the split"
        yield _located(Finding("shared_premises", severity, message, _some_ids(rows, premise), remedy), other, premise)


def _among(candidates: Mask, keys: Keys, known: Keys) -> Mask:
    """Return the candidates whose key is known."""
    found = np.zeros(len(keys), bool)
    if candidates.any():
        found[candidates] = is_among(keys[candidates], known)
    return found


def _within(part: str, rows: Sequence[Example], keys: TextKeys) -> Iterator[Located]:
    """Find examples that repeat another of the same part, under its label or under another one."""
    names = {label: code for code, label in enumerate(dict.fromkeys(row.label for row in rows))}
    labels = np.array([names[row.label] for row in rows], np.int64)
    order = np.argsort(keys.row, kind="stable")
    same = keys.row[order][1:] == keys.row[order][:-1]
    differs = same & (labels[order][1:] != labels[order][:-1])
    conflicting = is_among(keys.row, keys.row[order][1:][differs])
    if conflicting.any():
        message = f"{_share(conflicting)} of {part} repeat a text under another label"
        remedy = "Decide on one label for each text: no model can " + (
            "learn both" if part == "train" else "be right on both"
        )
        found = Finding("conflicting_labels", "warning", message, _some_ids(rows, conflicting), remedy)
        yield _located(found, part, conflicting)
    again = np.zeros(len(rows), bool)
    again[order[1:][same]] = True
    again &= ~conflicting
    if again.any():
        message = f"{_share(again)} of {part} repeat an earlier example, label included"
        remedy = "They count twice; leave them out if unwanted"
        severity: Severity = "info"
        if part != "train":
            remedy = f"{part} shows less than its size says (intervals know that); leave them out"
            severity = "warning" if again.mean() > MANY_REPEATED else "info"
        yield _located(Finding("repeated_rows", severity, message, _some_ids(rows, again), remedy), part, again)


def _empty_texts(split: Split, keys: Mapping[str, TextKeys]) -> Iterator[Located]:
    for name, rows in split.parts():
        empty = (keys[name].premise == EMPTY) | (keys[name].hypothesis == EMPTY)
        for place in np.flatnonzero(empty).tolist():  # a text of punctuation alone is not empty
            row = rows[place]
            empty[place] = not row.text.strip() or (row.text_pair is not None and not row.text_pair.strip())
        if empty.any():
            message = f"{_share(empty)} of {name} have an empty text"
            remedy = "Fill them in or leave the examples out"
            yield _located(Finding("empty_texts", "warning", message, _some_ids(rows, empty), remedy), name, empty)


def label_spelling(split: Split, label_names: Mapping[str, str]) -> Iterator[Finding]:
    """Find labels that a reader takes for one and that count as several.

    Args:
        split: train, validation and test.
        label_names: the mapping that there is, which the one in a remedy holds as well.
    """
    groups = alike(sorted({row.label for _, rows in split.parts() for row in rows if row.label is not None}))
    to = {spelling: first for first, *others in groups for spelling in others}
    mapped = {written: to.get(name, name) for written, name in label_names.items()}
    word = mapping_word({**mapped, **to})  # of all of them: a second mapping would take the place of the first
    for spellings in groups:
        how = "look alike (but for case, width, spaces, punctuation or invisible characters)"
        if len(set(map(label_key, spellings))) > 1:
            how = "say the same (as true, yes and 1 do)"
        message = f"labels {', '.join(map(visible, spellings))} {how} and count as different"
        yield Finding("label_spelling", "warning", message, (), f"If they are one, map them: {word}")


def _absent_labels(split: Split) -> Iterator[Finding]:
    trained = dict.fromkeys(row.label for row in split.train if row.label is not None)
    for part, rows in (("validation", split.validation), ("test", split.test)):
        have = {row.label for row in rows}
        absent = [label for label in trained if label not in have] if rows else []
        if absent:
            message = f"no example of {part} has the label {listed(absent)}, so {part} says nothing about it"
            severity: Severity = "warning" if part == "test" else "info"
            yield Finding(
                "absent_labels", severity, message, (), f"Label more of them, or give a {part} file that has some"
            )


@dataclass(frozen=True)
class GoldWords:
    """What the user said of labels, for the two readings of examples that seem to have none.

    Attributes:
        labels: the label set.
        label_names: label as written to label name.
        no_gold: labels declared to mean that there is none.
        elsewhere: labels that are taken so in other files, and must go on to be.
        extends: a further label may join the label set; else a label can only be mapped to one that is there.
        flags: settings are flags of a command, not keys of the experiment.
    """

    labels: Sequence[str]
    label_names: Mapping[str, str]
    no_gold: Sequence[str] = ()
    elsewhere: Sequence[str] = ()
    extends: bool = False
    flags: bool = False

    def is_class(self, markers: Sequence[str]) -> str:
        """Return the word that makes classes of markers."""
        if self.extends:
            return class_word(markers, self.labels, self.label_names)
        return mapping_word({**self.label_names, **dict.fromkeys(markers, self.labels[0])}, flags=self.flags)

    def is_none(self, markers: Sequence[str]) -> str:
        """Return the word that declares that markers mean no label."""
        return list_word("no_gold", dict.fromkeys([*self.no_gold, *markers, *self.elsewhere]), flags=self.flags)


def dropped_rows(part: str, source: str, result: ReadResult, words: GoldWords) -> Iterator[Finding]:
    """Say how many examples of a source were left out because they have no gold label.

    Args:
        part: train, validation or test, or what else the source is.
        source: the file.
        result: what it held.
        words: what the user said of labels.

    Raises:
        LabelError: they are so many that they may well be a class, and nothing says what is meant.
    """
    no_gold, rows_read = result.no_gold, result.rows_read
    if result.rejected:
        message = f"{share(sum(result.rejected.values()), rows_read)} of {part} ({source}) dropped: Prodigy says "
        remedy = "If the answer is itself the label, say --columns label=answer"
        yield Finding(NO_GOLD_LABEL, "warning", message + " or ".join(sorted(result.rejected)), (), remedy)
    dropped = sum(no_gold.values())
    if not dropped:
        return
    counted = share(dropped, rows_read)
    written = ", ".join(visible(one) if one else "empty" for one in no_gold)
    message = f"{counted} of {part} ({source}) dropped: their label is {written}, which is taken for no gold label"
    open_ = [one for one in no_gold if one not in words.no_gold]
    both = (
        f"If it is a class, say {'so' if words.extends else 'which'}: {words.is_class(list(no_gold))}. "
        f"If it means that there is no label: {words.is_none(list(no_gold))}"
    )
    if sum(no_gold[one] for one in open_) > MOST_DROPPED * rows_read:
        raise LabelError(
            f"{counted} of {part} have the label {written}, which may be a class or mean that there is no gold label",
            path=source,
            remedy=both,
        )
    severity: Severity = "warning" if open_ and dropped > MANY_DROPPED * rows_read else "info"
    yield Finding(
        NO_GOLD_LABEL,
        severity,
        message,
        (),
        both if open_ else f"As {'--no-gold' if words.flags else 'data.no_gold'} says",
    )


def _share(mask: Mask) -> str:
    return share(int(mask.sum()), len(mask))


def _some_ids(rows: Sequence[Example], mask: Mask) -> tuple[str, ...]:
    return tuple(rows[place].id for place in np.flatnonzero(mask)[:MOST_EXAMPLES].tolist())


def _located(finding: Finding, part: str, mask: Mask) -> Located:
    return Located(finding, part, tuple(np.flatnonzero(mask).tolist()))
