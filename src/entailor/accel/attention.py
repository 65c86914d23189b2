"""Attention over texts that stand one behind the other without padding, texts of one length at a time.

Shape letters: N tokens of all texts, Q tokens whose output is asked for, H hidden size, A heads, D head size,
C texts of one length, T tokens of a text, U of them asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from entailor.accel.dropout import dropout, dropout_mask


@dataclass(frozen=True)
class Bucket:
    """Neighbouring texts of one length.

    Attributes:
        texts: C.
        tokens: T.
        asked: U.
    """

    texts: int
    tokens: int
    asked: int


def reference_attention(
    query_QH: Tensor, key_NH: Tensor, value_NH: Tensor, buckets: Sequence[Bucket], heads: int, p: float
) -> Tensor:
    """Return the attended values of the tokens asked for, (Q, H).

    Args:
        query_QH: queries of the tokens asked for, text by text.
        key_NH: keys of all tokens.
        value_NH: values of all tokens.
        buckets: how the texts lie.
        heads: A.
        p: dropout of the attention weights; 0 outside training.
    """
    outputs = []
    for query_CAUD, key_CATD, value_CATD in _views(query_QH, key_NH, value_NH, buckets, heads):
        scores_CAUT = query_CAUD @ key_CATD.transpose(2, 3) * query_CAUD.shape[-1] ** -0.5
        weights_CAUT = dropout(scores_CAUT.softmax(-1), p, training=True)
        outputs.append(_flat(weights_CAUT @ value_CATD))
    return torch.cat(outputs)


def attention(
    query_QH: Tensor, key_NH: Tensor, value_NH: Tensor, buckets: Sequence[Bucket], heads: int, p: float
) -> Tensor:
    """Return what :func:`reference_attention` does: fused without dropout, one step of autograd with it."""
    if torch.is_autocast_enabled("cpu"):  # fused attention is slow in bf16 on a CPU, its backward pass above all
        kind = query_QH.dtype
        with torch.autocast("cpu", enabled=False):
            return attention(query_QH.float(), key_NH.float(), value_NH.float(), buckets, heads, p).to(kind)
    if p > 0.0:
        output_QH: Tensor = _DroppedAttention.apply(  # type: ignore[no-untyped-call]
            query_QH, key_NH, value_NH, buckets, heads, p
        )
        return output_QH
    outputs = [
        _flat(nn.functional.scaled_dot_product_attention(*parts))
        for parts in _views(query_QH, key_NH, value_NH, buckets, heads)
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


class _DroppedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query_QH: Tensor, key_NH: Tensor, value_NH: Tensor, buckets: Sequence[Bucket], heads: int, p: float
    ) -> Tensor:
        sizes = [one.texts * heads * one.asked * one.tokens for one in buckets]
        masks = torch.split(dropout_mask((sum(sizes),), p), sizes)
        output_QH, kept, start = torch.empty_like(query_QH), [], 0
        parts = _views(query_QH, key_NH, value_NH, buckets, heads)
        for (query_CAUD, key_CATD, value_CATD), mask in zip(parts, masks, strict=True):
            scores_CAUT = query_CAUD @ key_CATD.transpose(2, 3)
            weights_CAUT = scores_CAUT.mul_(query_CAUD.shape[-1] ** -0.5).softmax(-1)
            mask_CAUT = mask.view(weights_CAUT.shape)
            rows_UH = _flat((weights_CAUT * mask_CAUT) @ value_CATD)
            output_QH[start : start + len(rows_UH)] = rows_UH
            start += len(rows_UH)
            kept += [weights_CAUT, mask_CAUT]
        ctx.save_for_backward(query_QH, key_NH, value_NH, *kept)
        ctx.buckets, ctx.heads = buckets, heads
        return output_QH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_QH: Tensor) -> tuple[Tensor | None, ...]:
        query_QH, key_NH, value_NH, *kept = ctx.saved_tensors
        grads = [torch.empty_like(rows) for rows in (query_QH, key_NH, value_NH)]
        outs = _views(grads[0], grads[1], grads[2], ctx.buckets, ctx.heads)
        ins = _views(query_QH, key_NH, value_NH, ctx.buckets, ctx.heads)
        given = _views(grad_QH.contiguous(), key_NH, value_NH, ctx.buckets, ctx.heads)
        for place, ((query_CAUD, key_CATD, value_CATD), (grad_CAUD, _, _)) in enumerate(zip(ins, given, strict=True)):
            weights_CAUT, mask_CAUT = kept[2 * place : 2 * place + 2]
            grad_query, grad_key, grad_value = outs[place]
            grad_value.copy_((weights_CAUT * mask_CAUT).transpose(2, 3) @ grad_CAUD)
            grad_weights = (grad_CAUD @ value_CATD.transpose(2, 3)).mul_(mask_CAUT)
            grad_scores = torch._softmax_backward_data(grad_weights, weights_CAUT, -1, weights_CAUT.dtype)
            grad_scores.mul_(query_CAUD.shape[-1] ** -0.5)
            grad_query.copy_(grad_scores @ key_CATD)
            grad_key.copy_(grad_scores.transpose(2, 3) @ query_CAUD)
        return *grads, None, None, None


def _views(
    query_QH: Tensor, key_NH: Tensor, value_NH: Tensor, buckets: Sequence[Bucket], heads: int
) -> Sequence[tuple[Tensor, Tensor, Tensor]]:
    """Return query_CAUD, key_CATD and value_CATD of each bucket, without copying."""
    parts, query_start, start = [], 0, 0
    for one in buckets:
        query_end, end = query_start + one.texts * one.asked, start + one.texts * one.tokens
        parts.append(
            (
                query_QH[query_start:query_end].view(one.texts, one.asked, heads, -1).transpose(1, 2),
                key_NH[start:end].view(one.texts, one.tokens, heads, -1).transpose(1, 2),
                value_NH[start:end].view(one.texts, one.tokens, heads, -1).transpose(1, 2),
            )
        )
        query_start, start = query_end, end
    return parts


def _flat(rows_CAUD: Tensor) -> Tensor:
    return rows_CAUD.transpose(1, 2).reshape(rows_CAUD.shape[0] * rows_CAUD.shape[2], -1)
