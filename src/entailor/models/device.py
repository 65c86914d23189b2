"""The accelerator of this machine, whatever its kind: cuda, mps, xpu, or a back end that registers with PyTorch.

Nothing else in the package names one: a batch, a mask, a random state follow the device of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from entailor.runs.environment import accelerators, ask_device

if TYPE_CHECKING:  # baselines on words do without torch
    import torch
    from torch import Tensor

RANDOM = "random."
"""In front of the names of the states of random generators."""


def main_device() -> torch.device:
    """Return where a model stands if nobody says otherwise: PyTorch's current accelerator, or the CPU."""
    import torch

    found = torch.accelerator.current_accelerator(check_available=True)
    return torch.device(found.type, torch.accelerator.current_device_index()) if found else torch.device("cpu")


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Bring a tensor to a device without waiting for what the device does.

    A copy from ordinary memory waits until the device has done all it was asked before. So it goes through pinned
    memory, which PyTorch does not use again before the copy is done. The memory of mps is the CPU's own.
    """
    if device.type in ("cpu", "mps") or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def random_states() -> dict[str, Tensor]:
    """Return by name the states of torch's generators, those of the CPU and of each accelerator, on the CPU."""
    import torch

    states = {f"{RANDOM}cpu": torch.get_rng_state()}
    for device in accelerators():
        states[f"{RANDOM}{device}"] = ask_device(device, "get_rng_state")
    return states


def set_random_states(states: Mapping[str, Tensor]) -> None:
    """Put back what :func:`random_states` gave; generators that are not here, or were not there, stay as they are."""
    import torch

    torch.set_rng_state(states[f"{RANDOM}cpu"])
    for device in accelerators():
        if (state := states.get(f"{RANDOM}{device}")) is not None:
            ask_device(device, "set_rng_state", state)


def free_bytes(device: torch.device) -> int | None:
    """Return the free bytes of an accelerator's memory, or None where its back end does not tell."""
    if (free_and_all := ask_device(device, "mem_get_info")) is not None:
        return int(free_and_all[0])
    most, taken = (ask_device(device, name) for name in ("recommended_max_memory", "driver_allocated_memory"))  # mps
    return None if most is None or taken is None else max(0, int(most) - int(taken))


def reset_peak_bytes() -> None:
    """Begin a new peak of the accelerators' memory."""
    for device in accelerators():
        ask_device(device, "reset_peak_memory_stats")


def peak_bytes() -> int | None:
    """Return the most bytes allocated on all accelerators since the last reset; None without one, or where untold."""
    told = [ask_device(device, "max_memory_allocated") for device in accelerators()]
    return None if not told or None in told else sum(map(int, told))


def free_cached_memory() -> None:
    """Give cached memory of the accelerators back, so that a smaller batch finds one piece that is large enough."""
    if found := accelerators():
        import torch

        getattr(torch.get_device_module(found[0].type), "empty_cache", lambda: None)()
