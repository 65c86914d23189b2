import sys
import time

import numpy as np
import pytest

from entailor.engine.meter import Meter, peak_gpu_memory_bytes, peak_memory_bytes, reset_peak_memory

MEGABYTE = 2**20


def test_seconds_of_a_part_add_up():
    meter = Meter()
    for _ in range(2):
        with meter.measure("sleep"):
            time.sleep(0.02)
    with meter.measure("nothing"):
        pass
    assert 0.04 <= meter.seconds["sleep"] < 1
    assert meter.seconds["nothing"] < 0.02
    assert meter.seconds["never"] == 0


def test_a_failing_block_is_counted_too():
    meter = Meter()

    def fail():
        with meter.measure("work"):
            time.sleep(0.01)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert meter.seconds["work"] >= 0.01


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
