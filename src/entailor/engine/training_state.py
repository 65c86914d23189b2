"""Everything a training needs to go on as if nothing had happened: weights, optimizer, schedule, random states, place.

Reads and writes the state of `trainer.Training`; where it is kept is the business of `checkpoint`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from entailor.engine.checkpoint import Snapshot
from entailor.events import Event
from entailor.models.device import RANDOM, random_states, set_random_states
from entailor.models.sharded import fill, is_sharded
from entailor.runs.record import CurvePoint

if TYPE_CHECKING:
    from entailor.engine.trainer import Training

COUNTERS = ("step", "learning_rate", "stale_evaluations", "evaluated_at", "groups_done", "most_examples")


def capture(training: Training) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state after a step as tensors and as values that JSON can hold."""
    tensors: dict[str, Tensor] = {}
    tensors.update({f"trainable.{i}": tensor for i, tensor in enumerate(training.trainable)})
    tensors.update({f"best.{i}": tensor for i, tensor in enumerate(training.best)})
    tensors.update({f"buffer.{name}": buffer.clone() for name, buffer in training.module.named_buffers()})
    moments: list[dict[str, object]] = []
    for i, parameter in enumerate(training.trainable):
        state = training.optimizer.state.get(parameter, {})
        tensors.update({f"optimizer.{i}.{key}": value for key, value in state.items() if isinstance(value, Tensor)})
        moments.append({key: value for key, value in state.items() if not isinstance(value, Tensor)})
    tensors["reached"] = training.reached
    for place, key in enumerate(("losses", "norms")):
        if training.window:
            tensors[f"window.{key}"] = torch.stack([pair[place] for pair in training.window])
    tensors |= random_states()
    schedule = training.schedule.state_dict()
    values = {
        **{name: getattr(training, name) for name in COUNTERS},
        "shapes": [list(tensor.shape) for tensor in training.trainable],
        "moments": moments,
        "rates": [group["lr"] for group in training.optimizer.param_groups],
        "schedule": {key: value for key, value in schedule.items() if _is_plain(value)},
        "epoch_random": training.epoch_random,
        "random": _library_states(),
        "result": asdict(training.result) | {"best_loss": _finite(training.result.best_loss)},
    }
    return tensors, values


def restore(training: Training, snapshot: Snapshot) -> None:
    """Put a captured state back into a training that was just made from the same settings, data and seed."""
    tensors, values = snapshot.tensors, snapshot.values
    for name in COUNTERS:
        setattr(training, name, values[name])
    training.reached.copy_(tensors["reached"])
    with torch.no_grad():
        for i, tensor in enumerate(training.trainable):
            fill(tensor, tensors[f"trainable.{i}"])
        for name, buffer in training.module.named_buffers():
            buffer.copy_(tensors[f"buffer.{name}"])
    if "best.0" in tensors:
        training.best = [_like(held, tensors[f"best.{i}"]) for i, held in enumerate(training.trainable)]
    for i, parameter in enumerate(training.trainable):
        _restore_moments(training, i, parameter, snapshot)
    for group, rate in zip(training.optimizer.param_groups, values["rates"], strict=True):
        group["lr"] = rate
    training.schedule.load_state_dict({**training.schedule.state_dict(), **values["schedule"]})
    if "window.losses" in tensors:
        pairs = zip(tensors["window.losses"], tensors["window.norms"], strict=True)
        training.window = [(loss.to(training.device), norm.to(training.device)) for loss, norm in pairs]
    training.rng.bit_generator.state = values["epoch_random"]
    result = dict(values["result"])
    result["events"] = [Event(**event) for event in result["events"]]
    result["curve"] = [CurvePoint(**point) for point in result["curve"]]
    result["best_loss"] = float("inf") if result["best_loss"] is None else result["best_loss"]
    for entry in fields(training.result):
        setattr(training.result, entry.name, result[entry.name])
    _restore_random(snapshot)


def _restore_moments(training: Training, i: int, parameter: Tensor, snapshot: Snapshot) -> None:
    prefix = f"optimizer.{i}."
    state: dict[str, object] = dict(snapshot.values["moments"][i])
    for name in (one for one in snapshot.tensors if one.startswith(prefix)):
        tensor = snapshot.tensors[name]
        # a step count that lives on the CPU beside parameters on a GPU must stay there
        fused = training.optimizer.param_groups[0].get("fused")
        like = tensor.shape == parameter.shape
        state[name.removeprefix(prefix)] = (
            _like(parameter, tensor) if like else tensor.to(parameter.device) if fused else tensor
        )
    if state:
        training.optimizer.state[parameter] = state


def _like(parameter: Tensor, full: Tensor) -> Tensor:
    """Return a whole tensor where a parameter is, divided as it is."""
    if not is_sharded(parameter):
        return full.to(parameter.device)
    divided = torch.empty_like(parameter.detach())
    fill(divided, full)
    return divided


def _library_states() -> Mapping[str, Any]:
    """Return the states of `random` and of numpy's legacy generator."""
    version, internal, gauss_next = random.getstate()
    legacy: Any = np.random.get_state(legacy=False)  # noqa: NPY002 - third-party layers may draw from it
    return {
        "python": [version, list(internal), gauss_next],
        "numpy": {**legacy, "state": {"key": legacy["state"]["key"].tolist(), "pos": int(legacy["state"]["pos"])}},
    }


def _restore_random(snapshot: Snapshot) -> None:
    states = snapshot.values["random"]
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(internal), gauss_next))
    legacy = states["numpy"]
    key = np.array(legacy["state"]["key"], dtype=np.uint32)
    np.random.set_state({**legacy, "state": {**legacy["state"], "key": key}})  # noqa: NPY002
    set_random_states({name: snapshot.tensors[name] for name in snapshot.tensors if name.startswith(RANDOM)})


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_plain(one) for one in value) and value != [None] * max(1, len(value))
    return isinstance(value, (int, float, str, bool))


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
