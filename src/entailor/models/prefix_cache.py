"""Keys and values of a prompt's shared beginning, computed once and read by every prompt behind it.

A plain forward pass over the whole prompt is the reference; tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer


class SharedLayer(DynamicLayer):
    """Puts the prefix in front of a batch's keys and values, and keeps neither.

    A batch is one forward pass, so a layer's joined keys can go before the next layer's are made.
    """

    def __init__(self, keys_1KPD: Tensor, values_1KPD: Tensor, rows: int) -> None:
        super().__init__()
        self.lazy_initialization(keys_1KPD, values_1KPD)
        self.keys = keys_1KPD.expand(rows, -1, -1, -1)
        self.values = values_1KPD.expand(rows, -1, -1, -1)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Return keys and values of prefix and batch together."""
        return torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)


class SharedPrefix:
    """What a decoder keeps of the tokens that all prompts begin with.

    Args:
        model: a causal language model of `transformers`, or `peft`'s wrapper of one.
        ids: token ids of the shared beginning, P of them.
    """

    def __init__(self, model: Any, ids: Sequence[int]) -> None:
        self.ids = list(ids)
        ids_1P = torch.tensor([self.ids], device=model.device)
        cache = DynamicCache()
        with torch.no_grad():
            # the output layer is not needed: it sees the last position only, and its result is dropped
            model(input_ids=ids_1P, past_key_values=cache, use_cache=True, logits_to_keep=1)
        self.layers = [(layer.keys, layer.values) for layer in cache.layers]

    def __len__(self) -> int:
        return len(self.ids)

    def inputs_behind(self, ids_BT: Tensor, mask_BT: Tensor) -> dict[str, Any]:
        """Return the model's arguments for tokens that follow the prefix; attention sees both.

        Args:
            ids_BT: right-padded token ids without the prefix.
            mask_BT: 1 at real tokens.
        """
        rows, width = ids_BT.shape
        positions_T = torch.arange(width, device=ids_BT.device) + len(self)
        return {
            "input_ids": ids_BT,
            "attention_mask": torch.cat([mask_BT.new_ones(rows, len(self)), mask_BT], dim=1),
            "position_ids": positions_T.expand(rows, -1),
            "past_key_values": self._cache(rows),
            "use_cache": True,
        }

    def _cache(self, rows: int) -> Any:
        cache = DynamicCache()
        cache.layers = [SharedLayer(keys, values, rows) for keys, values in self.layers]
        return cache


def can_share(config: Any, longest: int) -> bool:
    """Tell whether a prefix can be computed apart: every layer looks at everything, or its window is wide enough.

    Args:
        config: the model's configuration.
        longest: tokens of the longest whole prompt.
    """
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ("full_attention",))
    if kinds <= {"full_attention"} and not getattr(text, "sliding_window", None):
        return True
    window = getattr(text, "sliding_window", None) or 0
    return kinds <= {"full_attention", "sliding_attention"} and longest <= window
