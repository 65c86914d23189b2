"""4 and 8 bits against naive references, and what must not be quantised."""

import json

import numpy as np
import pytest
import torch
from tests.conftest import FP32, make_examples, make_tokenizer
from tests.methods.conftest import logprobs, teach
from torch import nn

from entailor.config.parts import ModelSettings
from entailor.errors import ModelError
from entailor.methods import build_method
from entailor.models.checkpoint import load_checkpoint
from entailor.models.load import load_backbone, quiet_libraries
from entailor.models.memory_plan import plan_placement
from entailor.models.quantization import (
    check_heads_left_alone,
    quantize_in_pieces,
    quantized_layer,
    quantized_layers,
    quantized_options,
)
from entailor.models.resolve.source import resolve_model

# The 16 levels of Dettmers et al. 2023, appendix E.
PAPER_LEVELS = torch.tensor(
    [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ]
)
FOUR, EIGHT = {"load_in_4bit": True}, {"load_in_8bit": True}


def naive_nf4(weight, *, double):
    """Round to the nearest level of each block of 64, in as many words as the paper has."""
    blocks = weight.reshape(-1, 64)
    scales = blocks.abs().max(dim=1).values
    nearest = ((blocks / scales[:, None])[:, :, None] - PAPER_LEVELS).abs().argmin(dim=2)
    if double:  # scales less their mean, in 8 bits with one scale for 256 of them
        centred = scales - scales.mean()
        steps = centred.abs().max() / 127
        scales = (centred / steps).round() * steps + scales.mean()
    return (PAPER_LEVELS[nearest] * scales[:, None]).reshape(weight.shape)


@pytest.fixture
def weight():
    return 0.02 * torch.randn(64, 128, generator=torch.Generator().manual_seed(0))


def unpacked(weight, **settings):
    """The weight that a quantised layer computes with."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data = weight.clone()
    layer = quantized_layer(linear, ModelSettings(**settings))
    return layer(torch.eye(weight.shape[1])).T.detach()


@pytest.mark.parametrize("double", [False, True])
def test_nf4_is_that_of_the_paper(double, weight):
    ours = unpacked(weight, **FOUR, bnb_4bit_use_double_quant=double)
    # an 8-bit scale of bitsandbytes has levels of its own, so two ways of rounding it differ a little
    bound = 0.01 * weight.abs().max() if double else 1e-6
    assert (ours - naive_nf4(weight, double=double)).abs().max() <= bound


def test_the_error_of_a_round_trip_is_bounded(weight):
    errors = {
        name: float((unpacked(weight, **settings) - weight).norm() / weight.norm())
        for name, settings in {"nf4": FOUR, "fp4": {**FOUR, "bnb_4bit_quant_type": "fp4"}, "int8": EIGHT}.items()
    }
    assert errors["int8"] < 0.01 < errors["nf4"] < 0.1 < errors["fp4"] < 0.14


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("shape", [(64, 128), (3, 50), (2, 63)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_quantising_in_pieces_changes_no_bit(kind, shape, dtype, weight, monkeypatch):
    from bitsandbytes.backends.default.ops import _get_4bit_quantize_bounds

    rows = weight.flatten()[: shape[0] * shape[1]].reshape(shape).to(dtype)
    monkeypatch.setattr("entailor.models.quantization.PIECE", 128)
    packed, scales = quantize_in_pieces(rows, 64, kind, torch.uint8)
    # the library's own arithmetic, all at once
    bounds, order = _get_4bit_quantize_bounds(kind, rows.device)
    flat = nn.functional.pad(rows.flatten().float(), (0, -rows.numel() % 64)).view(-1, 64)
    top = flat.abs().max(dim=1).values
    codes = torch.bucketize(torch.clamp(flat * (1.0 / top)[:, None], -1, 1).flatten(), bounds)
    codes = (codes if kind == "nf4" else order[codes]).to(torch.uint8)
    expected = ((codes[::2] << 4) | codes[1::2])[: (rows.numel() + 1) // 2]
    assert torch.equal(packed.flatten(), expected)
    assert torch.equal(scales, top)


def test_training_goes_on_after_an_evaluation():
    """With `bitsandbytes` alone an evaluation repacks the weights, and no gradient gets through afterwards."""
    layer = quantized_layer(nn.Linear(64, 64), ModelSettings(**FOUR))
    inputs = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first = layer.eval()(inputs)
    grown = layer.train()(inputs.requires_grad_())
    grown.sum().backward()
    assert torch.equal(first, grown)
    assert inputs.grad is not None
    assert inputs.grad.abs().sum() > 0


def test_compute_type_follows_autocast_unless_it_was_named():
    layer = quantized_layer(nn.Linear(64, 64), ModelSettings(**FOUR))
    inputs = torch.randn(3, 64)
    layer(inputs)
    assert layer.compute_dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer(inputs)
    assert layer.compute_dtype == torch.bfloat16
    fixed = quantized_layer(nn.Linear(64, 64), ModelSettings(**FOUR, bnb_4bit_compute_dtype="float32"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fixed(inputs)
    assert fixed.compute_dtype == torch.float32


@pytest.mark.parametrize("asked", ["bfloat16", "float16"])
def test_half_precision_on_a_cpu_without_it_is_refused(asked, monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda: False)
    settings = ModelSettings(**FOUR, bnb_4bit_compute_dtype=asked, device_map="cpu")
    with pytest.raises(ModelError, match=rf"compute_dtype={asked}: this CPU has no {asked}.*auto or float32"):
        quantized_options(settings, ())


def test_no_options_where_nothing_is_asked_for():
    assert quantized_options(ModelSettings(), ("classifier",)) == {}


@pytest.mark.parametrize("kind", ["bert", "modernbert", "deberta-v2"])
@pytest.mark.parametrize(("bits", "bound"), [(FOUR, 0.15), (EIGHT, 0.01)])
def test_logits_stay_near_those_of_full_precision(kind, bits, bound, load_tiny, nli_task):
    rows = make_examples(12, seed=5)
    scores = []
    for settings in ({}, bits):
        method = build_method("lora", {"r": 2})
        scores.append(logprobs(method.adapt(load_tiny(kind, **settings), nli_task, 0), rows))
    assert 0 < np.abs(scores[0] - scores[1]).max() < bound


@pytest.mark.parametrize("bits", [FOUR, EIGHT])
def test_scores_do_not_depend_on_the_batch(bits, load_tiny, nli_task):
    classifier = build_method("lora", {"r": 2}).adapt(load_tiny(**bits), nli_task, 0)
    rows = make_examples(12, seed=5)
    assert np.abs(logprobs(classifier, rows) - logprobs(classifier, rows, max_tokens=16)).max() < 1e-4


@pytest.mark.parametrize("bits", [FOUR, EIGHT])
@pytest.mark.parametrize("kind", ["bert", "distilbert", "modernbert"])
def test_heads_and_norms_are_left_alone(kind, bits, load_tiny):
    backbone = load_tiny(kind, **bits)
    names = quantized_layers(backbone.model)
    assert len(names) >= 8
    assert not [name for name in names if "norm" in name.lower() or "pooler" in name or "classifier" in name]
    assert not [name for name in names if name.split(".")[0] != backbone.model.base_model_prefix]
    assert backbone.model.classifier.weight.dtype == torch.float32


def test_a_quantised_head_is_refused(load_tiny):
    model = load_tiny().model
    model.classifier = quantized_layer(model.classifier, ModelSettings(**FOUR))
    with pytest.raises(ModelError, match=r"classifier was quantised, and heads, norms and output layers must not be"):
        check_heads_left_alone(model, ("classifier",))


def test_a_model_without_anything_to_quantise_is_refused(load_tiny):
    with pytest.raises(ModelError, match=r"no linear layer that could be quantised.*without load_in_4bit"):
        check_heads_left_alone(load_tiny().model, ("classifier",))


@pytest.mark.parametrize("bits", [FOUR, EIGHT])
def test_lora_trains_on_quantised_weights_and_loads_back_to_the_same_scores(bits, load_tiny, nli_task, tmp_path):
    rows = make_examples(48, seed=1)
    method = build_method("lora", {"r": 4, "num_train_epochs": 20, "learning_rate": 0.03})
    classifier = method.adapt(load_tiny(**bits), nli_task, 0)
    result = teach(method, classifier, rows, rows[:18])
    assert result.best_loss < 0.9  # chance is 1.10
    classifier.save(tmp_path)
    again = method.adapt(load_tiny(**bits), nli_task, 0)
    again.load(tmp_path)
    assert np.array_equal(logprobs(classifier, rows), logprobs(again, rows))
    whole = method.adapt(load_tiny(), nli_task, 0)
    assert classifier.parameter_counts() == whole.parameter_counts()


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory):
    """A decoder of two layers in bf16, its output layer tied to its embeddings."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("tiny-llama")
    tokenizer = make_tokenizer("bert")
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 64, "num_key_value_heads": 2, "tie_word_embeddings": True, "pad_token_id": 0}
    with torch.random.fork_rng(), quiet_libraries():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **sizes)).bfloat16()
        model.save_pretrained(folder, max_shard_size="12kB")
    tokenizer.save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def load_llama(folder, task_class, **settings):
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    plan = plan_placement("llama", folder, config, task_class, ModelSettings(**settings))
    with quiet_libraries(), torch.random.fork_rng():
        torch.manual_seed(0)
        return load_checkpoint(task_class, folder, plan)[0], plan


@pytest.mark.parametrize("which", ["AutoModelForCausalLM", "AutoModelForSequenceClassification"])
@pytest.mark.parametrize(("bits", "bound"), [(FOUR, 0.2), (EIGHT, 0.02)])
def test_decoders_are_quantised_from_shards(which, bits, bound, tiny_llama):
    import transformers

    task_class = getattr(transformers, which)
    model, plan = load_llama(tiny_llama, task_class, **bits)
    whole, _ = load_llama(tiny_llama, task_class)
    assert len(quantized_layers(model)) == 14
    assert not [name for name in quantized_layers(model) if "lm_head" in name or "score" in name]
    # without an output layer tied to it, the table stays as it was stored and is cast when it is read
    table = model.get_input_embeddings().weight
    assert table.dtype == (torch.float32 if "Causal" in which else torch.bfloat16)
    assert plan.stored_dtype == torch.bfloat16
    ids = torch.arange(4, 24).view(2, 10)
    with torch.no_grad():
        if "Sequence" in which:
            model.score.weight.copy_(whole.score.weight)
        ours, theirs = model(input_ids=ids).logits, whole(input_ids=ids).logits
    assert ours.dtype == torch.float32
    assert 0 < (ours - theirs).abs().max() < bound * theirs.abs().max()


def test_a_checkpoint_that_is_quantised_already_is_refused(tiny_model, nli_task, tmp_path):
    import shutil

    folder = shutil.copytree(tiny_model("bert"), tmp_path / "bert")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"quantised already\. Give the checkpoint in full precision"):
        load_backbone(resolve_model(str(folder)), nli_task, ModelSettings(), FP32, 0)
