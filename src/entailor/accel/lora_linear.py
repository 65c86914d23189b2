"""A frozen linear layer with a low-rank update, as one step of autograd.

Equal to W x + b + s B A drop(x) written out; what is saved is one pass over the outputs for the scale, one for the
sum, and the dropped input, which the backward pass makes again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from entailor.accel.dropout import Dropout, dropout_mask, half_mask
from entailor.accel.half_linear import half_lora_linear, half_weight_of


def reference_lora_linear(
    rows_NI: Tensor, layer: nn.Linear, down_RI: Tensor, up_OR: Tensor, scale: float, mask_NI: Tensor | None
) -> Tensor:
    """Return the layer's output plus the scaled update of the masked rows.

    Args:
        rows_NI: N tokens of I features.
        layer: the frozen layer, I to O features.
        down_RI: A, to rank R.
        up_OR: B, from rank R.
        scale: of the update.
        mask_NI: dropout mask in front of A, or None.
    """
    dropped_NI = rows_NI if mask_NI is None else rows_NI * mask_NI
    update_NO = nn.functional.linear(nn.functional.linear(dropped_NI, down_RI), up_OR)
    output_NO: Tensor = layer(rows_NI) + update_NO * scale
    return output_NO


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows_NI: Tensor,
        weight_OI: Tensor,
        bias_O: Tensor | None,
        down_RI: Tensor,
        up_OR: Tensor,
        scale: float,
        mask_NI: Tensor | None,
    ) -> Tensor:
        output_NO = nn.functional.linear(rows_NI, weight_OI, bias_O)
        low_NR = (rows_NI if mask_NI is None else rows_NI * mask_NI) @ down_RI.T
        output_NO.addmm_(low_NR, up_OR.T, alpha=scale)
        ctx.save_for_backward(rows_NI, weight_OI, down_RI, up_OR, low_NR, mask_NI)
        ctx.scale = scale
        return output_NO

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NO: Tensor) -> tuple[Tensor | None, ...]:
        rows_NI, weight_OI, down_RI, up_OR, low_NR, mask_NI = ctx.saved_tensors
        grad_low_NR = (grad_NO @ up_OR).mul_(ctx.scale)
        grad_up_OR = (low_NR.T @ grad_NO).mul_(ctx.scale).T  # twice as fast as the other way round for a large O
        grad_down_RI = grad_low_NR.T @ (rows_NI if mask_NI is None else rows_NI * mask_NI)
        grad_NI = None
        if ctx.needs_input_grad[0]:
            grad_NI = grad_NO @ weight_OI
            if mask_NI is None:
                grad_NI.addmm_(grad_low_NR, down_RI)
            else:
                grad_NI.addcmul_(grad_low_NR @ down_RI, mask_NI)
        return grad_NI, None, None, grad_down_RI, grad_up_OR, None, None


def lora_linear(
    rows_NI: Tensor, layer: nn.Linear, down_RI: Tensor, up_OR: Tensor, scale: float, mask_NI: Tensor | None
) -> Tensor:
    """Return what :func:`reference_lora_linear` does; takes the same, the layer frozen."""
    output_NO: Tensor = _LoraLinear.apply(  # type: ignore[no-untyped-call]
        rows_NI, layer.weight, layer.bias, down_RI, up_OR, scale, mask_NI
    )
    return output_NO


def apply_linear(module: nn.Module, rows_NI: Tensor) -> Tensor:
    """Run a layer on rows: by :func:`lora_linear` where it is an ordinary LoRA layer of `peft`, else as it is."""
    update, mixed = _plain_update(module), torch.is_autocast_enabled("cpu")
    half = half_weight_of(update[0]) if update is not None and mixed else None
    if update is None or (mixed and half is None):
        output_NO: Tensor = module(rows_NI)
        return output_NO
    layer, down_RI, up_OR, scale, drop = update
    mask_NI, drops = None, drop.training and drop.p > 0.0
    if half is not None:
        if drops:
            mask_NI, upscale = half_mask(rows_NI.shape, drop.p)
            scale *= upscale
        return half_lora_linear(rows_NI, half, down_RI, up_OR, scale, mask_NI)
    if drops:
        mask_NI = dropout_mask(rows_NI.shape, drop.p)
    return lora_linear(rows_NI, layer, down_RI, up_OR, scale, mask_NI)


def _plain_update(module: Any) -> tuple[nn.Linear, Tensor, Tensor, float, Any] | None:
    """Return frozen layer, A, B, scale and dropout of a LoRA layer without further ado; None for anything else."""
    from peft.tuners.lora import Linear

    if type(module) is not Linear or module.merged or module.disable_adapters or len(module.active_adapters) != 1:
        return None
    name = module.active_adapters[0]
    if name not in module.lora_A or name in module.lora_variant or module.lora_bias[name] or module.fan_in_fan_out:
        return None
    layer, down, up, drop = module.base_layer, module.lora_A[name], module.lora_B[name], module.lora_dropout[name]
    plain = all(type(part) is nn.Linear and not _is_watched(part) for part in (layer, down, up))
    if not plain or _is_watched(module) or any(tensor.requires_grad for tensor in layer.parameters()):
        return None
    if type(drop) is nn.Identity:
        drop = Dropout(0.0)
    same_kind = layer.weight.dtype == down.weight.dtype == torch.float32
    if type(drop) is not Dropout or not same_kind:
        return None
    return layer, down.weight, up.weight, float(module.scaling[name]), drop


def _is_watched(module: nn.Module) -> bool:
    """Tell whether somebody hooked into a module, who would miss a call that goes past it."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)
