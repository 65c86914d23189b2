"""Pitfall 8: gradient checkpointing silently leaves adapters without gradients (transformers#26221)."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.conftest import make_examples
from tests.methods.conftest import teach

from entailor.errors import TrainingError
from entailor.methods import build_method

IDS = torch.tensor([[2, 10, 20, 3]])


@pytest.mark.filterwarnings("ignore")  # the warning that is easily overlooked
def test_usual_re_entrant_checkpointing_cuts_the_adapters_off(plain_encoder):
    config = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
    model = get_peft_model(plain_encoder(), config)
    model.get_base_model().gradient_checkpointing_enable({"use_reentrant": True})
    model.train()
    model(input_ids=IDS, labels=torch.tensor([1])).loss.backward()
    adapters = {name: tensor for name, tensor in model.named_parameters() if "lora_" in name}
    assert adapters
    assert all(tensor.requires_grad and tensor.grad is None for tensor in adapters.values())


def test_ours_reaches_every_adapter(load_tiny, nli_task):
    settings = {"r": 2, "num_train_epochs": 1, "learning_rate": 0.03, "gradient_checkpointing": True}
    method = build_method("lora", settings)
    classifier = method.adapt(load_tiny("bert"), nli_task, 0)
    start = {name: tensor.detach().clone() for name, tensor in classifier.named_parameters() if tensor.requires_grad}
    teach(method, classifier, make_examples(48, seed=1), make_examples(9, seed=2))
    moved = {
        name: not torch.equal(tensor, start[name]) for name, tensor in classifier.named_parameters() if name in start
    }
    assert len(moved) > 4
    assert all(moved.values())


def test_ours_stops_with_the_name_of_a_tensor_that_no_gradient_reaches(load_tiny, nli_task):
    method = build_method("lora", {"r": 2, "num_train_epochs": 1})
    classifier = method.adapt(load_tiny("bert"), nli_task, 0)
    classifier.forgotten = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(TrainingError, match="forgotten"):
        teach(method, classifier, make_examples(24, seed=1), make_examples(9, seed=2))
