"""AdamW over a method's parameter groups, and the learning rate's rise and fall."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from entailor.accel.embedding_rows import EmbeddingRows
from entailor.methods.base import ParameterGroup, TrainedMethod


def build_optimizer(groups: Sequence[ParameterGroup]) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov & Hutter 2019) with one group a learning rate and weight decay; betas 0.9, 0.999."""
    return torch.optim.AdamW(
        [
            {"params": list(group.parameters), "lr": group.learning_rate, "weight_decay": group.weight_decay}
            for group in groups
        ],
        fused=True,
    )


@lru_cache
def skips_when_told(device: torch.device) -> bool:
    """Tell whether fused AdamW leaves everything as it is where `found_inf` on the device is 1; tried on one number.

    A CPU need not be told: reading a value costs it nothing.
    """
    if device.type == "cpu":
        return False
    number = torch.nn.Parameter(torch.ones(1, device=device))
    number.grad = torch.ones_like(number)
    optimizer: Any = torch.optim.AdamW([number], lr=0.5, fused=True)
    optimizer.found_inf = torch.ones((), device=device)
    optimizer.step()
    return number.item() == 1.0


def with_rows(groups: Sequence[ParameterGroup], rows: EmbeddingRows) -> list[ParameterGroup]:
    """Return the groups with the rows that occur in the place of their embedding, under the same settings."""
    whole = rows.embedding.weight
    return [
        replace(group, parameters=tuple(rows.rows_UH if one is whole else one for one in group.parameters))
        for group in groups
    ]


def decay_of(parameter: Tensor, schedule: LambdaLR, steps: int) -> float:
    """Return what weight decay alone leaves of a weight that never got a gradient.

    Args:
        parameter: one of the optimizer's, whose group tells the decay.
        schedule: of the learning rate.
        steps: optimizer steps done.
    """
    held = zip(schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True)
    for group, rate, factor in held:
        if any(one is parameter for one in group["params"]):
            return float(math.prod(1 - rate * factor(step) * group["weight_decay"] for step in range(steps)))
    raise ValueError("not a parameter of this optimizer")


def build_schedule(optimizer: torch.optim.Optimizer, method: TrainedMethod, total_steps: int) -> LambdaLR:
    """Return the schedule: linear warm-up, then linear or cosine decay to zero, or constant.

    The first step already has a rate above zero, so no step is lost to warm-up.
    """
    warmup = math.ceil(total_steps * method.warmup_ratio)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if method.lr_scheduler_type == "constant":
            return 1.0
        progress = (step - warmup) / max(1, total_steps - warmup)
        return 1.0 - progress if method.lr_scheduler_type == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)
