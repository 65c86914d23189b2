"""Labels that are given away: by one text of a pair alone, by shared words and lengths, or by single words.

Where such a classifier beats the majority, a high score is no proof of understanding (Gururangan et al. 2018; Poliak
et al. 2018). Telling n-grams follow Gardner et al. 2021, *Competency Problems*, section 3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from entailor.data.checks import Severity
from entailor.data.text_keys import normalised_keys
from entailor.data.words import Integers, NgramCounts, group_codes
from entailor.diagnostics.base import CheckInput, CheckOutcome, DoctorFinding, check, of_rows
from entailor.diagnostics.cross_validation import Held, held_out_accuracy, out_of_fold

NAME = "artefacts"
GAIN = 0.05  # above the majority; less is worth a remark only
PURE, COMMON = 0.9, 0.1  # an n-gram that nearly always goes with one label, and stands in a tenth of its rows
NEARLY_ALL, HALF = 0.99, 0.5  # the same for single texts, whose words are what the label is about
FEWEST_TIMES = 10  # an n-gram that stands in fewer rows is not looked at
SURE = 0.01  # chance of one wrong n-gram among all that are looked at (Bonferroni)
MOST_WORDS = 5
MOST_LABELS, MOST_GIVEAWAYS = 10, 10  # in a message; findings of their own
MARKS: dict[str, Callable[[str], object]] = {  # what counts of words do not see: a label that came from elsewhere
    "<two spaces in a row>": re.compile(r"\S {2,}\S").search,
    "<space at the beginning>": re.compile(r"^\s").search,
    "<space at the end>": re.compile(r"\s$").search,
    "<line break>": re.compile(r"\S[^\S\n]*\n\s*\S").search,
    "<no-break space>": re.compile("\xa0").search,
    "<capital letter at the beginning>": lambda text: text.strip()[:1].isupper(),
    "<small letter at the beginning>": lambda text: text.strip()[:1].islower(),
    "<capital letters alone>": str.isupper,
}


@dataclass(frozen=True)
class TellingWord:
    """An n-gram that goes with a label.

    Attributes:
        words: the n-gram.
        label: the label it goes with.
        count: examples it stands in.
        share: of these, the share with the label.
        coverage: share of the label's examples it stands in.
        z: how many standard errors `share` is above the label's share of all examples.
    """

    words: str
    label: str
    count: int
    share: float
    coverage: float
    z: float


@check(NAME, "labels given away by one text alone, by word overlap, or by single words")
def artefacts(evidence: CheckInput) -> CheckOutcome:
    """Cross-validate classifiers that see too little to understand, and look for words that go with a label."""
    if reason := evidence.too_few():
        return CheckOutcome(skipped=reason)
    field = "text_pair" if evidence.is_pair else "text"
    found = _with_marks(evidence.fitted.ngrams[field], [getattr(row, field) or "" for row in evidence.fitted.rows])
    telling = telling_words(found, evidence.targets, evidence.labels)
    findings: list[DoctorFinding] = []
    facts: dict[str, object] = {}
    if evidence.is_pair:
        for kind, held in _shortcuts(evidence).items():
            facts[kind] = asdict(held)
            findings += _shortcut_finding(kind, held, telling if kind == "hypothesis_only" else ())
    findings += _giveaways(evidence, found, telling)
    return CheckOutcome(tuple(findings), facts)


def _with_marks(found: NgramCounts, texts: Sequence[str]) -> NgramCounts:
    """Add what no word shows: where a text has it, as if it were a word of it."""
    from scipy.sparse import csr_matrix, hstack

    columns = [[bool(has(text)) for has in MARKS.values()] for text in texts]
    names = np.concatenate([found.names.astype(object), list(MARKS)])
    return NgramCounts(hstack([found.counts, csr_matrix(np.array(columns, np.int64))], format="csr"), names)


def _shortcuts(evidence: CheckInput) -> dict[str, Held]:
    """Return the accuracy of each classifier that sees too little; one text stands in one fold only."""
    found, fitted, targets = {}, evidence.fitted, evidence.targets
    for kind, field, features in (
        ("hypothesis_only", "text_pair", fitted.tfidf["text_pair"]),
        ("premise_only", "text", fitted.tfidf["text"]),
        ("word_overlap", "text", fitted.overlap),
    ):
        groups = group_codes(normalised_keys([getattr(row, field) or "" for row in fitted.rows]))
        probabilities = out_of_fold(features, targets, groups, len(evidence.labels), seed=evidence.seed, C=1.0)
        found[kind] = held_out_accuracy(probabilities, targets)
    return found


_SEES = {
    "hypothesis_only": "sees the second text alone",
    "premise_only": "sees the first text alone",
    "word_overlap": "sees only how many words the texts share and how long they are",
}


def _shortcut_finding(kind: str, held: Held, telling: Sequence[TellingWord]) -> Iterator[DoctorFinding]:
    if not held.tells:
        return
    labels = list(dict.fromkeys(one.label for one in sorted(telling, key=lambda one: -one.z)))
    words = "; ".join(
        f"{label}: {', '.join(repr(one.words) for one in telling if one.label == label)}"
        for label in labels[:MOST_LABELS]
    )
    message = (
        f"a classifier that {_SEES[kind]} is right on {100 * held.accuracy:.1f} % of held-out examples "
        f"(95 % interval {100 * held.low:.1f} to {100 * held.high:.1f}; the most frequent label: "
        f"{100 * held.majority:.1f} %)" + (f". Most telling: {words}" if words else "")
    )
    remedy = (
        "Compare results with this figure, not with the most frequent label; keep hypothesis_only and bag_of_words "
        "among the methods"
    )
    figures = {**asdict(held), "telling": [asdict(one) for one in telling]}
    severity: Severity = "warning" if held.low > held.majority + GAIN else "info"
    yield DoctorFinding(NAME, kind, severity, message, remedy, figures=figures)


def _giveaways(evidence: CheckInput, found: NgramCounts, telling: Sequence[TellingWord]) -> Iterator[DoctorFinding]:
    """Find words that nearly always go with one label; of single texts they may well be what the label is about."""
    is_pair, rows = evidence.is_pair, evidence.fitted.rows
    away = [one for one in telling if one.share >= PURE and one.coverage >= COMMON]
    alone = [  # not a longer n-gram around a word that tells
        one for one in away if not any(other is not one and f" {other.words} " in f" {one.words} " for other in away)
    ]
    alone.sort(key=lambda one: -one.z)
    more = len(alone) - MOST_GIVEAWAYS
    for place, one in enumerate(alone[:MOST_GIVEAWAYS], start=1):
        column = int(np.flatnonzero(found.names == one.words)[0])
        has = [rows[at] for at in found.counts[:, [column]].nonzero()[0].tolist()]
        message = (
            f"{one.words!r} gives the label away: of {one.count:,} examples with it {100 * one.share:.0f} % are "
            f"{one.label!r}, and it stands in {100 * one.coverage:.0f} % of the examples of {one.label!r}"
        )
        if place == MOST_GIVEAWAYS and more:
            message += f"; so do {more:,} more"
        remedy = "Find out where it comes from; take it out of the texts, or balance it over the labels"
        if not is_pair:
            remedy = "Fine where the word is what the label is about; if it is not, take it out of the texts"
        yield DoctorFinding(
            NAME,
            "giveaway_word",
            "warning" if is_pair or (one.share >= NEARLY_ALL and one.coverage >= HALF) else "info",
            message,
            remedy,
            *of_rows("train", has),
            asdict(one),
        )


def telling_words(found: NgramCounts, targets: Integers, labels: Sequence[str]) -> tuple[TellingWord, ...]:
    """Return, label by label, the n-grams that go with it more than chance allows, the surest first.

    Under the null hypothesis an example with the n-gram has the label as often as any example. Kept is what is
    beyond chance when all n-grams and labels are counted as tries.
    """
    from scipy.stats import norm

    often = found.counts.getnnz(axis=0) >= FEWEST_TIMES
    if not often.any():
        return ()
    names, counts = found.names[often], found.counts[:, often].sign()
    one_hot = np.eye(len(labels))[targets]
    with_label_VL = np.asarray(counts.T @ one_hot)
    times_V1 = with_label_VL.sum(1, keepdims=True)
    base_L = one_hot.mean(0)
    z_VL = (with_label_VL - times_V1 * base_L) / np.sqrt(np.maximum(times_V1 * base_L * (1 - base_L), 1e-12))
    least = float(norm.isf(SURE / z_VL.size))
    telling = []
    for code, label in enumerate(labels):
        for place in np.argsort(-z_VL[:, code], kind="stable")[:MOST_WORDS].tolist():
            if z_VL[place, code] >= least:
                count, right = int(times_V1[place, 0]), float(with_label_VL[place, code])
                coverage = right / float(one_hot[:, code].sum())
                telling.append(
                    TellingWord(str(names[place]), label, count, right / count, coverage, float(z_VL[place, code]))
                )
    return tuple(telling)
