"""Fifty LoRA classifiers of 2 to 77 labels over one MiniLM: memory beside one, speed beside a merged model, scores.

The adapters are made up (random updates, so that every one answers otherwise). Inputs go to them in turn.
"""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

import numpy as np
import psutil
import torch
from measure import arguments, gemm_peak, in_turn, now, ratios, read_rows, report, spread
from training import FP32, default_model

from entailor.config.parts import ModelSettings
from entailor.engine.batching import SCORING_TOKENS
from entailor.methods import build_method
from entailor.models.load import load_backbone
from entailor.serving.adapters import AdapterLane
from entailor.serving.batching import Job
from entailor.shipping.predictor import ClassifierScorer
from entailor.tasks import Task


def made_up(method: str, labels: int, seed: int, rank: int) -> Any:
    """Return a classifier of so many labels whose trained tensors are random."""
    task = Task(tuple(f"label {index}" for index in range(labels)), is_pair=True)
    settings = {"r": rank} if method == "lora" else {}
    backbone = load_backbone(default_model(), task, ModelSettings(), FP32, seed)
    classifier: Any = build_method(method, settings).adapt(backbone, task, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in classifier.named_parameters():
            if method == "lora" and tensor.requires_grad:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * (0.3 if "classifier" in name else 0.05))
    return classifier.eval()


def resident() -> int:
    """Return the bytes of memory this process has."""
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def main() -> None:
    options = arguments(__doc__ or "", examples=200, adapters=50, rank=16)
    examples = read_rows(options.data, options.examples)
    counts = np.linspace(2, 77, options.adapters).round().astype(int).tolist()
    expected = []  # of each by itself, on its own share of the examples
    lane, adapters = None, []
    for number, labels in enumerate(counts):
        classifier = made_up("lora", labels, number, options.rank)
        own = examples[number :: options.adapters]
        expected.append(ClassifierScorer(classifier, SCORING_TOKENS).score(own).probabilities_EL)
        if lane is None:
            lane = AdapterLane(classifier, SCORING_TOKENS)
            adapters.append(lane.begin())
            del classifier
            lane.run([Job(adapters[0], example) for example in examples])
            one = resident()
        else:
            adapters.append(lane.add(classifier))
            del classifier
    assert lane is not None
    jobs = [Job(adapters[number % options.adapters], example) for number, example in enumerate(examples)]
    mixed = lane.run(jobs)
    many = resident()
    gap = max(
        float(np.abs(np.log(row) - np.log(expected[number % options.adapters][number // options.adapters])).max())
        for number, row in enumerate(mixed)
    )
    merged = ClassifierScorer(made_up("full_finetuning", 3, 0, 0), SCORING_TOKENS)

    def timed(run: Any) -> float:
        begin = now()
        run()
        return len(examples) / (now() - begin)

    runs = {"mixed": lambda: lane.run(jobs), "merged": lambda: merged.score(examples)}
    speeds = in_turn(options.repeats, **{name: partial(timed, run) for name, run in runs.items()})
    parts = [tensor for update in adapters[-1].updates.values() for tensor in (update.down_IR, update.up_RO)]
    parts += [tensor for head in adapters[-1].heads.values() for tensor in head.parameters()]
    report(
        "K1",
        {
            "gemm_gflops": gemm_peak(),
            "adapters": options.adapters,
            "bytes_of_the_largest_adapter": sum(one.numel() * one.element_size() for one in parts),
            "memory_of_one": one,
            "memory_of_all": many,
            "memory_ratio": many / one,
            "largest_log_probability_gap": gap,
            "ratio": ratios(speeds["mixed"], speeds["merged"]),
            "mixed_examples_per_second": spread(speeds["mixed"]),
            "merged_examples_per_second": spread(speeds["merged"]),
        },
        options.out,
    )


if __name__ == "__main__":
    main()
