"""(IA)3: trained factors stretch keys, values and what stands between the two feed-forward layers.

Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning", section 3.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from entailor.classifiers.gradient_path import keep_what_learns
from entailor.classifiers.transformer import PeftClassifier, task_type
from entailor.errors import MethodError
from entailor.methods.base import AdapterMethod, HeadLearningRate, LearningRate, Range
from entailor.methods.lora import check_layer_names
from entailor.methods.prefix_tuning import attention_layers
from entailor.models.load import Backbone
from entailor.tasks import Task

# What the second feed-forward layer is called: bert and models like it, distilbert, llama and similar, modernbert,
# gpt2, phi and opt.
SECOND_LAYERS = ("output.dense", "ffn.lin2", "mlp.down_proj", "mlp.Wo", "mlp.c_proj", "fc2")


class Ia3(AdapterMethod, name="ia3"):
    """Train factors of keys, values and feed-forward states in every layer, and the head."""

    summary: ClassVar[str] = "factors of keys, values and feed-forward states"

    learning_rate: LearningRate = 1e-2
    head_learning_rate: HeadLearningRate = 1e-3
    weight_decay: float = Field(default=0.0, ge=0)
    """Decay would pull the factors towards zero, where they start at one."""
    target_modules: tuple[str, ...] = ()
    """Names of layers whose output is stretched; none: the key and value projections of every layer."""
    feedforward_modules: tuple[str, ...] = ()
    """Names of layers whose input is stretched; none: the second feed-forward layer of every layer."""

    def adapt(self, backbone: Backbone | None, task: Task, seed: int) -> PeftClassifier:
        """Return the classifier with every factor at one, so it starts as the checkpoint.

        Raises:
            MethodError: no model, an unknown layer, or none that would be stretched by default.
        """
        from peft import IA3Config

        backbone = self.needed(backbone)
        named = (*self.target_modules, *self.feedforward_modules)
        check_layer_names(backbone.model, named, self.name, "Leave the key out, or give")
        if not self.target_modules and (reason := self.misfit(backbone.model)):
            raise MethodError(f"ia3: {reason}. Name layers with target_modules, or leave ia3 out")
        inputs = list(self.feedforward_modules or second_layers(backbone.model))
        outputs = list(self.target_modules or key_and_value_layers(backbone.model))
        config = IA3Config(
            task_type=task_type(backbone), target_modules=[*outputs, *inputs], feedforward_modules=inputs
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            classifier = PeftClassifier(backbone, task, config)
        keep_what_learns(classifier, backbone, self.name, named)
        return classifier

    def misfit(self, architecture: Any) -> str | None:
        """Return why an architecture's keys and values cannot be reached."""
        if any(True for _ in key_and_value_layers(architecture)):
            return None
        return f"{architecture.config.model_type} has no key and value projections of a known name"

    def search_space(self) -> dict[str, Range]:
        """Return learning rates above those of low-rank updates: a factor of one has far to go."""
        return {"learning_rate": Range(1e-3, 1e-1), "head_learning_rate": Range(3e-4, 3e-3)}


def key_and_value_layers(model: nn.Module) -> Iterator[str]:
    """Give the paths of all key and value projections; one layer for queries, keys and values is stretched whole."""
    paths = {module: path for path, module in model.named_modules()}
    for attention, names in attention_layers(model):
        yield from (f"{paths[attention]}.{name}" for name in names)


def second_layers(model: nn.Module) -> Iterator[str]:
    """Give the paths of the layers behind the inner states of each feed-forward block."""
    for path, module in model.named_modules():
        is_attention = path.endswith("attention.output.dense")
        if path.endswith(SECOND_LAYERS) and not is_attention and not any(True for _ in module.children()):
            yield path
