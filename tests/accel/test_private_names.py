"""What a library promises nobody is asked for at need alone: without it everything goes on, with the same answers."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import make_examples
from tests.methods.conftest import logprobs

import entailor.accel
from entailor.accel import prefix_cache
from entailor.methods import build_method

TRAIN, TEST = make_examples(12, seed=1), make_examples(9, seed=2)
PUBLIC = {"torch", "transformers", "numpy"}


def gone(*args, **kwargs):
    raise AttributeError("this release has it no more")


@pytest.fixture(autouse=True)
def _forget():
    """What was looked up is looked up again, before and after."""
    for remembered in (prefix_cache._layer_kind, prefix_cache._register):
        remembered.cache_clear()
    yield
    for remembered in (prefix_cache._layer_kind, prefix_cache._register):
        remembered.cache_clear()


def test_no_file_imports_inner_names_of_a_library_before_they_are_needed():
    for file in Path(entailor.accel.__file__).parent.glob("*.py"):
        for node in ast.parse(file.read_text("utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] in ("transformers", "peft"):
                assert node.module in PUBLIC, f"{file.name}: {node.module}"
                assert not any(alias.name.startswith("_") for alias in node.names), file.name


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("transformers.cache_utils", "DynamicLayer"),
        ("transformers.masking_utils", "sdpa_mask"),
        ("torch.ops.aten", "_scaled_dot_product_flash_attention_for_cpu"),
    ],
)
def test_a_decoder_is_asked_with_the_same_scores(place, name, load_tiny, nli_task, monkeypatch):
    def scores():
        method = build_method("in_context", {"num_fewshot": 2})
        classifier = method.adapt(load_tiny("llama", nli_task, objective="language_model"), nli_task, 0)
        classifier.eval()
        classifier.demonstrate(TRAIN)
        return logprobs(classifier, TEST), classifier.notes()

    before, remarks = scores()
    assert remarks == ()
    for remembered in (prefix_cache._layer_kind, prefix_cache._register):
        remembered.cache_clear()
    if place == "torch.ops.aten":
        monkeypatch.setattr(torch.ops.aten, name, gone)
    else:
        monkeypatch.delattr(f"{place}.{name}")
    after, remarks = scores()
    np.testing.assert_allclose(after, before, atol=1e-4)
    assert any("runs without the shared prefix" in one for one in remarks)


@pytest.mark.parametrize(
    "name", ["peft.tuners.lora.Linear", "transformers.modeling_outputs.BaseModelOutputWithPastAndCrossAttentions"]
)
@pytest.mark.parametrize("method", ["lora", "full_finetuning", "p_tuning"])
def test_an_encoder_is_trained_and_read_with_the_same_logits(name, method, load_tiny, nli_task, monkeypatch):
    def logits():
        classifier = build_method(method, {}).adapt(load_tiny("bert"), nli_task, 0)
        classifier.eval()
        with torch.no_grad():
            found = classifier(classifier.collate(classifier.encode(TEST)))
        return found, classifier.pads, classifier.notes()

    before, pads, remarks = logits()
    assert (pads, remarks) == (False, ())
    build_method(method, {}).adapt(load_tiny("bert"), nli_task, 0)  # the libraries have imported what they need
    monkeypatch.delattr(name)
    after, pads, remarks = logits()
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)
    if pads:
        (remark,) = remarks
        assert "runs without the packed encoder, which could not be tried: ImportError" in remark
