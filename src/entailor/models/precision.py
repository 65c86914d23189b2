"""The arithmetic of training that was chosen for a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class PrecisionChoice:
    """The arithmetic of training and why.

    Attributes:
        precision: fp32 or bf16.
        reason: in words, with the figures.
        fp32_gflops: measured speed, 1e9 operations a second; None where nothing was measured.
        bf16_gflops: the same in bf16.
    """

    precision: Precision
    reason: str
    fp32_gflops: float | None = None
    bf16_gflops: float | None = None
