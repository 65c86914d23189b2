"""Where an experiment's values are written: a YAML file, flags, and ``key=value`` words over both.

Knows which keys there are; whether a value is right is `config`'s business, and each method's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from entailor.config.experiment import DEFAULT_METHODS, Experiment, methods_by_name
from entailor.config.parts import (
    Settings,
)
from entailor.config.plain import short, shown
from entailor.errors import ConfigError, RunError, near_miss
from entailor.runs.documents import MOST_YAML_BYTES, PlainLoader, parse_yaml, read_bytes
from entailor.runs.integrity import BLANK_CHECKSUM, verify_checksum, with_checksum

# YAML 1.1, which PyYAML reads, takes 1e-4 for text; YAML 1.2 and everybody else for a number.
_SCIENTIFIC = ("tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789"))


class _Loader(PlainLoader):
    """Reads 1e-4 as a number."""


class _TextLoader(_Loader):
    """Reads every value as text: the label True is not the label true."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML reads it of the class


class _Dumper(yaml.SafeDumper):
    """Puts text in quotes that `_Loader` would take for a number."""


_Loader.add_implicit_resolver(*_SCIENTIFIC)
_Dumper.add_implicit_resolver(*_SCIENTIFIC)
MOST_KEY_PARTS = 20  # of a dotted key

_TEXTS = (dict[str, str], tuple[str, ...], tuple[str, ...] | None)  # fields of texts alone

SECTIONS: Mapping[str, type[Settings]] = {
    name: field.annotation
    for name, field in Experiment.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Settings)
}


def read_yaml(path: str | Path) -> dict[str, object]:
    """Read a YAML mapping.

    Raises:
        ConfigError: the file is missing, is not UTF-8, is not YAML, or is not a mapping.
    """
    try:
        return _mapping(read_bytes(Path(path), MOST_YAML_BYTES), path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}. Give the path of a YAML file") from None


def _mapping(content: bytes, path: str | Path) -> dict[str, object]:
    """Return the mapping a YAML document holds; `path` is named where it holds none."""
    try:
        values = parse_yaml(content.decode("utf-8-sig"), _Loader)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}. Save the file as UTF-8") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a mapping of keys to values was expected, found a {type(values).__name__}")
    return values


def dump_yaml(values: Mapping[str, Any]) -> str:
    """Return values as YAML that :func:`read_yaml` reads back the same, in their order."""
    text = yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    try:
        if parse_yaml(text, _Loader) == values:
            return text
    except yaml.YAMLError as error:
        raise ConfigError(f"the settings cannot be written down: {error}. Make them smaller") from None
    # PyYAML writes some separators of Unicode so that it reads them back as others; escaped they stay what they are
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False)


def dump_checked_yaml(values: Mapping[str, Any]) -> str:
    """Return values as YAML with a checksum in a comment at the end, for :func:`read_checked_yaml`."""
    return with_checksum(f"{dump_yaml(values)}# checksum {BLANK_CHECKSUM}\n")


def read_checked_yaml(path: Path, remedy: str) -> dict[str, Any]:
    """Read a YAML mapping that a run wrote.

    Args:
        path: the file.
        remedy: what to do where it is damaged.

    Raises:
        RunError: it is missing, damaged or changed by hand.
    """
    try:
        content = read_bytes(path, MOST_YAML_BYTES)
        verify_checksum(path, content, remedy)
        return _mapping(content, path)
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}). {remedy}") from None
    except ConfigError as error:
        raise RunError(f"{error}. {remedy}") from None


def set_key(values: dict[str, object], path: Sequence[str], value: object) -> None:
    """Set one value in nested mappings, making those that are not there.

    Raises:
        ConfigError: something that is no mapping stands in the way.
    """
    for depth, part in enumerate(path[:-1], start=1):
        if values.get(part) is None:
            values[part] = {}
        inner = values[part]
        if not isinstance(inner, dict):
            name = ".".join(path[:depth])
            raise ConfigError(f"{name}: keys with values were expected, found {shown(inner)}")
        values = inner
    values[path[-1]] = value


def apply_overrides(
    values: Mapping[str, Any],
    overrides: Iterable[str],
    keys_of: Callable[[str, Mapping[str, Any]], set[str]],
) -> Mapping[str, Any]:
    """Lay ``key=value`` words over a mapping; values are read as YAML, but text where the field takes text.

    A dotted key is a path (``data.validation_size=0.2``, ``methods.lora.r=8`` or, shorter, ``lora.r=8``). A bare key
    that
    is no key of the experiment goes to every chosen method that has it (``learning_rate=1e-4``), else to the section
    that has it (``load_in_4bit=true``). ``methods=a,b`` chooses candidates; those that are there keep their settings.

    Args:
        values: what the YAML file and the flags said.
        overrides: the words; a later one goes over an earlier one.
        keys_of: the keys a candidate takes, by its name and its settings.

    Returns:
        A mapping of its own, with ``methods`` as candidate name to settings.

    Raises:
        ConfigError: a word without ``=``, a key nothing takes, or methods that are not names.
    """
    words = [_key_and_text(word) for word in overrides]
    result = deepcopy(dict(values))
    chosen = [text for key, text in words if key == "methods"]
    try:
        candidates = methods_by_name(result.get("methods", DEFAULT_METHODS))
        if chosen:  # of the candidates that stand there those are picked, with their settings
            named = methods_by_name(_parse_value(chosen[-1]))
            candidates = {name: settings or candidates.get(name, {}) for name, settings in named.items()}
    except ValueError as error:
        raise ConfigError(f"methods: {error}") from None
    result["methods"] = candidates
    candidate_keys = cache(lambda: {name: keys_of(name, own) for name, own in candidates.items()})  # imports methods
    for key, text in words:
        if key != "methods":
            _apply(result, candidates, candidate_keys, key, text)
    return result


def _key_and_text(word: str) -> tuple[str, str]:
    key, equals, text = word.partition("=")
    if not equals or not key:
        raise ConfigError(f"{shown(word)}: expected key=value, e.g. learning_rate=1e-4")
    if key.count(".") >= MOST_KEY_PARTS:
        raise ConfigError(f"{shown(key)}: a key has at most {MOST_KEY_PARTS} parts with points between them")
    return key, text


def _apply(
    result: dict[str, object],
    candidates: Mapping[str, dict[str, object]],
    candidate_keys: Callable[[], Mapping[str, set[str]]],
    key: str,
    text: str,
) -> None:
    inside = key.removeprefix("methods.")
    candidate = max((name for name in candidates if inside.startswith(f"{name}.")), key=len, default=None)
    path = key.split(".")
    sections = [name for name, kind in SECTIONS.items() if key in kind.model_fields]
    if candidate is not None:
        set_key(candidates[candidate], inside.removeprefix(f"{candidate}.").split("."), _parse_value(text))
    elif path[0] in SECTIONS and len(path) > 1:
        set_key(result, path, _value_of_field(SECTIONS[path[0]], path[1:], text))
    elif key in Experiment.model_fields and key not in SECTIONS:
        result[key] = _value_of_field(Experiment, path, text)
    elif takers := [name for name, keys in candidate_keys().items() if key in keys]:
        for name in takers:
            candidates[name][key] = _parse_value(text)
    elif len(sections) == 1:
        set_key(result, [sections[0], key], _value_of_field(SECTIONS[sections[0]], path, text))
    else:
        known = {
            *Experiment.model_fields,
            *(own for keys in candidate_keys().values() for own in keys),
        } - SECTIONS.keys()
        known |= {f"{section}.{name}" for section, kind in SECTIONS.items() for name in kind.model_fields}
        chosen = ", ".join(candidates)
        raise ConfigError(
            f"{short(key)}: no key of the experiment or of a chosen method ({short(chosen, 400)})."
            f"{near_miss(key, known)}"
        )


def _value_of_field(kind: type[Settings], path: Sequence[str], text: str) -> Any:
    """Read a value as YAML, but leave it as it is where the field is text: `out=007` is no number."""
    field = kind.model_fields.get(path[0])
    takes_text = field is not None and field.annotation in ((str, str | None) if len(path) == 1 else (dict[str, str],))
    if text in ("", "~", "null"):
        return _parse_value(text)
    if takes_text:
        return text
    texts = field is not None and len(path) == 1 and field.annotation in _TEXTS
    return _parse_value(text, _TextLoader if texts else _Loader)


def _parse_value(text: str, loader: type[PlainLoader] = _Loader) -> Any:
    try:
        return parse_yaml(text, loader)
    except yaml.YAMLError:
        return text
