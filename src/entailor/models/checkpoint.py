"""Reads a checkpoint into memory as its plan says: quantised tensor by tensor, or as `transformers` does it.

Decides nothing: what goes where, in how many bits, stands in the plan.
"""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from entailor.models.mapped import MappedFiles, weight_files
from entailor.models.memory_plan import Placement
from entailor.models.quantization import check_heads_left_alone, quantized_options, settle_quantized
from entailor.models.saved_form import check_form
from entailor.runs.cache_place import cache_folder


def load_checkpoint(
    auto_class: Any, path: Path, plan: Placement, form: Path | None = None, **options: Any
) -> tuple[Any, dict[str, Any]]:
    """Load a checkpoint of safetensors and return the model and what `transformers` says of the loading.

    Args:
        auto_class: a class of `transformers` with `from_pretrained`.
        path: the checkpoint's folder.
        plan: made for it by `plan_placement`.
        form: its 4-bit form, to be mapped instead of quantising; see `saved_form`.
        options: further arguments of `from_pretrained`.

    Raises:
        ModelError: something was quantised that must not be, or the form is damaged.
    """
    fixed: dict[str, Any] = {"use_safetensors": True, "ignore_mismatched_sizes": True, "output_loading_info": True}
    if plan.device_map is not None:
        fixed["device_map"] = plan.device_map
    if not plan.settings.quantized:
        with _room_on_disk(plan) as room:
            loaded: tuple[Any, dict[str, Any]] = auto_class.from_pretrained(
                path, dtype=torch.float32, **fixed, **room, **options
            )
            if room:
                weakref.finalize(loaded[0], shutil.rmtree, room["offload_folder"], ignore_errors=True)
        return loaded
    fixed |= quantized_options(plan.settings, plan.left_alone)
    config = plan.config
    if "num_labels" in options:
        config.num_labels = options.pop("num_labels")
    # transformers maps whole files into memory, and what was read of them counts until the last tensor is done
    tensors, kept = tensors_by_name(path), MappedFiles(weight_files(path) if plan.mapped else ())
    tensors |= {name: tensor for name, tensor in kept.tensors.items() if name in plan.mapped}
    files = [kept]
    if form is not None:
        layers = MappedFiles(weight_files(form))
        check_form(form, plan, layers.tensors)
        files.append(layers)
        tensors = {name: tensor for name, tensor in tensors.items() if name not in plan.in_four_bit} | layers.tensors
        # what transformers takes for a checkpoint that was saved in 4 bits
        config.quantization_config = fixed.pop("quantization_config").to_dict()
    model, info = plan.model_class.from_pretrained(
        None, config=config, state_dict=tensors, dtype=plan.stored_dtype, **fixed, **options
    )
    # as if it had been loaded by its path: peft writes it down with an adapter, and looks there for the vocabulary
    model.name_or_path = model.config.name_or_path = str(path)
    model.mapped_files = tuple(files)
    settle_quantized(model, plan.settings, kept if plan.mapped else None)
    check_heads_left_alone(model, plan.left_alone)
    return model, info


@contextmanager
def _room_on_disk(plan: Placement) -> Iterator[dict[str, Path]]:
    """Give the folder in the cache for weights on the disk that `transformers` changes while it loads, if any.

    Most are read where they are; those of experts are put together first. What a killed process left is removed.
    """
    import psutil

    if plan.device_map is None or not plan.bytes_in("disk"):
        yield {}
        return
    here = platform.node()
    place = cache_folder() / "offload" / f"{here}.{os.getpid()}.{secrets.token_hex(8)}"
    for left in place.parent.glob(f"{here}.*.*"):
        owner = left.name.removeprefix(f"{here}.").partition(".")[0]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        yield {"offload_folder": place}
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def unread_weights(model: Any, unexpected: Iterable[str]) -> tuple[str, ...]:
    """Return a warning where the files hold weights of the body that the configuration has no place for, or nothing.

    Heads of other tasks and poolers stay unread as a rule, and nobody misses them.
    """
    prefix = model.base_model_prefix
    body = {prefix, *(name for name, _ in getattr(model, prefix, model).named_children())} - {"pooler"}
    names = sorted(key for key in unexpected if key.split(".")[0] in body and ".pooler." not in key)
    if not names:
        return ()
    return (
        f"{len(names)} weights in the files are not used, since config.json describes no place for them (e.g. "
        f"{', '.join(names[:2])}). Where it gives fewer layers than were trained, copy or download it again",
    )


def tensors_by_name(path: Path) -> dict[str, Any]:
    """Return a checkpoint's tensors by name, each read into memory of its own when `[...]` is taken of it.

    Args:
        path: a folder of safetensors.
    """
    from safetensors import safe_open

    tensors = {}
    for file in weight_files(path):
        opened: Any = safe_open(file, framework="pt", device="cpu", backend="pread")
        tensors.update({name: opened.get_slice(name) for name in opened.keys()})  # noqa: SIM118 - it is no mapping
    return tensors
