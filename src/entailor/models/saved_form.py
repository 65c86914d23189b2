"""The 4-bit form of a checkpoint in the cache: made once, layer by layer, and mapped into memory from then on.

A folder of safetensors with the names and the layout in which `transformers` saves weights of `bitsandbytes`. It holds
the quantised layers alone; all else is read from the checkpoint.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from entailor.errors import ModelError
from entailor.models.mapped import weight_files
from entailor.models.memory_plan import PART_BYTES, Placement
from entailor.models.quantization import quantized_tensors
from entailor.models.resolve.cache import new_folder, require_room, scratch_folder
from entailor.models.resolve.source import ModelFolder
from entailor.runs.cache_place import cache_folder
from entailor.runs.files import write_json

VERSION = 1


def saved_form(folder: ModelFolder, plan: Placement) -> Path:
    """Return the folder of a checkpoint's 4-bit form, which is made the first time.

    Args:
        folder: the checkpoint.
        plan: how it is loaded; `plan.four_bit` names its layers.

    Raises:
        ModelError: the cache cannot be written, or has no room for it.
    """
    target = form_folder(folder, plan)
    if not target.is_dir():
        with scratch_folder(target.parent) as place:
            require_room(place, plan.four_bit_bytes)
        with new_folder(target) as scratch:
            write_form(scratch, folder.path, plan)
    return target


def form_folder(folder: ModelFolder, plan: Placement) -> Path:
    """Return where a checkpoint's form is kept: by its weights, by how they are rounded, and which of them."""
    settings = plan.settings
    how = (VERSION, settings.bnb_4bit_quant_type, settings.bnb_4bit_use_double_quant, plan.stored_dtype)
    layers = ",".join(sorted(plan.four_bit))
    key = hashlib.sha256(f"{folder.weights_sha256} {how} {layers}".encode()).hexdigest()
    return cache_folder() / "four_bit" / key[:32]


def write_form(folder: Path, checkpoint: Path, plan: Placement) -> None:
    """Quantise the layers of a checkpoint, each read, rounded and dropped before the next.

    Args:
        folder: an empty one.
        checkpoint: a folder of safetensors.
        plan: made for it.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    readers: dict[str, Any] = {}
    for file in weight_files(checkpoint):
        opened: Any = safe_open(file, framework="pt", device="cpu", backend="pread")
        readers.update(dict.fromkeys(opened.keys(), opened))
    part: dict[str, Tensor] = {}
    where: dict[str, str] = {}

    def write() -> None:
        name = f"part-{len(set(where.values())) + 1:03}.safetensors"
        save_file(part, folder / name, metadata={"format": "pt"})
        where.update(dict.fromkeys(part, name))
        part.clear()

    for name, (stored, _) in plan.four_bit.items():
        weight: Tensor = readers[stored].get_tensor(stored)
        for key, tensor in quantized_tensors(weight.to(plan.stored_dtype), plan.settings).items():
            part[f"{name}{key}"] = tensor
        del weight
        if sum(tensor.nbytes for tensor in part.values()) >= PART_BYTES:
            write()
    if part:
        write()
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": where})


def check_form(path: Path, plan: Placement, tensors: dict[str, Tensor]) -> None:
    """Hold a form against the plan.

    Raises:
        ModelError: a layer is missing or has another size.
    """
    for name, (_, size) in plan.four_bit.items():
        packed = tensors.get(name)
        if packed is None or packed.dtype != torch.uint8 or packed.numel() != (size + 1) // 2:
            raise ModelError(f"{path}: damaged, {name} is not as it was written. Delete this folder and run again")
