"""Phenomena of events in the bundled data: who did what to whom, and how surely.

Each is one registered function from a vocabulary to a balanced grid. Reading conventions are in `corpus`.
"""

from __future__ import annotations

from typing import Final, Literal

from tests.nli_pairs.corpus_grid import (
    Claim,
    Draw,
    Fact,
    Grid,
    Premise,
    Question,
    crossed,
    exclusive,
    join,
    paired,
    phenomenon,
)
from tests.nli_pairs.corpus_lexicon import Act, Lexicon

Style = Literal["simple", "perfect", "passive"]

# Operators are shared by training and test: they carry the phenomenon.
DONE: Final = (
    "managed to", "remembered to", "went on to", "dared to", "did not fail to", "did not forget to",
    "did not neglect to",
)  # fmt: skip
UNDONE: Final = (
    "failed to", "forgot to", "refused to", "neglected to", "declined to", "was unable to", "did not manage to",
    "did not remember to", "did not dare to",
)  # fmt: skip
UNDECIDED: Final = (
    "hoped to", "wanted to", "planned to", "promised to", "intended to", "offered to", "was asked to",
    "did not promise to", "was not asked to",
)  # fmt: skip
TRUE_THAT: Final = (
    "knew that", "realised that", "was glad that", "was surprised that", "proved that", "did not know that",
    "did not realise that",
)  # fmt: skip
FALSE_THAT: Final = ("pretended that", "wrongly believed that", "falsely claimed that", "was wrong to think that")
PERHAPS_THAT: Final = (
    "thought that", "hoped that", "said that", "feared that", "suspected that", "did not say that",
    "was not sure that",
)  # fmt: skip

# Giving, and the same seen from the other side: infinitive, past, infinitive, past.
GIVE: Final = ("give", "gave", "receive", "received")
SELL: Final = ("sell", "sold", "buy", "bought")
LEND: Final = ("lend", "lent", "borrow", "borrowed")


def did(who: str, act: Act, holds: bool, style: Style = "simple") -> str:
    """Say that someone did something, or did not.

    The perfect and the passive keep the verb's form under negation, so that word overlap does not show polarity.
    """
    if style == "passive":
        return f"{act.thing} was {'' if holds else 'not '}{act.verb.past} by {who}"
    if style == "perfect":
        return f"{who} has {'' if holds else 'not '}{act.past}"
    return f"{who} {act.past}" if holds else f"{who} did not {act.base}"


def _two_acts(draw: Draw, lexicon: Lexicon) -> list[Act]:
    first = draw.one(lexicon.acts)
    return [first, draw.one([act for act in lexicon.acts if act.thing != first.thing])]


def _claim_style(draw: Draw) -> Style:
    return "passive" if draw.chance(0.2) else "simple"


@phenomenon
def negation(draw: Draw, lexicon: Lexicon) -> Grid:
    """Who did and who did not do which of two things."""
    styles: tuple[tuple[Style, Style], ...] = (
        ("perfect", "simple"), ("perfect", "passive"), ("passive", "simple"), ("passive", "perfect"),
        ("simple", "passive"), ("perfect", "perfect"),
    )  # fmt: skip
    said, asked = draw.one(styles)
    return crossed(
        draw,
        draw.several(lexicon.names, 2),
        _two_acts(draw, lexicon),
        lambda who, act, holds: did(who, act, holds, said),
        lambda who, act, holds: did(who, act, holds, asked),
    )


@phenomenon
def coordination(draw: Draw, lexicon: Lexicon) -> Grid:
    """And, or, neither ... nor, over objects or over people."""
    names, asked = draw.several(lexicon.names, 4), _claim_style(draw)

    def over_people(who: str, partner: str, act: Act) -> Question:
        first, second = draw.several((who, partner), 2)
        return Question(
            yes=f"{draw.one(('both ', ''))}{first} and {second} {act.past}",
            no=f"neither {first} nor {second} {act.past}",
            open=f"{draw.one(('either ', ''))}{first} or {second} {act.past}",
            claim=did(who, act, True, asked),
            denial=did(who, act, False, asked),
        )

    def over_things(who: str, act: Act) -> Question:
        things = [other.thing for other in lexicon.acts if other.verb == act.verb and other.thing != act.thing]
        first, second = draw.several((act.thing, draw.one(things)), 2)
        return Question(
            yes=f"{who} {act.verb.past} {draw.one(('both ', ''))}{first} and {second}",
            no=f"{who} {act.verb.past} neither {first} nor {second}",
            open=f"{who} {act.verb.past} {draw.one(('either ', ''))}{first} or {second}",
            claim=did(who, act, True, asked),
            denial=did(who, act, False, asked),
        )

    acts = _two_acts(draw, lexicon)
    if draw.chance(0.5):
        return paired(draw, [over_people(names[0], names[1], acts[0]), over_people(names[2], names[3], acts[1])])
    return paired(draw, [over_things(names[0], acts[0]), over_things(names[1], acts[1])])


@phenomenon
def passives(draw: Draw, lexicon: Lexicon) -> Grid:
    """Who did it to whom, in the active and the passive; that it was mutual does not follow."""
    names, verbs = draw.several(lexicon.names, 4), draw.several(lexicon.dealings, 2)
    said, asked = draw.one(((False, True), (True, False)))
    joiner, alone = draw.one((", and ", ", while ", ". ")), draw.chance(0.25)

    def deal(place: int, turned: bool, holds: bool, passive: bool) -> str:
        x, y = names[2 * place + turned], names[2 * place + 1 - turned]
        if passive:
            return f"{y} was {'' if holds else 'not '}{verbs[place].past} by {x}"
        return f"{x} {verbs[place].past} {y}" if holds else f"{x} did not {verbs[place].base} {y}"

    premises, claims = [], []
    for turned in (False, True):
        for holds in (True, False):
            texts = deal(0, turned, holds, said), deal(1, turned, not holds, said)
            settled: dict[Fact, bool | None] = {
                (str(place), str(turned)): holds == (place == 0) for place in (0, 1)[: 1 if alone else 2]
            }
            premises.append(Premise(texts[0] if alone else join(*texts, joiner), settled))
            claims += [Claim(deal(int(f[0]), turned, holds, asked), f, holds) for f in settled]
    return Grid(premises, claims)


@phenomenon
def conditionals(draw: Draw, lexicon: Lexicon) -> Grid:
    """If, with the antecedent given (modus ponens), the consequent denied (modus tollens), or neither."""
    names, signals, acts = draw.several(lexicon.names, 2), draw.several(lexicon.signals, 2), _two_acts(draw, lexicon)
    backward = draw.chance(0.5)
    questions = []
    for who, signal, act in zip(names, signals, acts, strict=True):
        if backward:
            happened, missed = f"{signal.subject} {signal.past}", f"{signal.subject} did not {signal.base}"
            result, opposite = draw.several((did(who, act, True), did(who, act, False)), 2)
            yes, no = f"if {missed}, {result}", f"if {happened}, {result}"
            given, idle = opposite, (no, result)
            claim, denial = happened, missed
        else:
            claim, denial = f"{who} will {act.base}", f"{who} will not {act.base}"
            given, lack = draw.several(
                (f"{signal.subject} {signal.present}", f"{signal.subject} does not {signal.base}"), 2
            )
            yes, no = f"if {given}, {claim}", f"if {given}, {denial}"
            idle = (draw.one((yes, no)), lack)
        questions.append(Question(join(yes, given, ". "), join(no, given, ". "), join(*idle, ". "), claim, denial))
    return paired(draw, questions, joiners=(". ",))


@phenomenon
def implicatives(draw: Draw, lexicon: Lexicon) -> Grid:
    """Managed to, failed to, hoped to: what was done, what was not, and what may or may not have been."""
    asked = _claim_style(draw)
    return paired(
        draw,
        [
            Question(
                yes=f"{who} {draw.one(DONE)} {act.base}",
                no=f"{who} {draw.one(UNDONE)} {act.base}",
                open=f"{who} {draw.one(UNDECIDED)} {act.base}",
                claim=did(who, act, True, asked),
                denial=did(who, act, False, asked),
            )
            for who, act in zip(draw.several(lexicon.names, 2), _two_acts(draw, lexicon), strict=True)
        ],
    )


@phenomenon
def factives(draw: Draw, lexicon: Lexicon) -> Grid:
    """Knew that, wrongly believed that, thought that: what follows for the clause inside, negated or not."""
    names = draw.several(lexicon.names, 4)
    questions = []
    for judge, who, act in zip(names[:2], names[2:], _two_acts(draw, lexicon), strict=True):
        done, undone = f"{who} had {act.past}", f"{who} had not {act.past}"
        yes, no = (
            draw.one(((TRUE_THAT, done), (FALSE_THAT, undone))),
            draw.one(((TRUE_THAT, undone), (FALSE_THAT, done))),
        )
        questions.append(
            Question(
                yes=f"{judge} {draw.one(yes[0])} {yes[1]}",
                no=f"{judge} {draw.one(no[0])} {no[1]}",
                open=f"{judge} {draw.one(PERHAPS_THAT)} {draw.one((done, done, undone))}",
                claim=did(who, act, True),
                denial=did(who, act, False),
            )
        )
    return paired(draw, questions)


@phenomenon
def possession(draw: Draw, lexicon: Lexicon) -> Grid:
    """Giving and receiving, selling and buying, lending and borrowing; an offer is not a transfer."""
    people = draw.several(lexicon.names, 4)
    goods = [f"the {good}" for good in draw.several(lexicon.goods, 2)]
    if draw.chance(0.5):
        return _one_owner(draw, people[0], people[1:3], goods)
    questions = []
    for owner, taker, good in zip(people[:2], people[2:], goods, strict=True):
        verb, past, take, took = draw.one((GIVE, SELL, LEND))
        undone, undecided = draw.one(("refused to", "did not")), draw.one(("offered to", "promised to", "wanted to"))
        questions.append(
            Question(
                yes=f"{owner} {past} {good} to {taker}",
                no=f"{owner} {undone} {verb} {good} to {taker}",
                open=f"{owner} {undecided} {verb} {good} to {taker}",
                claim=f"{taker} {took} {good} from {owner}",
                denial=f"{taker} did not {take} {good} from {owner}",
            )
        )
    return paired(draw, questions)


def _one_owner(draw: Draw, owner: str, takers: list[str], goods: list[str]) -> Grid:
    """One thing goes to one of two people; another is only offered."""
    verb, past, take, took = draw.one((GIVE, SELL))
    undecided = draw.one(("wanted to", "promised to", "offered to"))
    joiner = draw.one((" and ", f", and {owner} ", f". {owner} "))
    return exclusive(
        goods,
        takers,
        lambda x, taker, y, other: f"{owner} {past} {x} to {taker}{joiner}{undecided} {verb} {y} to {other}",
        lambda x, taker, holds: f"{taker} {took if holds else f'did not {take}'} {x} from {owner}",
    )


@phenomenon
def causatives(draw: Draw, lexicon: Lexicon) -> Grid:
    """Who melts the wax makes it melt; that it melted does not tell who did it."""
    names, first = draw.several(lexicon.names, 2), draw.one(lexicon.changes)
    second = draw.one([change for change in lexicon.changes if change.thing != first.thing])

    def changed(change: Act, holds: bool) -> str:
        return f"{change.thing} has {'' if holds else 'not '}{change.verb.past}"

    near = f"{names[1]} {draw.one(('sees', 'knows'))} that "
    result = Question(
        yes=did(names[0], first, True, "perfect"),
        no=changed(first, False),
        open=did(names[0], first, False, "perfect"),
        claim=changed(first, True),
        denial=changed(first, False),
    )
    cause = Question(
        yes=did(names[1], second, True, "perfect"),
        no=near + changed(second, False),
        open=near + changed(second, True),
        claim=did(names[1], second, True, "perfect"),
        denial=did(names[1], second, False, "perfect"),
    )
    return paired(draw, [result, cause])
