"""The plan's figures against what was really allocated, and the texts of its refusals."""

from pathlib import Path

import pytest
import torch
from tests.conftest import make_examples
from tests.methods.conftest import logprobs

from entailor.config.parts import ModelSettings
from entailor.errors import MethodError, ModelError
from entailor.methods import build_method
from entailor.models import memory_plan as placement
from entailor.models.memory import bytes_of, free_memory_bytes, size_text
from entailor.models.memory_plan import expected_speed
from entailor.models.quantization import modules_left_alone


def allocated_bytes(model):
    """Bytes of parameters and of the scales beside them."""
    total = 0
    for tensor in model.parameters():
        total += tensor.nbytes
        if state := getattr(tensor, "quant_state", None):
            total += state.absmax.nbytes + (state.state2.absmax.nbytes if state.nested else 0)
        elif tensor.dtype == torch.int8:
            total += tensor.SCB.nbytes
    return total


SETTINGS = [
    {},
    {"load_in_4bit": True},
    {"load_in_4bit": True, "bnb_4bit_use_double_quant": False},
    {"load_in_8bit": True},
]


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_planned_bytes_are_those_allocated(kind, settings, load_tiny):
    backbone = load_tiny(kind, **settings)
    plan = backbone.placement
    assert plan.total_bytes == allocated_bytes(backbone.model)
    assert plan.parameters == build_parameters(backbone.model)
    assert plan.load_bytes > plan.total_bytes
    assert plan.bytes_in("cpu") == plan.total_bytes
    assert backbone.quantized == bool(settings)


def build_parameters(model):
    states = [getattr(tensor, "quant_state", None) for tensor in model.parameters()]
    return sum(
        tensor.numel() if state is None else state.shape.numel()
        for tensor, state in zip(model.parameters(), states, strict=True)
    )


def test_the_plan_reads_well(load_tiny):
    plan = load_tiny(load_in_4bit=True).placement
    assert [part.name for part in plan.parts] == ["embeddings", "norms", "4-bit layers", "layers", "head"]
    assert str(plan).startswith("on cpu embeddings 10.1 kB, norms 640 bytes, 4-bit layers 2.16 kB")
    assert "in all of" in str(plan)
    assert "loading takes up to" in str(plan)
    record = plan.as_record()
    assert record["total_bytes"] == plan.total_bytes
    assert "tokens a second forward" in expected_speed(plan)


@pytest.fixture
def little_room(monkeypatch):
    def leave(count):
        monkeypatch.setattr(placement, "free_memory_bytes", lambda: count)

    return leave


def test_what_does_not_fit_is_refused_with_what_would(load_tiny, little_room, monkeypatch):
    monkeypatch.setattr(placement, "PIECE_BYTES", 0)
    little_room(25_000)
    message = (
        r"loading takes 32.3 kB on cpu, where 25 kB are free\. Set model\.load_in_4bit=true, which takes 20.7 kB; or "
        r"set model\.device_map=auto, which uses the disk.*; or take a model of at most 0 million parameters"
    )
    with pytest.raises(ModelError, match=message):
        load_tiny()
    assert load_tiny(load_in_4bit=True).quantized
    little_room(10_000)
    with pytest.raises(ModelError, match=r"kB on cpu, where 10 kB are free\. Take a model of at most"):
        load_tiny(load_in_4bit=True)
    with pytest.raises(ModelError, match=r"does not fit in one place in 4 bits.*bitsandbytes cannot spread it"):
        load_tiny(load_in_4bit=True, device_map="auto")


@pytest.mark.skipif(torch.accelerator.is_available(), reason="is about a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused(load_tiny):
    with pytest.raises(
        ModelError, match=r"model\.device_map=cuda, but PyTorch finds no accelerator here\. Set it to auto or cpu"
    ):
        load_tiny(device_map="cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU would take it all")
def test_what_does_not_fit_in_memory_stands_on_the_disk(load_tiny):
    spread = load_tiny(device_map="auto", max_memory={"cpu": 27_000})
    assert spread.placement.bytes_in("disk") > 0
    assert spread.placement.bytes_in("cpu") <= 27_000
    assert spread.model.classifier.weight.device.type == "cpu"
    assert "read from the disk again for every batch" in expected_speed(spread.placement)
    whole = load_tiny()
    ids = torch.tensor([[2, 7, 8, 3]])
    with torch.no_grad():
        ours = spread.model.base_model(input_ids=ids).last_hidden_state
        theirs = whole.model.base_model(input_ids=ids).last_hidden_state
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_all_stands_in_memory_where_it_fits(load_tiny, nli_task):
    plain, auto = load_tiny(), load_tiny(device_map="auto")
    assert auto.placement.device_map is None
    method, rows = build_method("lora", {"r": 2}), make_examples(6, seed=5)
    assert (logprobs(method.adapt(plain, nli_task, 0), rows) == logprobs(method.adapt(auto, nli_task, 0), rows)).all()


@pytest.mark.parametrize("bits", ["load_in_4bit", "load_in_8bit"])
def test_full_finetuning_of_quantised_weights_is_refused(bits, load_tiny, nli_task):
    message = r"weights in 4 or 8 bits cannot be trained\. Train lora on the same model, or set model\.load_in_4bit=fal"
    with pytest.raises(MethodError, match=message):
        build_method("full_finetuning", {}).adapt(load_tiny(**{bits: True}), nli_task, 0)


@pytest.mark.parametrize(
    ("written", "count"), [("10GiB", 10 * 2**30), ("500 MB", 500_000_000), ("1.5kB", None), (7, 7), ("7", 7)]
)
def test_sizes_are_read(written, count):
    if count is None:
        with pytest.raises(AssertionError):
            bytes_of(written)
    else:
        assert bytes_of(written) == count


def test_sizes_are_written():
    assert [size_text(count) for count in (5, 2500, 3e6, 12.34e9)] == ["5 bytes", "2.5 kB", "3 MB", "12.3 GB"]


def write_group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text)


def test_a_control_group_limits_the_room(tmp_path):
    """The tightest of a process's groups counts; what it caches of files can be given back."""
    write_group(tmp_path / "a", memory_max="5000\n", memory_current="1000\n", memory_stat="inactive_file 300\n")
    write_group(tmp_path / "a" / "b", memory_max="max\n", memory_current="1000\n")
    membership = tmp_path / "membership"
    membership.write_text("0::/a/b\n")
    assert free_memory_bytes(tmp_path, membership) == 4300
    assert free_memory_bytes(tmp_path, tmp_path / "nowhere") > 10_000


def test_the_worked_sum_of_the_guide_is_what_the_plan_gives():
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    guide = (Path(__file__).parents[2] / "docs" / "guides" / "quantization.md").read_text("utf-8")
    shape = {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336, "num_attention_heads": 32}
    shape |= {"num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False}
    settings = ModelSettings(load_in_4bit=True)
    for auto_class in (AutoModelForSequenceClassification, AutoModelForCausalLM):
        config = AutoConfig.for_model("llama", **shape)
        skeleton = placement._skeleton(config, auto_class, settings, 3)
        sizes = placement._Sizes(skeleton, settings, torch.bfloat16, modules_left_alone(skeleton), {})
        assert f"**{sizes.total:,}**" in guide
    assert f"{sum(row[2] for row in sizes.rows):,}" == "8,030,261,248"
    assert "8,030,261,248" in guide
