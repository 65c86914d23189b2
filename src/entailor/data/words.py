"""Words of texts, and sparse and dense features of them: what a model without a model can know of a row."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from entailor.data.example import Example

MOST_SWAPS = 12  # words of each side that are crossed; longer texts have too many for a pattern
NOTHING = "∅"

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Analyzer = Callable[[Any], list[str]]


def words_of(text: str) -> list[str]:
    """Return a text's words and signs in lower case; any script that divides words by spaces."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    word, unseen = _unicode_word()
    return word.findall(unseen.sub("", text.lower()))


_ASCII_WORD = re.compile(r"\w+|[^\w\s]")


@cache
def _unicode_word() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return what a word is, vowel signs and accents included, and what is not seen (joiners, marks of direction)."""
    kinds = {code: unicodedata.category(chr(code)) for code in range(0x80, 0x20000)}
    marks = re.escape("".join(chr(code) for code, kind in kinds.items() if kind in ("Mn", "Mc")))
    unseen = re.escape("".join(chr(code) for code, kind in kinds.items() if kind == "Cf"))
    return re.compile(rf"[\w{marks}]+|[^\w\s{marks}]"), re.compile(f"[{unseen}]")


def ngrams(words: Sequence[str], longest: int = 2) -> list[str]:
    """Return all n-grams up to a length."""
    return [" ".join(words[i : i + n]) for n in range(1, longest + 1) for i in range(len(words) - n + 1)]


def text_matrix(rows: Sequence[Example], fields: Sequence[str], *, swaps: bool = False) -> Any:
    """Return TF-IDF of n-grams, one block a field, as one sparse matrix of shape (N, F).

    Args:
        rows: the examples.
        fields: of `text` and `text_pair`.
        swaps: for pairs, add a block of (word only the first text has, word only the second has): some -> all.
    """
    from scipy.sparse import hstack

    analyzers: list[Analyzer] = [partial(_field_ngrams, field) for field in fields]
    if swaps:
        analyzers.append(_swaps)
    return hstack([_tfidf(rows, analyzer) for analyzer in analyzers], format="csr")


def _tfidf(rows: Sequence[Example], analyzer: Analyzer) -> Any:
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer=analyzer, sublinear_tf=True, min_df=2, max_features=50_000, dtype=np.float64)
    try:
        return vectorizer.fit_transform(rows)
    except ValueError:  # no n-gram stands in two rows
        return csr_matrix((len(rows), 0))


def _field_ngrams(field: str, row: Example) -> list[str]:
    return ngrams(words_of(getattr(row, field) or ""))


def _swaps(row: Example) -> list[str]:
    first, second = words_of(row.text), words_of(row.text_pair or "")
    out = [word for word in dict.fromkeys(first) if word not in second][:MOST_SWAPS] or [NOTHING]
    new = [word for word in dict.fromkeys(second) if word not in first][:MOST_SWAPS] or [NOTHING]
    return [*(f"-{word}" for word in out), *(f"+{word}" for word in new), *(f"{a}>{b}" for a in out for b in new)]


OVERLAP_NAMES = (
    "shared words of all words",
    "hypothesis words that the premise has",
    "premise words that the hypothesis has",
    "shared pairs of neighbouring words",
    "words of the premise (log)",
    "words of the hypothesis (log)",
    "difference of lengths (log)",
    "one text inside the other",
)


def overlap_features(rows: Sequence[Example]) -> Floats:
    """Return how far the two texts of pairs share words, and how long they are. Shape (N, 8), named above."""
    return np.array([_overlap(words_of(row.text), words_of(row.text_pair or "")) for row in rows])


def _overlap(first: list[str], second: list[str]) -> list[float]:
    one, two = set(first), set(second)
    both = len(one & two)
    pairs_1, pairs_2 = set(pairwise(first)), set(pairwise(second))
    return [
        both / max(1, len(one | two)),
        both / max(1, len(two)),
        both / max(1, len(one)),
        len(pairs_1 & pairs_2) / max(1, len(pairs_2)),
        float(np.log1p(len(first))),
        float(np.log1p(len(second))),
        float(np.log1p(len(first)) - np.log1p(len(second))),
        float(f" {' '.join(second)} " in f" {' '.join(first)} "),
    ]


def group_codes(keys: Integers) -> Integers:
    """Number equal keys alike, in order of first appearance: keys are hashes and differ from process to process."""
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    numbers: Integers = np.argsort(np.argsort(first))[group]
    return numbers
