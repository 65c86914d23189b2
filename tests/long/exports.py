"""200 healthy exports over methods, architectures and formats, of which none may be refused.

python -m tests.long.exports [COUNT]
"""

from __future__ import annotations

import itertools
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from tests.conftest import DECODERS, ENCODERS, NLI_LABELS, make_examples, make_table, make_tiny, write_csv

from entailor.config.experiment import Experiment
from entailor.config.parts import DataSettings, ModelSettings
from entailor.shipping.export import Source, prove, write_format
from entailor.shipping.formats import fitting_formats
from entailor.shipping.verification import ask_here
from entailor.study.compare import compare

ONE = {"num_train_epochs": 1}
NF4 = {"model": {"load_in_4bit": True}}
LORA = {"method": "lora", "r": 2, **ONE}
SOFT = {"num_virtual_tokens": 4, **ONE}
FOR_ENCODERS = {
    "lora": LORA,
    "rank_stabilised": {**LORA, "use_rslora": True, "lora_alpha": 3},
    "dora": {**LORA, "use_dora": True},
    "with_biases": {**LORA, "bias": "lora_only"},
    "nf4": {**LORA, **NF4},
    "full_finetuning": ONE,
    "p_tuning": SOFT,
    "prefix_tuning": SOFT,
    "linear_probe": {"C": [0.1]},
    "bag_of_words": {},
    "majority": {},
}
FOR_DECODERS = {
    "head": LORA,
    "words": {**LORA, "head": "verbalizer"},
    "nf4": {**LORA, **NF4},
    "nf4_words": {**LORA, "head": "verbalizer", **NF4},
    "zero_shot": {"method": "in_context"},
    "by_length": {"method": "in_context", "length_normalized": True},
    "few_shot": {"method": "in_context", "num_fewshot": 3, "calibration": "contextual"},
    "nf4_few_shot": {"method": "in_context", "num_fewshot": 2, "calibration": "pmi", **NF4},
}

AT_ONCE = 6
"""Methods of one run."""


def trials(place: Path) -> Iterator[tuple[str, Path]]:
    """Train methods on every architecture, pairs and single texts in turn, and give the finished trials."""
    for number, (seed, kind) in enumerate(itertools.product(range(20), (*ENCODERS, *DECODERS))):
        pair = number % 2 == 0
        labels = NLI_LABELS[: 3 - seed % 2]
        folder = place / f"{kind}-{seed}"
        folder.mkdir()
        parts = (("train", 36, 1), ("validation", 12, 2), ("test", 30, 3))
        files = {
            name: write_csv(
                folder / f"{name}.csv", make_examples(count, seed=10 * seed + start, pair=pair, labels=labels)
            )
            for name, count, start in parts
        }
        model = make_tiny(kind, folder / "model")
        table = make_table(folder / "table")
        known = FOR_DECODERS if kind in DECODERS else {**FOR_ENCODERS, "static_embedding": {"table": table}}
        names = sorted(known)
        # every architecture comes before any comes again, and another part of the methods each time
        methods = {name: known[name] for name in (names[(5 * number + step) % len(names)] for step in range(AT_ONCE))}
        experiment = Experiment(
            data=DataSettings(**files),
            models=(str(model),),
            model=ModelSettings(precision="fp32"),
            methods=methods,
            seeds=(seed,),
            restarts=0,
            estimate=False,
            out=str(folder / "run"),
        )
        run = compare(experiment)
        for record in run.records:
            if record.error is None:
                yield (
                    f"{kind}, {record.name}, {'pairs' if pair else 'texts'}",
                    run.folder.trial(record.model, record.name, record.seed),
                )
            else:
                print(f"not trained: {kind}, {record.name}: {record.error[:120]}", flush=True)
        shutil.rmtree(folder)


def main(count: int) -> int:
    """Export until `count` exports are made; return 1 where one was refused."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rng, made, refused, began = random.Random(0), Counter[str](), [], time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        for name, trial in trials(place):
            source = Source(trial)
            fitting = [one for one, reason in fitting_formats(source.classifier).items() if reason is None]
            # a graph takes torch's exporter half a minute, so one in ten of them is made
            fitting = [one for one in fitting if not one.startswith("onnx") or (one == "onnx" and rng.random() < 0.1)]
            for one in sorted(fitting, key=lambda name: name != "adapter"):  # merging takes the adapter off
                out = place / "export"
                out.mkdir()
                write_format(source, one, out)
                exact = one != "gguf-f16" and not (one == "adapter" and source.settings.quantized)
                proof = prove(source, one, out, 0.01 if exact else 0.99, ask_here)
                shutil.rmtree(out)
                made[one] += 1
                if not proof.passed:
                    refused.append(f"{name}, {one}: {'; '.join(proof.problems)}")
                    print(f"REFUSED {refused[-1]}", flush=True)
                if made.total() >= count:
                    break
            print(
                f"{made.total()} exports, {len(refused)} refused, {time.monotonic() - began:.0f} s ({name})", flush=True
            )
            if made.total() >= count:
                break
    print(f"{made.total()} healthy exports ({dict(made)}), {len(refused)} refused")
    return bool(refused)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
