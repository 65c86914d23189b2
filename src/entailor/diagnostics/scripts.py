"""Scripts of the texts, words that mix scripts, and characters broken by a wrong encoding.

Looks at Unicode alone. Languages of one script (English and German) do not differ significantly: on single sentences
small
identifiers are wrong more often than mixed languages occur.
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
# UTF-8 read as Latin-1 or Windows-1252, the replacement character, and what HTML leaves behind
BROKEN = re.compile(r"\ufffd|[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac[\u0080-\u2122]")
MARKUP = re.compile(r"&(?:amp|lt|gt|quot|nbsp|#\d{2,5});|</?(?:br|p|div|span|b|i|a)\b[^>]*>")
CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")  # all but those that divide words and lines
WORDS = re.compile(r"[^\W\d_]{2,}")


@check(NAME, "other scripts than usual, words of mixed scripts, broken characters, markup")
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
