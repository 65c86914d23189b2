"""Which of many texts nearly repeat each other: MinHash over character 5-grams, banded, then compared exactly.

Broder 1997, *On the Resemblance and Containment of Documents*, sections 2 and 3. Works in any script, with words or
without; all steps are passes over arrays, so that ten thousand texts take a second or two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from entailor.data.words import Floats, Integers

Hashes = npt.NDArray[np.uint64]

SHINGLE = 5
BANDS, ROWS_OF_BAND = 24, 4  # two texts of likeness 0.5 meet in some band with a chance of 79 %, of 0.7 with 99.8 %
MOST_PAIRED = 20  # texts of one bucket that are compared all with all; larger buckets are compared along a chain
CHUNK_TEXTS = 4_096  # texts whose 5-grams are in memory at once
_PRIME = np.uint64(0x9E3779B97F4A7C15)


class Shingles:
    """The sets of 5-grams of N texts.

    Args:
        texts: normalised texts; what is shorter than five characters is filled up with spaces.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        padded = [f" {text} ".ljust(SHINGLE) for text in texts]
        lengths = np.fromiter(map(len, padded), np.int64, len(padded))
        codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
        hashes = _windows(codes)
        starts = np.cumsum(lengths) - lengths
        counts = lengths - SHINGLE + 1
        self.text_of = np.repeat(np.arange(len(texts)), counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        self.hashes: Hashes = hashes[np.repeat(starts, counts) + within]
        self.first_of_text = np.cumsum(counts) - counts
        self.num_texts = len(texts)

    def signatures(self, seed: int) -> Hashes:
        """Return the smallest of each text's hashes under each of 96 hash functions. Shape (N, 96)."""
        rng = np.random.default_rng((seed, 4))
        factors = rng.integers(1, 2**63, BANDS * ROWS_OF_BAND, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        smallest = np.empty((self.num_texts, len(factors)), np.uint64)
        for place, factor in enumerate(factors):
            mixed = self.hashes * factor
            mixed ^= mixed >> np.uint64(32)
            smallest[:, place] = np.minimum.reduceat(mixed, self.first_of_text)
        return smallest

    def matrix(self) -> Any:
        """Return which text has which 5-gram, sparse and binary. Shape (N, different 5-grams)."""
        from scipy.sparse import csr_matrix

        _, column = np.unique(self.hashes, return_inverse=True)
        ones = np.ones(len(column), np.float32)
        matrix = csr_matrix((ones, (self.text_of, column)), shape=(self.num_texts, int(column.max()) + 1))
        matrix.data[:] = 1.0  # repeated 5-grams of one text were added up
        return matrix


def signatures(texts: Sequence[str], seed: int) -> Hashes:
    """Return the signatures of normalised texts, some at a time. Shape (N, 96)."""
    chunks = [texts[start : start + CHUNK_TEXTS] for start in range(0, len(texts), CHUNK_TEXTS)]
    parts = [Shingles(chunk).signatures(seed) for chunk in chunks]
    return np.concatenate([np.empty((0, BANDS * ROWS_OF_BAND), np.uint64), *parts])


def _windows(codes: Hashes) -> Hashes:
    """Return one hash for every five characters in an example."""
    mixed = np.zeros(len(codes) - SHINGLE + 1, np.uint64)
    for offset in range(SHINGLE):
        mixed = (mixed + codes[offset : offset + len(mixed)] + np.uint64(1)) * _PRIME
        mixed ^= mixed >> np.uint64(29)
    return mixed


def candidate_pairs(signatures: Hashes) -> Integers:
    """Return pairs of texts (the smaller index first) that agree in some band. Shape (P, 2)."""
    count = len(signatures)
    keys = [np.zeros(0, np.int64)]
    for band in range(BANDS):
        part = signatures[:, band * ROWS_OF_BAND : (band + 1) * ROWS_OF_BAND]
        key = np.zeros(count, np.uint64)
        for column in part.T:
            key = (key ^ column) * _PRIME
            key ^= key >> np.uint64(31)
        keys += [first * count + second for first, second in _bucket_pairs(key)]
    pairs = np.unique(np.concatenate(keys))
    return np.stack([pairs // count, pairs % count], axis=1)


def _bucket_pairs(key: Hashes) -> Iterator[tuple[Integers, Integers]]:
    """Yield pairs of texts with the same key: of small buckets all, of large ones neighbours and all with the first."""
    order = np.argsort(key, kind="stable")
    bounds = np.flatnonzero(np.diff(key[order], prepend=key[order][:1] + np.uint64(1)))
    sizes = np.diff(bounds, append=len(order))
    for start, size in zip(bounds[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
        members = np.sort(order[start : start + size])
        if size <= MOST_PAIRED:
            first, second = np.triu_indices(size, 1)
            yield members[first], members[second]
        else:
            yield members[:-1], members[1:]
            yield np.full(size - 1, members[0]), members[1:]


def likeness(texts: Sequence[str], pairs: Integers) -> Floats:
    """Return the share of 5-grams both texts have of those either has (Jaccard), for each pair. Shape (P,)."""
    if not len(pairs):
        return np.zeros(0)
    places, pairs = np.unique(pairs, return_inverse=True)
    pairs = pairs.reshape(-1, 2)
    matrix = Shingles([texts[place] for place in places.tolist()]).matrix()
    both = np.asarray(matrix[pairs[:, 0]].multiply(matrix[pairs[:, 1]]).sum(1)).ravel()
    sizes = np.asarray(matrix.sum(1)).ravel()
    found: Floats = both / (sizes[pairs[:, 0]] + sizes[pairs[:, 1]] - both)
    return found
