import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import make_examples
from tests.methods.conftest import logprobs, plain_logits, teach

from entailor.errors import ConfigError, MethodError
from entailor.methods import build_method

ROWS = make_examples(5, seed=3)
FAST = {"num_train_epochs": 1, "per_device_train_batch_size": 8, "learning_rate": 0.01, "r": 4}


@pytest.fixture
def lora(load_tiny, nli_task):
    """Return a function: settings to a method and its classifier, trained for five steps."""

    def make(kind="bert", **settings):
        method = build_method("lora", {**FAST, **settings})
        classifier = method.adapt(load_tiny(kind), nli_task, 0)
        teach(method, classifier, make_examples(40, seed=1), make_examples(9, seed=2))
        return method, classifier

    return make


def logits_of(classifier):
    batch = classifier.collate(classifier.encode(ROWS))
    with torch.inference_mode():
        return batch, classifier.logits(batch).numpy()


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "deberta-v2", "modernbert"])
def test_plain_peft_gives_the_same_logits_in_a_fresh_process(kind, lora, tmp_path):
    # with task_type=CAUSAL_LM the head stays random and is not saved (huggingface/peft#310)
    _, classifier = lora(kind)
    classifier.save(tmp_path)
    batch, logits_BL = logits_of(classifier)
    np.testing.assert_allclose(plain_logits("peft_logits", tmp_path, batch, num_labels=3), logits_BL, atol=1e-5)


def test_every_new_module_is_saved_not_the_last_layer_alone(lora, tmp_path):
    _, classifier = lora("distilbert")
    classifier.save(tmp_path)
    names = set(load_file(tmp_path / "adapter_model.safetensors"))
    assert {"base_model.model.pre_classifier.weight", "base_model.model.classifier.weight"} <= names


def test_a_new_pooler_inside_the_encoder_is_trained_and_saved(tiny_model, load_tiny, lora, tmp_path):
    # a masked language model has no pooler, so a classifier made from it starts with a random one
    from transformers import AutoTokenizer, BertForMaskedLM

    base, saved = tmp_path / "base", tmp_path / "saved"
    BertForMaskedLM.from_pretrained(tiny_model("bert")).save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny_model("bert")).save_pretrained(base)
    assert "bert.pooler.dense" in load_tiny(base).new_modules
    _, classifier = lora(base)
    pooler = classifier.model.base_model.model.bert.pooler.dense
    assert pooler.modules_to_save["default"].weight.requires_grad
    assert not torch.equal(pooler.modules_to_save["default"].weight, pooler.original_module.weight)
    classifier.save(saved)
    batch, logits_BL = logits_of(classifier)
    np.testing.assert_allclose(plain_logits("peft_logits", saved, batch, num_labels=3), logits_BL, atol=1e-5)


def test_it_starts_as_the_checkpoint(load_tiny, nli_task):
    from entailor.classifiers.transformer import TransformerClassifier

    plain = TransformerClassifier(load_tiny("bert"), nli_task)
    adapted = build_method("lora", {}).adapt(load_tiny("bert"), nli_task, 0)
    np.testing.assert_array_equal(logprobs(adapted, ROWS), logprobs(plain, ROWS))


@pytest.mark.parametrize(
    ("settings", "trains"),
    [
        ({"use_rslora": True}, "lora_A"),
        ({"use_dora": True}, "lora_magnitude_vector"),
        ({"bias": "all"}, "LayerNorm.bias"),
        ({"bias": "lora_only"}, "query.base_layer.bias"),
        ({"lora_dropout": 0.5}, "lora_A"),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_variants_train_and_load_back(kind, settings, trains, lora, load_tiny, nli_task, tmp_path):
    method, classifier = lora(kind, **settings)
    untouched = method.adapt(load_tiny(kind), nli_task, 0)
    moved = [
        name for name, tensor in classifier.named_parameters() if not torch.equal(tensor, untouched.get_parameter(name))
    ]
    assert any(trains in name for name in moved)
    classifier.save(tmp_path)
    fresh = method.adapt(load_tiny(kind, seed=1), nli_task, 1)
    fresh.load(tmp_path)
    np.testing.assert_allclose(logprobs(fresh, ROWS), logprobs(classifier, ROWS), atol=1e-5)
    batch, logits_BL = logits_of(classifier)
    np.testing.assert_allclose(plain_logits("peft_logits", tmp_path, batch, num_labels=3), logits_BL, atol=1e-5)


def test_chosen_layers_alone_are_adapted(lora):
    _, classifier = lora(target_modules=["query"])
    adapted = {name.partition(".lora_")[0] for name, _ in classifier.named_parameters() if ".lora_" in name}
    assert len(adapted) == 2  # two layers
    assert all(name.endswith(".query") for name in adapted)


def test_names_that_fit_no_layer_are_refused(load_tiny, nli_task):
    # one known name beside it would hide the mistake from peft
    message = r"no layer of this model is called q_proj\. Set target_modules to all-linear.*key, query, value"
    for names in (["q_proj"], ["query", "q_proj"]):
        with pytest.raises(MethodError, match=message):
            build_method("lora", {"target_modules": names}).adapt(load_tiny("bert"), nli_task, 0)
    with pytest.raises(MethodError, match=r"target_modules='nothing.\*' does not fit this model"):
        build_method("lora", {"target_modules": "nothing.*"}).adapt(load_tiny("bert"), nli_task, 0)


@pytest.mark.parametrize("settings", [{"r": 0}, {"lora_dropout": 1.0}, {"learning_rate": 0.0}, {"bias": "some"}])
def test_values_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=f"methods.lora.{next(iter(settings))}"):
        build_method("lora", settings)


def test_a_damaged_adapter_is_refused(lora, load_tiny, nli_task, tmp_path):
    from safetensors.torch import save_file

    method, classifier = lora()
    classifier.save(tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    del tensors["base_model.model.classifier.weight"]
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(MethodError, match=r"1 tensors are missing or left over.*classifier.weight"):
        method.adapt(load_tiny("bert"), nli_task, 0).load(tmp_path)
