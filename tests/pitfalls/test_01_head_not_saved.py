"""Pitfall 1: the classification head is not trained, saved or restored (peft#310, #876, #2171)."""

import numpy as np
import torch
from peft import LoraConfig, PeftModel
from tests.conftest import make_examples
from tests.methods.conftest import logprobs, teach
from tests.pitfalls.conftest import usual_peft
from transformers import LlamaForSequenceClassification

from entailor.methods import build_method
from entailor.models.load import quiet_libraries

IDS = torch.tensor([[1, 10, 20], [1, 11, 30]])


def test_usual_peft_with_the_wrong_task_type_leaves_the_head_frozen_and_unsaved(tiny_decoder, tmp_path):
    def classifier(seed):
        """The same checkpoint each time; its head is made on loading, by whatever seed."""
        model = tiny_decoder(LlamaForSequenceClassification, num_labels=3, pad_token_id=0)
        model.score.weight.data.normal_(generator=torch.Generator().manual_seed(seed))
        return model

    config = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"])
    model = usual_peft(classifier(seed=0), config).eval()
    assert not any(tensor.requires_grad for name, tensor in model.named_parameters() if "score" in name)
    with torch.no_grad():
        before = model(input_ids=IDS).logits
    model.save_pretrained(tmp_path)
    with quiet_libraries():
        again = PeftModel.from_pretrained(classifier(seed=1), tmp_path).eval()
    with torch.no_grad():
        after = again(input_ids=IDS).logits
    assert not torch.allclose(before, after, atol=0.1)


def test_ours_trains_saves_and_restores_it(load_tiny, nli_task, tmp_path):
    method = build_method("lora", {"r": 2, "num_train_epochs": 1, "learning_rate": 0.03})
    classifier = method.adapt(load_tiny("bert", seed=0), nli_task, 0)
    start = classifier.model.base_model.model.classifier.weight.detach().clone()
    teach(method, classifier, make_examples(24, seed=1), make_examples(9, seed=2))
    assert not torch.equal(classifier.model.base_model.model.classifier.weight, start)
    classifier.save(tmp_path)
    fresh = method.adapt(load_tiny("bert", seed=1), nli_task, 1)  # another seed: another head, were it not saved
    fresh.load(tmp_path)
    rows = make_examples(12, seed=3)
    np.testing.assert_allclose(logprobs(fresh, rows), logprobs(classifier, rows), atol=1e-4)
