"""The classification head of a checkpoint: found, matched to the task by label name, or made new.

A head whose label names do not match is refused: the right rows in the wrong order give 4 % instead of 90 %
(huggingface/transformers#10401).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from entailor.errors import HeadMismatchError, ModelError
from entailor.models.sharded import fill, whole
from entailor.tasks import Task

# One checkpoint says "ENTAILMENT", the next "entail"; nothing is guessed beyond case, spaces and these.
LABEL_SYNONYMS = {"entail": "entailment", "contradict": "contradiction", "non_entailment": "not_entailment"}


def normal_label(name: str) -> str:
    """Return a label name without differences of case, spaces and hyphens."""
    plain = name.strip().casefold().replace(" ", "_").replace("-", "_")
    return LABEL_SYNONYMS.get(plain, plain)


def has_own_head(config: Any) -> bool:
    """Tell whether the checkpoint was saved as a sequence classifier."""
    return any("ForSequenceClassification" in name for name in config.architectures or [])


def match_labels(config: Any, labels: tuple[str, ...], model: str) -> list[int]:
    """Return, for each task label, the row of the checkpoint's head that stands for it.

    Raises:
        HeadMismatchError: the label sets differ, or the checkpoint does not name its labels.
    """
    exact = {str(name): int(index) for index, name in config.id2label.items()}
    if len(exact) == len(config.id2label) and set(exact) == set(labels):  # labels may differ by case alone
        return [exact[label] for label in labels]
    theirs = {normal_label(str(name)): int(index) for index, name in config.id2label.items()}
    ours = [normal_label(label) for label in labels]
    if len(theirs) == len(labels) == len(config.id2label) and set(theirs) == set(ours):
        return [theirs[label] for label in ours]
    raise HeadMismatchError(
        f"{model}: its own classification head names {', '.join(map(str, config.id2label.values()))}; "
        f"the data has {', '.join(labels)}. Set model.head=new to train a new head, "
        "or rename the labels with data.label_names"
    )


def task_of_own_head(config: Any, name: str) -> Task:
    """Return the task a checkpoint of NLI was trained on, its labels in the order of its head.

    Raises:
        ModelError: it has no head, or none of its labels is entailment.
    """
    labels = tuple(str(config.id2label[row]) for row in range(config.num_labels))
    if not has_own_head(config) or "entailment" not in map(normal_label, labels):
        found = f"names {', '.join(labels)}" if has_own_head(config) else "is missing"
        raise ModelError(
            f"{name}: a checkpoint with an entailment head was expected, and its head {found}. Give one trained on NLI "
            "(MultiNLI, SNLI) with --model; its labels are read from id2label in config.json"
        )
    return Task(labels, is_pair=True)


def name_labels(config: Any, task: Task) -> None:
    """Give a configuration the task's labels, in place."""
    config.id2label = dict(enumerate(task.labels))
    config.label2id = {label: index for index, label in enumerate(task.labels)}
    config.problem_type = "single_label_classification"


def head_modules(model: Any) -> dict[str, nn.Module]:
    """Return what stands on top of the encoder, by name (``classifier``, ``pre_classifier``, ``pooler``, ...)."""
    return {name: module for name, module in model.named_children() if name != model.base_model_prefix}


def pooler_modules(model: Any) -> set[str]:
    """Return the modules of the encoder's own pooler: a new head reads through it, so it is trained and saved with it.

    A checkpoint whose pooler was never used (weights near zero) lets hardly any gradient through: LoRA then stands
    still for half its training (docs/decisions/0027).
    """
    prefix = model.base_model_prefix
    names = (name for name, _ in model.named_parameters() if name.startswith(f"{prefix}.pooler."))
    return {name.rpartition(".")[0] for name in names}


def output_layer(model: Any, num_labels: int) -> nn.Linear:
    """Return the linear layer whose rows are the labels."""
    layers = [
        layer
        for module in head_modules(model).values()
        for layer in module.modules()
        if isinstance(layer, nn.Linear) and layer.out_features == num_labels
    ]
    return layers[-1]


def add_to_bias(modules: Iterable[nn.Module], shift_L: NDArray[np.float64]) -> bool:
    """Add to the bias of the last trained layer whose rows are the labels; return whether it has one."""
    layers = [one for one in modules if isinstance(one, nn.Linear) and one.out_features == len(shift_L)]
    bias = next((one.bias for one in reversed(layers) if one.weight.requires_grad), None)
    if bias is None:
        return False
    with torch.no_grad():
        fill(bias, whole(bias) + torch.from_numpy(shift_L).to(bias.device, bias.dtype))
    return True


def reorder_head(model: Any, rows: list[int]) -> None:
    """Put the output rows into the task's label order, in place."""
    layer = output_layer(model, len(rows))
    with torch.no_grad():
        layer.weight.copy_(layer.weight[rows].clone())
        if layer.bias is not None:
            layer.bias.copy_(layer.bias[rows].clone())


def reset_head(model: Any) -> list[str]:
    """Initialise the head again, in place, and return the names of its modules with parameters."""
    deviation = getattr(model.config, "initializer_range", 0.02)
    names = []
    for name, module in head_modules(model).items():
        if not any(True for _ in module.parameters()):
            continue
        names.append(name)
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=deviation)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
    return names
