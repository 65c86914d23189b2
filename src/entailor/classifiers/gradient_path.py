"""Which trainable tensors lie on the path to the loss: found by one short example before anything is trained.

Architectures compute things that no head reads (the pooler of BigBird), and hold layers that text never enters (the
vision tower of Gemma 3). An adapter on them learns nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from entailor.accel.gate import evaluating
from entailor.classifiers.fitting import fitting, probe_example
from entailor.classifiers.transformer import TransformerClassifier
from entailor.errors import MethodError
from entailor.models.load import Backbone

SHOWN = 3


def keep_what_learns(
    classifier: TransformerClassifier, backbone: Backbone, method: str, named: Collection[str] = ()
) -> None:
    """Freeze what no gradient reaches, and name it in the backbone's events.

    Args:
        classifier: freshly adapted.
        backbone: what it was made from.
        method: its name, for messages.
        named: layers the user asked for by name.

    Raises:
        MethodError: the model does not run this way, or no gradient reaches what the method trains or the user named.
    """
    trainable = {name: tensor for name, tensor in classifier.named_parameters() if tensor.requires_grad}
    reached = _reached(_probe_logits(classifier, backbone, method))
    cut_off = {name: tensor for name, tensor in trainable.items() if id(tensor) not in reached}
    if not cut_off:
        return
    own = {name for name in trainable if not classifier.is_head(name)}
    if own <= cut_off.keys():
        raise MethodError(
            f"{method} does not fit {backbone.folder.name}: what it trains has no effect on this architecture's "
            f"output (e.g. {min(own)}). Leave {method} out, or choose another model"
        )
    for layer in named:
        adapted = {name for name in trainable if f".{layer}." in f".{name}."}
        if adapted and adapted <= cut_off.keys():
            raise MethodError(
                f"{method}: target_modules names {layer}, which has no effect on this model's output, so it cannot "
                f"be trained (no gradient reaches {min(adapted)}). Take {layer} out of target_modules"
            )
    for tensor in cut_off.values():
        tensor.requires_grad_(False)
    names = sorted(name.removeprefix(classifier.inner) for name in cut_off)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    backbone.events += (
        f"not trained, since they have no effect on the output of this architecture: {', '.join(names[:SHOWN])}{more}",
    )


def _probe_logits(classifier: TransformerClassifier, backbone: Backbone, method: str) -> Tensor:
    """Return the logits of one example with their graph, without dropout."""
    with evaluating(classifier), fitting(backbone, method), torch.enable_grad():
        return classifier.plain_forward(classifier.collate(classifier.encode([probe_example(classifier.task)])))


def _reached(logits_BL: Tensor) -> set[int]:
    """Return the ids of the tensors a backward pass would give gradients, without the memory of one."""
    found: set[int] = set()
    seen: set[Any] = set()
    waiting: list[Any] = [logits_BL.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        waiting.extend(following for following, _ in node.next_functions)
    return found
