"""A finished candidate teaches another model: it is fine-tuned on the teacher's probabilities, and on more text.

Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 2.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from entailor.methods.base import Epochs, LearningRate, Range
from entailor.methods.full_finetuning import FullFinetuning


class Distilled(FullFinetuning, name="distilled"):
    """Full fine-tuning on what the best other candidate of the run says of each training text."""

    summary: ClassVar[str] = "every weight is trained, on the answers of the best other candidate"
    learns_from_others: ClassVar[bool] = True

    teacher: str | None = None
    """Candidate of the same run that teaches. None: the most accurate one on validation."""
    unlabelled: str | None = None
    """File or data set of further texts without labels; the teacher answers for them as well."""
    max_unlabelled: int = Field(default=10_000, ge=1)
    """Most of these texts that are taken, from the first on."""
    soft_share: float = Field(default=0.9, ge=0, le=1)
    """Share of the teacher's probabilities in the target of a labelled text; the rest is its label."""
    temperature: float = Field(default=1.0, gt=0)
    """The teacher's probabilities are softened by it, above 1, or sharpened."""
    learning_rate: LearningRate = 5e-5
    num_train_epochs: Epochs = 5.0

    def search_space(self) -> dict[str, Range]:
        """Return nothing: settings are searched before any candidate is finished, so there is no teacher then."""
        return {}
