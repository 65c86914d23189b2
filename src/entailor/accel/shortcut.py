"""Puts the packed encoder in a classifier's place for the length of a call, where it is proven to give the same.

The proof is made before the first batch: a few made-up rows, with and without the shortcut, without dropout. Where
the logits differ, the proof cannot be carried out, the architecture is another, or somebody hooked into the layers,
the model runs as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from entailor.accel.encoder import layer_stack, pack, run_packed
from entailor.accel.gate import evaluating, prove

PROOF_LENGTHS = (7, 4, 7, 9)
"""Tokens of the made-up rows: some alike, most of them padded."""


class Shortcut:
    """The packed way through a model's layers.

    Args:
        body: the encoder inside a classifier of `transformers`.
    """

    def __init__(self, body: nn.Module) -> None:
        self.body = body
        self.proven: bool | None = None
        """Whether logits agree; None before the proof."""
        self.trouble: str | None = None
        """Why the proof could not be carried out, for the record."""

    def fits(self) -> bool:
        """Tell whether it may be taken in this call: on a CPU, without hooks or gradient checkpointing."""
        if self.proven is False or next(self.body.parameters()).device.type != "cpu":
            return False
        return not any(
            module._forward_hooks or module._forward_pre_hooks or getattr(module, "gradient_checkpointing", False)
            for module in self.body.modules()
        )

    @contextmanager
    def taken(self, lengths: Sequence[int], unread: range | None) -> Iterator[None]:
        """Run the layers packed inside the block.

        Args:
            lengths: real tokens of each right-padded row.
            unread: positions whose last hidden state nobody reads; None: only the first is read.
        """
        found = layer_stack(self.body)  # looked for each time: adapters may have taken the place of layers
        if found is None:
            self.proven = False
            yield
            return
        stack, layers = found

        def packed_forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
            from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

            if kwargs.get("past_key_values") is not None:  # keys from outside, as of peft's prefix tuning
                return type(stack).forward(stack, hidden_states, *args, **kwargs)
            packing = pack(lengths, hidden_states.shape[1], unread)
            return BaseModelOutputWithPastAndCrossAttentions(
                last_hidden_state=run_packed(layers, hidden_states, packing)
            )

        stack.forward = packed_forward  # on the instance; the class keeps its own
        try:
            yield
        finally:
            del stack.forward

    def prove(self, classifier: nn.Module, plain: Callable[[], Tensor], short: Callable[[], Tensor]) -> bool:
        """Compare logits of a few rows both ways, and remember the outcome."""
        if layer_stack(self.body) is None:
            self.proven = False
            return False
        with evaluating(classifier):
            verdict = prove("packed encoder", plain, short)
        self.trouble = verdict.trouble
        self.proven = self.proven is not False and verdict.proven
        return self.proven
