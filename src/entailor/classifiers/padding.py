"""Whether an architecture reads padding, found by two short texts, alone and in one batch.

Some ignore the attention mask in part, as ConvBERT's convolutions do, or altogether, as FNet, which has no attention
(docs/decisions/0043).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from entailor.data.example import Example
from entailor.models.load import Backbone
from entailor.tasks import Task

SAME_SCORE = 1e-2
"""What padding may change in logits, as a share of what they differ between two texts; 8-bit weights round by batch."""
SAME_STATE = 3e-4
"""What padding may change in the states of real tokens, as a share of their deviation; seen were 1e-7 and 1e-3."""
PROBE_FAILURES = (ValueError, TypeError, LookupError, AttributeError, RuntimeError)
"""What architectures raise on inputs they cannot take."""


def reads_padding(
    backbone: Backbone, task: Task, collate: Callable[[Sequence[Any]], Any], run: Callable[[Any], Tensor]
) -> bool:
    """Tell whether a text's states or logits change with the padding of its batch.

    Args:
        backbone: an encoder, in evaluation mode.
        task: tells single texts from pairs.
        collate: pads inputs to a batch.
        run: gives logits_BL of a batch.
    """
    pair = "two" if task.is_pair else None
    texts = ("one two three four five six seven", "one")
    inputs = backbone.text_encoder.encode([Example("", text, pair) for text in texts])
    states: list[Tensor] = []
    body = getattr(backbone.model, backbone.model.base_model_prefix)
    handle = body.register_forward_hook(lambda module, args, output: states.append(output[0]))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            try:
                alone_BL = torch.cat([run(collate([one])) for one in inputs])
            except PROBE_FAILURES:  # each method says so in its own words
                return False
            try:
                changed_BL = run(collate(inputs)) - alone_BL
            except PROBE_FAILURES:
                return True
    finally:
        handle.remove()
    short, both = states[-2][0], states[-1][-1]
    # convolutions reach only the tokens next to the padding; what has no state for each token shows in its logits
    if len(short) == len(inputs[-1]) and (both[: len(short)] - short).abs().max() > SAME_STATE * short.std():
        return True
    spread = (alone_BL[0] - alone_BL[-1]).abs().max()
    return bool(changed_BL.abs().max() > SAME_SCORE * spread + 1e-5 * alone_BL.abs().max())
