"""Scripts and languages of the texts, words that mix scripts, and characters broken by a wrong encoding.

Languages of one script are told by their commonest words, those of one language alone: two of them, and hardly any of
the usual language. Texts that have none are taken for the usual one.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache

from entailor.config.plain import share
from entailor.data.checks import Severity
from entailor.data.example import Example
from entailor.diagnostics.base import MOST_SHOWN, CheckInput, CheckOutcome, DoctorFinding, check, shown

NAME = "scripts"
TOGETHER = {"CJK": "Japanese or Chinese", "HIRAGANA": "Japanese or Chinese", "KATAKANA": "Japanese or Chinese"}
MANY = 0.01
LOOK_ALIKES = ("Latin", "Cyrillic", "Greek")  # scripts that share shapes of letters
FEWEST_LETTERS = 3
MORE_COMMON = 2  # times as many different common words of other languages as of the usual one
# UTF-8 read as Latin-1 or Windows-1252, the replacement character, and what HTML leaves behind
BROKEN = re.compile(r"\ufffd|[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac[\u0080-\u2122]")
MARKUP = re.compile(r"&(?:amp|lt|gt|quot|nbsp|#\d{2,5});|</?(?:br|p|div|span|b|i|a)\b[^<>]*>")
CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")  # all but those that divide words and lines
COMMON_WORDS = {
    "English": "the and that with this have from they which would what are were who how is of on do to come as in an "
    "it at by for not or be was you he we no so if his her but can will all one has had when their she men till",
    "German": "der die das den dem des und nicht ist ein eine einen auf mit von zu sich auch wird dass für hat oder "
    "sind ich wurde werden nur bei kann aus",
    "Dutch": "de het een van en niet zijn wordt naar voor ook maar deze dit heeft dat die er te met op is geen kan bij "
    "worden wat uit aan",
    "French": "le la les un une des du de est et pas que pour dans sur avec sont cette il elle être nous vous ils mais "
    "qui par au ne se ce ou",
    "Spanish": "el la los las un una de del en que por para con como pero más está muy este esta también no se es su "
    "al lo ha hay qué cuál fue sin puede",
    "Italian": "il lo la le gli di del della dei delle da nel che non per un una con sono anche più alla questo come "
    "quale si su ha se può",
    "Portuguese": "os as de do da dos das em no na um uma que não para com por mais são foi ao como você também seu "
    "pela se ou ele pode",
    "Swedish": "och att inte är det som för på med av en ett från också när eller den har kan till om vad",
    "Danish or Norwegian": "og at ikke det er som på med for af til fra også kan en et den har være hvor eller jeg hva",
    "Polish": "nie się jest że przez dla czy jak ale był oraz są na do to można lub tylko po za od jako",
    "Finnish": "ja on ei että oli mutta ovat hän kun mikä se myös tai voi ole jos",
    "Turkish": "bir ve bu için ile değil olarak çok daha gibi ne veya olan her",
    "Indonesian": "yang dan dengan untuk tidak ini itu dari pada adalah akan di apa ke dalam",
}
WORDS = re.compile(r"[^\W\d_]{2,}")


@check(NAME, "other scripts or languages than usual, words of mixed scripts, broken characters, markup")
def scripts(evidence: CheckInput) -> CheckOutcome:
    """Count letters by script and find examples that are unlike the rest."""
    places = [(part, row) for part, rows in evidence.split.parts() for row in rows]
    texts = [f"{row.text} {row.text_pair or ''}" for _, row in places]
    main = [main_script(text) for text in texts]
    counts = Counter(script for script in main if script)
    usual = counts.most_common(1)[0][0] if counts else ""
    findings = [
        *_found(
            places,
            [bool(script) and script != usual for script in main],
            "other_script",
            f"are mainly in another script than the usual {usual}",
            "Leave them out, or make sure that the model was trained on these languages",
            lambda at: main[at],
        ),
        *_other_languages(places, texts),
        *_pair_scripts(places),
        *_matching(places, texts, mixed_word, "mixed_word", "have a word with letters of several scripts",
                   "Look-alike letters make other tokens: write the word in one script"),
        *_matching(places, texts, BROKEN.search, "broken_characters", "have broken characters",
                   "Read the source again with the encoding it was written in"),
        *_matching(places, texts, CONTROLS.search, "control_characters", "have control characters",
                   "From U+0080 to U+009F they are signs of Windows-1252 read as Latin-1: read the original with "
                   "--encoding cp1252; take others out"),
        *_matching(places, texts, MARKUP.search, "markup", "have HTML entities or tags",
                   "Take them out, unless texts to come will have them too"),
    ]  # fmt: skip
    return CheckOutcome(tuple(findings), {"scripts": dict(counts.most_common())})


def main_script(text: str) -> str:
    """Return the script of most letters, or nothing where there are fewer than three letters."""
    counts = _script_counts(text)
    return max(counts, key=counts.__getitem__) if sum(counts.values()) >= FEWEST_LETTERS else ""


def _other_languages(places: Sequence[tuple[str, Example]], texts: Sequence[str]) -> Iterator[DoctorFinding]:
    """Find texts with hardly any common word of the usual language, and several that are common in others."""
    words_of = {name: frozenset(words.split()) for name, words in COMMON_WORDS.items()}
    known = frozenset[str]().union(*words_of.values())
    seen = [known.intersection(WORDS.findall(text.lower())) for text in texts]
    times = {name: sum(not one.isdisjoint(words) for one in seen) for name, words in words_of.items()}
    usual = max(times, key=times.__getitem__)
    if 2 * times[usual] < len(seen):
        return
    yield from _found(
        places,
        [len(one - words_of[usual]) > max(1, MORE_COMMON * len(one & words_of[usual])) for one in seen],
        "other_language",
        f"are in another language than the usual {usual}, by their commonest words",
        "Leave them out, or make sure that the model was trained on these languages",
        lambda at: max(words_of, key=lambda name: len(words_of[name] & seen[at])),
    )


def mixed_word(text: str) -> re.Match[str] | None:
    """Return the first word that mixes scripts with letters of the same shapes."""
    if text.isascii():
        return None
    for word in WORDS.finditer(text):
        if not word.group().isascii() and len(_script_counts(word.group()).keys() & set(LOOK_ALIKES)) > 1:
            return word
    return None


def _script_counts(text: str) -> Counter[str]:
    if text.isascii():
        letters = sum(map(str.isalpha, text))
        return Counter({"Latin": letters}) if letters else Counter()
    return Counter(script for script in map(_script, text) if script)


@cache
def _script(character: str) -> str:
    """Return a letter's script by its Unicode name; nothing for digits, marks and signs."""
    if not character.isalpha():
        return ""
    first = unicodedata.name(character, "UNKNOWN").split(" ")[0]
    return TOGETHER.get(first, first.capitalize())


def _pair_scripts(places: Sequence[tuple[str, Example]]) -> Iterator[DoctorFinding]:
    def differ(row: Example) -> bool:
        if row.text_pair is None or (row.text.isascii() and row.text_pair.isascii()):
            return False
        one, other = main_script(row.text), main_script(row.text_pair)
        return bool(one and other) and one != other

    yield from _found(
        places,
        [differ(row) for _, row in places],
        "pair_scripts",
        "have a first and a second text in different scripts",
        "Fine for a task across languages; else look whether columns or examples were mixed up",
    )


def _matching(
    places: Sequence[tuple[str, Example]],
    texts: Sequence[str],
    search: Callable[[str], re.Match[str] | None],
    kind: str,
    what: str,
    remedy: str,
) -> Iterator[DoctorFinding]:
    found = [match and match.group() for match in map(search, texts)]
    yield from _found(places, [one is not None for one in found], kind, what, remedy, lambda at: repr(found[at]))


def _found(
    places: Sequence[tuple[str, Example]],
    mask: Sequence[bool],
    kind: str,
    what: str,
    remedy: str,
    note: Callable[[int], str] = lambda at: "",
) -> Iterator[DoctorFinding]:
    hits = [at for at, hit in enumerate(mask) if hit]
    if hits:
        severity: Severity = "warning" if len(hits) / len(mask) > MANY else "info"
        rows = tuple(shown(*places[at], note(at)) for at in hits[:MOST_SHOWN])
        ids = tuple(places[at][1].id for at in hits)
        yield DoctorFinding(NAME, kind, severity, f"{share(len(hits), len(mask))} {what}", remedy, rows, ids)
