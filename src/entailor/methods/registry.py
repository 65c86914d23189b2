"""Finds every method in this folder by importing its files; holds no list of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from entailor.config.experiment import Experiment, parse_settings
from entailor.config.plain import short, shown
from entailor.errors import ConfigError, near_miss
from entailor.methods.base import Method


def registered_methods() -> Mapping[str, type[Method]]:
    """Return method name to class, sorted by name."""
    for module in _method_files():
        import_module(f"entailor.methods.{module}")
    return _imported()


def find_method(name: str) -> type[Method] | None:
    """Return a method by name, or None; imports only the file of that name where there is one, for they are heavy."""
    if name in _method_files():
        import_module(f"entailor.methods.{name}")
    return _imported().get(name) or registered_methods().get(name)


def _method_files() -> list[str]:
    return sorted(file.stem for file in Path(__file__).parent.glob("*.py") if file.stem != "__init__")


def _imported() -> dict[str, type[Method]]:
    return {kind.name: kind for kind in sorted(_named_subclasses(Method), key=lambda kind: kind.name)}


def _named_subclasses(kind: Any) -> Iterator[type[Method]]:
    for sub in kind.__subclasses__():
        if sub.name and not sub.__abstractmethods__:
            yield sub
        yield from _named_subclasses(sub)


CANDIDATE_KEYS = ("method", "models", "model", "prompt")
"""Keys of a candidate that are not its method's: what the method is, and what holds for this candidate alone."""


def method_class(name: str, where: str) -> type[Method]:
    """Return a method by name.

    Raises:
        ConfigError: there is no such method.
    """
    if (kind := find_method(name)) is None:
        known = registered_methods()
        raise ConfigError(
            f"{where}: no method {shown(name)}.{near_miss(name, known)} Known methods: {', '.join(known)}"
        )
    return kind


def build_method(candidate: str, settings: Mapping[str, Any]) -> Method:
    """Build a candidate's method from its settings; the key ``method`` names it where the two names differ.

    Raises:
        ConfigError: no such method, an unknown key, or a value out of range.
    """
    kind = method_class(short(str(settings.get("method", candidate))), f"methods.{candidate}")
    values = {key: value for key, value in settings.items() if key not in CANDIDATE_KEYS}
    return parse_settings(kind, values, where=f"methods.{candidate}")


def known_keys(candidate: str, settings: Mapping[str, Any]) -> set[str]:
    """Return the hyperparameters a candidate's method takes; an unknown method has none."""
    kind = find_method(str(settings.get("method", candidate)))
    return set(kind.model_fields) if kind else set()


def experiment_schema() -> Mapping[str, Any]:
    """Return the JSON schema of an experiment with every method's hyperparameters under ``methods``."""
    schema = Experiment.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    for name, kind in registered_methods().items():
        own = kind.model_json_schema()
        definitions.update(own.pop("$defs", {}))
        own["properties"] |= {
            "method": {"const": name},
            "models": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
            "model": {"$ref": "#/$defs/ModelSettings"},
            "prompt": {"$ref": "#/$defs/PromptSettings"},
        }
        definitions[name] = own
    candidates = {
        "type": "object",
        "properties": {
            name: {"anyOf": [{"$ref": f"#/$defs/{name}"}, {"type": "null"}]} for name in registered_methods()
        },
        "additionalProperties": {"anyOf": [{"$ref": f"#/$defs/{name}"} for name in registered_methods()]},
    }
    schema["properties"]["methods"] = {
        "description": "Candidate name to hyperparameters; the candidate name is the method, or the key "
        "`method` names it. "
        "Names alone, with commas or as a list, will do.",
        "anyOf": [
            candidates,
            {"type": "string"},
            {"type": "array", "items": {"anyOf": [{"type": "string"}, candidates]}},
        ],
    }
    return schema
