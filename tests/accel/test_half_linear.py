"""Frozen layers in bf16 against the same layers in fp32: outputs, gradients, and no trace behind the block."""

import pytest
import torch
from torch import nn

from entailor.accel.dropout import LEVELS, dropout_mask, half_mask, kept_of
from entailor.accel.half_linear import HalfWeight, frozen_in_half, half_lora_linear, half_weight_of
from entailor.accel.lora_linear import reference_lora_linear

ROWS, IN, OUT, RANK = 13, 10, 6, 3
NEAR = {"atol": 0.05, "rtol": 0.03}


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Linear(IN, OUT).requires_grad_(False)


@pytest.mark.parametrize("dropped", [False, True])
def test_a_lora_layer_gives_what_fp32_gives_and_gradients_in_fp32(layer, dropped):
    torch.manual_seed(1)
    rows = torch.randn(ROWS, IN, requires_grad=True)
    down, up = torch.randn(RANK, IN, requires_grad=True), torch.randn(OUT, RANK, requires_grad=True)
    torch.manual_seed(2)
    mask, upscale = half_mask((ROWS, IN), 0.3) if dropped else (None, 1.0)
    torch.manual_seed(2)
    whole = dropout_mask((ROWS, IN), 0.3) if dropped else None
    results = [
        [output.float(), *torch.autograd.grad(output.float().sin().sum(), (rows, down, up))]
        for output in (
            half_lora_linear(rows, HalfWeight(layer), down, up, 0.5 * upscale, mask),
            reference_lora_linear(rows, layer, down, up, 0.5, whole),
        )
    ]
    for half, full in zip(*results, strict=True):
        assert half.dtype == torch.float32
        assert (half - full).norm() <= 0.03 * full.norm()


def test_the_mask_is_the_one_of_fp32_and_its_scale_is_not_rounded():
    torch.manual_seed(0)
    mask, scale = half_mask((40, 50), 0.1)
    torch.manual_seed(0)
    torch.testing.assert_close(mask.float() * scale, dropout_mask((40, 50), 0.1))
    assert scale == LEVELS / kept_of(0.1)


@pytest.mark.parametrize("bias", [True, False])
def test_inside_the_block_autocast_takes_bf16_and_scores_stay_fp32(bias):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(IN, OUT, bias=bias).requires_grad_(False), nn.Linear(OUT, 2))
    rows = torch.randn(2, ROWS, IN, requires_grad=True)
    plain = model(rows)
    with frozen_in_half(model):
        assert torch.equal(model(rows), plain)
        assert half_weight_of(model[0]) is not None
        assert half_weight_of(model[1]) is None
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(rows)
        (gradient,) = torch.autograd.grad(half.float().sum(), rows)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), plain, **NEAR)
    torch.testing.assert_close(gradient, torch.autograd.grad(plain.sum(), rows)[0], **NEAR)
    assert not any("forward" in vars(module) for module in model)
