"""Training the rows of an embedding that occur gives what training all of them gives."""

import copy

import numpy as np
import pytest
import torch
from tests.conftest import make_examples
from tests.methods.conftest import logprobs

from entailor.accel import embedding_rows
from entailor.accel.embedding_rows import EmbeddingRows, rows_that_occur
from entailor.engine.trainer import Training, train
from entailor.engine.training import LoopRuntime, TrainingData
from entailor.methods import build_method

SETTINGS = {"num_train_epochs": 3, "learning_rate": 1e-2, "weight_decay": 0.1, "warmup_ratio": 0.2}
SETTINGS |= {"per_device_train_batch_size": 4, "max_grad_norm": 0.5, "logging_steps": 1}
TRAIN = [make_examples(12, seed=1, labels=("a", "b", "c"))[n] for n in (0, 1, 2, 4)]
OTHERS = make_examples(12, seed=2)


def trained(load_tiny, nli_task, share, monkeypatch, **settings):
    """Train on few words, scoring texts with others after each epoch; return classifier, training and its result."""
    monkeypatch.setattr(embedding_rows, "MOST_SHARE", share)
    method = build_method("full_finetuning", SETTINGS | settings)
    classifier = method.adapt(load_tiny("bert", nli_task), nli_task, 0)
    targets = np.arange(len(TRAIN)) % 3
    inputs = TrainingData(
        classifier.encode(TRAIN), targets, classifier.encode(OTHERS), np.array(nli_task.targets(OTHERS))
    )
    training = Training(classifier, method, inputs, LoopRuntime(seed=0))
    return classifier, training, training.run()


@pytest.mark.parametrize("choice", ["loss", "accuracy"])
def test_losses_scores_and_weights_are_those_of_the_whole_embedding(choice, load_tiny, nli_task, monkeypatch):
    one, plain, expected = trained(load_tiny, nli_task, 0.0, monkeypatch, metric_for_best_model=choice)
    other, short, found = trained(load_tiny, nli_task, 1.0, monkeypatch, metric_for_best_model=choice)
    assert plain.rows is None
    assert short.rows is not None
    rows, whole = short.rows.rows_UH, one.model.get_input_embeddings().weight
    assert len(rows) < len(whole) * 0.8
    for here, there in zip(expected.curve, found.curve, strict=True):
        assert (here.train_loss or 0) == pytest.approx(there.train_loss or 0, abs=1e-6)
        assert (here.validation_loss or 0) == pytest.approx(there.validation_loss or 0, abs=1e-6)
    assert expected.best_step == found.best_step
    for (name, here), (_, there) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        assert there.requires_grad
        torch.testing.assert_close(there, here, atol=1e-6, rtol=1e-6, msg=name)
    assert "forward" not in vars(other.model.get_input_embeddings())
    np.testing.assert_allclose(logprobs(one, OTHERS), logprobs(other, OTHERS), atol=1e-6)


def test_rows_that_never_occur_decay_as_if_each_step_had_touched_them(load_tiny, nli_task, monkeypatch):
    untouched = load_tiny("bert", nli_task).model.get_input_embeddings().weight.detach()
    classifier, training, result = trained(load_tiny, nli_task, 1.0, monkeypatch, weight_decay=2.0)
    after = classifier.model.get_input_embeddings().weight.detach()
    never = training.rows.place_V < 0
    decay = 1.0
    for step in range(result.best_step):
        decay *= 1 - training.schedule.base_lrs[0] * training.schedule.lr_lambdas[0](step) * 2.0
    assert decay < 0.999
    torch.testing.assert_close(after[never], untouched[never] * decay)


class Tied(torch.nn.Module):
    """An embedding that its own output layer reads as well, in a way that no list of parameters shows."""

    def __init__(self):
        super().__init__()
        self.words = torch.nn.Embedding(50, 4)

    def forward(self, ids):
        return self.words(ids).mean(1) @ self.words.weight[:3].T


def test_an_embedding_that_something_else_reads_is_left_alone():
    model, ids_BT = Tied(), torch.tensor([[5, 6], [7, 5]])
    before = copy.deepcopy(model.state_dict())
    assert rows_that_occur(model, model.words, [5, 6, 7], lambda: model(ids_BT)) == (None, None)
    assert model.words.weight.requires_grad
    assert "forward" not in vars(model.words)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_nothing_is_put_in_place_where_most_rows_occur_or_the_embedding_is_frozen():
    model = torch.nn.Sequential(torch.nn.Embedding(10, 4))
    assert rows_that_occur(model, model[0], range(6), lambda: model(torch.ones(2, 2).long())) == (None, None)
    model[0].weight.requires_grad_(False)
    assert rows_that_occur(model, model[0], [1], lambda: model(torch.ones(2, 2).long())) == (None, None)


def test_the_padding_row_gets_no_gradient_and_other_tokens_are_refused_in_training():
    embedding = torch.nn.Embedding(10, 4, padding_idx=0)
    rows = EmbeddingRows(embedding, [0, 3])
    embedding(torch.tensor([[0, 3]])).sum().backward()
    assert rows.rows_UH.grad.sum(1).tolist() == [0.0, 4.0]
    with pytest.raises(IndexError):
        embedding(torch.tensor([4]))
    embedding.eval()
    assert torch.equal(embedding(torch.tensor([4])), embedding.weight[[4]])


def test_a_training_that_fails_leaves_the_embedding_as_it_should_be(load_tiny, nli_task, monkeypatch):
    monkeypatch.setattr(embedding_rows, "MOST_SHARE", 1.0)
    method = build_method("full_finetuning", SETTINGS)
    classifier = method.adapt(load_tiny("bert", nli_task), nli_task, 0)
    inputs = classifier.encode(TRAIN)
    targets = np.arange(len(TRAIN)) % 3

    def broken(*_):
        raise RuntimeError("in the middle")

    monkeypatch.setattr(Training, "_evaluate", broken)
    with pytest.raises(RuntimeError, match="in the middle"):
        train(classifier, method, TrainingData(inputs, targets, inputs, targets), LoopRuntime(seed=0))
    assert "forward" not in vars(classifier.model.get_input_embeddings())
    assert all(parameter.requires_grad for parameter in classifier.parameters())
