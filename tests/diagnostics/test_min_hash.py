"""MinHash: agrees with the sets it stands for, and finds what is alike."""

from __future__ import annotations

import numpy as np

from entailor.diagnostics.min_hash import CHUNK_TEXTS, MOST_PAIRED, candidate_pairs, likeness, signatures

TEXTS = ["the cat sat on the mat today", "the cat sat on a mat today", "nothing of the kind", "", "x", "the"]


def fives(text: str) -> set[str]:
    padded = f" {text} ".ljust(5)
    return {padded[start : start + 5] for start in range(len(padded) - 4)}


def test_likeness_is_that_of_the_sets():
    pairs = np.array([(a, b) for a in range(len(TEXTS)) for b in range(a + 1, len(TEXTS))])
    naive = [len(fives(TEXTS[a]) & fives(TEXTS[b])) / len(fives(TEXTS[a]) | fives(TEXTS[b])) for a, b in pairs]
    assert np.allclose(likeness(TEXTS, pairs), naive)


def test_signatures_agree_as_often_as_sets_are_alike():
    rng = np.random.default_rng(0)
    words = [f"word{n}" for n in range(400)]
    base = rng.choice(words, 120, replace=False).tolist()
    other = base[:90] + rng.choice(words, 30, replace=False).tolist()
    texts = [" ".join(base), " ".join(other)]
    exact = likeness(texts, np.array([[0, 1]]))[0]
    agree = np.mean([(s[0] == s[1]).mean() for s in (signatures(texts, seed) for seed in range(20))])
    assert abs(agree - exact) < 0.05


def test_an_edited_text_is_found_among_many_others():
    rng = np.random.default_rng(1)
    texts = [" ".join(f"w{one}" for one in rng.integers(0, 5000, 12)) for _ in range(500)]
    texts.append(texts[123] + " more")
    pairs = candidate_pairs(signatures(texts, 0)).tolist()
    assert [123, 500] in pairs
    assert len(pairs) < 50


def test_a_text_that_stands_a_thousand_times_does_not_make_a_million_pairs():
    texts = ["always the same words"] * 1000
    pairs = candidate_pairs(signatures(texts, 0))
    assert len(pairs) < 2 * len(texts)
    assert {0, *pairs[:, 1].tolist()} == set(range(1000))
    assert len(candidate_pairs(signatures(texts[:MOST_PAIRED], 0))) == MOST_PAIRED * (MOST_PAIRED - 1) // 2


def test_signatures_do_not_depend_on_the_chunk_a_text_stands_in():
    texts = [f"text number {n}" for n in range(CHUNK_TEXTS + 3)]
    assert np.array_equal(signatures(texts, 0)[-2:], signatures(texts[-2:], 0))
    assert signatures([], 0).shape == (0, 96)
