"""Attention of many rows over keys they share and keys of their own, without a copy of the shared ones for each row.

The naive reference puts the shared keys in front of every row's. The fast one looks at both apart and joins the two
softmaxes by their normalising terms, as blocks are joined in Dao et al. 2022 (FlashAttention, section 3.1). CPU only.
"""

from __future__ import annotations

import torch
from torch import Tensor


def naive_prefix_attention(
    query_BHTD: Tensor,
    own: tuple[Tensor, Tensor],
    shared: tuple[Tensor, Tensor],
    mask_BTT: Tensor | None,
    scale: float,
) -> Tensor:
    """Return attention over shared and own keys together, (B, H, T, D).

    Args:
        query_BHTD: queries; H is a multiple of the number of key heads K.
        own: keys and values of each row, (B, K, T, D).
        shared: keys and values of the prefix, (1, K, P, D); every query sees all of them.
        mask_BTT: what is added to the scores of own keys, (B or 1, 1, T, T); None: causal.
        scale: of the scores.
    """
    rows, heads, width, _ = query_BHTD.shape
    groups = heads // own[0].shape[1]
    keys, values = (
        torch.cat([one.expand(rows, -1, -1, -1), other], dim=2).repeat_interleave(groups, dim=1)
        for one, other in zip(shared, own, strict=True)
    )
    own_BTT = _causal(width, query_BHTD) if mask_BTT is None else mask_BTT
    seen = own_BTT.new_zeros(*own_BTT.shape[:-1], shared[0].shape[2])
    scores = query_BHTD @ keys.transpose(-1, -2) * scale + torch.cat([seen, own_BTT], dim=-1)
    attended_BHTD: Tensor = torch.softmax(scores, dim=-1) @ values
    return attended_BHTD


def prefix_attention(
    query_BHTD: Tensor,
    own: tuple[Tensor, Tensor],
    shared: tuple[Tensor, Tensor],
    mask_BTT: Tensor | None,
    scale: float,
) -> Tensor:
    """Return the same; the queries of all rows and of all heads with one key head go over the shared keys at once."""
    rows, heads, width, size = query_BHTD.shape
    key_heads = own[0].shape[1]
    groups = heads // key_heads
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    together = query_BHTD.view(rows, key_heads, groups, width, size).transpose(0, 1).reshape(1, key_heads, -1, size)
    over_shared, shared_norm = flash(together, *shared, 0.0, False, scale=scale)
    over_shared = over_shared.view(key_heads, rows, groups, width, size).transpose(0, 1).reshape(query_BHTD.shape)
    shared_norm = shared_norm.reshape(key_heads, rows, groups, width).transpose(0, 1).reshape(rows, heads, width)
    own_BTT = _causal(width, query_BHTD) if mask_BTT is None else mask_BTT
    keys, values = (one.repeat_interleave(groups, dim=1) for one in own)
    over_own, own_norm = flash(query_BHTD, keys, values, 0.0, False, attn_mask=own_BTT, scale=scale)
    # the share of the shared keys in the softmax over all
    share = torch.sigmoid(shared_norm - own_norm).unsqueeze(-1)
    joined_BHTD: Tensor = over_own + share * (over_shared - over_own)
    return joined_BHTD


def _causal(width: int, like: Tensor) -> Tensor:
    """Return (1, 1, T, T): nothing for what comes before, minus infinity for what comes after."""
    future = torch.ones(width, width, dtype=torch.bool, device=like.device).triu(1)
    return like.new_zeros(1, 1, width, width).masked_fill(future, float("-inf"))
