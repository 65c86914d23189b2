"""Chooses the arithmetic of training by a short measurement on this machine.

Half precision is several times faster where the processor has units for it, and five to forty times slower where it has
not; nothing but a measurement tells. Scores are computed in fp32 in any case, elsewhere.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from statistics import median
from typing import Literal

import torch
from torch import Tensor, nn

from entailor.accel.attention import Bucket, attention
from entailor.accel.dropout import Dropout
from entailor.accel.half_linear import frozen_in_half
from entailor.errors import RunError
from entailor.models.precision import Precision, PrecisionChoice
from entailor.runs.cache_place import cache_folder
from entailor.runs.environment import cpu_name
from entailor.runs.files import read_json, write_json

ROWS = 512
"""Tokens of a usual training batch: as many rows a layer's matrix is used for once it is cast."""
LENGTH = 32
"""Tokens of one text of it."""
HEAD = 32
"""Width of an attention head; layers are measured at multiples of it."""
LARGEST_LAYER = 1024 * 1024
"""Most weights of the measured layer. A larger one is measured by a smaller one of the same shape with the same rows:
the ratio stays, and the time does not grow with the model."""
WIDEST = 4096
"""Most that either width of the measured layer is: a configuration may hold any number."""
REPEATS = 5
SECONDS_EACH = 0.15
"""No new repeat starts after this many seconds in one precision."""
SPEEDS_FILE = "training_speeds.json"
"""In the cache folder: processor and layer to measured speeds."""
DROPOUT = 0.1
"""What most encoders train with."""
WORTHWHILE = 1.5
"""bf16 must be so many times faster to be chosen: frozen weights are held once more, and it rounds to three digits."""


def choose_precision(
    requested: Literal["auto", "fp32", "bf16"], hidden_size: int, intermediate_size: int, device: str | torch.device
) -> PrecisionChoice:
    """Choose fp32 or bf16 for training.

    On a CPU both are measured (a second at most, once a processor), also where one was asked for: the request is
    honoured, and the reason says what it costs.

    Args:
        requested: ``auto`` leaves the choice to the measurement.
        hidden_size: width of the model.
        intermediate_size: width of its feed-forward layers.
        device: where the model will stand.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
        if requested == "auto":
            reason = f"this GPU {'supports' if supported else 'does not support'} bf16"
            return PrecisionChoice("bf16" if supported else "fp32", reason)
        warning = ", which this GPU only emulates: slow" if requested == "bf16" and not supported else ""
        return PrecisionChoice(requested, f"asked for{warning}")
    if kind != "cpu":
        chosen: Precision = "fp32" if requested == "auto" else requested
        return PrecisionChoice(chosen, "asked for" if requested != "auto" else f"not measured on {kind}")
    fp32, bf16 = known_speeds(hidden_size, intermediate_size)
    figures = f"fp32 {fp32:.0f}, bf16 {bf16:.0f} GFLOP/s on one core"
    ratio = f"bf16 is {bf16 / fp32:.1f} times faster" if bf16 >= fp32 else f"bf16 is {fp32 / bf16:.1f} times slower"
    if requested != "auto":
        return PrecisionChoice(requested, f"asked for; {ratio} ({figures})", fp32, bf16)
    if bf16 >= WORTHWHILE * fp32:
        return PrecisionChoice("bf16", f"{ratio} ({figures})", fp32, bf16)
    return PrecisionChoice("fp32", f"{ratio}, {WORTHWHILE} times faster is needed ({figures})", fp32, bf16)


def known_speeds(hidden_size: int, intermediate_size: int) -> tuple[float, float]:
    """Return the speeds of fp32 and bf16, 1e9 operations a second of one core.

    They are measured once a model of processor: a choice that flips would change results.
    """
    processor = torch.backends.cpu.get_cpu_capability()
    machine = f"{cpu_name()} {processor} torch-{torch.__version__}"
    key = f"{machine} {hidden_size}x{intermediate_size}"
    file = cache_folder() / SPEEDS_FILE
    known: dict[str, list[float]] = {}
    with contextlib.suppress(RunError):  # missing the first time; a damaged one is written again
        known = read_json(file)
    if key not in known:
        known[key] = [measure_gflops(name, hidden_size, intermediate_size) for name in ("fp32", "bf16")]
        with contextlib.suppress(OSError):  # a cache that cannot be written costs a measurement each time
            write_json(file, known)
    fp32, bf16 = known[key]
    return fp32, bf16


def measure_gflops(precision: Precision, hidden_size: int, intermediate_size: int) -> float:
    """Measure a step of one frozen encoder layer on the CPU, forward and backward, as a model is trained here.

    Matrix products alone would flatter bf16: masks, norms and casts around them do not get faster.

    Args:
        precision: bf16 by autocast, the frozen weights held in bf16 as `frozen_in_half` does.
        hidden_size: width of the layer.
        intermediate_size: width of its feed-forward part.

    Returns:
        1e9 floating-point operations of its matrix products a second of one core, by the median of up to `REPEATS`
        runs. One core and its own clock, because the wall clock of several tells more of what else the machine is
        doing.
    """
    shrink = max(1.0, (hidden_size * intermediate_size / LARGEST_LAYER) ** 0.5)
    sizes = (min(int(size / shrink), WIDEST) for size in (hidden_size, intermediate_size))
    width, inner = (max(HEAD, size // HEAD * HEAD) for size in sizes)
    clock = time.perf_counter if sys.platform == "win32" else time.thread_time  # too coarse there

    with one_thread(), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = _FrozenLayer(width, inner)
        rows_NH = torch.randn(ROWS, width, requires_grad=True)

        def step(texts: int) -> float:
            start = clock()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
                output_NH = layer(rows_NH[: texts * LENGTH], texts)
            torch.autograd.grad(output_NH.float().sum(), rows_NH)
            return clock() - start

        with frozen_in_half(layer) if precision == "bf16" else contextlib.nullcontext():
            step(texts=1)  # the libraries set themselves up
            begin = time.perf_counter()
            seconds = [step(ROWS // LENGTH)]
            while len(seconds) < REPEATS and time.perf_counter() - begin < SECONDS_EACH:
                seconds.append(step(ROWS // LENGTH))
    # forward, and one product of the same size backward, of four square matrices and two of the feed-forward part
    operations = 2 * 2 * ROWS * (4 * width * width + 2 * width * inner)
    return operations / median(seconds) / 1e9


class _FrozenLayer(nn.Module):
    """An encoder layer as it is computed while an adapter trains: N tokens of H features in, and as many out."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.heads = width // HEAD
        self.query, self.key, self.value, self.mixed = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.dropout = Dropout(DROPOUT)
        self.requires_grad_(requires_grad=False)

    def forward(self, rows_NH: Tensor, texts: int) -> Tensor:
        lie = [Bucket(texts, LENGTH, LENGTH)]
        read_NH = attention(self.query(rows_NH), self.key(rows_NH), self.value(rows_NH), lie, self.heads, DROPOUT)
        rows_NH = self.norms[0](rows_NH + self.dropout(self.mixed(read_NH)))
        rows_NH = rows_NH + self.dropout(self.down(nn.functional.gelu(self.up(rows_NH))))
        output_NH: Tensor = self.norms[1](rows_NH)
        return output_NH


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread for a moment."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
