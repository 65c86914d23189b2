"""Regular expressions that choose layers, tried out of process: one of a few characters can take hours over a name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from entailor.errors import MethodError
from entailor.tasks.foreign import ForeignError, run_bounded


def check_layer_patterns(config: Any, model: nn.Module) -> None:
    """Match every pattern of an adapter's settings against the names of a model's layers, within bounds.

    Args:
        config: of `peft`, which matches without bounds.
        model: what it will be applied to.

    Raises:
        MethodError: one is no regular expression, or takes too long.
    """
    names: list[str] = []
    for key, pattern in _patterns(config):
        names = names or [name for name, _ in model.named_modules()]
        try:
            run_bounded("match_names", pattern=pattern, names=names)
        except ForeignError as error:
            raise MethodError(
                f"{config.peft_type.value}: {key} is {pattern[:80]!r}, which cannot be matched against the names of "
                f"layers: {error}. Give a list of names of layers"
            ) from None


def _patterns(config: Any) -> Iterator[tuple[str, str]]:
    """Give key and text of what is more than a name: `peft` takes texts, and keys of mappings, for patterns."""
    for field in dataclasses.fields(config):
        if not field.name.endswith(("modules", "pattern", "layers")):
            continue
        value = getattr(config, field.name)
        texts = [value] if isinstance(value, str) else value or ()
        if isinstance(value, Mapping | str) or field.name.endswith("pattern"):
            yield from ((field.name, text) for text in map(str, texts) if not re.fullmatch(r"[\w.-]*", text))
