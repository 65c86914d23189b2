"""Sizes of a model, asked of its configuration by the names of `transformers`, whatever its architecture calls them.

A configuration of several parts keeps the sizes of the language model in one of them; this is the one that is asked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from entailor.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

MOST_MODULES = 50_000
"""Most modules a model may be made of: more than 80 layers of 128 experts each."""


def text_size(config: Any, name: str) -> int | None:
    """Return a size such as ``hidden_size`` or ``max_position_embeddings``, or None where there is no such limit."""
    value = getattr(config.get_text_config(), name, None)
    return value if isinstance(value, int) and value > 0 else None


def required_size(config: Any, name: str) -> int:
    """Return a size that every model of text has.

    Raises:
        ModelError: this one has not.
    """
    size = text_size(config, name)
    if size is None:
        raise ModelError(
            f"{config.name_or_path}: its configuration ({config.model_type}) gives no {name}. Is it a model of text?"
        )
    return size


@contextlib.contextmanager
def bounded_skeleton() -> Iterator[None]:
    """Build what is built inside without memory for weights, and stop at a number of modules that no model has.

    Raises:
        ModelError: there are too many.
    """
    import torch
    from torch.nn.modules.module import register_module_module_registration_hook

    count = 0

    def count_one(parent: nn.Module, name: str, child: nn.Module | None) -> None:
        nonlocal count
        count += 1
        if count > MOST_MODULES:
            raise ModelError(
                f"its configuration describes more than {MOST_MODULES:,} modules. Copy or download config.json again"
            )

    handle = register_module_module_registration_hook(count_one)
    try:
        with torch.device("meta"):
            yield
    finally:
        handle.remove()


def unused_positions(config: Any) -> int:
    """Return how many positions at the start of its table an architecture never gives to a token.

    Position ids of RoBERTa and its relatives start behind the padding index, and their table has one itself.
    """
    from transformers import MODEL_MAPPING

    kind = MODEL_MAPPING.get(type(config), None)
    if isinstance(kind, tuple):
        kind = kind[0]
    if kind is None:  # code that comes with the checkpoint
        return 0
    with bounded_skeleton():
        model = kind(config)
    embeddings = getattr(model, "embeddings", None)
    padding = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    return 0 if padding is None else int(padding) + 1
