"""Phenomena of sets, quantities and orders in the bundled data: who is included, how many, what comes first.

Each is one registered function from a vocabulary to a balanced grid. Reading conventions are in `corpus`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Final

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
    ordered,
    paired,
    phenomenon,
)
from tests.nli_pairs.corpus_lexicon import Kind, Lexicon, Scale, words

Above = Callable[[str, str], str]  # a way to say that the first stands above the second


def a(noun: str) -> str:
    """Return the noun phrase with its indefinite article."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


@phenomenon
def quantifiers(draw: Draw, lexicon: Lexicon) -> Grid:
    """All, some, none, not all: strength within one group, or two groups and two predicates crossed."""
    groups, motions = draw.several(lexicon.groups, 2), draw.several(lexicon.motions, 2)
    if draw.chance(0.4):
        asked, denied = draw.one((("some of", "none of"), ("at least one of", "none of"), ("all", "not all")))
        return crossed(
            draw,
            groups,
            motions,
            lambda group, motion, holds: f"{'all' if holds else 'none of'} the {group} {motion}",
            lambda group, motion, holds: f"{asked if holds else denied} the {group} {motion}",
        )

    def question(group: str, motion: str) -> Question:
        return Question(
            yes=f"{draw.one(('all', 'every one of', 'each of'))} the {group} {motion}",
            no=f"{draw.one(('none of', 'few of', 'not one of'))} the {group} {motion}",
            open=f"{draw.one(('some of', 'several of', 'at least one of', 'many of', 'most of'))} the {group} {motion}",
            claim=f"all the {group} {motion}",
            denial=f"not all the {group} {motion}",
        )

    return paired(draw, [question(*pair) for pair in zip(groups, motions, strict=True)])


def _handled(draw: Draw, lexicon: Lexicon, group: str, portable: str, narrow: bool) -> Question:
    """Ask whether a group carried a red kite (narrow) or a kite (wide)."""
    past, look = draw.one(lexicon.handling), draw.one(lexicon.looks)
    some = draw.one(("some of", "several of", "all", "most of", "two of"))
    small, large = f"{past} {a(f'{look} {portable}')}", f"{past} {a(portable)}"
    no = f"none of the {group} {draw.one((large, f'{past} anything'))}"
    if narrow:
        return Question(
            yes=f"{draw.one(('all', some))} the {group} {small}",
            no=no,
            open=f"{some} the {group} {large}",
            claim=f"{some} the {group} {small}",
            denial=f"none of the {group} {small}",
        )
    return Question(
        yes=f"{draw.one(('all', some))} the {group} {small}",
        no=no,
        open=f"none of the {group} {small}",
        claim=f"{some} the {group} {large}",
        denial=f"none of the {group} {large}",
    )


@phenomenon
def monotonicity_up(draw: Draw, lexicon: Lexicon) -> Grid:
    """What is carried may be widened: a red kite is a kite; the reverse does not follow."""
    (first, second), portables = draw.several(lexicon.groups, 2), draw.several(lexicon.portables, 2)
    wide = _handled(draw, lexicon, first, portables[0], narrow=False)
    return paired(draw, [wide, _handled(draw, lexicon, second, portables[1], narrow=draw.chance(0.5))])


@phenomenon
def monotonicity_down(draw: Draw, lexicon: Lexicon) -> Grid:
    """Who is spoken of under "all" and "none" may be narrowed: all nurses include the young ones."""
    groups, motions = draw.several(lexicon.groups, 2), draw.several(lexicon.motions, 2)

    def question(group: str, motion: str) -> Question:
        trait, opposite = draw.several(draw.one(lexicon.traits), 2)
        few, many = f"the {trait} {group} {motion}", f"the {group} {motion}"
        others = f"the {opposite} {group} {motion}"
        if draw.chance(0.65):
            return Question(
                yes=f"all {many}",
                no=f"none of {many}",
                open=draw.one((f"all {others}", f"none of {others}", f"some of {many}")),
                claim=f"all {few}",
                denial=f"none of {few}",
            )
        return Question(
            yes=f"all {many}",
            no=draw.one((f"none of {few}", f"not all {few}")),
            open=f"all {few}",
            claim=f"all {many}",
            denial=f"not all {many}",
        )

    return paired(draw, [question(*pair) for pair in zip(groups, motions, strict=True)])


@phenomenon
def hypernyms(draw: Draw, lexicon: Lexicon) -> Grid:
    """A rose is a flower; a flower need not be a rose; no flower means no rose."""
    verb = draw.one(lexicon.depicting)
    kinds, names = draw.several(lexicon.kinds, 2), draw.several(lexicon.names, 2)
    return paired(draw, [_about_kind(draw, names[0], verb, kinds[0]), _about_member(draw, names[1], verb, kinds[1])])


def _about_kind(draw: Draw, who: str, verb: str, kind: Kind) -> Question:
    member = draw.one(kind.members)
    return Question(
        yes=f"{who} {verb} {a(member)}",
        no=f"{who} {verb} {draw.one((f'no {kind.name}', 'nothing', 'nothing at all'))}",
        open=f"{who} {verb} no {member}{draw.one(('', f', but perhaps another {kind.name}'))}",
        claim=f"{who} {verb} {a(kind.name)}",
        denial=f"{who} {verb} no {kind.name}",
    )


def _about_member(draw: Draw, who: str, verb: str, kind: Kind) -> Question:
    member = draw.one(kind.members)
    return Question(
        yes=f"{who} {verb} {a(member)}",
        no=f"{who} {verb} no {kind.name}{draw.one(('', f', not even {a(member)}'))}",
        open=f"{who} {verb} {a(kind.name)}{draw.one(('', f', perhaps {a(member)}'))}",
        claim=f"{who} {verb} {a(member)}",
        denial=f"{who} {verb} no {member}",
    )


_UNITS: Final = words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS: Final = words("twenty thirty forty fifty sixty")


def number_word(number: int) -> str:
    """Return an integer from 0 to 69 in words."""
    if number < len(_UNITS):
        return _UNITS[number]
    tens, unit = divmod(number, 10)
    return _TENS[tens - 2] + (f"-{_UNITS[unit]}" if unit else "")


@phenomenon
def numbers(draw: Draw, lexicon: Lexicon) -> Grid:
    """More than, fewer than, at least, at most, exactly, around a threshold."""
    in_words = draw.chance(0.5)
    verb = draw.one(lexicon.amassing)

    def question(who: str, what: str) -> Question:
        limit, step = draw.number(12, 40), draw.number(3, 9)
        below, middle, above = (number_word(n) if in_words else str(n) for n in (limit - step, limit, limit + step))
        claim, denial = draw.one((("more than", "fewer than"), ("at least", "fewer than"), ("more than", "at most")))
        return Question(
            yes=f"{who} {verb} {draw.one(('more than', 'at least', 'exactly'))} {above} {what}",
            no=f"{who} {verb} {draw.one(('fewer than', 'at most', 'exactly'))} {below} {what}",
            open=f"{who} {verb} " + draw.one((f"{draw.one(('more than', 'at least'))} {below} {what}",
                                             f"{draw.one(('fewer than', 'at most'))} {above} {what}")),
            claim=f"{who} {verb} {claim} {middle} {what}",
            denial=f"{who} {verb} {denial} {middle} {what}",
        )  # fmt: skip

    names, whats = draw.several(lexicon.names, 2), draw.several(lexicon.countables, 2)
    same = draw.chance(0.3)
    return paired(draw, [question(names[0], whats[0]), question(names[1], whats[0 if same else 1])])


def _on_scale(draw: Draw, lexicon: Lexicon, count: int) -> tuple[Scale, list[str]]:
    scale = draw.one(lexicon.scales)
    return scale, draw.several(scale.things or lexicon.names, count)


def _forks(draw: Draw, members: list[str], above: Above) -> dict[str, list[tuple[str, str]]]:
    """Say of each of three members that it is above (or below) the two others, which stay unordered."""
    joiner = draw.one((", and ", ". ", "; "))
    swap, top = draw.chance(0.5), draw.chance(0.5)
    orders = {}
    for place, peak in enumerate(members):
        others = [members[(place + step) % 3] for step in ((2, 1) if swap else (1, 2))]
        pairs = [(peak, other) if top else (other, peak) for other in others]
        orders[join(above(*pairs[0]), above(*pairs[1]), joiner)] = pairs
    return orders


def _chains(draw: Draw, members: list[str], above: Above) -> dict[str, list[tuple[str, str]]]:
    """Put three of four members in a chain and the fourth beside it, above the last only."""
    orders = {}
    upright = draw.chance(0.5)
    for first, second, third, beside in _even_permutations(members):
        chain = [(first, second), (second, third)]
        side = (beside, third)
        if not upright:
            chain, side = [(low, high) for high, low in chain], (third, beside)
        text = join(join(above(*chain[0]), above(*chain[1]), ", and "), above(*side), ". ")
        ends = (first, third) if upright else (third, first)
        orders[text] = [*chain, ends, side]
    return orders


def _even_permutations(members: list[str]) -> list[list[str]]:
    """Return the 12 even permutations of four: among them every ordered pair stands in every two places once."""
    orders = [p for p in permutations(range(4)) if sum(p[i] > p[j] for j in range(4) for i in range(j)) % 2 == 0]
    return [[members[i] for i in order] for order in orders]


def _comparing(draw: Draw, scale: Scale) -> Above:
    """Return a way to say that x is above y on the scale."""
    high, low = scale.high, scale.low
    ways: tuple[Above, ...] = (
        lambda x, y: f"{x} is {high.more} than {y}",
        lambda x, y: f"{y} is {low.more} than {x}",
        lambda x, y: f"{y} is not as {high.plain} as {x}",
        lambda x, y: f"{x} is not as {low.plain} as {y}",
    )
    return draw.one(ways)


@phenomenon
def comparatives(draw: Draw, lexicon: Lexicon) -> Grid:
    """Taller, shorter, not as tall as: converses, and transitivity over a chain."""
    if draw.chance(0.4):
        scale, members = _on_scale(draw, lexicon, 4)
        return ordered(members, _comparing(draw, scale), _chains(draw, members, _comparing(draw, scale)))
    scale, members = _on_scale(draw, lexicon, 3)
    return ordered(members, _comparing(draw, scale), _forks(draw, members, _comparing(draw, scale)))


@phenomenon
def superlatives(draw: Draw, lexicon: Lexicon) -> Grid:
    """The tallest of three is taller than each of the others, of whom nothing else follows."""
    scale, members = _on_scale(draw, lexicon, 3)
    listing = "{}, {} and {}".format(*draw.several(members, 3))
    if draw.chance(0.6):
        high = draw.one((scale.high, scale.low))
        frame = draw.one(("of {all}, {one} is the {most}", "{one} is the {most} of the three: {all}"))
        orders = {
            frame.format(all=listing, one=one, most=high.most): [
                (one, other) if high is scale.high else (other, one) for other in members if other != one
            ]
            for one in members
        }
        return ordered(members, _comparing(draw, scale), orders)
    return _most_of_three(draw, members, scale, listing)


def _most_of_three(draw: Draw, members: list[str], scale: Scale, listing: str) -> Grid:
    """Ask who is the tallest or the shortest where one of three is known to be above, or below, both others."""
    above = _comparing(draw, scale)
    premises = []
    for one in members:
        others = [other for other in members if other != one]
        for degree, opposite, pairs in (
            (scale.high, scale.low, [(one, other) for other in others]),
            (scale.low, scale.high, [(other, one) for other in others]),
        ):
            known: dict[Fact, bool | None] = {(degree.most, one): True, (opposite.most, one): False}
            known.update({(degree.most, other): None for other in others})
            premises.append(Premise(join(above(*pairs[0]), above(*pairs[1]), ", and "), known))
    claims = [
        Claim(f"of {listing}, {one} is {'' if holds else 'not '}the {degree.most}", (degree.most, one), holds)
        for one in members
        for degree in (scale.high, scale.low)
        for holds in (True, False)
    ]
    return Grid(premises, claims)


@phenomenon
def temporal_order(draw: Draw, lexicon: Lexicon) -> Grid:
    """Before and after, between events and between what people did."""
    people = draw.chance(0.5)
    verb, did_too = (draw.one(lexicon.comings), draw.one((" did", ""))) if people else ("took place", "")
    pool = lexicon.names if people else tuple(f"the {occasion}" for occasion in lexicon.occasions)

    def earlier() -> Above:
        before, after = draw.one((("before", "after"), ("earlier than", "later than")))
        ways: tuple[Above, ...] = (
            lambda x, y: f"{x} {verb} {before} {y}{did_too}",
            lambda x, y: f"{y} {verb} {after} {x}{did_too}",
        )
        return draw.one(ways)

    if draw.chance(0.4):
        members = draw.several(pool, 4)
        return ordered(members, earlier(), _chains(draw, members, earlier()))
    members = draw.several(pool, 3)
    return ordered(members, earlier(), _forks(draw, members, earlier()))


@phenomenon
def location(draw: Draw, lexicon: Lexicon) -> Grid:
    """A thing is in one place at a time; searching a place for it tells nothing. North is the converse of south."""
    if draw.chance(0.35):
        up, down = draw.one((("north", "south"), ("east", "west")))
        lies: tuple[Above, ...] = (
            lambda x, y: f"{x} lies {up} of {y}",
            lambda x, y: f"{y} lies {down} of {x}",
        )
        members = [f"the {landmark}" for landmark in draw.several(lexicon.landmarks, 3)]
        return ordered(members, draw.one(lies), _forks(draw, members, draw.one(lies)))
    who, other = draw.several(lexicon.names, 2)
    things = [f"the {thing}" for thing in draw.several(lexicon.furniture, 2)]
    rooms = [f"the {room}" for room in draw.several(lexicon.rooms, 2)]
    found = draw.one((f"{who} found {{x}} in {{a}}", f"{who} saw {{x}} in {{a}}", "{x} was in {a}", "{x} stood in {a}"))
    sought = other + draw.one((" searched {b} for {y}", " wanted to put {y} in {b}", " hoped to see {y} in {b}"))
    joiner, turned = draw.one((", and ", ", while ", ". ")), draw.chance(0.5)

    def say(x: str, a: str, y: str, b: str) -> str:
        settled, unsettled = found.format(x=x, a=a), sought.format(y=y, b=b)
        return join(unsettled, settled, joiner) if turned else join(settled, unsettled, joiner)

    def claim(thing: str, room: str, holds: bool) -> str:
        return f"{thing} was {'' if holds else 'not '}in {room}"

    return exclusive(things, rooms, say, claim)


@phenomenon
def antonyms(draw: Draw, lexicon: Lexicon) -> Grid:
    """What is hot is not cold; what is not cold need not be hot."""
    scale, things = _on_scale(draw, lexicon, 2)
    adjectives = (scale.high.plain, scale.low.plain)
    was = draw.one(("was", "is"))
    joiner, turned = draw.one((", and ", ", while ", ". ")), draw.chance(0.5)
    premises = []
    for x, y in (tuple(things), tuple(reversed(things))):
        for plain, opposite in (adjectives, tuple(reversed(adjectives))):
            one, other = f"{x} {was} {plain}", f"{y} {was} not {opposite}"
            text = join(other, one, joiner) if turned else join(one, other, joiner)
            premises.append(Premise(text, {(x, plain): True, (x, opposite): False, (y, opposite): None}))
    claims = [
        Claim(f"{thing} {was} {'' if holds else 'not '}{adjective}", (thing, adjective), holds)
        for thing in things
        for adjective in adjectives
        for holds in (True, False)
    ]
    return Grid(premises, claims)
