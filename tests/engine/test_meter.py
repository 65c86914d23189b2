import sys

import numpy as np
import pytest

from entailor.engine import meter
from entailor.engine.meter import Meter, peak_gpu_memory_bytes, peak_memory_bytes, reset_peak_memory

MEGABYTE = 2**20


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by what the test says, and by nothing else."""
    now = [0.0]
    monkeypatch.setattr(meter.time, "perf_counter", lambda: now[0])

    def pass_by(seconds: float) -> None:
        now[0] += seconds

    return pass_by


def test_seconds_of_a_part_add_up(clock):
    measured = Meter()
    for _ in range(2):
        with measured.measure("work"):
            clock(0.25)
        clock(8.0)  # outside every part
    with measured.measure("nothing"):
        pass
    assert (measured.seconds["work"], measured.seconds["nothing"], measured.seconds["never"]) == (0.5, 0.0, 0.0)


def test_a_failing_block_is_counted_too(clock):
    measured = Meter()

    def fail():
        with measured.measure("work"):
            clock(0.25)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert measured.seconds["work"] == 0.25


def test_the_peak_is_of_now_and_not_of_the_process():
    if not reset_peak_memory():
        assert sys.platform != "linux"
        pytest.skip("this system keeps one peak for the whole process")
    before = peak_memory_bytes()
    block = np.ones(64 * MEGABYTE, dtype=np.uint8)
    assert peak_memory_bytes() - before > 50 * MEGABYTE
    del block
    assert peak_memory_bytes() - before > 50 * MEGABYTE  # a peak stays
    assert reset_peak_memory()
    assert peak_memory_bytes() - before < 30 * MEGABYTE


def test_no_gpu_is_none_and_not_nought(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert peak_gpu_memory_bytes() is None
