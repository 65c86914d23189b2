"""What the benchmarks share: rows, the machine's own speed, two contestants in turn, one JSON file."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from entailor.data.example import Example
from entailor.data.readers import read_examples

LABELS = ("entailment", "neutral", "contradiction")


def arguments(head: str, *, needs_data: bool = True, **extra: Any) -> argparse.Namespace:
    """Read the flags every benchmark has, and its own."""
    parser = argparse.ArgumentParser(description=head)
    parser.add_argument("--data", required=needs_data, help="pairs with three-way NLI labels, CSV or JSONL")
    parser.add_argument("--out", type=Path, help="JSON file to write; default: standard output only")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="count the process's own processor time, with one thread: for a machine on which other things run",
    )
    for name, default in extra.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    found = parser.parse_args()
    if found.processor_time:
        found.threads = 1
        _CLOCK.append(time.process_time)
    torch.set_num_threads(found.threads)
    return found


_CLOCK = [time.perf_counter]


def now() -> float:
    """Return seconds of the clock that was asked for: wall, or the process's own processor time."""
    return _CLOCK[-1]()


def read_rows(data: str, count: int) -> list[Example]:
    """Return the first rows of a file."""
    return list(read_examples(data).examples[:count])


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, min and max."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def in_turn(repeats: int, **contestants: Callable[[], float]) -> dict[str, list[float]]:
    """Run contestants A, B, A, B, ... and return what each gave each time."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, run in contestants.items():
            found[name].append(run())
    return found


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Return the spread of ours / theirs, turn by turn."""
    return spread([one / other for one, other in zip(ours, theirs, strict=True)])


def gemm_peak(repeats: int = 15) -> float:
    """Return the median speed of a 1024x1024x4096 product in fp32, 1e9 operations a second."""
    left, right = torch.randn(1024, 1024), torch.randn(1024, 4096)
    times = []
    for _ in range(repeats + 3):
        begin = now()
        left @ right
        times.append(now() - begin)
    return 2 * 1024 * 1024 * 4096 / statistics.median(times[3:]) / 1e9


def report(bar: str, result: dict[str, Any], out: Path | None) -> None:
    """Print the result as JSON and write it."""
    names = ("torch", "transformers", "peft", "accelerate")
    machine = {
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "clock": _CLOCK[-1].__name__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }
    text = json.dumps({"bar": bar, **result, "machine": machine}, indent=2)
    print(text)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n", encoding="utf-8")
