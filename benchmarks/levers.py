"""What each shortcut gives alone and together: Entailor's own loop with shortcuts switched off, on the same batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from measure import arguments, gemm_peak, ratios, read_rows, report, spread
from torch import Tensor, nn
from training import Contest, default_model

from entailor.accel import dropout as dropout_file
from entailor.accel import encoder as encoder_file


def native_mask(shape: Any, p: float) -> Tensor:
    """Return a mask as PyTorch draws it."""
    return torch.empty(*shape).bernoulli_(1 - p).div_(1 - p)


def without_last_layer_cut(layers: Any, hidden_BTH: Tensor, packing: Any) -> Tensor:
    """Run every layer for every token, then pick what is read."""
    rows, width, out_width = packing.shape
    hidden_NH = hidden_BTH.reshape(rows * width, -1).index_select(0, packing.places_N)
    for parts in layers:
        hidden_NH = encoder_file.run_layer(parts, hidden_NH, None, packing.buckets)
    last_QH = hidden_NH.index_select(0, packing.asked_Q)
    output = last_QH.new_zeros(rows * out_width, last_QH.shape[1])
    return output.index_copy(0, packing.slots_Q, last_QH).view(rows, out_width, -1)


@contextmanager
def switched(contest: Contest, *, packed: bool, masks: bool, cut: bool, fused: bool) -> Iterator[None]:
    """Switch shortcuts on and off inside the block."""
    from entailor.accel import attention as attention_file
    from entailor.accel import lora_linear as lora_file
    from entailor.accel import shortcut as shortcut_file

    contest.classifier.shortcut.proven = None if packed else False
    patches = []
    if not masks:
        patches.append(patch.object(dropout_file, "dropout", nn.functional.dropout))
        patches.append(patch.object(encoder_file, "dropout", nn.functional.dropout))
        patches += [patch.object(file, "dropout_mask", native_mask) for file in (attention_file, lora_file)]
    if not cut:
        patches.append(patch.object(shortcut_file, "run_packed", without_last_layer_cut))
    if not fused:
        patches.append(patch.object(encoder_file, "apply_linear", lambda module, rows: module(rows)))
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()


WAYS: dict[str, dict[str, bool]] = {
    "none": {"packed": False, "masks": False, "cut": False, "fused": False},
    "masks alone": {"packed": False, "masks": True, "cut": False, "fused": False},
    "packing alone": {"packed": True, "masks": False, "cut": False, "fused": False},
    "packing and last layer": {"packed": True, "masks": False, "cut": True, "fused": False},
    "all but fused LoRA": {"packed": True, "masks": True, "cut": True, "fused": False},
    "all but last layer": {"packed": True, "masks": True, "cut": False, "fused": True},
    "all": {"packed": True, "masks": True, "cut": True, "fused": True},
}


def main() -> None:
    options = arguments(__doc__ or "", steps=14, methods="lora,full_finetuning,p_tuning")
    rows, folder = read_rows(options.data, 2000), default_model()
    result: dict[str, Any] = {"gemm_gflops": gemm_peak(), "methods": {}}
    for name in options.methods.split(","):
        contest = Contest(name, folder, rows)
        batches = contest.grouped_batches(options.steps)

        def run(way: dict[str, bool], contest: Contest = contest, batches: Any = batches) -> float:
            with switched(contest, **way):
                return contest.run_ours(batches)[0]

        speeds: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(options.repeats):
            for way, switches in WAYS.items():
                speeds[way].append(run(switches))
        result["methods"][name] = {
            way: {"examples_per_second": spread(found), "over_none": ratios(found, speeds["none"])}
            for way, found in speeds.items()
        }
        report("levers", result, options.out)


if __name__ == "__main__":
    main()
