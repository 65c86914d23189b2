"""Pitfall 1: the classification head is not trained, saved or restored (peft#310, #876, #2171).

Newer versions of `peft` refuse `task_type="CAUSAL_LM"` on a classifier; without a task type it is as it was.
"""

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel
from tests.conftest import make_examples
from tests.methods.conftest import logprobs, teach
from tests.pitfalls.conftest import usual_peft

from entailor.methods import build_method
from entailor.models.load import quiet_libraries

IDS = torch.tensor([[2, 10, 20, 3], [2, 11, 30, 3]])


def test_usual_peft_without_a_task_type_leaves_the_head_frozen_and_unsaved(plain_encoder, tmp_path):
    model = usual_peft(plain_encoder(seed=0), LoraConfig(r=2, target_modules=["query", "value"])).eval()
    heads = [tensor for name, tensor in model.named_parameters() if "classifier" in name]
    assert heads
    assert not any(tensor.requires_grad for tensor in heads)
    with torch.no_grad():
        before = model(input_ids=IDS).logits
    model.save_pretrained(tmp_path)
    # in another process the head is made again, by whatever seed
    with quiet_libraries():
        again = PeftModel.from_pretrained(plain_encoder(seed=1), tmp_path).eval()
    with torch.no_grad():
        after = again(input_ids=IDS).logits
    assert not torch.allclose(before, after, atol=1e-2)


@pytest.mark.parametrize(("kind", "head"), [("bert", "classifier"), ("llama", "score")])
def test_ours_trains_saves_and_restores_it(kind, head, load_tiny, nli_task, tmp_path):
    method = build_method("lora", {"r": 2, "num_train_epochs": 1, "learning_rate": 0.03})
    classifier = method.adapt(load_tiny(kind, seed=0), nli_task, 0)
    start = getattr(classifier.model.base_model.model, head).weight.detach().clone()
    teach(method, classifier, make_examples(24, seed=1), make_examples(9, seed=2))
    assert not torch.equal(getattr(classifier.model.base_model.model, head).weight, start)
    classifier.save(tmp_path)
    fresh = method.adapt(load_tiny(kind, seed=1), nli_task, 1)  # another seed: another head, were it not saved
    fresh.load(tmp_path)
    rows = make_examples(12, seed=3)
    np.testing.assert_allclose(logprobs(fresh, rows), logprobs(classifier, rows), atol=1e-4)
