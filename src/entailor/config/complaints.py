"""What is wrong with settings, told by key: pydantic's complaints in one error."""

from __future__ import annotations

from collections.abc import Iterable
from types import UnionType
from typing import Union, get_origin

from pydantic import BaseModel, ValidationError

from entailor.config.plain import MOST_SHOWN, short, shown
from entailor.errors import ConfigError, near_miss

MOST_COMPLAINTS = 20  # in one message


def config_error(kind: type[BaseModel], error: ValidationError, where: str = "") -> ConfigError:
    """Return an error with a line for each key that cannot be used, what was found there and the near miss.

    Args:
        kind: the settings class.
        error: what pydantic says of them.
        where: dotted path in front of the key, e.g. ``methods.lora``.
    """
    complaints: dict[str, list[str]] = {}
    found: dict[str, str] = {}
    for item in error.errors(include_url=False)[:MOST_COMPLAINTS]:
        path, section = _place(kind, item["loc"])
        key = short(".".join([where, *path] if where else path), MOST_SHOWN * 2)
        message = item["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")
        if item["type"] == "extra_forbidden":
            message = _unknown_key(section, path[-1])
        elif item["type"] != "missing" and key:
            found[key] = f", found {shown(item['input'])}"
        if item["type"] == "string_type" and isinstance(item["input"], bool):
            found[key] += " (YAML takes yes, no, on and off for true and false: put the word in quotes)"
        complaints.setdefault(key, []).append(message)
    # a field that takes text or a list complains once for each
    heads = {key: f"{key}: " if key else "" for key in complaints}  # what two sections say together has no key
    lines = [f"{heads[key]}{' or '.join(said)}{found.get(key, '')}" for key, said in complaints.items()]
    if error.error_count() > MOST_COMPLAINTS:
        lines.append(f"and {error.error_count() - MOST_COMPLAINTS:,} more")
    return ConfigError("\n".join(lines))


def _place(kind: type[BaseModel], loc: Iterable[int | str]) -> tuple[list[str], type[BaseModel]]:
    """Return where a complaint belongs, without the types pydantic names where there are several, and the section."""
    path: list[str] = []
    for part in map(str, loc):
        path.append(part)
        field = kind.model_fields.get(part)
        if field is not None and get_origin(field.annotation) in (Union, UnionType):
            break
        kind = _section(kind, part) or kind
    return path, kind


def _section(kind: type[BaseModel], name: str) -> type[BaseModel] | None:
    """Return the settings that a field holds, if it holds any."""
    field = kind.model_fields.get(name)
    found = field.annotation if field else None
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def _unknown_key(kind: type[BaseModel], key: str) -> str:
    sections = {name: _section(kind, name) for name in kind.model_fields}
    within = [f"{name}.{key}" for name, one in sections.items() if one and key in one.model_fields]
    hint = f" Did you mean {' or '.join(within)}?" if within else near_miss(key, list(kind.model_fields))
    return f"unknown key.{hint} Known keys: {', '.join(sorted(kind.model_fields))}"
