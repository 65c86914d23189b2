"""What a trial takes: seconds by part and the most memory resident at once."""

from __future__ import annotations

import ctypes
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from entailor.models.device import peak_bytes, reset_peak_bytes


class Meter:
    """Seconds by part; parts do not overlap."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the time of the block to a part."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - start


def reset_peak_memory() -> bool:
    """Start a new peak; return False where the system keeps one peak for the process's whole life.

    On Linux, writing 5 to clear_refs resets the high-water mark of resident memory (proc(5)). What earlier work has
    freed is given back first where the C library can (malloc_trim(3) of glibc), so that it does not count here.
    """
    with suppress(OSError, AttributeError, TypeError):  # Windows has no library without a name
        ctypes.CDLL(None).malloc_trim(0)
    reset_peak_bytes()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii", newline="\n")
        return True
    return False


def peak_memory_bytes() -> int:
    """Return the most bytes resident since the last reset (or since the process began)."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return whole_peak_bytes()


def whole_peak_bytes() -> int:
    """Return the most bytes resident since the process began, where the system has no peak that can be reset."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        memory = psutil.Process().memory_info()
        return int(getattr(memory, "peak_wset", memory.rss))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_gpu_memory_bytes() -> int | None:
    """Return the most bytes allocated on the accelerators since the last reset; None without one, or where untold."""
    return peak_bytes()
