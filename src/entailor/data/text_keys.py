"""Integer keys that tell which texts are the same, word for word or but for case, punctuation and spaces.

Compares texts and nothing else; what a repeated text means for a split is for `checks` and `splits` to say.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt

from entailor.data.example import Example

Keys = npt.NDArray[np.int64]
Codes = npt.NDArray[Any]

CHUNK_TEXTS = 2048
EMPTY = hash(b"")  # 0 in every process
NO_PAIR = np.int64(1)
_ODD = np.int64(0x9E3779B97F4A7C15 - 2**64)
_APOSTROPHES = "'\u2019\u02bc"
_SPACE, _OUT = ord(" "), 0x7F  # DELETE stands for what is taken out
_LAST_MARK = 0x20000  # no punctuation or space has a higher code


@dataclass(frozen=True)
class TextKeys:
    """Keys of N rows; equal keys mean equal texts, and differ from one process to the next.

    A key is a 64-bit hash: among a million rows, the chance that any two different ones meet is about one in 10**7.

    Attributes:
        premise: the first text, normalised. Shape (N,).
        hypothesis: the second text, normalised; NO_PAIR for single texts. Shape (N,).
        row: both texts, normalised. Shape (N,).
        exact: both texts as they are. Shape (N,).
    """

    premise: Keys
    hypothesis: Keys
    row: Keys
    exact: Keys


def text_keys(rows: Sequence[Example]) -> TextKeys:
    """Compute the keys of rows, in one pass over their texts."""
    firsts, seconds = [row.text for row in rows], [row.text_pair for row in rows]
    premise = normalised_keys(firsts)
    hypothesis = np.full(len(rows), NO_PAIR)
    is_pair = np.array([text is not None for text in seconds], bool)
    hypothesis[is_pair] = normalised_keys([text for text in seconds if text is not None])
    return TextKeys(premise, hypothesis, _both(premise, hypothesis), _both(_hashes(firsts), _hashes(seconds)))


def normalised(text: str) -> str:
    """Return a text without what people see past: case, punctuation, and the kind and number of spaces.

    Unicode is brought to NFKC. Symbols such as ``<``, ``+`` and ``$`` stay: they may be all that two rows differ in.
    """
    return _normalised([text])[0].decode("utf-8", "surrogatepass")


def normalised_keys(texts: Sequence[str]) -> Keys:
    """Return one key a text, equal for texts that `normalised` makes equal; EMPTY for those it leaves nothing of."""
    keys = np.empty(len(texts), np.int64)
    for begin in range(0, len(texts), CHUNK_TEXTS):
        chunk = texts[begin : begin + CHUNK_TEXTS]
        plain = np.fromiter(map(str.isascii, chunk), bool, len(chunk))
        part = keys[begin : begin + len(chunk)]
        for kind in (plain, ~plain):
            if kind.any():
                part[kind] = list(map(hash, _normalised(list(compress(chunk, kind)))))
    return keys


def is_among(keys: Keys, known: Keys) -> npt.NDArray[np.bool_]:
    """Tell which keys are known, as `numpy.isin` does, several times as fast: 64-bit hashes sort well."""
    if not len(known):
        return np.zeros(len(keys), bool)
    ordered, order = np.sort(known), np.argsort(keys)
    asked = keys[order]
    places = np.searchsorted(ordered, asked)
    found = np.empty(len(keys), bool)
    found[order] = ordered[np.minimum(places, len(ordered) - 1)] == asked
    return found


def _hashes(texts: Sequence[str | None]) -> Keys:
    return np.fromiter(map(hash, texts), np.int64, len(texts))


def _both(first: Keys, second: Keys) -> Keys:
    """Make one key of two that are evenly spread over 64 bits already."""
    return first * _ODD + second


def _normalised(texts: Sequence[str]) -> list[bytes]:
    """Normalise texts joined into one array of characters, so that each step is one pass over all of them."""
    joined = "\0".join(texts)
    if joined.count("\0") != len(texts) - 1:  # a text that holds the divider itself
        joined = "\0".join(text.replace("\0", " ") for text in texts)
    if joined.isascii():
        plain = joined.encode("ascii").translate(_ascii_table(), b"'")
        together = _collapsed(np.frombuffer(plain, np.uint8)).tobytes()
    else:
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", joined).casefold())
        codes = _unicode_table()[np.frombuffer(folded.encode("utf-32-le", "surrogatepass"), "<u4")]
        kept = _collapsed(codes[codes != _OUT]).tobytes()
        together = kept.decode("utf-32-le", "surrogatepass").encode("utf-8", "surrogatepass")
    return list(map(bytes.strip, together.split(b"\0")))


def _collapsed(codes: Codes) -> Codes:
    """Keep one of neighbouring spaces."""
    space = codes == _SPACE
    space[1:] &= space[:-1].copy()
    space[:1] = False
    kept: Codes = codes[~space]
    return kept


@cache
def _ascii_table() -> bytes:
    return _unicode_table()[:128].astype(np.uint8).tobytes().ljust(256)


@cache
def _unicode_table() -> Codes:
    """What each character becomes: itself, a space, or nothing. ASCII capitals become small ones."""
    table = np.arange(sys.maxunicode + 1, dtype=np.uint32)
    for code in range(1, _LAST_MARK):
        character = chr(code)
        category = unicodedata.category(character)
        if character in _APOSTROPHES or category == "Cf":
            table[code] = _OUT
        elif category[0] == "P" or category[0] == "Z" or character.isspace():
            table[code] = _SPACE
    table[ord("A") : ord("Z") + 1] += ord("a") - ord("A")
    table.flags.writeable = False
    return table
