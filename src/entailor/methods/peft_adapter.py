"""Any adapter of `peft` by its name: IA3, VeRA, OFT, BOFT, LN tuning, and what comes next.

AdaLoRA is trained as well, but keeps its first rank: nothing here calls its budget allocation.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections import defaultdict
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import lru_cache
from typing import Any, ClassVar

import torch
from pydantic import Field

from entailor.classifiers.gradient_path import keep_what_learns
from entailor.classifiers.transformer import PeftClassifier, task_type
from entailor.errors import ConfigError, MethodError, near_miss
from entailor.methods.base import AdapterMethod, LearningRate, Range
from entailor.models.load import Backbone
from entailor.tasks import Task


class PeftAdapter(AdapterMethod, name="peft"):
    """Train the adapter that `peft_type` names, with its own configuration, and the head."""

    summary: ClassVar[str] = "any adapter of peft, by name"

    learning_rate: LearningRate = 1e-3
    peft_type: str = "IA3"
    """A name of `peft.PeftType`."""
    peft_config: dict[str, Any] = Field(default_factory=dict)
    """Keys of that type's configuration class."""

    def adapt(self, backbone: Backbone | None, task: Task, seed: int) -> PeftClassifier:
        """Return the classifier with the adapter in place.

        Raises:
            ConfigError: no such type, or a key its configuration does not have.
            MethodError: the adapter does not fit this model.
        """
        backbone = self.needed(backbone)
        config = self._config(backbone)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                classifier = PeftClassifier(backbone, task, config)
            except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
                raise MethodError(f"peft {self.peft_type} does not fit {backbone.folder.name}: {error}") from error
        named = self.peft_config.get("target_modules")
        # some types only show in use that they were made for other models
        keep_what_learns(classifier, backbone, f"peft {self.peft_type}", named if isinstance(named, list) else ())
        return classifier

    def _config(self, backbone: Backbone) -> Any:
        from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftType

        known = {kind.value: config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
        name = self.peft_type.upper()
        if name not in {kind.value for kind in PeftType} or name not in known:
            raise ConfigError(
                f"peft_type {self.peft_type!r} is not known.{near_miss(name, known)} Known: {', '.join(known)}"
            )
        _refuse_other_sources(name, self.peft_config)
        try:
            return known[name](task_type=task_type(backbone), **self.peft_config)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"peft_config of {name}: {error}") from None

    def search_space(self) -> dict[str, Range]:
        """Return a range that covers most adapters; prompts need rates ten times as high."""
        from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PromptLearningConfig

        known = {kind.value: config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
        kind = known.get(self.peft_type.upper())  # an unknown type is complained of when it is adapted
        prompts = kind is not None and issubclass(kind, PromptLearningConfig)
        return {"learning_rate": Range(1e-3, 1e-1) if prompts else Range(1e-4, 1e-2)}


def _refuse_other_sources(name: str, values: Mapping[str, Any]) -> None:
    """Refuse settings by which `peft` would open a file, load another model or import a module.

    A setting may come with the run of a stranger, and what an adapter reads must be the model that was hashed. Whether
    a text names a file cannot be seen from the text, so the other way round: it must be a choice that the types of
    peft's settings list, the setting's default, or stand where a list of names of layers may stand.

    Raises:
        ConfigError: a text is none of these.
    """
    choices, defaults, lists = _declared_texts()
    for key, value in values.items():
        if key in lists:
            continue
        for text in _texts(value):
            if any(re.fullmatch(choice, text) for choice in choices[key]) or text in defaults[name, key]:
                continue
            listed = sorted(re.sub(r"\\(.)", r"\1", choice) for choice in choices[key])
            raise ConfigError(
                f"peft_config of {name}: {key} is {text!r}, expected {', '.join(listed) or 'no text'}. Settings that "
                f"read a file, name another model or import a module are refused. Leave out {key}"
            )


def _texts(value: Any) -> Iterator[str]:
    """Give every text in a setting; keys of a mapping are names of its own settings, or patterns of layers."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for inner in value:
            yield from _texts(inner)
    elif value is not None and not isinstance(value, (bool, int, float)):
        yield str(value)  # a path or an object, given in Python


@lru_cache
def _declared_texts() -> tuple[dict[str, set[str]], dict[tuple[str, str], set[str]], set[str]]:
    """Return what the settings of `peft` may be where they are texts.

    Returns:
        Patterns of the choices each setting lists in the type of any adapter; defaults by adapter and setting; the
        settings that hold lists of names.
    """
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    choices: dict[str, set[str]] = defaultdict(set)
    defaults: dict[tuple[str, str], set[str]] = defaultdict(set)
    lists: set[str] = set()
    for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items():
        hints = typing.get_type_hints(config)
        for field in dataclasses.fields(config):
            if isinstance(field.default, str):
                defaults[kind.value, field.name].add(field.default)
            for inner in _inner_types(hints[field.name]):
                if typing.get_origin(inner) is typing.Literal:
                    words = [word for word in typing.get_args(inner) if isinstance(word, str)]
                    # "pissa_niter_[number of iters]" stands for any number
                    choices[field.name] |= {re.sub(r"\\\[.*\\\]", r"[0-9]+", re.escape(word)) for word in words}
                elif isinstance(inner, type) and issubclass(inner, Enum):
                    choices[field.name] |= {re.escape(str(one.value)) for one in inner}
                elif typing.get_origin(inner) is list and typing.get_args(inner) == (str,):
                    lists.add(field.name)
    return choices, defaults, lists


def _inner_types(hint: Any) -> Iterator[Any]:
    """Give a type, and what it is made of."""
    yield hint
    for inner in typing.get_args(hint):
        yield from _inner_types(inner)
