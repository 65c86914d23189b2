"""The one place that knows an accelerator: none, and one as mps is, whose module lacks half of what torch.cuda has."""

import types

import pytest
import torch

from entailor.config.parts import ModelSettings
from entailor.engine.precision import choose_precision
from entailor.errors import ModelError
from entailor.models import device as devices
from entailor.models.memory_plan import _main_place, _room
from entailor.runs.environment import accelerators, describe_environment


@pytest.fixture
def mps(monkeypatch):
    """A machine with mps, as its module answers: one device, functions without an argument, no peak of memory."""
    state = [torch.zeros(4, dtype=torch.uint8)]
    module = types.SimpleNamespace(
        get_rng_state=lambda: torch.clone(state[0]),
        set_rng_state=lambda new: state.__setitem__(0, new.clone()),
        recommended_max_memory=lambda: 1000,
        driver_allocated_memory=lambda: 300,
        empty_cache=lambda: None,
        state=state,
    )
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("mps"))
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    monkeypatch.setattr(torch, "get_device_module", lambda kind: module)
    return module


@pytest.mark.skipif(torch.accelerator.is_available(), reason="is about a machine without a GPU")
def test_a_machine_without_an_accelerator():
    assert accelerators() == []
    assert devices.main_device() == torch.device("cpu")
    assert devices.peak_bytes() is None
    devices.reset_peak_bytes()
    devices.free_cached_memory()
    tensor = torch.ones(2)
    assert devices.send(tensor, torch.device("cpu")) is tensor


def test_random_states_come_back():
    states = devices.random_states()
    first = torch.rand(3)
    devices.set_random_states(states)
    assert torch.equal(torch.rand(3), first)
    devices.set_random_states({**states, "random.cuda:7": torch.zeros(1, dtype=torch.uint8)})  # of another machine
    assert torch.equal(torch.rand(3), first)


def test_mps_is_a_device_like_any_other(mps, tmp_path):
    assert devices.main_device() == torch.device("mps:0")
    assert devices.free_bytes(torch.device("mps:0")) == 700
    assert devices.peak_bytes() is None  # it does not tell; the process's own peak is all there is
    devices.reset_peak_bytes()
    devices.free_cached_memory()
    assert describe_environment()["gpus"] == ["mps"]
    assert choose_precision("auto", 64, 128, devices.main_device()).precision == "fp32"
    for asked in (None, "auto", "mps"):
        assert _main_place("model", ModelSettings(device_map=asked)) == "mps:0"
    assert _room(tmp_path, ModelSettings())["mps:0"] == 700
    assert _room(tmp_path, ModelSettings(device_map="auto", max_memory={"0": 500}))["mps:0"] == 500
    with pytest.raises(ModelError, match=r"model\.device_map=cuda:1, but there is mps:0 here\. Set it to auto or cpu"):
        _main_place("model", ModelSettings(device_map="cuda:1"))


def test_the_random_state_of_mps_comes_back(mps):
    states = devices.random_states()
    mps.state[0] = torch.ones(4, dtype=torch.uint8)
    devices.set_random_states(states)
    assert states.keys() == {"random.cpu", "random.mps:0"}
    assert not mps.state[0].any()
