"""DoRA: LoRA on the direction of each weight column, whose length is trained apart (Liu et al. 2024, section 4)."""

from __future__ import annotations

from typing import ClassVar, Literal

from entailor.methods.base import Range
from entailor.methods.lora import Lora


class Dora(Lora, name="dora"):
    """Train low-rank updates of directions, the lengths of weight columns, and the head."""

    summary: ClassVar[str] = "low-rank updates of directions, and lengths"

    use_dora: Literal[True] = True
    """Always; False would be the method lora."""

    def search_space(self) -> dict[str, Range]:
        """Return learning rates a little below those of LoRA, as in the paper's appendix."""
        return {"learning_rate": Range(5e-5, 2e-3)}
