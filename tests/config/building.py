"""An experiment from key=value words, and the message where they cannot be used."""

from __future__ import annotations

from typing import Any

import pytest

from entailor.config.experiment import Experiment, parse_settings
from entailor.config.overrides import apply_overrides
from entailor.errors import ConfigError
from entailor.methods.registry import build_method, known_keys


def experiment(*words: str, values: dict[str, Any] | None = None) -> Experiment:
    """What a YAML file's values and key=value words make together."""
    return parse_settings(Experiment, apply_overrides(values or {}, words, known_keys))


def refusal(*words: str, values: dict[str, Any] | None = None) -> str:
    """The message for words that cannot be used."""

    def build() -> None:
        for name, own in experiment(*words, values=values).methods.items():
            build_method(name, own)

    with pytest.raises(ConfigError) as caught:
        build()
    return str(caught.value)
