"""Frozen linear layers in bf16: a weight is rounded once when training begins, and not in every step.

Under autocast PyTorch casts the weights of a frozen layer in each forward pass and keeps the cast for the backward
pass. Here each is held in bf16 while a model trains, beside the fp32 it is scored with.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

HALF = torch.bfloat16


class HalfWeight:
    """Weight and bias of a frozen layer in bf16.

    Args:
        layer: a linear layer on a CPU, I to O features, which stays as it is.
    """

    def __init__(self, layer: nn.Linear) -> None:
        self.layer = layer
        self.weight_OI = layer.weight.detach().to(HALF)
        self.bias_O = None if layer.bias is None else layer.bias.detach().to(HALF)

    def forward(self, rows: Tensor) -> Tensor:
        """Run the layer in the layer's place: in bf16 under autocast, else in fp32 as it is."""
        if not torch.is_autocast_enabled("cpu"):
            return nn.functional.linear(rows, self.layer.weight, self.layer.bias)
        output: Tensor = _HalfLinear.apply(rows.to(HALF), self)  # type: ignore[no-untyped-call]
        return output

    def product(self, rows: Tensor) -> Tensor:
        """Return W x + b of bf16 rows."""
        return nn.functional.linear(rows, self.weight_OI, self.bias_O)

    def transposed_product(self, grad: Tensor) -> Tensor:
        """Return the gradient of the rows from that of the output."""
        return grad @ self.weight_OI


class _HalfLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, half: HalfWeight) -> Tensor:
        ctx.half = half
        with torch.autocast("cpu", enabled=False):
            return half.product(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:
        half: HalfWeight = ctx.half
        return half.transposed_product(grad), None


class _HalfLora(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows_NI: Tensor,
        half: HalfWeight,
        down_RI: Tensor,
        up_OR: Tensor,
        scale: float,
        mask_NI: Tensor | None,
    ) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            down_RI, up_OR = down_RI.to(HALF), up_OR.to(HALF)
            output_NO = half.product(rows_NI)
            low_NR = (rows_NI if mask_NI is None else rows_NI * mask_NI) @ down_RI.T
            output_NO.addmm_(low_NR, up_OR.T, alpha=scale)
        ctx.save_for_backward(rows_NI, down_RI, up_OR, low_NR, mask_NI)
        ctx.half, ctx.scale = half, scale
        return output_NO

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NO: Tensor) -> tuple[Tensor | None, ...]:
        rows_NI, down_RI, up_OR, low_NR, mask_NI = ctx.saved_tensors
        half: HalfWeight = ctx.half
        grad_low_NR = (grad_NO @ up_OR).mul_(ctx.scale)
        grad_up_OR = (low_NR.T @ grad_NO).float().mul_(ctx.scale).T
        grad_down_RI = (grad_low_NR.T @ (rows_NI if mask_NI is None else rows_NI * mask_NI)).float()
        grad_NI = None
        if ctx.needs_input_grad[0]:
            grad_NI = half.transposed_product(grad_NO)
            if mask_NI is None:
                grad_NI.addmm_(grad_low_NR, down_RI)
            else:
                grad_NI.addcmul_(grad_low_NR @ down_RI, mask_NI)
        return grad_NI, None, grad_down_RI, grad_up_OR, None, None


def half_lora_linear(
    rows_NI: Tensor, half: HalfWeight, down_RI: Tensor, up_OR: Tensor, scale: float, mask_NI: Tensor | None
) -> Tensor:
    """Return what `lora_linear` does, in bf16, with gradients of A and B in fp32.

    Args:
        rows_NI: N tokens of I features.
        half: the frozen layer, I to O features.
        down_RI: A, to rank R, in fp32.
        up_OR: B, from rank R, in fp32.
        scale: of the update; that of the mask is part of it.
        mask_NI: bf16 zeros and ones in front of A, or None.
    """
    output_NO: Tensor = _HalfLora.apply(  # type: ignore[no-untyped-call]
        rows_NI.to(HALF), half, down_RI, up_OR, scale, mask_NI
    )
    return output_NO


def half_weight_of(layer: nn.Module) -> HalfWeight | None:
    """Return what holds a layer in bf16 now, or None."""
    holder = getattr(layer.__dict__.get("forward"), "__self__", None)
    return holder if isinstance(holder, HalfWeight) else None


@contextmanager
def frozen_in_half(model: nn.Module) -> Iterator[None]:
    """Hold the frozen linear layers of a model on a CPU in bf16 inside the block, for what runs under autocast.

    Output layers of a language model stay as they are: they are large, and read for a few label words alone.
    """
    getters: list[Any] = [getattr(one, "get_output_embeddings", None) for one in model.modules()]
    outputs = {id(getter()) for getter in getters if getter is not None}
    frozen = [
        layer
        for layer in model.modules()
        if type(layer) is nn.Linear
        and id(layer) not in outputs
        and "forward" not in layer.__dict__
        and all(one.dtype == torch.float32 and not one.requires_grad for one in layer.parameters())
        and layer.weight.device.type == "cpu"
    ]
    for layer in frozen:
        vars(layer)["forward"] = HalfWeight(layer).forward  # on the instance; the class keeps its own
    try:
        yield
    finally:
        for layer in frozen:
            del vars(layer)["forward"]
