"""Prompt tuning: the input embeddings of a few virtual tokens are trained directly, and the head.

Lester et al. 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning", section 2. P-tuning trains the same
tokens through a network.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from entailor.classifiers.fitting import fitting
from entailor.classifiers.gradient_path import keep_what_learns
from entailor.classifiers.soft_prompt import SoftPromptClassifier, vocabulary_words
from entailor.methods.base import LearningRate, Range, SoftPromptMethod
from entailor.models.load import Backbone
from entailor.tasks import Task


class PromptTuning(SoftPromptMethod, name="prompt_tuning"):
    """Train the embeddings of virtual tokens, and the head."""

    summary: ClassVar[str] = "embeddings of virtual tokens at the input"

    learning_rate: LearningRate = 3e-2
    init: Literal["labels", "vocabulary", "random"] = "labels"
    """labels: the tokens of the label names, then ordinary words (section 3.2). vocabulary: ordinary words. random:
    normal, with the deviation of the embeddings."""

    def adapt(self, backbone: Backbone | None, task: Task, seed: int) -> PromptTuningClassifier:
        """Return the classifier.

        Raises:
            MethodError: no model, or one that takes no embeddings.
        """
        backbone = self.needed(backbone)
        with fitting(backbone, self.name):
            classifier = PromptTuningClassifier(self, backbone, task, seed)
        keep_what_learns(classifier, backbone, self.name)
        return classifier

    def search_space(self) -> dict[str, Range]:
        """Return learning rates far above those of weights: nothing but the prompt's own embeddings moves."""
        return {"learning_rate": Range(3e-3, 3e-1), "head_learning_rate": Range(3e-4, 3e-3)}


class PromptTuningClassifier(SoftPromptClassifier):
    """Virtual tokens that are parameters themselves."""

    def __init__(self, method: PromptTuning, backbone: Backbone, task: Task, seed: int) -> None:
        super().__init__(backbone, task, method.num_virtual_tokens, method.pooling, seed)
        table_VE: Tensor = backbone.model.get_input_embeddings().weight.detach()
        tokenizer, count = backbone.text_encoder.tokenizer, method.num_virtual_tokens
        if method.init == "random":
            generator = torch.Generator().manual_seed(seed)
            start_NE = torch.randn(count, table_VE.shape[1], generator=generator) * table_VE.float().std().cpu()
        else:
            names = tokenizer(list(task.labels), add_special_tokens=False)["input_ids"]
            words = [token for name in names for token in name] if method.init == "labels" else []
            words = [*words, *vocabulary_words(tokenizer, count, seed)][:count]
            start_NE = table_VE[torch.tensor(words, device=table_VE.device)]
        self.prompt_NE = nn.Parameter(start_NE.float().to(backbone.device))

    def prompt(self) -> Tensor:
        """Return prompt_NE."""
        return self.prompt_NE
