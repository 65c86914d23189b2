"""The 4-bit form in the cache, tables that stay in their files, and scoring layer by layer, against the plain ways."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import make_examples
from tests.methods.conftest import logprobs, teach

from entailor import compare
from entailor.config.parts import ModelSettings
from entailor.errors import ConfigError, ModelError, TrainingError
from entailor.methods import build_method
from entailor.models import memory_plan, saved_form
from entailor.models.mapped import MappedFile, MappedFiles, MappedLinear, stay_in

FOUR = {"load_in_4bit": True}


@pytest.fixture(autouse=True)
def own_cache(cache):
    """Nothing of these tests reaches the cache of the user."""


@pytest.fixture
def always_saved(monkeypatch):
    """Have tiny models treated as large ones."""
    monkeypatch.setattr(memory_plan, "STAYS_FROM_BYTES", 0)


def half(folder, target):
    """Copy a checkpoint with its weights in bf16."""
    import shutil

    copied = shutil.copytree(folder, target)
    weights = load_file(copied / "model.safetensors")
    whole = {name: tensor.bfloat16() for name, tensor in weights.items()}
    save_file(whole, copied / "model.safetensors", metadata={"format": "pt"})
    return copied


def tensors_of(model):
    """All parameters, with the scales of those in 4 bits."""
    found = {}
    for name, weight in model.named_parameters():
        found[name] = weight
        if state := getattr(weight, "quant_state", None):
            found |= {
                f"{name} scales": state.absmax,
                f"{name} offset": state.offset,
                f"{name} own": state.state2.absmax,
            }
    return found


@pytest.mark.parametrize("kind", ["llama", "gemma", "bert"])
def test_the_saved_form_is_bit_for_bit_what_loading_gives(kind, load_tiny, tiny_model, tmp_path, monkeypatch):
    folder = half(tiny_model(kind), tmp_path / "half")
    objective = "classify" if kind == "bert" else "language_model"
    plain = load_tiny(folder, objective=objective, **FOUR)
    monkeypatch.setattr(memory_plan, "STAYS_FROM_BYTES", 0)
    made = load_tiny(folder, objective=objective, **FOUR)

    def never(weight, settings):
        raise AssertionError("a saved form was quantised again")

    monkeypatch.setattr(saved_form, "quantized_tensors", never)
    again = load_tiny(folder, objective=objective, **FOUR)
    assert made.placement.four_bit
    for name, expected in tensors_of(plain.model).items():
        for backbone in (made, again):
            assert torch.equal(tensors_of(backbone.model)[name].to(expected.dtype), expected), name
    ids = torch.tensor([[4, 7, 8, 5, 6]])
    with torch.no_grad():
        theirs, ours = (one.model(input_ids=ids).logits for one in (plain, again))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_another_rounding_is_another_form(load_tiny, always_saved):
    for settings in ({}, {"bnb_4bit_use_double_quant": False}, {"bnb_4bit_quant_type": "fp4"}):
        load_tiny("llama", **FOUR, **settings)
    assert len(list(saved_form.cache_folder().joinpath("four_bit").iterdir())) == 3


def test_a_damaged_form_is_named(load_tiny, always_saved):
    load_tiny("llama", **FOUR)
    (form,) = saved_form.cache_folder().joinpath("four_bit").iterdir()
    (part,) = form.glob("*.safetensors")
    tensors = load_file(part)
    dropped = min(name for name in tensors if name.endswith(".weight"))
    save_file({name: tensor for name, tensor in tensors.items() if name != dropped}, part, metadata={"format": "pt"})
    message = rf"{re.escape(str(form))}: damaged, {re.escape(dropped)} is not as it was written\. Delete this folder"
    with pytest.raises(ModelError, match=message):
        load_tiny("llama", **FOUR)


def test_no_room_for_the_form_is_said(load_tiny, always_saved, monkeypatch):
    import shutil

    class Full:
        free = 0

    monkeypatch.setattr(shutil, "disk_usage", lambda place: Full)
    with pytest.raises(ModelError, match=r"0\.0 GB are free\. Free some space, or set ENTAILOR_CACHE"):
        load_tiny("llama", **FOUR)


def test_an_output_layer_in_its_file_gives_and_takes_what_one_in_fp32_does(monkeypatch):
    monkeypatch.setattr("entailor.models.mapped.ROWS_AT_ONCE", 3)
    plain = torch.nn.Linear(6, 10)
    plain.weight.data = plain.weight.data.bfloat16().float()
    kept = torch.nn.Linear(6, 10)
    kept.weight, kept.bias = torch.nn.Parameter(plain.weight.data.bfloat16()), plain.bias
    stay_in(MappedFiles(), torch.nn.Embedding(2, 2), kept)
    assert type(kept) is MappedLinear
    given = [torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0)).requires_grad_() for _ in range(2)]
    found = [layer(inputs) for layer, inputs in zip((plain, kept), given, strict=True)]
    for output in found:
        output.square().sum().backward()
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(given[1].grad, given[0].grad)


def resident(path: Path) -> int:
    """Bytes of a mapped file that this process has touched."""
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="counts pages as Linux shows them")
def test_rows_alone_are_read_of_a_table_and_pages_are_given_back(tmp_path):
    file = tmp_path / "table.safetensors"
    save_file({"table": torch.ones(8192, 1024, dtype=torch.bfloat16), "other": torch.ones(5)}, file)
    mapped = MappedFile(file)
    table = mapped.tensors["table"]
    assert resident(file) < 2**20
    assert torch.equal(torch.nn.functional.embedding(torch.tensor([7, 4000]), table), torch.ones(2, 1024).bfloat16())
    assert 0 < resident(file) < table.nbytes / 2  # the system brings neighbours along where it has them
    assert table.float().sum() == table.numel()
    assert resident(file) >= table.nbytes
    mapped.give_back(table)
    assert resident(file) < 2**20
    assert torch.equal(table[-1], torch.ones(1024).bfloat16())


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma", "phi"])
@pytest.mark.parametrize("shots", [0, 2])
def test_layer_by_layer_gives_the_same_scores(kind, shots, load_tiny, nli_task, nli_split):
    method = build_method("in_context", {"num_fewshot": shots, "calibration": "batch"})
    found = []
    for stream in (False, True):
        backbone = load_tiny(kind, objective="language_model", max_length=320, **FOUR, stream=stream)
        classifier = method.adapt(backbone, nli_task, 0)
        teach(method, classifier, nli_split.train, nli_split.validation)
        found.append(logprobs(classifier, nli_split.test, max_tokens=200))
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-4)


def test_an_adapter_is_trained_over_tables_that_stay_in_their_files(nli_experiment, tmp_path, monkeypatch):
    found = []
    for name, least in (("small", memory_plan.STAYS_FROM_BYTES), ("large", 0)):
        monkeypatch.setattr(memory_plan, "STAYS_FROM_BYTES", least)
        settings = nli_experiment.model.model_copy(update=FOUR)
        rows = {"lora": {"r": 2, "num_train_epochs": 1}}
        changed = {"model": settings, "methods": rows, "seeds": (0,), "out": str(tmp_path / name)}
        (record,) = compare(nli_experiment.model_copy(update=changed)).records
        found.append(record)
    assert [any(part["place"] == "disk" for part in one.provenance["placement"]["parts"]) for one in found] == [
        False,
        True,
    ]
    small, large = ([list(one.probabilities.values()) for one in record.predictions] for record in found)
    np.testing.assert_allclose(large, small, rtol=0, atol=1e-5)


def test_all_batches_go_through_a_layer_before_the_next(load_tiny, nli_task, nli_split):
    backbone = load_tiny("llama", objective="language_model", **FOUR, stream=True)
    classifier = build_method("in_context", {}).adapt(backbone, nli_task, 0)
    classifier.demonstrate([])
    logprobs(classifier, nli_split.test[:2])  # proven here
    order = []
    for number, layer in enumerate(backbone.layers.layers):
        layer.self_attn.register_forward_pre_hook(lambda module, args, number=number: order.append(number))
    logprobs(classifier, nli_split.test, max_tokens=60)
    assert order == sorted(order)
    assert order.count(0) == order.count(1) > 2


def test_a_trained_adapter_scores_layer_by_layer(load_tiny, nli_task, nli_split, tmp_path):
    method = build_method("lora", {"r": 2, "num_train_epochs": 1})
    trained = method.adapt(load_tiny("llama", **FOUR), nli_task, 0)
    teach(method, trained, nli_split.train, nli_split.validation)
    trained.save(tmp_path)
    streamed = method.adapt(load_tiny("llama", **FOUR, stream=True), nli_task, 0)
    with pytest.raises(TrainingError, match=r"lora: model\.stream reads one layer at a time.*Set model\.stream=false"):
        teach(method, streamed, nli_split.train, nli_split.validation)
    streamed.load(tmp_path)
    expected = logprobs(trained, nli_split.test)
    np.testing.assert_allclose(logprobs(streamed, nli_split.test, max_tokens=60), expected, rtol=0, atol=1e-4)


def test_layers_that_are_no_chain_are_refused(load_tiny, nli_task):
    backbone = load_tiny("llama", objective="language_model", **FOUR, stream=True)
    first = backbone.layers.layers[0]
    backbone.layers.layers[1].register_forward_hook(lambda module, args, found: found + first.seen)
    first.register_forward_hook(lambda module, args, found: setattr(first, "seen", found))
    first.seen = 1.0
    classifier = build_method("in_context", {}).adapt(backbone, nli_task, 0)
    with pytest.raises(ModelError, match=r"run layer by layer its scores differ by .* Leave out model\.stream"):
        logprobs(classifier, make_examples(4))


def test_what_cannot_be_streamed_is_refused(load_tiny):
    with pytest.raises(ConfigError, match=r"stream reads layers in 4 bits\. Set load_in_4bit=true"):
        ModelSettings(stream=True)
    with pytest.raises(ConfigError, match=r"stream is for the CPU\. Set device_map=cpu"):
        ModelSettings(stream=True, **FOUR, device_map="auto")
    with pytest.raises(ModelError, match=r"weights under other names in the files\. Leave out model\.stream"):
        load_tiny("gpt2", objective="language_model", **FOUR, stream=True)
