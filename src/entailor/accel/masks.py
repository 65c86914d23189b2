"""Attention masks on an accelerator without asking it whether a batch is padded.

Where attention runs through PyTorch's SDPA, `transformers` reads the mask at every forward pass, to leave out one that
hides nothing; the host then waits until the device has done all it was asked. Whoever made the batch knows the answer.
The functions of `transformers` do the work, and the result is theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

IMPLEMENTATION = "entailor_sdpa"
_padded: ContextVar[bool] = ContextVar("padded", default=True)


def ask_no_masks(model: Any) -> bool:
    """Let a model on an accelerator make its masks so, in place.

    Args:
        model: of `transformers`.

    Returns:
        Whether it does: not on a CPU, which waits for nothing, nor where attention is not `transformers`' own SDPA.
    """
    fits = getattr(model, "_supports_attention_backend", False) and model.config._attn_implementation == "sdpa"
    if model.device.type == "cpu" or not fits or not _register():
        return False
    model.set_attn_implementation(IMPLEMENTATION)
    return True


@contextmanager
def known_padding(padded: bool) -> Iterator[None]:
    """Say of the batches that are run inside the block whether their masks hide padding."""
    token = _padded.set(padded)
    try:
        yield
    finally:
        _padded.reset(token)


@lru_cache
def _register() -> bool:
    """Make the masks known to `transformers`; False where it has not what they are made of."""
    try:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward
        from transformers.masking_utils import sdpa_mask
    except ImportError:
        return False

    def mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
        """Return what `sdpa_mask` does; a mask of padding is always made, one of nothing never."""
        if not _padded.get():
            attention_mask = None
        if attention_mask is not None:
            kwargs |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
        made: Tensor | None = sdpa_mask(*args, attention_mask=attention_mask, **kwargs)
        return made

    AttentionInterface.register(IMPLEMENTATION, sdpa_attention_forward)
    AttentionMaskInterface.register(IMPLEMENTATION, mask)
    return True
