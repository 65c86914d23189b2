import pytest
import torch

from entailor.accel.half_linear import frozen_in_half, half_weight_of
from entailor.engine import precision
from entailor.engine.precision import choose_precision, measure_gflops


@pytest.fixture
def speeds(monkeypatch):
    def set_speeds(fp32: float, bf16: float) -> None:
        figures = {"fp32": fp32, "bf16": bf16}
        monkeypatch.setattr(precision, "measure_gflops", lambda name, hidden, intermediate: figures[name])

    return set_speeds


@pytest.mark.parametrize(("bf16", "chosen"), [(60.0, "bf16"), (30.0, "bf16"), (29.9, "fp32"), (1.0, "fp32")])
def test_bf16_is_chosen_where_it_is_worth_its_rounding(speeds, bf16, chosen):
    speeds(fp32=20.0, bf16=bf16)
    choice = choose_precision("auto", 384, 1536, "cpu")
    assert (choice.precision, choice.fp32_gflops, choice.bf16_gflops) == (chosen, 20.0, bf16)
    assert f"fp32 20, bf16 {bf16:.0f} GFLOP/s" in choice.reason


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ENTAILOR_CACHE", str(tmp_path))


def test_a_slow_request_is_honoured_and_said(speeds):
    speeds(fp32=120.0, bf16=4.0)
    choice = choose_precision("bf16", 384, 1536, torch.device("cpu"))
    assert choice.precision == "bf16"
    assert choice.reason == "asked for; bf16 is 30.0 times slower (fp32 120, bf16 4 GFLOP/s on one core)"


def test_fp32_stays_where_it_was_asked_for(speeds):
    speeds(fp32=20.0, bf16=80.0)
    choice = choose_precision("fp32", 384, 1536, "cpu")
    assert choice.precision == "fp32"
    assert "bf16 is 4.0 times faster" in choice.reason


@pytest.mark.parametrize(
    ("requested", "supported", "chosen", "words"),
    [
        ("auto", True, "bf16", "this GPU supports bf16"),
        ("auto", False, "fp32", "does not support"),
        ("bf16", False, "bf16", "only emulates: slow"),
        ("fp32", True, "fp32", "asked for"),
    ],
)
def test_a_gpu_is_asked_not_measured(monkeypatch, requested, supported, chosen, words):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    choice = choose_precision(requested, 384, 1536, "cuda:0")
    assert choice.precision == chosen
    assert words in choice.reason
    assert choice.fp32_gflops is None


@pytest.mark.parametrize(("requested", "chosen"), [("auto", "fp32"), ("bf16", "bf16")])
def test_other_devices_take_fp32_unless_asked(requested, chosen):
    assert choose_precision(requested, 384, 1536, "mps").precision == chosen


def test_the_measurement_leaves_no_trace():
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    with torch.no_grad():  # as inside a scoring loop
        assert measure_gflops("fp32", 64, 128) > 0
        assert measure_gflops("bf16", 64, 128) > 0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_measured_is_trained_as_a_model_is():
    layer = precision._FrozenLayer(64, 128)
    rows_NH = torch.randn(2 * precision.LENGTH, 64, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16), frozen_in_half(layer):
        held = [half_weight_of(one) is not None for one in layer.modules() if isinstance(one, torch.nn.Linear)]
        output_NH = layer(rows_NH, texts=2)
    (grad_NH,) = torch.autograd.grad(output_NH.float().sum(), rows_NH)
    assert held == [True] * 6
    assert grad_NH.abs().sum() > 0
    assert not any(one.requires_grad for one in layer.parameters())


def test_a_large_layer_is_measured_by_a_small_one_of_its_shape(monkeypatch):
    shapes = []
    layer = precision._FrozenLayer

    def noted(width, inner):
        shapes.append((width, inner))
        return layer(width, inner)

    monkeypatch.setattr(precision, "_FrozenLayer", noted)
    measure_gflops("fp32", 4096, 16384)
    width, inner = shapes[-1]
    assert inner == 4 * width
    assert inner * width <= precision.LARGEST_LAYER


def test_what_was_measured_is_remembered_so_that_the_choice_does_not_flip(monkeypatch):
    speeds = iter([100.0, 160.0, 100.0, 140.0])
    monkeypatch.setattr(precision, "measure_gflops", lambda *_: next(speeds))
    assert choose_precision("auto", 384, 1536, "cpu") == choose_precision("auto", 384, 1536, "cpu")
    assert choose_precision("auto", 768, 3072, "cpu").precision == "fp32"


def test_a_damaged_memory_is_written_anew(monkeypatch, tmp_path):
    (tmp_path / precision.SPEEDS_FILE).write_text("{")
    monkeypatch.setattr(precision, "measure_gflops", lambda *_: 50.0)
    assert choose_precision("auto", 384, 1536, "cpu").precision == "fp32"
    assert "384x1536" in (tmp_path / precision.SPEEDS_FILE).read_text()


def test_another_processor_is_measured_for_itself(monkeypatch, speeds):
    for name, bf16, chosen in (("Xeon with AMX", 90.0, "bf16"), ("EPYC", 25.0, "fp32"), ("Xeon with AMX", 1.0, "bf16")):
        monkeypatch.setattr(precision, "cpu_name", lambda name=name: name)
        speeds(fp32=20.0, bf16=bf16)
        assert choose_precision("auto", 384, 1536, "cpu").precision == chosen
