"""The bundled data, sound, and with mistakes planted in it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.nli_pairs.corpus import generate_pairs, generate_split

from entailor.data.example import Example, Split
from entailor.diagnostics.base import CheckInput, DoctorFinding, registered_checks

LABELS = ("entailment", "neutral", "contradiction")
Findings = dict[str, DoctorFinding]


@pytest.fixture(scope="session")
def corpus() -> Split:
    """Nine hundred training pairs, 100 to tune on, 200 to test on."""
    return generate_split(size=1200, seed=0, validation_share=100, test_share=200)


@pytest.fixture(scope="session")
def passives() -> tuple[Example, ...]:
    """Pairs of one phenomenon, of which words and their exchange tell much."""
    return tuple(row for row in generate_pairs(12_000, seed=0) if row.group == "passives")


@pytest.fixture(scope="session")
def findings_of() -> Callable[..., Findings]:
    """Run one check by name over training rows or a split, and return what it found by kind."""

    def run(name: str, rows: Split | tuple[Example, ...], **more: object) -> Findings:
        split = rows if isinstance(rows, Split) else Split(tuple(rows), (), ())
        labels = tuple(dict.fromkeys(row.label or "" for row in split.train))
        ordered = LABELS if set(labels) == set(LABELS) else labels
        evidence = CheckInput(split, ordered, split.train[0].text_pair is not None, **more)  # type: ignore[arg-type]
        return {found.kind: found for found in registered_checks()[name][1](evidence).findings}

    return run


def edited(text: str, rng: random.Random) -> str:
    """Change one word: leave out a letter, or put in a word."""
    words = text.split()
    place = rng.randrange(len(words))
    if rng.random() < 0.5 and len(words[place]) > 3:
        words[place] = words[place][:1] + words[place][2:]
    else:
        words.insert(place, "really")
    return " ".join(words)


@pytest.fixture(scope="session")
def with_edited_leak(corpus: Split) -> tuple[Split, set[str]]:
    """The corpus with 50 test rows in train, a word of each text changed; and the ids of those test rows."""
    rng = random.Random(0)
    leaked = rng.sample(corpus.test, 50)
    rows = tuple(
        replace(row, id=f"leak-{row.id}", text=edited(row.text, rng), text_pair=edited(row.text_pair or "", rng))
        for row in leaked
    )
    return Split(corpus.train + rows, corpus.validation, corpus.test), {row.id for row in leaked}
