"""QLoRA and in-context classification on decoders of every architecture, in 4 bits."""

import numpy as np
import pytest
from tests.conftest import DECODERS, make_examples
from tests.methods.conftest import logprobs, teach

from entailor.methods import build_method
from entailor.models.quantization import quantized_layers

ROWS = make_examples(12, seed=4)


@pytest.mark.parametrize(
    ("kind", "head"), [*((kind, "classifier") for kind in DECODERS), ("llama", "verbalizer"), ("gpt2", "verbalizer")]
)
def test_qlora_trains_and_loads_back_to_the_same_scores(kind, head, load_tiny, nli_task, tmp_path):
    settings = {"r": 2, "num_train_epochs": 4, "gradient_checkpointing": True, "head": head}
    method = build_method("lora", settings)

    def fresh():
        backbone = load_tiny(kind, objective=method.objective, load_in_4bit=True)
        return method.adapt(backbone, nli_task, 0)

    classifier = fresh()
    first = logprobs(classifier, ROWS)
    teach(method, classifier, ROWS, ROWS)
    trained = logprobs(classifier, ROWS)
    assert len(quantized_layers(classifier)) >= 8
    assert np.abs(trained - first).max() > 1e-5
    assert np.abs(trained - logprobs(classifier, ROWS, max_tokens=64)).max() < 1e-4
    classifier.save(tmp_path)
    again = fresh()
    again.load(tmp_path)
    assert np.array_equal(logprobs(again, ROWS), trained)


@pytest.mark.parametrize("method", ["p_tuning", "prefix_tuning"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_soft_prompts_train_on_four_bits(kind, method, load_tiny, nli_task):
    way = build_method(method, {"num_train_epochs": 1})
    classifier = way.adapt(load_tiny(kind, load_in_4bit=True), nli_task, 0)
    assert teach(way, classifier, ROWS, ROWS).best_step > 0
