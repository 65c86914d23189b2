"""What can stand in an experiment at all, whatever the setting; and values as they stand in messages."""

from __future__ import annotations

import math
import os
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

MOST_SHOWN = 80  # characters of a value in a message
MOST_CHARACTERS = 500_000  # of a text, which may be a template
MOST_ITEMS = 20_000  # values in all, as in a YAML file
MOST_DEPTH = 100
LARGEST = 1e18  # of numbers; all that is counted or measured is far below


def unusable(values: object, where: str) -> Iterator[str]:
    """Yield what no setting can be, whatever its type: one line for the first that is found.

    A null character or half of a surrogate pair would be met by the operating system, a number beyond all measure by
    the loop that counts to it. What PyYAML reads is limited already; words of the command line and dicts are not.
    """
    stack: list[tuple[str, object, int]] = [(where, values, 0)]
    for _ in range(MOST_ITEMS):
        if not stack:
            return
        key, value, depth = stack.pop()
        problem = None
        if isinstance(value, str):
            problem = _unusable_text(value)
        elif isinstance(value, (int, float)) and LARGEST < abs(value) != math.inf:
            problem = f"a number of at most {LARGEST:g} was expected"
        elif isinstance(value, (Mapping, list, tuple)) and depth > MOST_DEPTH:
            problem = f"nested more than {MOST_DEPTH} deep"
        elif isinstance(value, Mapping):
            stack += [(f"{key}.{name}".removeprefix("."), name, depth) for name in value if isinstance(name, str)]
            stack += [(f"{key}.{name}".removeprefix("."), inner, depth + 1) for name, inner in value.items()]
        elif isinstance(value, (list, tuple)):
            stack += [(key, inner, depth + 1) for inner in value]
        if problem:
            yield f"{printable(short(key))}: {problem}, found {shown(value)}"
            return
    if stack:
        yield f"{where or 'the experiment'}: more than {MOST_ITEMS:,} values"


def _unusable_text(text: str) -> str | None:
    if len(text) > MOST_CHARACTERS:
        return f"a text of {len(text):,} characters, at most {MOST_CHARACTERS:,} are read"
    if "\0" in text:
        return "a null character, which no text of an experiment can hold"
    try:
        os.fsencode(text)  # takes the bytes of paths that are no UTF-8, which Python keeps as halves of surrogates
    except UnicodeEncodeError:
        return "half of a surrogate pair, which no text of an experiment can hold"
    return None


def as_written(value: Any, depth: int = 0) -> Any:
    """Return a value of Python as a file would hold it: paths as text, arrays and numbers of NumPy as Python's own."""
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, (Mapping, list, tuple)) and depth <= MOST_DEPTH:
        if isinstance(value, Mapping):
            return {key: as_written(inner, depth + 1) for key, inner in value.items()}
        return type(value)(as_written(inner, depth + 1) for inner in value) if type(value) in (list, tuple) else value
    return value.tolist() if hasattr(value, "tolist") else value


def shown(value: object) -> str:
    """Return a value as it stands in a message, cut where it is long."""
    text = repr(value[:MOST_SHOWN]) if isinstance(value, str) else _OUTLINE.repr(value)
    cut = len(text) > MOST_SHOWN or (isinstance(value, str) and len(value) > MOST_SHOWN)
    return f"{text[: MOST_SHOWN - 3]}..." if cut else text


def number_as_text(value: object) -> object:
    """Return a number as files write labels: YAML reads -1 as a number, and labels are text."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def short(text: str, most: int = MOST_SHOWN) -> str:
    """Return a text cut where it is long, for a message."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def printable(text: str) -> str:
    """Return a text with what cannot be encoded written as an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


# What `repr` would do of the whole of a value that is cut anyway.
_OUTLINE = reprlib.Repr()
_OUTLINE.maxlevel, _OUTLINE.maxother = 6, MOST_SHOWN
_OUTLINE.maxstring = _OUTLINE.maxlong = MOST_SHOWN
_OUTLINE.maxdict = _OUTLINE.maxlist = _OUTLINE.maxtuple = _OUTLINE.maxset = 20


def figure(value: float, digits: int = 2) -> str:
    """Return a number to a few significant digits, and never 128 as 1.3e+02."""
    text = f"{value:.{digits}g}"
    return f"{value:,.0f}" if "e+" in text else text


def share(count: int, total: int) -> str:
    """Return ``50 of 1,000 examples (5 %)``; nothing but all is 100 %, and nothing but none is 0 %."""
    percent = 100 * count / max(1, total)
    if percent >= 10:
        shown_ = f"{percent:.0f}" if count == total or percent < 99.5 else f"{min(percent, 99.9):.1f}"
    else:
        shown_ = "<0.1" if 0 < percent < 0.1 else f"{percent:.1f}".removesuffix(".0")
    return f"{count:,} of {total:,} examples ({shown_} %)"
