"""Telling an error of missing memory from any other, on every device."""

from __future__ import annotations

from entailor.runs.environment import loaded_torch

# PyTorch's allocator on the CPU has no exception type of its own.
_CPU_WORDS = ("can't allocate memory", "Cannot allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an operation failed for want of memory and may succeed with a smaller batch."""
    torch = loaded_torch()
    if isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _CPU_WORDS)
