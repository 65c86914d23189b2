"""Labels as people write them: which look the same, how they stand in a message, and how a setting names them."""

from __future__ import annotations

import json
import re
import shlex
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from entailor.config.plain import short
from entailor.errors import near_miss

NO_GOLD = ("", "-", "-1", "nan")
MOST_LISTED = 12
MOST_DECIMALS, MOST_NUMBERS, MOST_LABELS = 20, 300, 1_000  # labels like 3.7, like 37, and others
ONE_LABEL = (
    "Several labels for one text (multi-label data) are not supported: classifiers here give each text one label"
)
SEVERAL_REMEDY = "Keep one label for each text, or make a data set of each label, with yes and no as its labels"
_SEPARATORS = (";", "|", ",", "#")
MOST_NAMED = 12  # labels that a remedy writes out

# Seen by nobody, yet no format characters: joiners, fillers and selectors of variants.
_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
_BETWEEN_LETTERS = re.compile(r"(?<=[^\W\d_])[\s_-]+(?=[^\W\d_])")  # 1-2 and 12 are different labels
_WRITTEN_NUMBER = re.compile(r"([+-]?)0*([0-9]{1,30})(\.[0-9]{1,30})?")
_TRUE, _FALSE = ("true", "t", "yes", "y", "on", "1"), ("false", "f", "no", "n", "off", "0")
_TYPESET = str.maketrans(
    {"\u0640": "", **dict.fromkeys("‘’ʼ", "'"), **dict.fromkeys("“”", '"'), **dict.fromkeys("‐‒–—−", "-")}
)
_LOOKS_LATIN = str.maketrans("АВЕКМНОРСТХІЈЅаеорсухіјѕΑΒΕΖΗΙΚΜΝΟΡΤΥΧονα", "ABEKMHOPCTXIJSaeopcyxijsABEZHIKMNOPTYXova")


def label_key(label: str) -> str:
    """Return what a reader sees of a label: without case, width, invisible characters and ways of joining words.

    Dashes and quotes are one however they are typeset, and in a word of Latin letters so are those of other scripts
    that look like one. Quotes around it, punctuation behind it and zeros that change no number do not count.
    """
    seen = "".join(
        one for one in _UNSEEN.sub("", label) if one.isspace() or unicodedata.category(one) not in ("Cf", "Cc")
    )
    seen = unicodedata.normalize("NFKC", seen).translate(_TYPESET)
    if _has_latin(seen):
        seen = seen.translate(_LOOKS_LATIN)
    folded = unicodedata.normalize("NFKC", seen.casefold()).replace("i\u0307", "i")  # the Turkish capital
    key = _BETWEEN_LETTERS.sub("", " ".join(folded.split()))
    within = key.lstrip("\"'").rstrip("\"'.,;:!")
    key = within if re.fullmatch(r"\w", within[-1:]) else key
    number = _WRITTEN_NUMBER.fullmatch(key)
    return f"{number[1].removeprefix('+')}{number[2]}{(number[3] or '').rstrip('0').rstrip('.')}" if number else key


def meanings(labels: Iterable[str]) -> dict[str, str]:
    """Return each label with a key that is the same for those a reader takes for one: alike, or true, yes and 1."""
    keys = {label: label_key(label) for label in labels}
    used = set(keys.values())
    numbers = {key for key in used if _WRITTEN_NUMBER.fullmatch(key)}
    letters = {key for key in used if len(key) == 1} - numbers
    if not numbers <= {"0", "1"} or not (letters <= {"t", "f"} or letters <= {"y", "n"}):
        return keys  # 1 is one of several numbers, y one of several letters
    said = {word: words[0] for words in (_TRUE, _FALSE) for word in words}
    return {label: said.get(key, key) for label, key in keys.items()}


def alike(labels: Iterable[str]) -> list[list[str]]:
    """Return the labels that a reader takes for one, those that are one together."""
    found: dict[str, list[str]] = {}
    for label, key in meanings(labels).items():
        found.setdefault(key, []).append(label)
    return [spellings for spellings in found.values() if len(spellings) > 1]


def _has_latin(label: str) -> bool:
    return any(one.isascii() and one.isalpha() for one in label)


def visible(label: str) -> str:
    """Return a label in quotes, cut where it is long, with escapes for what cannot be seen."""
    shown = _UNSEEN.sub(lambda found: _escaped(found.group()), short(repr(label)))
    odd = set(map(chr, _LOOKS_LATIN)) if _has_latin(label) else set()
    if not unicodedata.is_normalized("NFC", label):
        odd |= {one for one in shown if unicodedata.combining(one)}
    return "".join(_escaped(one) if one in odd else one for one in shown)


def listed(labels: Sequence[str]) -> str:
    """Return the first few labels in quotes, and how many more there are."""
    more = len(labels) - MOST_LISTED
    return ", ".join(map(visible, labels[:MOST_LISTED])) + (f" and {more:,} more" if more > 0 else "")


def mapping_word(names: Mapping[str, str], *, flags: bool = False) -> str:
    """Return the word of the command line that maps labels, as a shell takes it.

    Args:
        names: label as written to label name.
        flags: the command has a flag for it, as `evaluate` has, instead of a key of the experiment.
    """
    pairs = ", ".join(f"{_quoted(written)}: {_quoted(name)}" for written, name in names.items())
    return shlex.quote(f"{'--label-names' if flags else 'data.label_names'}={{{pairs}}}")


def list_word(key: str, labels: Iterable[str], *, flags: bool = False) -> str:
    """Return the word of the command line that sets a list of labels, as a shell takes it."""
    word = f"--{key.replace('_', '-')}" if flags else f"data.{key}"
    return shlex.quote(f"{word}=[{', '.join(map(_quoted, labels))}]")


def class_word(markers: Sequence[str], labels: Sequence[str], label_names: Mapping[str, str]) -> str:
    """Return the word that makes classes of markers: all labels by name, or a mapping where those are too many."""
    if "" in markers or len(labels) + len(markers) > MOST_NAMED:
        return mapping_word({**label_names, **{one: one or "none" for one in markers}})
    return list_word("labels", sorted({*markers, *labels}))


def unknown_labels_remedy(
    unknown: Mapping[str, str],
    labels: Sequence[str],
    label_names: Mapping[str, str],
    *,
    trained: bool,
    flags: bool = False,
) -> str:
    """Return the next step for labels outside the label set.

    Args:
        unknown: each as it stands in the file, to what it is called after `label_names`.
        labels: the label set.
        label_names: the mapping there is.
        trained: the label set is what train has, so that naming further labels is no remedy.
        flags: labels are mapped by a flag, not by a key of the experiment.
    """
    if len(unknown) > MOST_NAMED:
        key = "--label-names" if flags else "data.label_names"
        return f"Check the label column (--columns label=COL), or map them with {key}={{WRITTEN: LABEL, ...}}"
    meant = meanings([*labels, *unknown.values()])
    seen = {meant[label]: label for label in reversed(labels)}
    same = {written: seen[meant[name]] for written, name in unknown.items() if meant[name] in seen}
    hint = near_miss(next(iter(unknown.values())), labels).strip() if len(unknown) == 1 else ""
    close = next((label for label in labels if hint == f"Did you mean {label!r}?"), labels[0])
    word = mapping_word({**label_names, **dict.fromkeys(unknown, close), **same}, flags=flags)
    it, s = ("It", "") if len(unknown) == 1 else ("They", "s")
    them = "it" if len(unknown) == 1 else "them"
    if len(same) == len(unknown):
        looks = f"{it} look{'' if s else 's'} like {listed(list(dict.fromkeys(same.values())))}"
        if any(label_key(name) != label_key(same[written]) for written, name in unknown.items()):
            return f"{it} say{'' if s else 's'} the same as labels of train: map {them} with {word}"
        return f"{looks} but for case, spaces, punctuation or invisible characters: map {them} with {word}"
    if trained or flags:
        mapped = f"Map {them} to {'labels' if s else 'a label'} of train, e.g. {word}"
        return f"{hint} No row of train has {them}. {mapped}, or leave such rows out".strip()
    added = list_word("labels", (*labels, *unknown.values())) if len(labels) < MOST_NAMED else "data.labels"
    return f"{hint} Correct the row{s}, add the label{s} to data.labels ({added}), or map {them}, e.g. {word}".strip()


def _quoted(text: str) -> str:
    """Return text in double quotes, as YAML and JSON both read it."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(one if one.isprintable() and not _UNSEEN.match(one) else _escaped(one) for one in quoted)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def joined_labels(labels: Sequence[str]) -> list[str]:
    """Return the labels that are several others written together, as in "red;blue".

    Two or more of them, and each of their parts a label or a part elsewhere: one alone may well be a class.
    """
    for separator in _SEPARATORS:
        parts = {label: {part.strip() for part in label.split(separator)} for label in labels}
        joined = [label for label in labels if len(parts[label]) > 1]
        uses = Counter(part for members in parts.values() for part in members)
        if len(joined) > 1 and all(uses[part] > 1 for label in joined for part in parts[label]):
            return joined
    return []


def most_labels(labels: Sequence[str], num_rows: int) -> int:
    """Return how many different labels are taken for classes; more are numbers, ids or free text."""
    numbers = [number for number in map(_number, labels) if number is not None]
    if len(numbers) == len(labels):
        return MOST_DECIMALS if any(number != int(number) for number in numbers) else min(MOST_NUMBERS, _few(num_rows))
    return min(MOST_LABELS, _few(num_rows))


def _few(num_rows: int) -> int:
    """Return half of the rows, but enough for a file that is tiny."""
    return max(MOST_DECIMALS, num_rows // 2)


def _number(label: str) -> float | None:
    try:
        number = float(label.replace(",", "."))
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None
