"""Weights as llama.cpp has them: read back, a model with large random weights gives the same."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from transformers import AutoModelForCausalLM

from entailor.methods import build_method
from entailor.shipping import gguf_export
from entailor.shipping.runtimes.gguf_runtime import _LlamaCpp, _Transformers

IDS = [5, 17, 40, 9, 22, 31, 8, 60, 3, 12]


def classifier_of(load_tiny, nli_task, kind):
    """A decoder whose attention and biases matter: those of tiny models are nearly zero."""
    classifier = build_method("in_context", {}).adapt(load_tiny(kind, objective="language_model"), nli_task, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in classifier.model.named_parameters():
            if "norm" not in name:
                tensor.normal_(0, 0.4, generator=generator)
    return classifier


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2"])
@pytest.mark.parametrize("reader", ["transformers", "llama_cpp"])
def test_a_model_read_back_gives_the_same(kind, reader, load_tiny, nli_task, tmp_path):
    if not importlib.util.find_spec(reader):
        pytest.skip("llama-cpp-python is not installed")
    classifier = classifier_of(load_tiny, nli_task, kind)
    gguf_export.write_model(classifier, classifier.model, tmp_path / "model.gguf", "F32")
    made = (_Transformers if reader == "transformers" else _LlamaCpp)(tmp_path, 64, 1)
    with torch.inference_mode():
        expected = torch.log_softmax(classifier.model(input_ids=torch.tensor([IDS])).logits[0].double(), -1).numpy()
    for place, first in ((0, IDS[:6]), (6, IDS[6:7]), (7, IDS[7:])):
        found = made.behind(first, place)
        assert found == pytest.approx(expected[place + len(first) - 1], abs=2e-4)


def test_rows_in_another_layout_would_show(load_tiny, nli_task, tmp_path, monkeypatch):
    classifier = classifier_of(load_tiny, nli_task, "llama")
    monkeypatch.setattr(gguf_export, "_in_pairs", lambda values, heads: values)
    gguf_export.write_model(classifier, classifier.model, tmp_path / "model.gguf", "F32")
    model = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    with torch.inference_mode():
        expected, found = (one(input_ids=torch.tensor([IDS])).logits for one in (classifier.model, model))
    assert (found - expected).abs().max() > 0.01
