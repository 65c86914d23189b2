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
        path = _settings_path(kind, item["loc"])
        key = short(".".join([where, *path] if where else path), MOST_SHOWN * 2)
        message = item["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")
        if item["type"] == "extra_forbidden":
            message = _unknown_key(_kind_at(kind, path[:-1]), path[-1])
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


def _settings_path(kind: type[BaseModel], loc: Iterable[int | str]) -> list[str]:
    """Return where a complaint belongs, without the types pydantic names for a field that takes several."""
    path: list[str] = []
    for part in loc:
        path.append(str(part))
        field = kind.model_fields.get(str(part))
        if field is None:
            continue
        if get_origin(field.annotation) in (Union, UnionType):
            break
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            kind = field.annotation
    return path


def _unknown_key(kind: type[BaseModel], key: str) -> str:
    hint = near_miss(key, list(kind.model_fields))
    within = [name for name in kind.model_fields if key in _kind_at(kind, [name]).model_fields]
    if within and key not in kind.model_fields:
        hint = f" Did you mean {' or '.join(f'{name}.{key}' for name in within)}?"
    return f"unknown key.{hint} Known keys: {', '.join(sorted(kind.model_fields))}"


def _kind_at(kind: type[BaseModel], path: Iterable[str]) -> type[BaseModel]:
    """Return the settings class of a section."""
    for name in path:
        field = kind.model_fields.get(name)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            break
        kind = field.annotation
    return kind
