import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.conftest import Item, Toy, toy_data
from tests.observers import listener

from entailor.engine.scorer import collect_features, log_softmax, score
from entailor.errors import TrainingError
from entailor.methods import FittedClassifier
from entailor.tasks import Task


@pytest.fixture
def toy():
    made = Toy(labels=3)
    with torch.no_grad():
        made.layer.weight.copy_(torch.arange(12).reshape(3, 4) / 10)
    return made


def test_scores_are_log_probabilities_in_the_order_of_the_examples(toy):
    items, _ = toy_data(20)
    scores = score(toy, items, 50)
    assert (scores.shape, scores.dtype) == ((20, 3), np.float64)
    logits = toy.layer(torch.tensor([item.features for item in items])).detach()
    np.testing.assert_allclose(scores, torch.log_softmax(logits.double(), dim=1), atol=1e-6)
    assert len(toy.batches) > 1
    assert [row for batch in toy.batches for row in batch] != list(range(20))  # they were run in another order


@given(st.permutations(range(12)), st.integers(1, 200))
def test_neither_order_nor_batching_changes_a_score(order, max_tokens):
    toy, (items, _) = Toy(labels=3), toy_data(12)
    torch.nn.init.constant_(toy.layer.weight[0], 0.3)
    expected = score(toy, items, 10**6)
    np.testing.assert_allclose(score(toy, [items[index] for index in order], max_tokens), expected, atol=1e-6)


def test_windows_of_one_example_are_pooled_by_their_mean_logits(toy):
    # more rows than labels must never shift the labels (huggingface/transformers#10682)
    windows = [Item(0, (1.0, 0, 0, 0)), Item(1, (0, 2.0, 0, 0)), Item(1, (0, 0, 3.0, 0)), Item(2, (0, 0, 0, 1.0))]
    scores = score(toy, windows, 10**6)
    assert scores.shape == (3, 3)
    logits = toy.layer(torch.tensor([item.features for item in windows])).detach().double().numpy()
    expected = np.stack([logits[0], (logits[1] + logits[2]) / 2, logits[3]])
    np.testing.assert_allclose(scores, log_softmax(expected), atol=1e-6)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_is_an_error_with_a_remedy(toy, bad):
    with torch.no_grad():
        toy.layer.bias[1] = bad
    with pytest.raises(TrainingError, match=r"a score is not finite\. Lower the learning rate, or train in fp32"):
        score(toy, toy_data(4)[0], 10**6)


def test_large_logits_do_not_overflow():
    np.testing.assert_allclose(log_softmax(np.array([[1e4, 0.0], [-1e4, -1e4]])), [[0, -1e4], [np.log(0.5)] * 2])


def test_progress_and_evaluation_mode(toy):
    said = []
    toy.train()
    score(toy, toy_data(20)[0], 50, listener(stage=lambda stage, done, of, text: said.append((done, of))))
    assert not toy.training
    assert said[-1] == (20, 20)
    assert [done for done, _ in said] == sorted(done for done, _ in said)


def test_nothing_to_score_gives_an_empty_table(toy):
    assert score(toy, [], 100).shape == (0, 3)


class Counter(FittedClassifier):
    """Its features are the row numbers, so that their order can be seen."""

    task = Task(("a", "b"), is_pair=False)

    def features(self, batch):
        return self.wrap([[item.example_index] for item in batch])

    def collate(self, inputs):
        return inputs

    encode = fit = logits = save = load = parameter_counts = None


Counter.__abstractmethods__ = frozenset()


@pytest.mark.parametrize("wrap", [list, np.array])
def test_features_come_back_in_the_order_of_the_inputs(wrap):
    items, targets = toy_data(20)
    counter, said = Counter(), []
    counter.wrap = wrap
    data = collect_features(counter, items, targets, 50, listener(stage=lambda stage, done, *rest: said.append(done)))
    assert [int(row[0]) for row in data.features] == list(range(20))
    assert isinstance(data.features, list if wrap is list else np.ndarray)
    assert data.targets.tolist() == targets.tolist()
    assert said[-1] == 20
