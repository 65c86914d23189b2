"""Examples of validation or test that hold the words of one of train, in another order or with others between.

What characters show, from a word changed to the whole text, is for `near_duplicates` and `repeated_rows`; a paraphrase
in other words is beyond both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from entailor.config.plain import share
from entailor.data.checks import Severity
from entailor.data.example import Example
from entailor.data.text_keys import normalised, text_keys
from entailor.data.words import Floats, Integers, words_of
from entailor.diagnostics.base import MOST_SHOWN, CheckInput, CheckOutcome, DoctorFinding, check, of_rows, shown
from entailor.diagnostics.min_hash import likeness
from entailor.diagnostics.near_duplicates import ALIKE

NAME = "reworded"
MOST_TRAIN, MOST_ROWS = 20_000, 2_000  # of train, and of what is held against it; more takes long
ALIKE_BY_WORDS = 0.6  # cosine of the words' weights, in each text
WARNED = 0.02  # of a part; 0 to 1.4 % of eight public data sets as they are
NATURAL = 0.05  # of train: such data are made of like texts
USUAL = 0.2  # words of so many texts tell nothing
FEWEST = 3
CHUNK = 256  # examples whose cosines are in memory at once


@check(NAME, "examples of validation and test with the words of one of train in another order")
def reworded(evidence: CheckInput) -> CheckOutcome:
    """Hold validation and test, and train itself for comparison, against train: by their rare words, label by label."""
    rng = np.random.default_rng((evidence.seed, 6))
    whole = {part: len(rows) for part, rows in evidence.split.parts() if part != "train"}
    parts = {part: _sample(rows, MOST_ROWS, rng) for part, rows in evidence.split.parts() if part in whole}
    train = _sample(evidence.split.train, MOST_TRAIN, rng)
    if not any(parts.values()):
        return CheckOutcome(skipped="there is neither validation nor test")
    texts = _Texts([*train, *(row for rows in parts.values() for row in rows)], evidence.is_pair)
    known = np.arange(len(train))
    own, _ = texts.nearest(known[rng.permutation(len(train))[:MOST_ROWS]], known)
    natural = float((own >= ALIKE_BY_WORDS).mean())
    findings, start = [], len(train)
    for part, rows in parts.items():
        found, counterpart = texts.nearest(np.arange(start, start + len(rows)), known)
        start += len(rows)
        order = np.argsort(-found, kind="stable")
        places = order[found[order] >= ALIKE_BY_WORDS].tolist()
        if len(places) < FEWEST:
            continue
        severity: Severity = "warning" if len(places) >= WARNED * len(rows) and natural <= NATURAL else "info"
        examples = [
            example
            for place in places[: (MOST_SHOWN + 1) // 2]
            for example in (
                shown(part, rows[place], f"has the words of {train[counterpart[place]].id}"),
                shown("train", train[counterpart[place]]),
            )
        ]
        findings.append(
            DoctorFinding(
                NAME,
                f"reworded_train_{part}",
                severity,
                f"{share(len(places), len(rows))} of {part} hold the words of an example of train in another order or "
                f"with others between, under the same label (of train itself {100 * natural:.1f} % do)"
                + (f" (in a sample of {len(rows):,} examples)" if len(rows) < whole[part] else ""),
                f"Read them: where they were rewritten from train, scores on {part} come out too high; leave their "
                "counterparts out of train",
                tuple(examples),
                of_rows(part, [rows[place] for place in places])[1],
                {"train_ids": [train[counterpart[place]].id for place in places], "train_share": natural},
            )
        )
    return CheckOutcome(tuple(findings), {"train_share": natural})


def _sample(rows: Sequence[Example], most: int, rng: np.random.Generator) -> Sequence[Example]:
    """Return the rows, or some of them in order where they are more."""
    if len(rows) <= most:
        return rows
    return [rows[place] for place in np.sort(rng.choice(len(rows), most, replace=False)).tolist()]


class _Texts:
    """Examples by the words that few of them have.

    Args:
        rows: N examples.
        is_pair: whether they are pairs; each text is compared with its counterpart.
    """

    def __init__(self, rows: Sequence[Example], is_pair: bool) -> None:
        fields = [[row.text for row in rows]] + ([[row.text_pair or "" for row in rows]] if is_pair else [])
        self.weights = [_weights(texts) for texts in fields]
        self.fields = [[normalised(text) for text in texts] for texts in fields]
        self.labels = np.unique([str(row.label) for row in rows], return_inverse=True)[1]
        self.keys = text_keys(rows).row

    def nearest(self, places: Integers, others: Integers) -> tuple[Floats, Integers]:
        """Return how alike each example is to the nearest other one by words, and its index among those; (P,) each.

        Those of another label do not count, nor what is alike by characters; 0 and -1 where no other has a word of it.
        """
        alike, nearest = np.zeros(len(places)), np.full(len(places), -1)
        for label in np.unique(self.labels[places]).tolist():
            at = np.flatnonzero(self.labels[places] == label)
            to = np.flatnonzero(self.labels[others] == label)
            theirs = [weights[others[to]].T.tocsr() for weights in self.weights]
            for some in np.split(at, range(CHUNK, len(at), CHUNK)):
                cosines = [weights[places[some]] @ theirs[field] for field, weights in enumerate(self.weights)]
                both = (cosines[0].minimum(cosines[1]) if len(cosines) > 1 else cosines[0]).tocoo()
                near = both.data >= ALIKE_BY_WORDS
                first, second, found = some[both.row[near]], to[both.col[near]], both.data[near]
                new = self.keys[places[first]] != self.keys[others[second]]
                first, second, found = first[new], second[new], found[new]
                order = np.argsort(found, kind="stable")  # the last one written stays
                alike[first[order]], nearest[first[order]] = found[order], second[order]
        found_at = np.flatnonzero(alike)
        pairs = np.stack([places[found_at], others[nearest[found_at]]], axis=1)
        by_characters = np.minimum.reduce([likeness(texts, pairs) for texts in self.fields])
        alike[found_at[by_characters >= ALIKE]] = 0.0
        return alike, nearest


def _weights(texts: Sequence[str]) -> Any:
    """Return which text has which word, by how rare the word is (log of N over its texts), scaled to length 1."""
    from scipy.sparse import csr_matrix, diags

    number: dict[str, int] = {}
    words = [{number.setdefault(word, len(number)) for word in words_of(text)} for text in texts]
    counts = np.fromiter(map(len, words), np.int64, len(words))
    column = np.fromiter((one for some in words for one in sorted(some)), np.int64, counts.sum())
    has = csr_matrix((np.ones(len(column)), column, np.cumsum([0, *counts])), shape=(len(texts), max(1, len(number))))
    texts_of_word = np.bincount(column, minlength=has.shape[1])
    rarity = np.where(texts_of_word > USUAL * len(texts), 0.0, np.log((1 + len(texts)) / np.maximum(texts_of_word, 1)))
    weighted = has @ diags(rarity)
    length = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    return (diags(1 / np.where(length > 0, length, 1.0)) @ weighted).tocsr()
