"""Keys and values of a prompt's shared beginning, computed once and read by every prompt behind it.

A plain forward pass over the whole prompt is the reference; tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache

from entailor.accel.prefix_attention import prefix_attention
from entailor.models.device import send

Layers = list[tuple[Tensor, Tensor]]
IMPLEMENTATION = "entailor_shared_prefix"
# Attention functions of `transformers` are not told which cache they work for.
_shared_layers: ContextVar[Layers] = ContextVar("shared_layers")


@lru_cache
def _layer_kind() -> Any:
    """Return the kind of layer of a cache; made at need, since `transformers` promises nobody what it is built on."""
    from transformers.cache_utils import DynamicLayer

    class SharedLayer(DynamicLayer):
        """A layer's keys and values of the prefix; a batch's are put behind them for one forward pass and not kept.

        Args:
            keys_1KPD: keys of the prefix.
            values_1KPD: its values.
            joined: whether attention is given both together; else the batch's own, since it knows the shared ones.
        """

        def __init__(self, keys_1KPD: Tensor, values_1KPD: Tensor, *, joined: bool) -> None:
            super().__init__()
            self.lazy_initialization(keys_1KPD, values_1KPD)
            self.keys, self.values, self.joined = keys_1KPD, values_1KPD, joined

        def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
            """Return what attention is given of keys and values."""
            if not self.joined:
                return key_states, value_states
            rows = len(key_states)
            return (
                torch.cat([self.keys.expand(rows, -1, -1, -1), key_states], dim=-2),
                torch.cat([self.values.expand(rows, -1, -1, -1), value_states], dim=-2),
            )

    return SharedLayer


@lru_cache
def _register() -> None:
    """Make the attention known to `transformers`."""
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(IMPLEMENTATION, _attend)
    AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)


class SharedPrefix:
    """What a decoder keeps of the tokens that all prompts begin with.

    Args:
        model: a causal language model of `transformers`, or `peft`'s wrapper of one.
        ids: token ids of the shared beginning, P of them.
    """

    def __init__(self, model: Any, ids: Sequence[int]) -> None:
        self.model, self.ids = model, list(ids)
        # the fast attention is written for the CPU and stands in for the plain kind that `transformers` calls sdpa
        self.joined = model.device.type != "cpu" or model.config._attn_implementation != "sdpa"
        if not self.joined:
            _register()
        ids_1P = send(torch.tensor([self.ids]), model.device)
        cache = DynamicCache()
        with torch.no_grad():
            # the output layer is not needed: it sees the last position only, and its result is dropped
            model(input_ids=ids_1P, past_key_values=cache, use_cache=True, logits_to_keep=1)
        self.layers: Layers = [(layer.keys, layer.values) for layer in cache.layers]

    def __len__(self) -> int:
        return len(self.ids)

    @contextmanager
    def attending(self) -> Iterator[None]:
        """Let the model's attention look at the prefix while batches behind it are run."""
        if self.joined:
            yield
            return
        token = _shared_layers.set(self.layers)
        self.model.set_attn_implementation(IMPLEMENTATION)
        try:
            yield
        finally:
            self.model.set_attn_implementation("sdpa")
            _shared_layers.reset(token)

    def inputs_behind(self, ids_BT: Tensor, mask: Tensor, positions_BT: Tensor | None = None) -> dict[str, Any]:
        """Return the model's arguments for tokens that follow the prefix; attention sees both.

        Args:
            ids_BT: right-padded token ids without the prefix.
            mask: 1 at real tokens, (B, T); or what is added to the scores of attention, (B, 1, T, T).
            positions_BT: of each token behind the prefix; None: one after the other.
        """
        if positions_BT is None:
            positions_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device).expand(ids_BT.shape)
        cache = DynamicCache()
        kind = _layer_kind()
        cache.layers = [kind(keys, values, joined=self.joined) for keys, values in self.layers]
        seen = mask.new_full((*mask.shape[:-1], len(self)), 1 if mask.ndim == 2 else 0)
        return {
            "input_ids": ids_BT,
            "attention_mask": torch.cat([seen, mask], dim=-1),
            "position_ids": positions_BT + len(self),
            "past_key_values": cache,
            "use_cache": True,
        }


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend over the prefix and the batch's own keys; the face is that of the functions of `transformers`."""
    shared = _shared_layers.get()[module.layer_idx]
    own_mask = None
    if attention_mask is not None:
        own_mask = attention_mask[..., shared[0].shape[2] :]
        if own_mask.dtype == torch.bool:
            own_mask = torch.zeros_like(own_mask, dtype=query.dtype).masked_fill(~own_mask, float("-inf"))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    output_BHTD = prefix_attention(query.contiguous(), (key, value), shared, own_mask, scale)
    return output_BHTD.transpose(1, 2).contiguous(), None


def can_share(config: Any, longest: int) -> bool:
    """Tell whether a prefix can be computed apart: every layer looks at everything, or its window is wide enough.

    Args:
        config: the model's configuration.
        longest: tokens of the longest whole prompt.
    """
    text = config.get_text_config()
    # gpt-neo calls them otherwise, and its local layers count places of a row, not positions
    kinds = set(getattr(text, "layer_types", None) or getattr(text, "attention_layers", None) or ("full_attention",))
    if kinds <= {"full_attention"} and not getattr(text, "sliding_window", None):
        return True
    window = getattr(text, "sliding_window", None) or 0
    return kinds <= {"full_attention", "sliding_attention"} and longest <= window
