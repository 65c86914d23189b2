"""What a run was run on: versions, machine, threads, git commit. No environment variable, token or user name."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

from entailor.runs.network import hub_kernels_loaded

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


def loaded_torch() -> ModuleType | None:
    """Return torch where this process has imported it: whatever computes with it has, baselines on words have not."""
    return sys.modules.get("torch")


def describe_environment(*, models: bool = True) -> dict[str, Any]:
    """Return versions, platform, CPU or GPU, threads, memory and the git commit of the working folder.

    Args:
        models: whether models are run. Only then torch is asked for `threads` and `gpus`; they are None otherwise.
    """
    threads, gpus = None, None
    if models:
        import torch

        threads = torch.get_num_threads()
        gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "versions": {name: _version(name) for name in ("entailor", *PACKAGES)},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_bytes": _memory_bytes(),
        "gpus": gpus,
        "hub_kernels": hub_kernels_loaded(),
        "git_commit": _git_commit(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
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
