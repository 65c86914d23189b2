"""Keeps freed memory in the process between the steps of a training, where the C library would give it back.

glibc returns every block above 32 MiB to the system at once. The gradient of a word embedding is such a block: it was
asked for again each step, and each of its pages faulted in and zeroed by the kernel.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterable

from torch import Tensor

RETURNED_FROM_BYTES = 32 * 2**20
"""Largest block that glibc keeps by itself (DEFAULT_MMAP_THRESHOLD_MAX)."""
KEPT_BYTES = 2**31 - 1
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory(trained: Iterable[Tensor]) -> bool:
    """Keep what is freed, from now on, where a gradient is so large that it would be returned each step.

    Results do not change. The process keeps the memory of its largest step until it ends.

    Args:
        trained: tensors that get a gradient.

    Returns:
        Whether it was switched: on Linux with glibc, for tensors on the CPU above `RETURNED_FROM_BYTES`.
    """
    largest = max((t.numel() * t.element_size() for t in trained if t.device.type == "cpu"), default=0)
    if largest < RETURNED_FROM_BYTES or platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # a static build
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, KEPT_BYTES // 2 + 1)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))
