"""Low-rank adaptation: W + (lora_alpha / r) B A with A and B trained (Hu et al. 2021, section 4.1).

Variants through `peft`: rank-stabilised scaling (Kalajdzievski 2023), DoRA (Liu et al. 2024), PiSSA (Meng et al. 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from entailor.classifiers.gradient_path import keep_what_learns
from entailor.classifiers.transformer import PeftClassifier, task_type
from entailor.errors import MethodError
from entailor.methods.base import AdapterMethod, LearningRate, ParameterGroup, Range
from entailor.models.heads import head_modules
from entailor.models.load import Backbone
from entailor.tasks import Task


class Lora(AdapterMethod, name="lora"):
    """Train low-rank updates of linear layers, and the head."""

    summary: ClassVar[str] = "low-rank updates of linear layers"

    learning_rate: LearningRate = 1e-3
    r: int = Field(default=16, ge=1, le=65_536)
    """Rank of the update."""
    lora_alpha: float = Field(default=16, gt=0)
    """The update is scaled by lora_alpha / r."""
    lora_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout in front of A."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Names of the layers to adapt, or all-linear."""
    bias: Literal["none", "all", "lora_only"] = "none"
    """Which biases are trained as well."""
    use_rslora: bool = False
    """Scale by lora_alpha / sqrt(r)."""
    use_dora: bool = False
    """Train magnitude and direction apart."""
    init_lora_weights: Literal["default", "pissa"] = "default"
    """default: A at random, B zero. pissa: A and B hold the r largest singular directions of the weight, and the frozen
    weight what is left (Meng et al. 2024, section 3); not on weights in 4 or 8 bits."""
    loraplus_lr_ratio: float = Field(default=1, ge=1)
    """Learning rate of B over that of A (Hayou et al. 2024, section 4); 1: the same, as in LoRA."""

    def adapt(self, backbone: Backbone | None, task: Task, seed: int) -> PeftClassifier:
        """Return the classifier with adapters in place; B starts at zero, so it starts as the checkpoint.

        Raises:
            MethodError: a name in target_modules is that of no layer.
        """
        from peft import LoraConfig

        backbone = self.needed(backbone)
        if backbone.quantized and self.init_lora_weights == "pissa":
            raise MethodError(
                f"{self.name}: init_lora_weights=pissa moves part of each weight into the adapter, which weights in 4 "
                "or 8 bits do not allow. Set init_lora_weights=default"
            )
        named = () if isinstance(self.target_modules, str) else self.target_modules
        targets = self.target_modules if isinstance(self.target_modules, str) else list(named)
        if named:
            check_layer_names(backbone.model, named, self.name, "Set target_modules to all-linear, or to")
        elif targets == "all-linear" and (fused := fused_experts(backbone.model)):
            # peft adapts such tensors in a way of its own, which allows no dropout
            targets = layers_beside_experts(backbone)
            backbone.events += (f"{self.name} adapts the linear layers beside the experts, and not {', '.join(fused)}",)
        config = LoraConfig(
            task_type=task_type(backbone),
            r=self.r,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            target_modules=targets,
            bias=self.bias,
            use_rslora=self.use_rslora,
            use_dora=self.use_dora,
            init_lora_weights=True if self.init_lora_weights == "default" else self.init_lora_weights,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                classifier = PeftClassifier(backbone, task, config)
            except ValueError as error:
                if "lora_dropout" in str(error):
                    raise MethodError(
                        f"{self.name}: target_modules={targets!r} holds tensors that are no linear layers (routers "
                        "or experts of a mixture), on which there is no dropout. Set lora_dropout=0, or leave them out"
                    ) from None
                raise MethodError(f"{self.name}: target_modules={targets!r} does not fit this model: {error}") from None
        keep_what_learns(classifier, backbone, self.name, named)
        return classifier

    def parameter_groups(self, classifier: Any) -> list[ParameterGroup]:
        """Return the usual groups, with a faster one for B where that was asked for."""
        groups = super().parameter_groups(classifier)
        if self.loraplus_lr_ratio == 1:
            return groups
        up = {id(tensor) for name, tensor in classifier.named_parameters() if ".lora_B." in name}
        parts = []
        for group in groups:
            for rate, faster in ((group.learning_rate, False), (group.learning_rate * self.loraplus_lr_ratio, True)):
                if tensors := tuple(tensor for tensor in group.parameters if (id(tensor) in up) == faster):
                    parts.append(ParameterGroup(tensors, rate, group.weight_decay))
        return parts

    def search_space(self) -> dict[str, Range]:
        """Return the learning rates; about ten times those of full fine-tuning."""
        return {"learning_rate": Range(1e-4, 3e-3)}


def check_layer_names(model: nn.Module, targets: Sequence[str], method: str, instead: str) -> None:
    """Hold names of layers against the model's; `peft` complains only when none of them is known.

    Args:
        model: whose layers are adapted.
        targets: what is to be layers of it.
        method: for the message.
        instead: the next step; names of layers follow.

    Raises:
        MethodError: a name is that of no layer.
    """
    paths = [f".{path}" for path, _ in model.named_modules()]
    if unknown := [name for name in targets if not any(path.endswith(f".{name}") for path in paths)]:
        body = getattr(model, str(model.base_model_prefix), model)  # without the head, which is trained as a whole
        linear = {path.rpartition(".")[2] for path, module in body.named_modules() if isinstance(module, nn.Linear)}
        raise MethodError(
            f"{method}: no layer of this model is called {', '.join(unknown)}. {instead} some of its linear layers: "
            f"{', '.join(sorted(linear))}"
        )


def fused_experts(model: nn.Module) -> list[str]:
    """Return the names of tensors that hold the weights of all experts of a layer, each name once."""
    stacked = (name for name, tensor in model.named_parameters() if tensor.ndim == 3 and "experts" in name.split("."))
    return sorted({name.rpartition("experts.")[2] for name in stacked})


def linear_layers(backbone: Backbone) -> list[str]:
    """Return the paths of all linear layers beside the head and the output layer."""
    heads = head_modules(backbone.model)
    return [
        path
        for path, module in backbone.model.named_modules()
        if isinstance(module, nn.Linear) and path.split(".")[0] not in heads
    ]


def layers_beside_experts(backbone: Backbone) -> list[str]:
    """Return the paths of the linear layers outside the blocks that hold experts.

    Routers choose and shared experts learn with the others, so that a block is left as it is. `peft` takes layers
    elsewhere that are called as those of a block (a dense layer's ``gate_proj``) for experts.
    """
    blocks = {path.rpartition(".experts")[0] for path, _ in backbone.model.named_modules() if path.endswith(".experts")}
    layers = linear_layers(backbone)
    inside = {path for path in layers if any(path.startswith(f"{block}.") for block in blocks)}
    taken = {path.rpartition(".")[2] for path in inside}
    return [path for path in layers if path not in inside and path.rpartition(".")[2] not in taken]
