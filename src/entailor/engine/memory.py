"""Telling an error of missing memory from any other, on CPU and GPU, and giving back what is cached."""

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


def free_cached_memory() -> None:
    """Give cached GPU memory back, so that a smaller batch finds one piece that is large enough."""
    if (torch := loaded_torch()) and torch.cuda.is_available():
        torch.cuda.empty_cache()
