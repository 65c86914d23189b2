"""Weights that stay in their files: a page is read when it is touched, and can be given back.

What is mapped counts as resident where it was touched, but the system takes it away when it needs the room: the file
has it. Nothing is ever written to these files.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from entailor.models.resolve.folder import INDEX_FILE, SINGLE_FILE

DTYPES = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U8": torch.uint8,
    "I8": torch.int8,
}
ROWS_AT_ONCE = 4096
"""Rows of an output layer that are cast to fp32 at a time."""


def weight_files(path: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint, the whole one before parts, as `transformers` chooses."""
    if (path / SINGLE_FILE).exists():
        return [path / SINGLE_FILE]
    index = json.loads((path / INDEX_FILE).read_text(encoding="utf-8"))
    return [path / name for name in sorted(set(index["weight_map"].values()))]


def stored_tensors(path: Path) -> dict[str, tuple[str, int]]:
    """Return by name the type and the size of all tensors in a folder's safetensors files, from their headers alone."""
    from safetensors import safe_open

    found = {}
    for file in weight_files(path):
        reader: Any = safe_open(file, framework="numpy")
        with reader as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                tensor = opened.get_slice(name)
                found[name] = (tensor.get_dtype(), math.prod(tensor.get_shape()))
    return found


class _Entry(TypedDict):
    """What the header of a file says of a tensor."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class MappedFile:
    """One file of safetensors, mapped into memory.

    Args:
        path: the file.

    Attributes:
        tensors: each tensor by name, on the pages of the file; of the types in `DTYPES` alone.
    """

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        with safe_open(path, framework="numpy"):  # which holds every offset against the size of the file
            pass
        with path.open("rb") as opened:
            # private: torch wants memory it could write to
            self._pages = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        start = 8 + int.from_bytes(self._pages[:8], "little")
        header: dict[str, _Entry] = json.loads(self._pages[8:start])
        header.pop("__metadata__", None)
        self._begin = torch.frombuffer(self._pages, dtype=torch.uint8).data_ptr()
        self.tensors = {
            name: self._tensor(start + entry["data_offsets"][0], DTYPES[entry["dtype"]], entry["shape"])
            for name, entry in header.items()
            if entry["dtype"] in DTYPES
        }

    def _tensor(self, offset: int, dtype: torch.dtype, shape: list[int]) -> Tensor:
        count = torch.Size(shape).numel()
        if not count:
            return torch.empty(shape, dtype=dtype)
        return torch.frombuffer(self._pages, dtype=dtype, count=count, offset=offset).view(shape)

    def holds(self, tensor: Tensor) -> bool:
        """Tell whether a tensor lies on the pages of this file."""
        return self._begin <= tensor.data_ptr() < self._begin + len(self._pages)

    def give_back(self, tensor: Tensor) -> None:
        """Let the system have the pages of a tensor; they are read again when they are touched."""
        advice = getattr(mmap, "MADV_DONTNEED", None)  # Windows has none, and takes pages when it needs them
        if advice is None:
            return
        first = tensor.data_ptr() - self._begin
        start = first - first % mmap.PAGESIZE
        self._pages.madvise(advice, start, first + tensor.nbytes - start)


class MappedFiles:
    """Several files of safetensors as one set of tensors by name."""

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        self.files = tuple(MappedFile(path) for path in paths)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Each tensor by name."""
        return {name: tensor for file in self.files for name, tensor in file.tensors.items()}

    def give_back(self, tensors: Iterable[Tensor]) -> None:
        """Let the system have the pages of those of the tensors that lie in these files."""
        for tensor in tensors:
            for file in self.files:
                if tensor.device.type == "cpu" and file.holds(tensor):
                    file.give_back(tensor)


def names_in_files(model: nn.Module, in_files: Iterable[str]) -> Mapping[str, str]:
    """Return which tensor of a checkpoint is which parameter, where the names say so.

    A checkpoint of the bare body has its names without the prefix that a model with a head puts in front, and the other
    way round. Where names differ otherwise, `transformers` changes tensors while it loads them, and nothing is said.

    Args:
        model: may be without memory for its weights.
        in_files: names of the tensors in the files.
    """
    known, prefix = set(in_files), f"{getattr(model, 'base_model_prefix', '')}."
    found = {}
    for name, _ in model.named_parameters(remove_duplicate=False):
        for candidate in (name, name.removeprefix(prefix), f"{prefix}{name}"):
            if candidate in known:
                found[name] = candidate
                break
    return found


class MappedLinear(nn.Linear):
    """A linear layer in the half precision of its file that computes in fp32, some rows at a time.

    A layer becomes one by `stay_in`; it has no parameters of its own.
    """

    files: MappedFiles

    def forward(self, input: Tensor) -> Tensor:
        """Return what a layer in fp32 would."""
        found: Tensor = _InPieces.apply(input.float(), self.weight, self.files)  # type: ignore[no-untyped-call]
        return found if self.bias is None else found + self.bias.float()


def stay_in(files: MappedFiles, embedding: nn.Module, output: Any) -> None:
    """Have the table of a model's input embeddings, and its output layer, give back what they read of their files.

    Args:
        files: where the weights of both stay.
        embedding: looks rows up.
        output: a linear layer, or None.
    """
    embedding.register_forward_hook(lambda layer, inputs, found: files.give_back(layer.parameters()))
    if output is not None and output.weight.dtype != torch.float32:
        output.__class__, output.files = MappedLinear, files


class _InPieces(torch.autograd.Function):
    """The product with a frozen weight of which a piece at a time is there in fp32, forward and backward."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, files: MappedFiles) -> Tensor:
        ctx.weight, ctx.files = weight, files
        found = []
        for rows in _pieces(weight):
            found.append(nn.functional.linear(input, rows.float()))
            files.give_back([rows])
        return torch.cat(found, dim=-1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        total = grads[0].new_zeros(*grads[0].shape[:-1], ctx.weight.shape[1])
        for part, rows in zip(torch.split(grads[0], ROWS_AT_ONCE, dim=-1), _pieces(ctx.weight), strict=True):
            total += part @ rows.float()
            ctx.files.give_back([rows])
        return total, None, None


def _pieces(weight: Tensor) -> tuple[Tensor, ...]:
    pieces: tuple[Tensor, ...] = torch.split(weight, ROWS_AT_ONCE)
    return pieces
