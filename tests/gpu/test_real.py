"""The rounds of the pretend accelerator on a GPU, where there is one. They have not yet been run on one."""

import warnings
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from tests.gpu.rounds import ROUNDS, play

pytestmark = pytest.mark.skipif(
    not torch.accelerator.is_available(), reason="PyTorch finds no accelerator on this machine"
)


@pytest.fixture
def waits() -> Iterator[Counter[str]]:
    """What the host waits for, as CUDA tells it; other kinds of devices do not, and nothing is counted there."""
    counter: Counter[str] = Counter()

    def note(message: object, category: object, filename: str, lineno: int, *_: object) -> None:
        if "synchronizing" in str(message):
            counter[f"at {filename}:{lineno}"] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note  # type: ignore[assignment]
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("warn")
        yield counter
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", ROUNDS)
def test_every_method_runs_on_a_gpu(name, tiny_model, tmp_path, waits):
    for kind in ("bert", ROUNDS[name][1]):
        if not (tmp_path / kind).exists():
            (tmp_path / kind).symlink_to(tiny_model(kind))
    accelerator = torch.accelerator.current_accelerator()
    assert accelerator is not None
    assert play(name, tmp_path / ROUNDS[name][1], waits).problems(accelerator.type) == []
