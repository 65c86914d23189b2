"""The designs behind the bundled data: seeded draws, and grids of premises and hypotheses with derived labels.

A grid holds what each premise settles and what each hypothesis claims; labels are computed, never written down.
Holds no vocabulary and no phenomenon: those are in `corpus_lexicon`, `corpus_events` and `corpus_relations`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from tests.nli_pairs.corpus_lexicon import Lexicon

Label = Literal["entailment", "neutral", "contradiction"]
LABELS: Final[tuple[Label, ...]] = ("entailment", "neutral", "contradiction")

Fact = tuple[str, ...]
T = TypeVar("T")

JOINERS = (", and ", ", while ", "; ", ". ")
EASY_SHARE = 0.15  # grids whose premises leave the open question unmentioned; more would let word overlap tell


class Draw:
    """Seeded choices that are the same on every Python version: only `random.Random.random` is used.

    Args:
        seed: any text; equal texts give equal choices.
    """

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def one(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        return options[int(self._random.random() * len(options))]

    def several(self, options: Sequence[T], count: int) -> list[T]:
        """Return `count` different options in random order."""
        rest = list(options)
        return [rest.pop(int(self._random.random() * len(rest))) for _ in range(count)]

    def number(self, low: int, high: int) -> int:
        """Return an integer from `low` to `high`, both included."""
        return low + int(self._random.random() * (high - low + 1))

    def chance(self, share: float) -> bool:
        """Return True with this probability."""
        return self._random.random() < share


@dataclass(frozen=True, slots=True)
class Premise:
    """A text and what it settles.

    Attributes:
        text: one or more clauses, without the first capital and the last full stop.
        known: truth of the facts it settles. A fact it does not name is open; None: never ask about it.
    """

    text: str
    known: Mapping[Fact, bool | None]


@dataclass(frozen=True, slots=True)
class Claim:
    """A hypothesis: that a fact holds, or that it does not."""

    text: str
    fact: Fact
    holds: bool


@dataclass(frozen=True, slots=True)
class Grid:
    """Premises against claims.

    In a balanced grid every premise has equally many cells of a label as every other premise, and so has every
    claim. Picking a label first and then one of its cells then tells nothing about the label from either side alone.
    """

    premises: Sequence[Premise]
    claims: Sequence[Claim]

    def label(self, premise: Premise, claim: Claim) -> Label | None:
        """Return the label of a cell, or None where the pair is not to be asked."""
        known = premise.known.get(claim.fact)
        if known is None:
            return None if claim.fact in premise.known else "neutral"
        return "entailment" if known == claim.holds else "contradiction"

    def cells(self, label: Label) -> list[tuple[str, str]]:
        """Return premise and hypothesis of every cell with this label."""
        return [(p.text, c.text) for p in self.premises for c in self.claims if self.label(p, c) == label]

    def is_balanced(self) -> bool:
        """Return whether neither the premise nor the claim alone tells the label."""
        rows = [Counter(self.label(p, c) for c in self.claims) for p in self.premises]
        columns = [Counter(self.label(p, c) for p in self.premises) for c in self.claims]
        return all(
            min(side[0][label] for side in (rows, columns)) > 0
            and len({count[label] for count in rows}) == len({count[label] for count in columns}) == 1
            for label in LABELS
        )


Phenomenon = Callable[[Draw, Lexicon], Grid]
_PHENOMENA: Final[dict[str, Phenomenon]] = {}


def phenomenon(build: Phenomenon) -> Phenomenon:
    """Register a function under its own name; the corpus, the report and the tests find it from here.

    Raises:
        ValueError: the name is taken.
    """
    if build.__name__ in _PHENOMENA:
        raise ValueError(f"a phenomenon named {build.__name__!r} is registered already; give this one another name")
    _PHENOMENA[build.__name__] = build
    return build


def phenomena() -> dict[str, Phenomenon]:
    """Return every registered phenomenon by name, in alphabetical order, whatever was imported first."""
    return dict(sorted(_PHENOMENA.items()))


@dataclass(frozen=True, slots=True)
class Question:
    """One thing a clause may settle: three clauses for the premise, two for the hypothesis.

    Attributes:
        yes: a clause after which `claim` holds and `denial` does not.
        no: a clause after which `denial` holds and `claim` does not.
        open: a clause that settles neither.
        claim: a hypothesis.
        denial: its opposite.
    """

    yes: str
    no: str
    open: str
    claim: str
    denial: str


def sentence(text: str) -> str:
    """Return the text with a first capital and a full stop."""
    return text[0].upper() + text[1:] + "."


def join(first: str, second: str, joiner: str) -> str:
    """Join two clauses; after a full stop the second starts with a capital."""
    return first + joiner + (second[0].upper() + second[1:] if joiner == ". " else second)


def paired(draw: Draw, questions: Sequence[Question], joiners: Sequence[str] = JOINERS) -> Grid:
    """Two questions, of which a premise settles one and leaves the other open, with all words of both mentioned."""
    joiner, easy, turned = draw.one(joiners), draw.chance(EASY_SHARE), draw.chance(0.5)
    premises = []
    for place, question in enumerate(questions):
        other = questions[1 - place]
        for settled, holds in ((question.yes, True), (question.no, False)):
            parts = (settled, other.open) if (place == 0) != turned else (other.open, settled)
            premises.append(Premise(settled if easy else join(*parts, joiner), {(str(place),): holds}))
    claims = [
        Claim(text, (str(place),), holds)
        for place, question in enumerate(questions)
        for text, holds in ((question.claim, True), (question.denial, False))
    ]
    return Grid(premises, claims)


def crossed(
    draw: Draw,
    who: Sequence[str],
    what: Sequence[T],
    say: Callable[[str, T, bool], str],
    claim: Callable[[str, T, bool], str],
) -> Grid:
    """Two actors and two deeds: a premise settles one deed each, and who did the other's deed stays open."""
    alike = draw.chance(0.4)
    joiner = draw.one((", and ", "; ", ". ") if alike else (", but ", ", while ", ". "))
    premises = []
    for turn in (0, 1):
        for holds in (True, False):
            truths = (holds, holds if alike else not holds)
            deeds = [(who[place], what[place ^ turn], truth) for place, truth in enumerate(truths)]
            known: dict[Fact, bool | None] = {
                (who[place], str(place ^ turn)): truth for place, truth in enumerate(truths)
            }
            premises.append(Premise(join(say(*deeds[0]), say(*deeds[1]), joiner), known))
    claims = [
        Claim(claim(actor, deed, holds), (actor, str(place)), holds)
        for actor in who
        for place, deed in enumerate(what)
        for holds in (True, False)
    ]
    return Grid(premises, claims)


def exclusive(
    things: Sequence[str],
    places: Sequence[str],
    say: Callable[[str, str, str, str], str],
    claim: Callable[[str, str, bool], str],
) -> Grid:
    """Two things and two places, one thing in one place at most: `say(x, a, y, b)` puts x at a and leaves y open."""
    premises = []
    for x, y in (things, tuple(reversed(things))):
        for a, b in (places, tuple(reversed(places))):
            premises.append(Premise(say(x, a, y, b), {(x, a): True, (x, b): False}))
    claims = [
        Claim(claim(thing, place, holds), (thing, place), holds)
        for thing in things
        for place in places
        for holds in (True, False)
    ]
    return Grid(premises, claims)


def ordered(
    members: Sequence[str],
    above: Callable[[str, str], str],
    orders: Mapping[str, Sequence[tuple[str, str]]],
) -> Grid:
    """Members on one scale: each premise maps to the (higher, lower) pairs that follow; other pairs stay open."""
    premises = []
    for text, pairs in orders.items():
        known: dict[Fact, bool | None] = dict.fromkeys(pairs, True)
        known.update({(low, high): False for high, low in pairs})
        premises.append(Premise(text, known))
    claims = [Claim(above(x, y), (x, y), True) for x in members for y in members if x != y]
    return Grid(premises, claims)
