"""The layers of a model one at a time: each is read, run on all batches, and given back.

A batch goes through the model once for each layer, and no other layer computes anything meanwhile. So embeddings,
masks, caches, adapters and whatever reads the result are the model's own, whichever architecture it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from entailor.errors import ModelError
from entailor.models.mapped import MappedFiles
from entailor.models.sizes import required_size

STATE_BYTES = 2**28
"""Memory for the states of all batches that go through together."""
PROOF_TOLERANCE = 1e-4


def tokens_together(config: Any) -> int:
    """Return how many tokens go through a model's layers together: as many as have room for their fp32 states."""
    return STATE_BYTES // (4 * required_size(config, "hidden_size"))


class StreamedLayers:
    """What a model's layers need to be run one at a time.

    Args:
        model: loaded from `files`; its layers give their pages back after each call from now on.
        files: where its weights stay.
        name: of the model, for messages.

    Attributes:
        tokens: how many may go through together.

    Raises:
        ModelError: it has no list of layers.
    """

    def __init__(self, model: Any, files: Sequence[MappedFiles], name: str) -> None:
        self.layers, self.files, self.name = _layers(model, name), tuple(files), name
        self.tokens = tokens_together(model.config)
        self._proven = False
        for layer in self.layers:
            layer.register_forward_hook(lambda module, args, found: self.give_back(module))

    def give_back(self, module: nn.Module) -> None:
        """Let the system have the pages of a module's weights."""
        for weight in module.parameters():
            scales = getattr(weight, "quant_state", None)
            nested = getattr(scales, "state2", None)
            tensors = [weight, *(one.absmax for one in (scales, nested) if one is not None)]
            for files in self.files:
                files.give_back(tensors)

    def run(self, calls: Sequence[Callable[[], Tensor]]) -> list[Tensor]:
        """Return what each call returns, whose model runs layer by layer.

        Args:
            calls: each runs the model once.

        Raises:
            ModelError: the layers of this architecture are not a chain, each fed by the one before alone.
        """
        found = self._run(calls)
        if not self._proven:
            whole = calls[-1]()
            if not torch.allclose(whole, found[-1], rtol=PROOF_TOLERANCE, atol=PROOF_TOLERANCE):
                most = float((whole - found[-1]).abs().max())
                raise ModelError(
                    f"{self.name}: run layer by layer its scores differ by {most:.2g}. Leave out model.stream"
                )
            self._proven = True
        return found

    def _run(self, calls: Sequence[Callable[[], Tensor]]) -> list[Tensor]:
        states: list[Any] = [None] * len(calls)
        for number, layer in enumerate(self.layers):
            for index, call in enumerate(calls):
                with self._only(number, states[index]):
                    try:
                        call()
                    except _Computed as done:
                        states[index] = done.found
            self.give_back(layer)
        found = []
        for index, call in enumerate(calls):
            with self._only(len(self.layers), states[index]):
                found.append(call())
            states[index] = None
        return found

    @contextmanager
    def _only(self, number: int, state: Any) -> Iterator[None]:
        """Let one layer compute, from a state, and stop there; without such a layer go through to the end."""
        before = [vars(layer).get("forward") for layer in self.layers]

        def leave(*args: Any, **kwargs: Any) -> Any:
            return state

        def compute(*args: Any, **kwargs: Any) -> Any:
            if state is not None:
                args, kwargs = _with_state(state, args, kwargs)
            raise _Computed(forward(*args, **kwargs))

        for layer in self.layers[:number]:
            layer.forward = leave
        if number < len(self.layers):
            forward = self.layers[number].forward
            self.layers[number].forward = compute
        try:
            yield
        finally:
            for layer, own in zip(self.layers, before, strict=True):
                vars(layer).pop("forward", None)
                if own is not None:
                    layer.forward = own


class _Computed(Exception):
    """Ends a run of the model behind the layer that was computed."""

    def __init__(self, found: Any) -> None:
        super().__init__()
        self.found = found


def _with_state(state: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Put what the layer before gave in the place of the states a layer is called with."""
    hidden = state[0] if isinstance(state, tuple) else state
    return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})


def _layers(model: Any, name: str) -> list[Any]:
    """Return a model's layers, first to last: the list of them that has as many as the configuration says.

    Raises:
        ModelError: there is no such list, or several.
    """
    count = required_size(model.config, "num_hidden_layers")
    found = [list(one) for one in model.modules() if isinstance(one, nn.ModuleList) and len(one) == count]
    if len(found) != 1:
        raise ModelError(
            f"{name}: model.stream needs one list of {count} layers, and there are {len(found)}. Leave out model.stream"
        )
    return found[0]
