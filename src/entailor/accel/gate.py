"""The one gate of every shortcut: shown on made-up inputs to give what the plain way gives, or not taken.

A shortcut may rest on names that a library promises nobody, on the order of a model's layers, or on how its attention
reads a mask. So nothing is assumed: both ways are run once, and whatever goes wrong on the shorter one, a missing name
as well as another result, means that the plain way is taken and that one remark says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

TOLERANCE = 1e-3
"""Logits with and without the shortcut agree within this share of what they differ from row to row."""
ROUNDING = 1e-5
"""And within this share of their size, which is what fp32 leaves of many layers."""


@dataclass(frozen=True)
class Verdict:
    """What a proof came to.

    Attributes:
        proven: whether the shortcut may be taken.
        trouble: why it could not be tried, or None.
    """

    proven: bool
    trouble: str | None = None


def prove(
    name: str,
    plain: Callable[[], Tensor],
    short: Callable[[], Tensor],
    tolerance: tuple[float, float] = (TOLERANCE, ROUNDING),
) -> Verdict:
    """Run both ways without gradients, and compare their logits.

    Args:
        name: of the shortcut, for the remark.
        plain: gives logits_BL as the libraries compute them.
        short: gives the same logits by the shortcut.
        tolerance: the share of what logits differ from row to row, and of their size, that is rounding.
    """
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            expected_BL, found_BL = plain(), short()
    except Exception as error:  # a model's own code can raise anything on made-up rows, and work on real ones
        return Verdict(False, f"runs without the {name}, which could not be tried: {type(error).__name__}: {error}")
    if expected_BL.shape != found_BL.shape:
        return Verdict(False)
    spread, size = (expected_BL.amax(0) - expected_BL.amin(0)).min(), expected_BL.abs().max()
    return Verdict(bool((expected_BL - found_BL).abs().max() <= tolerance[0] * spread + tolerance[1] * size))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run a block without dropout; each module is afterwards in the mode it was in."""
    modes = {module: module.training for module in model.modules()}
    for module in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
