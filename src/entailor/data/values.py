"""What stands in a cell or under a key, and the label that is written so."""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from typing import Any

LABEL_TYPES = (str, int, float, type(None))  # bool is an int
MOST_WRITTEN = 1000  # characters of a list of labels


class Repeated(list[Any]):
    """The values of a key that stands twice in one object: an error where it is read, like two columns of one name."""


def only(value: Any) -> Any:
    """Return what a list of one holds: some write the one label of a text as such a list, and none as an empty one."""
    if not isinstance(value, list) or type(value) is Repeated or len(value) > 1:
        return value
    return value[0] if value else None


def unwritten(label: str) -> Any:
    """Return the list or the object that a label was written from, as tables without lists hold it, or the label."""
    if label[:1] + label[-1:] not in ("[]", "{}") or len(label) > MOST_WRITTEN:
        return label
    for written in (label, label.replace("'", '"')):  # as JSON, or as Python prints it
        with suppress(ValueError, RecursionError):
            return json.loads(written)
    return label


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
    """Return the key of an object, or of those in a list, that leads to text, or None: `value` before the first."""
    value = value[0] if isinstance(value, list) and value else value
    keys = [key for key, one in value.items() if isinstance(only(one), str)] if isinstance(value, dict) else []
    return "value" if "value" in keys else next(iter(keys), None)
