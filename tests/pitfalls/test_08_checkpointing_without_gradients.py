"""Pitfall 8: gradient checkpointing silently leaves adapters without gradients (transformers#26221).

Newer transformers ask the embeddings' output for gradients when `peft` is at work, which ends the case of the thread.
Whoever checkpoints by hand still meets it.
"""

import pytest
import torch
from tests.conftest import make_examples
from tests.methods.conftest import teach
from torch.utils.checkpoint import checkpoint

from entailor.errors import TrainingError
from entailor.methods import build_method


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # the warning that is easily overlooked
def test_usual_re_entrant_checkpointing_over_frozen_embeddings_cuts_the_adapter_off():
    embeddings, adapter, head = torch.nn.Embedding(10, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 3)
    embeddings.requires_grad_(False)
    hidden = checkpoint(adapter, embeddings(torch.tensor([1, 2])), use_reentrant=True)
    torch.nn.functional.cross_entropy(head(hidden), torch.tensor([0, 1])).backward()
    assert head.weight.grad is not None  # so the loss falls a little, and nothing stops
    assert adapter.weight.requires_grad
    assert adapter.weight.grad is None


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
