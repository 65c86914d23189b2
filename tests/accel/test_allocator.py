"""Freed memory is kept where a gradient is large, and nothing is touched elsewhere."""

import platform

import pytest
import torch

from entailor.accel import allocator
from entailor.accel.allocator import RETURNED_FROM_BYTES, keep_freed_memory

LARGE = torch.empty(RETURNED_FROM_BYTES // 4)


@pytest.fixture
def calls(monkeypatch):
    seen = []

    class Library:
        def mallopt(self, key, value):
            seen.append((key, value))
            return 1

    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: Library())
    return seen


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_large_gradients_switch_it_on(calls):
    assert keep_freed_memory([torch.empty(3), LARGE])
    assert dict(calls) == {-3: 2**30, -1: 2**31 - 1}  # both fit the int that mallopt takes


def test_small_ones_and_none_leave_everything_as_it_is(calls):
    assert not keep_freed_memory([torch.empty(3), LARGE[1:]])
    assert not keep_freed_memory([])
    assert calls == []


def test_another_c_library_is_left_alone(calls, monkeypatch):
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory([LARGE])
    assert calls == []
