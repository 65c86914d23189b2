"""Runs the layers of an encoder on tokens without padding, and the last one for the tokens somebody reads.

Takes the layers of `transformers` apart by the names of their parts (bert and similar, distilbert). Whether that gives
what the model itself gives is for the caller to check: see `gate.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from entailor.accel.attention import Bucket, attention
from entailor.accel.dropout import dropout
from entailor.accel.lora_linear import apply_linear


@dataclass(frozen=True)
class LayerParts:
    """The parts of one encoder layer: attention, norm, feed-forward, norm.

    Attributes:
        query: H to H, as are key, value and output.
        up: H to the inner size.
        down: back to H.
        activation: between the two.
        norms: behind attention and behind the feed-forward part.
        heads: A.
        dropouts: of attention weights, of the attention's output, of the feed-forward part's output.
    """

    query: nn.Module
    key: nn.Module
    value: nn.Module
    output: nn.Module
    up: nn.Module
    down: nn.Module
    activation: Callable[[Tensor], Tensor]
    norms: tuple[nn.Module, nn.Module]
    heads: int
    dropouts: tuple[nn.Dropout, nn.Dropout | None, nn.Dropout]


@dataclass(frozen=True)
class Packing:
    """Where the tokens of right-padded rows stand once padding is gone, shortest text first.

    Attributes:
        places_N: index of each token in the rows laid end to end, b * T + t.
        asked_Q: of the packed tokens, those whose last hidden state is read.
        slots_Q: where those go in the rows laid end to end.
        buckets: texts of one length.
        shape: B, T and, of the output, how many positions a row has.
    """

    places_N: Tensor
    asked_Q: Tensor
    slots_Q: Tensor
    buckets: tuple[Bucket, ...]
    shape: tuple[int, int, int]


def pack(lengths: Sequence[int], width: int, unread: range | None) -> Packing:
    """Plan the packing of right-padded rows.

    Args:
        lengths: tokens of each row.
        width: T, positions of a row.
        unread: positions nobody reads in the last layer, alike in every row; None: only the first position is read.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    places, asked, slots, buckets, start = [], [], [], [], 0
    for tokens, rows in groupby(order, key=lengths.__getitem__):
        members = np.array(list(rows))
        positions = np.arange(tokens)
        read = positions[:1] if unread is None else positions[(positions < unread.start) | (positions >= unread.stop)]
        places.append((members[:, None] * width + positions).ravel())
        asked.append((start + np.arange(len(members))[:, None] * tokens + read).ravel())
        slots.append(members if unread is None else (members[:, None] * width + read).ravel())
        buckets.append(Bucket(len(members), tokens, len(read)))
        start += len(members) * tokens
    places_N, asked_Q, slots_Q = (torch.from_numpy(np.concatenate(part)) for part in (places, asked, slots))
    return Packing(places_N, asked_Q, slots_Q, tuple(buckets), (len(lengths), width, 1 if unread is None else width))


def layer_stack(body: nn.Module) -> tuple[Any, list[LayerParts]] | None:
    """Return the module that runs the layers, and the parts of each; None where the architecture is another."""
    for name in ("encoder", "transformer"):
        stack = getattr(body, name, None)
        layers = getattr(stack, "layer", None)
        if not isinstance(layers, nn.ModuleList) or not len(layers):
            continue
        for take_apart in (_bert_parts, _distilbert_parts):
            try:
                return stack, [take_apart(layer) for layer in layers]
            except AttributeError:  # parts of these names are not there
                continue
    return None


def _bert_parts(layer: Any) -> LayerParts:
    inner = layer.attention.self
    if hasattr(layer.attention, "LayerNorm") or inner.is_decoder:
        raise AttributeError("norms come first, or it is a decoder")
    return LayerParts(
        query=inner.query,
        key=inner.key,
        value=inner.value,
        output=layer.attention.output.dense,
        up=layer.intermediate.dense,
        down=layer.output.dense,
        activation=layer.intermediate.intermediate_act_fn,
        norms=(layer.attention.output.LayerNorm, layer.output.LayerNorm),
        heads=inner.num_attention_heads,
        dropouts=(inner.dropout, layer.attention.output.dropout, layer.output.dropout),
    )


def _distilbert_parts(layer: Any) -> LayerParts:
    inner = layer.attention
    return LayerParts(
        query=inner.q_lin,
        key=inner.k_lin,
        value=inner.v_lin,
        output=inner.out_lin,
        up=layer.ffn.lin1,
        down=layer.ffn.lin2,
        activation=layer.ffn.activation,
        norms=(layer.sa_layer_norm, layer.output_layer_norm),
        heads=inner.n_heads,
        dropouts=(inner.dropout, None, layer.ffn.dropout),
    )


def run_packed(layers: Sequence[LayerParts], hidden_BTH: Tensor, packing: Packing) -> Tensor:
    """Return the last hidden states of the tokens read: (B, 1, H), or (B, T, H) with zeros where nobody reads."""
    rows, width, out_width = packing.shape
    flat = hidden_BTH.reshape(rows * width, -1)
    hidden_NH = flat.index_select(0, packing.places_N)
    for parts in layers[:-1]:
        hidden_NH = run_layer(parts, hidden_NH, None, packing.buckets)
    last_QH = run_layer(layers[-1], hidden_NH, packing.asked_Q, packing.buckets)
    output = last_QH.new_zeros(rows * out_width, last_QH.shape[1])
    return output.index_copy(0, packing.slots_Q, last_QH).view(rows, out_width, -1)


def run_layer(parts: LayerParts, hidden_NH: Tensor, asked_Q: Tensor | None, buckets: Sequence[Bucket]) -> Tensor:
    """Run one layer; with `asked_Q` only keys and values are computed for the other tokens."""
    if asked_Q is None:
        buckets = [Bucket(one.texts, one.tokens, one.tokens) for one in buckets]
        hidden_QH = hidden_NH
    else:
        hidden_QH = hidden_NH.index_select(0, asked_Q)
    attending, attended, fed = parts.dropouts
    mixed_QH = attention(
        apply_linear(parts.query, hidden_QH),
        apply_linear(parts.key, hidden_NH),
        apply_linear(parts.value, hidden_NH),
        buckets,
        parts.heads,
        attending.p if attending.training else 0.0,
    )
    output_QH = apply_linear(parts.output, mixed_QH)
    if attended is not None:
        output_QH = dropout(output_QH, attended.p, attended.training)
    hidden_QH = parts.norms[0](output_QH + hidden_QH)
    inner_QI = parts.activation(apply_linear(parts.up, hidden_QH))
    output_QH = dropout(apply_linear(parts.down, inner_QI), fed.p, fed.training)
    normed_QH: Tensor = parts.norms[1](output_QH + hidden_QH)
    return normed_QH
