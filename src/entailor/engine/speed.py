"""How many operations a model takes for a token, and how many this machine does in a second; nothing is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from entailor.config.parts import ModelSettings
from entailor.errors import RunError

SAMPLE = 200
"""Examples whose tokens are counted."""
HIDDEN_COPIES, INNER_COPIES = 16, 3
"""Vectors of the hidden and the inner width that one layer keeps of a token for the backward pass."""


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model before it is loaded.

    Attributes:
        tokens: of an example, on average.
        operations: of one token forward, multiplications and additions in the layers.
        speed: operations a second in fp32, all cores together.
        training_speed: the same in the arithmetic training was found to be fastest in.
        load_bytes: that loading takes.
        parameters: of the whole model.
        layer_floats: numbers that all layers keep of a token for the backward pass.
    """

    tokens: float
    operations: float
    speed: float
    training_speed: float
    load_bytes: int
    parameters: int
    layer_floats: int


def facts_of(
    model: str,
    settings: ModelSettings,
    placed: Mapping[str, Any],
    texts: Sequence[str],
    prompt: str | None,
    *,
    half: bool,
) -> ModelFacts:
    """Return what counting needs to know of a model.

    Args:
        model: as the user named it.
        settings: how it is loaded.
        placed: the plan of its memory, as environment.json holds it.
        texts: a sample of the data.
        prompt: the template around each text, of a model that is asked.
        half: training is in bf16.

    Raises:
        RunError: the model will stand on a GPU, whose speed is not known.
        ModelError: its files cannot be read.
    """
    import torch

    from entailor.models.control_tokens import whole_characters
    from entailor.models.load import open_model, open_tokenizer, read_config
    from entailor.models.memory_plan import forward_gflops
    from entailor.models.precision import known_speeds
    from entailor.models.sizes import required_size, text_size
    from entailor.models.tokenizer import call_tokenizer

    if any(part["place"] not in ("cpu", "disk") for part in placed["parts"]):
        raise RunError("the speed of this GPU is not known before the first steps")
    folder = open_model(model, settings)
    config = read_config(folder, settings)
    hidden, layers = required_size(config, "hidden_size"), text_size(config, "num_hidden_layers") or 1
    inner = text_size(config, "intermediate_size") or 4 * hidden
    fp32, bf16 = known_speeds(hidden, inner)  # of one core, measured once a machine
    bits = 4 if settings.load_in_4bit else 8 if settings.load_in_8bit else 32
    cores = 1e9 * torch.get_num_threads() / crowd()
    speed = fp32 * cores if bits == 32 else 1e9 * forward_gflops(bits) / crowd()
    tokenizer = open_tokenizer(folder, settings)
    tokens = sum(map(len, call_tokenizer(tokenizer, list(map(whole_characters, texts))).input_ids)) / len(texts)
    if prompt is not None:
        tokens += len(call_tokenizer(tokenizer, [prompt]).input_ids[0])
    if settings.max_length is not None:
        tokens = min(tokens, settings.max_length)
    body = sum(part["parameters"] for part in placed["parts"] if part["name"].endswith("layers"))
    return ModelFacts(
        tokens=tokens,
        operations=2 * body + 4 * tokens * hidden * layers,
        speed=speed,
        training_speed=bf16 * cores if half else speed,
        load_bytes=placed["load_bytes"],
        parameters=sum(part["parameters"] for part in placed["parts"]),
        layer_floats=layers * (HIDDEN_COPIES * hidden + INNER_COPIES * inner),
    )


def crowd() -> float:
    """Return by how much others slow this process down: the work that waits for a processor, by processors."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return max(1.0, load / (os.cpu_count() or 1))
