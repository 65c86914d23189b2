"""Any adapter of `peft` by its name: IA3, VeRA, OFT, BOFT, LN tuning, and what comes next.

AdaLoRA is trained as well, but keeps its first rank: nothing here calls its budget allocation.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field

from entailor.data.example import Example
from entailor.errors import ConfigError, MethodError, near_miss
from entailor.methods.base import AdapterMethod, LearningRate, Range
from entailor.methods.transformer import PeftClassifier, task_type
from entailor.models.load import Backbone
from entailor.tasks import Task

PROBE = Example("probe", "one", "two")


class PeftAdapter(AdapterMethod, name="peft"):
    """Train the adapter that `peft_type` names, with its own configuration, and the head."""

    summary: ClassVar[str] = "any adapter of peft, by name"

    learning_rate: LearningRate = 1e-3
    peft_type: str = "IA3"
    """A name of `peft.PeftType`."""
    peft_config: dict[str, Any] = Field(default_factory=dict)
    """Keys of that type's configuration class."""

    def adapt(self, backbone: Backbone | None, task: Task, seed: int) -> PeftClassifier:
        """Return the classifier with the adapter in place.

        Raises:
            ConfigError: no such type, or a key its configuration does not have.
            MethodError: the adapter does not fit this model.
        """
        if backbone is None:
            raise MethodError("peft needs a model. Give one with --model")
        config = self._config(backbone)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                classifier = PeftClassifier(backbone, task, config)
                # some types only show in use that they were made for other models
                with torch.no_grad():
                    classifier.logits(classifier.collate(classifier.encode([PROBE])))
            except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
                raise MethodError(f"peft {self.peft_type} does not fit {backbone.folder.name}: {error}") from error
            return classifier

    def _config(self, backbone: Backbone) -> Any:
        from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftType

        known = {kind.value: config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
        name = self.peft_type.upper()
        if name not in {kind.value for kind in PeftType} or name not in known:
            raise ConfigError(
                f"peft_type {self.peft_type!r} is not known.{near_miss(name, known)} Known: {', '.join(known)}"
            )
        try:
            return known[name](task_type=task_type(backbone), **self.peft_config)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"peft_config of {name}: {error}") from None

    def search_space(self) -> dict[str, Range]:
        """Return a range that covers most adapters; prompts need rates ten times as high."""
        from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PromptLearningConfig

        known = {kind.value: config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
        kind = known.get(self.peft_type.upper())  # an unknown type is complained of when it is adapted
        prompts = kind is not None and issubclass(kind, PromptLearningConfig)
        return {"learning_rate": Range(1e-3, 1e-1) if prompts else Range(1e-4, 1e-2)}
