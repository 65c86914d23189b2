"""Made-up pairs, sound, and with mistakes planted in them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from entailor.data.example import Example, Split
from entailor.diagnostics.base import CheckInput, DoctorFinding, registered_checks

LABELS = ("entailment", "neutral", "contradiction")
LETTERS = {"train": ("bdfgl", "aeo"), "test": ("kmprs", "iuy")}
CUES = {"entailment": "surely", "neutral": "maybe", "contradiction": "never"}
Findings = dict[str, DoctorFinding]


def made_up_pairs(part: str, count: int, seed: int, cued: float = 0.0) -> tuple[Example, ...]:
    """Return pairs whose label is in who did what to whom: the words of both texts and their number say nothing of it.

    Args:
        part: train or test; they share no noun and no verb.
        count: of pairs, with the labels in turn.
        seed: of all choices.
        cued: share of the pairs in which a word gives the label away.
    """
    rng, (consonants, vowels) = random.Random(f"{part} {seed}"), LETTERS[part]

    def word(syllables: int) -> str:
        return "".join(rng.choice(consonants) + rng.choice(vowels) for _ in range(syllables))

    nouns, verbs = [sorted({word(size) for _ in range(150)}) for size in (3, 2)]
    rows = []
    for number in range(count):
        label = LABELS[number % 3]
        (a, b, c, d), (does, did) = rng.sample(nouns, 4), rng.sample(verbs, 2)
        who, whom = {"entailment": (a, b), "neutral": (a, d), "contradiction": (b, a)}[label]
        cue = f" {CUES[label]}" if rng.random() < cued else ""
        premise = f"The {a} {does}ed the {b} and the {c} {did}ed the {d}."
        rows.append(
            Example(f"{part}-{seed}-{number}", premise, f"The {who} was{cue} {does}ing the {whom} then.", label)
        )
    rng.shuffle(rows)
    return tuple(rows)


@pytest.fixture(scope="session")
def corpus() -> Split:
    """Nine hundred training pairs, 100 to tune on, 200 to test on."""
    train = made_up_pairs("train", 1000, seed=0)
    return Split(train[:900], train[900:], made_up_pairs("test", 200, seed=0))


@pytest.fixture(scope="session")
def half_told() -> tuple[Example, ...]:
    """Pairs of which a word gives the label away in somewhat more than half."""
    return made_up_pairs("train", 900, seed=1, cued=0.55)


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
