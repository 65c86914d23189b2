"""How many operations a model takes for a token, and how many this machine does in a second; nothing is loaded."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from entailor.config.parts import ModelSettings
from entailor.errors import RunError

SAMPLE = 200
"""Examples whose tokens are counted."""
ALONE_SECONDS, SHARED_SECONDS = 0.05, 0.3
"""A slowdown is measured so long: in processor time of one thread, then by the clock with all threads."""
HIDDEN_COPIES, INNER_COPIES = 16, 3
"""Vectors of the hidden and the inner width that one layer keeps of a token for the backward pass."""


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model before it is loaded.

    Attributes:
        tokens: of an example, on average.
        operations: of one token forward, multiplications and additions in the layers.
        speed: operations a second in fp32, all cores together, with nothing else on the machine.
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

    from entailor.engine.precision import known_speeds
    from entailor.models.control_tokens import whole_characters
    from entailor.models.load import open_model, open_tokenizer, read_config
    from entailor.models.memory_plan import forward_gflops
    from entailor.models.sizes import required_size, text_size
    from entailor.models.tokenizer import call_tokenizer

    if any(part["place"] not in ("cpu", "disk") for part in placed["parts"]):
        raise RunError("the speed of this GPU is not known before the first steps")
    folder = open_model(model, settings)
    config = read_config(folder, settings)
    hidden, layers = required_size(config, "hidden_size"), text_size(config, "num_hidden_layers") or 1
    inner = text_size(config, "intermediate_size") or 4 * hidden
    fp32, bf16 = known_speeds(hidden, inner)  # of one core, measured once a model of processor
    bits = 4 if settings.load_in_4bit else 8 if settings.load_in_8bit else 32
    cores = 1e9 * torch.get_num_threads()
    speed = fp32 * cores if bits == 32 else 1e9 * forward_gflops(bits)
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


@dataclass(frozen=True)
class Slowdown:
    """By how much other work slows this process down: what a second of its own takes by the clock, at least 1.

    Attributes:
        now: as measured.
        low: the lesser of that and what the load average says, which looks back a minute.
        high: the greater of the two.
    """

    now: float
    low: float
    high: float


def measure_slowdown(
    *, models: bool, clock: Callable[[], float] = time.perf_counter, own_clock: Callable[[], float] = time.thread_time
) -> Slowdown:
    """Measure what other work on the machine, priorities and quotas cost this process; a third of a second alone.

    Args:
        models: products of matrices on all of torch's threads are timed, as a model does them; otherwise one thread.
        clock: seconds.
        own_clock: seconds of processor time of this thread.
    """
    alone: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    shared, work = 1, _count
    if models:
        import torch

        from entailor.engine.precision import one_thread

        # As large as a layer's: threads wait for each other behind each product, and where other work takes a core from
        # one of them the wait does not grow with the product, so that small ones are slowed down far more than a model.
        states_TH, weight_HI = torch.ones(1024, 384), torch.ones(384, 1536)
        alone, shared = one_thread(), torch.get_num_threads()

        def work() -> object:
            return states_TH @ weight_HI

    with alone:
        own = _seconds_each(work, own_clock, ALONE_SECONDS)
    measured = max(1.0, shared * _seconds_each(work, clock, SHARED_SECONDS) / own)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    told = max(1.0, load / (os.cpu_count() or 1))
    return Slowdown(measured, min(measured, told), max(measured, told))


def _count() -> object:
    return sum(range(20_000))


def _seconds_each(work: Callable[[], object], clock: Callable[[], float], seconds: float) -> float:
    begin, calls = clock(), 0
    while (passed := clock() - begin) < seconds:
        work()
        calls += 1
    return passed / calls
