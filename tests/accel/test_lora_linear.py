"""The fused LoRA layer against the layer written out and against `peft`'s own."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from entailor.accel.dropout import dropout_mask, replace_dropout
from entailor.accel.lora_linear import apply_linear, lora_linear, reference_lora_linear

ROWS, IN, OUT, RANK = 13, 10, 6, 3


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Linear(IN, OUT).requires_grad_(False)


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("first", [False, True], ids=["inside", "first layer"])
def test_outputs_and_gradients_are_those_of_the_reference(layer, dropped, first):
    rows = torch.randn(ROWS, IN, requires_grad=not first)
    down, up = torch.randn(RANK, IN, requires_grad=True), torch.randn(OUT, RANK, requires_grad=True)
    mask = dropout_mask((ROWS, IN), 0.3) if dropped else None
    wanted = [down, up] if first else [rows, down, up]
    results = []
    for function in (lora_linear, reference_lora_linear):
        output = function(rows, layer, down, up, 1.7, mask)
        results.append([output, *torch.autograd.grad((output**2).sum(), wanted)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)


def adapted(**settings: Any) -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(IN, OUT)).requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=RANK, target_modules=["0"], **settings), model)
    replace_dropout(model)
    layer = model[0]
    for name, tensor in layer.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(tensor)
    return layer


def both_ways(layer: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    rows = torch.randn(ROWS, IN, requires_grad=True)
    wanted = [rows, *(tensor for tensor in layer.parameters() if tensor.requires_grad)]
    results = []
    for run in (lambda: apply_linear(layer, rows), lambda: layer(rows)):
        torch.manual_seed(9)
        output = run()
        results.append([output, *torch.autograd.grad((output**2).sum(), wanted, allow_unused=True)])
    return results[0], results[1]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lora_dropout": 0.4},
        {"use_rslora": True, "lora_alpha": 5},
        {"use_dora": True},
        {"bias": "all"},
        {"lora_bias": True},
    ],
    ids=str,
)
def test_a_layer_of_peft_gives_the_same_either_way(settings):
    for ours, theirs in zip(*both_ways(adapted(**settings)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)


def test_a_layer_that_is_switched_off_or_merged_is_left_to_peft():
    layer = adapted()
    layer.enable_adapters(False)
    for ours, theirs in zip(*both_ways(layer), strict=True):
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)
    layer.enable_adapters(True)
    layer.merge()
    rows = torch.randn(ROWS, IN)
    assert torch.equal(apply_linear(layer, rows), layer.base_layer(rows))


def test_hooks_are_called():
    layer, calls = adapted(), []
    layer.lora_A["default"].register_forward_hook(lambda *call: calls.append(call))
    apply_linear(layer, torch.randn(ROWS, IN))
    assert len(calls) == 1


def test_mixed_precision_is_left_to_peft():
    layer, rows = adapted(), torch.randn(ROWS, IN)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(apply_linear(layer, rows), layer(rows))
