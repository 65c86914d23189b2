"""What a run was run on: versions, machine, threads, git commit. No environment variable, token or user name."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypedDict

from entailor.runs.network import hub_kernels_loaded

if TYPE_CHECKING:
    import torch

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "kernels",
    "tokenizers",
    "safetensors",
    "datasets",
    "numpy",
    "scipy",
    "scikit-learn",
    "pydantic",
)


class Machine(TypedDict):
    """Versions and hardware; what the system does not tell is None."""

    versions: dict[str, str | None]
    python: str
    platform: str
    cpu: str
    cores: int | None
    threads: int | None
    memory_bytes: int | None
    gpus: list[str] | None
    hub_kernels: bool
    git_commit: str | None


class DataNotes(TypedDict):
    """What was read: remarks, findings as mappings, and the fingerprint of split.json."""

    notes: list[str]
    findings: list[Mapping[str, Any]]
    fingerprint: str


class RunEnvironment(Machine):
    """The content of environment.json: where a run ran, and what was chosen for it there."""

    precision: dict[str, Mapping[str, Any]]
    """Arithmetic of training by model, the fields of `PrecisionChoice`."""
    placement: dict[str, list[Mapping[str, Any]]]
    """By model, how it is loaded for which candidates."""
    date: str
    model_settings: Mapping[str, Any]
    data: DataNotes
    command: str


def loaded_torch() -> ModuleType | None:
    """Return torch where this process has imported it: whatever computes with it has, baselines on words have not."""
    return sys.modules.get("torch")


def accelerators() -> list[torch.device]:
    """Return the devices of this machine's accelerator, in order; none where torch is not loaded or finds none."""
    torch = loaded_torch()
    if torch is None or (found := torch.accelerator.current_accelerator(check_available=True)) is None:
        return []
    return [torch.device(found.type, index) for index in range(torch.accelerator.device_count())]


def ask_device(device: torch.device, name: str, *args: Any) -> Any:
    """Call a function of a kind of device's module (torch.cuda, torch.mps, ...); None where it has none of that name.

    Args:
        device: which one is meant; there is one mps, whose functions do not take it.
        name: of the function.
        args: what it takes before the device.
    """
    import torch

    function = getattr(torch.get_device_module(device.type), name, None)
    return function(*args, *(() if device.type == "mps" else (device,))) if function else None


def describe_environment(*, models: bool = True) -> Machine:
    """Return versions, platform, CPU or GPU, threads, memory and the git commit of the working folder.

    Args:
        models: whether models are run. Only then torch is asked for `threads` and `gpus`; they are None otherwise.
    """
    threads, gpus = None, None
    if models:
        import torch

        threads = torch.get_num_threads()
        gpus = [ask_device(device, "get_device_name") or device.type for device in accelerators()]
    return {
        "versions": {name: installed_version(name) for name in ("entailor", *PACKAGES)},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_bytes": _memory_bytes(),
        "gpus": gpus,
        "hub_kernels": hub_kernels_loaded(),
        "git_commit": _git_commit(),
    }


def installed_version(name: str) -> str | None:
    """Return the version of a package, or None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def utc_now() -> str:
    """Return the time to the second, as records hold it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def cpu_name() -> str:
    """Return what the processor calls itself."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _git_commit() -> str | None:
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607 - the user's own git
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None
