"""What one trial is: a candidate and a seed, and all that decides its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from entailor.config.parts import ModelSettings, PromptSettings
from entailor.engine.batching import SCORING_TOKENS
from entailor.methods import Method
from entailor.models.precision import PrecisionChoice


@dataclass(frozen=True)
class TrialPlan:
    """What one trial is: a candidate of the experiment and a seed.

    Attributes:
        candidate: its name.
        method: its settings.
        model: the model as the user named it, or "none" for methods without one.
        seed: of initialisation, data order and dropout.
        settings: how the model is loaded.
        prompt: how a decoder is asked.
        precision: arithmetic of training, chosen once a run; None for methods without a model.
        restarts: how often a collapsed training is started again.
        scoring_batch_tokens: tokens of one scoring batch.
        split: number of the run's split it is trained on; 0 where there is one.
        keep: whether the classifier is saved and proven to load; points of a learning curve keep their scores alone.
        checkpoint_steps: optimizer steps between two checkpoints, or None; changes no result.
        checkpoint_minutes: minutes between two checkpoints, or None; changes no result.
    """

    candidate: str
    method: Method
    model: str
    seed: int
    settings: ModelSettings
    precision: PrecisionChoice | None = None
    prompt: PromptSettings = field(default_factory=PromptSettings)
    restarts: int = 1
    scoring_batch_tokens: int = SCORING_TOKENS
    split: int = 0
    keep: bool = True
    checkpoint_steps: int | None = None
    checkpoint_minutes: float | None = None

    def decisive(self) -> Mapping[str, Any]:
        """Return what decides the result: all but how often a training is saved."""
        return {
            "candidate": self.candidate,
            "method": self.method.name,
            "hyperparameters": self.method.model_dump(mode="json"),
            "model": self.model,
            "seed": self.seed,
            "settings": self.settings.model_dump(mode="json"),
            "prompt": self.prompt.model_dump(mode="json"),
            "precision": self.precision.precision if self.precision else None,
            "restarts": self.restarts,
            "scoring_batch_tokens": self.scoring_batch_tokens,
        }
