"""Every format of an exported trial beside the trial itself: changed answers, size, time of one example, throughput.

python benchmarks/export_formats.py --trial runs/mine/trials/MODEL/lora/seed-0 --exports shipped/onnx shipped/onnx-int8

One example at a time, all contestants in turn on each example, in one process; processor time with one thread. Of a
folder that its proof refused (`.rejected`) only the figures of the proof are printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from entailor.data.example import Example
from entailor.runs.record import RunRecord
from entailor.shipping.manifest import read_manifest
from entailor.shipping.predictor import RUNTIMES, Predictor


def loaded(folder: Path) -> Predictor:
    """Return an export whose runtime uses one thread."""
    predictor = Predictor.load(folder)
    name = RUNTIMES[read_manifest(folder).format]
    if name in ("onnx_runtime", "gguf_runtime"):
        scorer: Any = predictor.scorer
        scorer.runtime = import_module(f"entailor.shipping.runtimes.{name}").Runtime(folder, None, 1)
    return predictor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trial", type=Path, required=True)
    parser.add_argument("--exports", type=Path, nargs="+", required=True)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("export_formats.json"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = RunRecord.read(asked.trial).predictions[: asked.examples]
    examples = [Example(str(number), row.text, row.text_pair) for number, row in enumerate(rows)]
    contestants = {"the trial": Predictor.load(asked.trial)}
    released = [folder for folder in asked.exports if folder.suffix != ".rejected"]
    contestants |= {read_manifest(folder).format: loaded(folder) for folder in released}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number, example in enumerate([*examples[:5], *examples]):  # the first five warm up
        for name, predictor in contestants.items():
            began = time.process_time()
            predictor.probabilities([example])
            if number >= 5:
                times[name].append(time.process_time() - began)
    found: dict[str, Any] = {}
    for name, predictor in contestants.items():
        began = time.process_time()
        predictor.probabilities(examples)
        seconds = time.process_time() - began
        found[name] = {
            "p50_ms": 1e3 * statistics.median(times[name]),
            "speed_beside_the_trial": sum(times["the trial"]) / sum(times[name]),
            "examples_per_second_in_batches": len(examples) / seconds,
        }
    for folder in asked.exports:
        proof = json.loads((folder / "verification.json").read_text(encoding="utf-8"))
        kept = ("examples", "largest_change", "accuracy_before", "accuracy_after", "loss_bound", "size_bytes", "engine")
        figures = {key: proof[key] for key in kept} | {"flips": len(proof["flips"])}
        name = read_manifest(folder).format if folder in released else folder.name
        found[name] = found.get(name, {}) | figures
    asked.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    json.dump(found, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
