"""Tensors of which each process holds some rows, as FSDP2 leaves them (`DTensor`), and where they meet whole ones.

They are known by what they can do, so that one process never loads `torch.distributed`. Rows are divided as
`torch.chunk` divides them: the same number each, the last processes fewer or none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def is_sharded(tensor: object) -> bool:
    """Tell whether other processes hold other rows of a tensor."""
    return hasattr(tensor, "to_local")


def is_divided(model: object) -> bool:
    """Tell whether the weights of a model are divided among processes; asked while it does not run."""
    parameters = getattr(model, "parameters", None)
    return parameters is not None and is_sharded(next(iter(parameters()), None))


def own_part(tensor: Tensor) -> Tensor:
    """Return the rows that this process holds: all of a tensor that is not divided."""
    part: Tensor = tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
    return part


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor; every process calls it."""
    full: Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
    return full


def fill(tensor: Any, full: Tensor) -> None:
    """Copy a whole tensor into one that may be divided; call it without gradients."""
    part = own_part(tensor)
    if is_sharded(tensor):
        rows, mesh = tensor.shape[0], tensor.device_mesh
        begin = min(int(rows), math.ceil(rows / mesh.size()) * int(mesh.get_local_rank()))
        full = full[begin : begin + len(part)]
    part.copy_(full)


def any_not_zero(tensors: Sequence[Any]) -> Tensor:
    """Return for each tensor whether one of its numbers is not zero, in any process that holds some of it."""
    import torch

    found = torch.stack([own_part(tensor).any().to(tensors[0].device) for tensor in tensors])
    if not is_sharded(tensors[0]):
        return found
    import torch.distributed as dist

    counts = found.int()
    dist.all_reduce(counts, group=tensors[0].device_mesh.get_group())
    return counts > 0
