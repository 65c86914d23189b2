"""The content words of the bundled data, in two vocabularies that share no word: one for training, one for test.

Function words and the words that carry a phenomenon (quantifiers, implicative verbs, ...) are shared, so not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple


class Verb(NamedTuple):
    """A verb whose participle equals its past form."""

    base: str
    past: str


class Act(NamedTuple):
    """A verb with its object, such as painting the wall."""

    verb: Verb
    thing: str

    @property
    def base(self) -> str:
        """Infinitive phrase without "to"."""
        return f"{self.verb.base} {self.thing}"

    @property
    def past(self) -> str:
        """Past tense phrase; also the participle phrase after "had"."""
        return f"{self.verb.past} {self.thing}"


class Degree(NamedTuple):
    """The three forms of an adjective."""

    plain: str
    more: str
    most: str


class Scale(NamedTuple):
    """Two opposite adjectives, and the things they are said of (none: people)."""

    high: Degree
    low: Degree
    things: tuple[str, ...]


class Kind(NamedTuple):
    """A hypernym and its hyponyms."""

    name: str
    members: tuple[str, ...]


class Signal(NamedTuple):
    """Something that happens by itself, in the present and past and without "to"."""

    subject: str
    base: str
    present: str
    past: str


@dataclass(frozen=True)
class Lexicon:
    """One vocabulary; each field is one class of content words.

    Attributes:
        names: first names.
        acts: what one person does to one thing.
        dealings: what one person does to another, without implying that it is mutual.
        groups: plural nouns for people.
        motions: intransitive verbs, past tense.
        traits: opposite adjectives that pick out a part of a group.
        handling: what people do with `portables`, past tense.
        portables: things to carry.
        looks: adjectives for `portables`.
        depicting: what one person does with a member of `kinds`, past tense.
        kinds: hypernyms with hyponyms.
        amassing: what one person does with `countables`, past tense.
        countables: plural nouns.
        scales: gradable opposites, neither of which follows from the other's absence.
        occasions: events that take place.
        comings: intransitive verbs that happen at one moment, past tense.
        rooms: places for `furniture`.
        furniture: things found in one place.
        landmarks: things on a map.
        signals: events that trigger others.
        goods: things that change hands.
        changes: verbs with a causative and an inchoative use, with their objects.
        sights: places for the opening sentence.
        moods: what is said of `sights`.
    """

    names: tuple[str, ...]
    acts: tuple[Act, ...]
    dealings: tuple[Verb, ...]
    groups: tuple[str, ...]
    motions: tuple[str, ...]
    traits: tuple[tuple[str, str], ...]
    handling: tuple[str, ...]
    portables: tuple[str, ...]
    looks: tuple[str, ...]
    depicting: tuple[str, ...]
    kinds: tuple[Kind, ...]
    amassing: tuple[str, ...]
    countables: tuple[str, ...]
    scales: tuple[Scale, ...]
    occasions: tuple[str, ...]
    comings: tuple[str, ...]
    rooms: tuple[str, ...]
    furniture: tuple[str, ...]
    landmarks: tuple[str, ...]
    signals: tuple[Signal, ...]
    goods: tuple[str, ...]
    changes: tuple[Act, ...]
    sights: tuple[str, ...]
    moods: tuple[str, ...]


def words(text: str) -> tuple[str, ...]:
    """Return the words of a text."""
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(phrase.strip() for phrase in text.split(","))


def _verbs(text: str) -> tuple[Verb, ...]:
    return tuple(Verb(*pair.split()) for pair in text.split(","))


def _lines(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """Read lines of ``head: word word``."""
    rows = (line.split(":") for line in text.strip().splitlines())
    return [(head.strip(), tuple(rest.split())) for head, rest in rows]


def _acts(text: str) -> tuple[Act, ...]:
    return tuple(Act(Verb(*head.split()), f"the {thing}") for head, things in _lines(text) for thing in things)


def _kinds(text: str) -> tuple[Kind, ...]:
    return tuple(Kind(head, members) for head, members in _lines(text))


def _scales(text: str) -> tuple[Scale, ...]:
    scales = []
    for head, things in _lines(text):
        high, low = (Degree(*forms.split()) for forms in head.split("/"))
        scales.append(Scale(high, low, tuple(f"the {thing}" for thing in things)))
    return tuple(scales)


def _signals(text: str) -> tuple[Signal, ...]:
    rows = (signal.split() for signal in text.split(","))
    return tuple(Signal(f"the {subject}", *forms) for subject, *forms in rows)


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((first, second) for first, second in (pair.split() for pair in text.split(",")))


TRAIN: Final = Lexicon(
    names=words(
        "Mara Owen Nina Felix Tessa Hugo Clara Victor Paula Simon Greta Leon Anna Bruno Edith Oscar Ruth Martin Sonia "
        "Peter Laura Conrad Julia Edgar Helen Marcus Irene Walter Vera Philip Nora Gordon Alma Rupert Celia Dennis "
        "Flora Stanley Wanda Harold"
    ),
    acts=_acts("""
        paint painted: wall fence bench shutter canoe
        wash washed: car van window carpet tent
        lock locked: gate shed garage chest
        fix fixed: roof pump bicycle saddle
        move moved: piano wardrobe sofa desk
        sign signed: contract petition lease
        copy copied: map recipe report
        open opened: parcel bottle drawer
        photograph photographed: statue bridge tower
        sweep swept: floor yard chimney
        translate translated: poem letter speech
        plant planted: hedge oak orchard
    """),
    dealings=_verbs(
        "thank thanked, greet greeted, praise praised, warn warned, hire hired, blame blamed, visit visited, "
        "follow followed, invite invited, rescue rescued, interrupt interrupted, push pushed"
    ),
    groups=words("nurses guards farmers pilots singers students painters sailors cooks drivers teachers dentists"),
    motions=words("danced slept laughed cheered swam yawned waved sneezed shouted prayed"),
    traits=_pairs("young old, tall short, tired rested, local foreign, married unmarried, strong weak"),
    handling=words("carried packed chose"),
    portables=words("basket kite umbrella blanket trumpet jacket puppet suitcase helmet"),
    looks=words("red green yellow white tiny new black leather"),
    depicting=words("drew noticed described"),
    kinds=_kinds("""
        flower: rose tulip daisy lily violet
        tool: hammer chisel drill spanner axe
        bird: sparrow eagle owl parrot swan
        fruit: apple pear plum cherry melon
        vehicle: truck bus tram taxi lorry
        insect: bee wasp beetle moth ant
        tree: oak birch maple willow cedar
        weapon: sword dagger spear pistol rifle
    """),
    amassing=words("collected counted ordered"),
    countables=words("stamps candles pencils postcards buttons tickets eggs tiles bricks"),
    scales=_scales("""
        tall taller tallest / short shorter shortest:
        old older oldest / young younger youngest:
        strong stronger strongest / weak weaker weakest:
        fast faster fastest / slow slower slowest:
        hot hotter hottest / cold colder coldest: soup stew tea coffee porridge
        heavy heavier heaviest / light lighter lightest: crate trunk barrel suitcase anvil
        wide wider widest / narrow narrower narrowest: river road corridor canal bridge
        loud louder loudest / quiet quieter quietest: motor fan drum siren trombone
    """),
    occasions=words("concert auction wedding parade lecture match exam reception"),
    comings=words("arrived spoke resigned applied voted paid"),
    rooms=words("kitchen cellar attic garage hallway barn office tent"),
    furniture=words("vase ladder violin globe basket umbrella mop carpet typewriter"),
    landmarks=words("mill church inn station tower museum theatre quarry"),
    signals=_signals(
        "bell ring rings rang, train stop stops stopped, donkey bray brays brayed, baby cry cries cried, "
        "market close closes closed, wind turn turns turned, gate creak creaks creaked, sun shine shines shone, "
        "crowd scatter scatters scattered"
    ),
    goods=words("violin saddle guitar motorbike necklace carpet piano horse camera"),
    changes=_acts("""
        crack cracked: plate cup jug
        melt melted: butter wax chocolate
        spill spilled: coffee paint ink
        burn burned: toast letter cake
        dry dried: towel jacket tent
        snap snapped: branch string chain
    """),
    sights=_phrases("the square, the valley, the avenue, the village, the meadow, the beach, the town, the market"),
    moods=_phrases(
        "was empty, was silent that day, lay in fog, looked lovely, was full of visitors, had never been so busy"
    ),
)

TEST: Final = Lexicon(
    names=words(
        "Ivy Jonas Lena Arthur Rosa Tobias Miriam Carl Esther Louis Hannah Boris Agnes Theo Marion Nathan Dora Silas "
        "Judith Karim Amina Ravi Yuki Pablo Zoe Kurt Olga Idris"
    ),
    acts=_acts("""
        polish polished: mirror trophy bracelet spoon
        repair repaired: clock radio kettle tractor
        iron ironed: shirt apron curtain tablecloth
        print printed: invoice leaflet brochure
        review reviewed: manuscript budget proposal
        trim trimmed: lawn bush beard
        inspect inspected: engine boiler cable
        tow towed: trailer caravan yacht
        stain stained: rug cushion blouse
        deliver delivered: sermon package newspaper
    """),
    dealings=_verbs(
        "applaud applauded, insult insulted, phone phoned, accuse accused, tease teased, recognise recognised, "
        "scold scolded, admire admired, dismiss dismissed, tutor tutored"
    ),
    groups=words("lawyers clerks miners poets tailors jugglers surgeons librarians plumbers actors"),
    motions=words("whistled wept smiled knelt jogged meditated coughed shivered"),
    traits=_pairs("rich poor, shy confident, retired active, stout slender, blond bald"),
    handling=words("fetched brought held"),
    portables=words("lantern flag shovel pillow satchel trophy parasol rope"),
    looks=words("blue purple striped large rusty brown silver"),
    depicting=words("sketched spotted mentioned"),
    kinds=_kinds("""
        dog: poodle terrier spaniel beagle collie
        fish: trout salmon herring shark carp
        vegetable: carrot turnip cabbage onion radish
        snake: cobra python viper adder
        boat: kayak yacht dinghy ferry
        hat: beret bonnet turban fez
        gem: ruby emerald diamond sapphire
    """),
    amassing=words("gathered delivered wrapped"),
    countables=words("envelopes coins cushions magazines marbles shells spoons lanterns"),
    scales=_scales("""
        rich richer richest / poor poorer poorest:
        thick thicker thickest / thin thinner thinnest: rope plank rug cable mattress
        deep deeper deepest / shallow shallower shallowest: lake pond ditch pool bay
        bright brighter brightest / dim dimmer dimmest: torch lantern star bulb beacon
        sweet sweeter sweetest / sour sourer sourest: jam juice sauce wine lemonade
        rough rougher roughest / smooth smoother smoothest: path track board cloth
        hard harder hardest / soft softer softest: pillow mattress seat cushion
    """),
    occasions=words("picnic funeral banquet seminar festival rehearsal trial"),
    comings=words("departed performed retired graduated testified"),
    rooms=words("pantry library bathroom stable basement workshop nursery"),
    furniture=words("telescope cradle hammock toolbox wig chessboard tapestry"),
    landmarks=words("bakery chapel harbour castle lighthouse school fountain"),
    signals=_signals(
        "alarm sound sounds sounded, kettle boil boils boiled, curtain fall falls fell, ship dock docks docked, "
        "wolf howl howls howled, price drop drops dropped, engine rattle rattles rattled"
    ),
    goods=words("telescope accordion caravan bracelet tractor yacht surfboard"),
    changes=_acts("""
        shatter shattered: ornament pane goblet
        boil boiled: milk syrup water
        thaw thawed: pudding broth juice
        pop popped: balloon bubble cork
        bend bent: pipe spoon needle
        rip ripped: sail banner shirt
    """),
    sights=_phrases("the forest, the island, the suburb, the courtyard, the campus, the coast, the desert"),
    moods=_phrases("was deserted, seemed calm, was covered in mist, smelled of smoke, was bathed in sunlight"),
)
