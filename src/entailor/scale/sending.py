"""Tensors that the first of several processes sends to the others, one by one, when they are asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor


class SentTensors(Mapping[str, Tensor]):
    """Tensors of the first process; every process asks for the same ones, in the same order.

    Args:
        names: of the tensors.
        held: the tensors, on the CPU, in the first process; None in the others.
        from_first: gives all processes the text that it makes in the first one.
        broadcast: makes a tensor that of the first process, in place.
    """

    def __init__(
        self,
        names: list[str],
        held: Mapping[str, Tensor] | None,
        from_first: Callable[[Callable[[], str]], str],
        broadcast: Callable[[Tensor], None],
    ) -> None:
        self.names, self.held = dict.fromkeys(names), held
        self.from_first, self.broadcast = from_first, broadcast

    def __getitem__(self, name: str) -> Tensor:
        tensor = torch.empty(0)

        def form() -> str:
            nonlocal tensor
            assert self.held is not None
            tensor = self.held[name].contiguous()
            return json.dumps([str(tensor.dtype).removeprefix("torch."), *tensor.shape])

        dtype, *shape = json.loads(self.from_first(form))
        if self.held is None:
            tensor = torch.empty(shape, dtype=getattr(torch, dtype))
        if tensor.numel():
            self.broadcast(tensor.view(-1).view(torch.uint8))
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
