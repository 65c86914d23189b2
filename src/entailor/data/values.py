"""What stands in a cell or under a key, and the label that is written so."""

from __future__ import annotations

import math
import re
from typing import Any

LABEL_TYPES = (str, int, float, type(None))  # bool is an int


class Repeated(list[Any]):
    """The values of a key that stands twice in one object: an error where it is read, like two columns of one name."""


def only(value: Any) -> Any:
    """Return what a list of one holds: some write the one label of a text as such a list."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def label_text(value: Any) -> str:
    """Return a label value as text: a missing value is empty, a boolean is as in JSON.

    Raises:
        TypeError: the value is an object, a list, an infinite number, or something else that is no label.
    """
    value = only(value)
    if isinstance(value, str):
        return value
    if value is None or is_nan(value):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not is_label(value):
        raise TypeError
    return str(value)


def is_label(value: Any) -> bool:
    """Tell whether a value may stand for a label."""
    return isinstance(value, LABEL_TYPES) and not (isinstance(value, float) and math.isinf(value))


def plain_number(written: str) -> str:
    """Write 1.0 as 1: a column of integers with gaps often comes as 0.0, 1.0, 2.0."""
    return re.sub(r"^(-?\d+)\.0+$", r"\1", written)


def is_nan(value: Any) -> bool:
    """Tell whether a value is the number that is none."""
    return isinstance(value, float) and math.isnan(value)


def kind_of(value: Any) -> str:
    """Say what a value is that is neither text nor a finite number."""
    kinds = {type(None): "no value", dict: "an object", list: "a list", bool: "a boolean", float: "not a finite number"}
    kinds[Repeated] = "several values under one key"
    return kinds.get(type(value), f"a {type(value).__name__}")


def key_inside(value: Any) -> str | None:
    """Return the first key of an object that leads to text, or None."""
    return next((key for key, one in value.items() if isinstance(one, str)), None) if isinstance(value, dict) else None
