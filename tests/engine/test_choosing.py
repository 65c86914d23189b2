from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, matthews_corrcoef
from tests.engine.conftest import ToyMethod, toy_data

from entailor.engine.choosing import figure_of_choice, merit, weights_of_labels
from entailor.engine.trainer import train
from entailor.engine.training import LoopRuntime, TrainingData
from entailor.methods import build_method


def by(metric):
    return build_method("lora", {"metric_for_best_model": metric})


LABELS = ("a", "b", "c", "d")


def test_macro_f1_is_over_the_labels_that_occur():
    gold, said = np.array([0, 0, 0, 1]), np.array([0, 0, 2, 1])  # label 2 never occurs, 3 is nowhere
    expected = f1_score(gold == 0, said == 0) / 2 + f1_score(gold == 1, said == 1) / 2
    assert figure_of_choice(by("macro_f1"), said, gold, LABELS) == pytest.approx(expected)
    assert figure_of_choice(by("mcc"), said, gold, LABELS) == pytest.approx(matthews_corrcoef(gold, said))
    assert figure_of_choice(by("mcc"), np.zeros(4, int), gold, LABELS) == 0
    assert figure_of_choice(by("accuracy"), said, gold, LABELS) is None


def test_minus_the_mean_cost_is_over_gold_and_predicted():
    costs = {"yes": {"no": 5}, "no": {"yes": 1, "no": 0.5}}
    method = build_method("lora", {"metric_for_best_model": "cost", "costs": costs})
    gold, said = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    assert figure_of_choice(method, said, gold, ("yes", "no")) == -(0 + 5 + 1 + 0.5) / 4


@pytest.mark.parametrize(
    ("metric", "better", "worse"),
    [
        ("accuracy", (0.9, 0.5, None), (0.8, 0.1, None)),
        ("accuracy", (0.9, 0.4, None), (0.9, 0.5, None)),
        ("loss", (0.1, 0.4, None), (0.9, 0.5, None)),
        ("macro_f1", (0.5, 0.9, 0.6), (0.9, 0.1, 0.5)),
        ("mcc", (0.5, 0.1, 0.0), (0.9, 0.2, 0.0)),
    ],
)
def test_the_metric_comes_first_and_the_loss_breaks_ties(metric, better, worse):
    assert merit(metric, *better) > merit(metric, *worse)


def test_weights_are_inverse_frequencies_of_mean_one():
    targets = np.array([0] * 9 + [2] * 3)
    weight = weights_of_labels(targets, 4)
    assert weight[[1, 3]].tolist() == [0, 0]
    assert weight[2] == pytest.approx(3 * weight[0])
    assert weight[targets].mean() == pytest.approx(1)


@pytest.mark.parametrize(("metric", "kept"), [("accuracy", 2), ("macro_f1", 4), ("mcc", 4)])
def test_the_chosen_metric_keeps_other_weights(metric, kept, monkeypatch, session):
    gold = np.array([0] * 18 + [1] * 2)
    all_first, finds_both = np.zeros(20, int), np.array([0] * 14 + [1] * 6)
    answers = iter((all_first, finds_both))

    def fake_score(classifier, inputs, max_tokens, **_):
        logprobs = np.full((20, 2), -5.0)
        logprobs[np.arange(20), next(answers)] = -0.01
        return logprobs

    monkeypatch.setattr("entailor.engine.trainer.score", fake_score)
    items, targets = toy_data(8)  # two steps an epoch
    method = ToyMethod(num_train_epochs=2, per_device_train_batch_size=4, metric_for_best_model=metric)
    data = TrainingData(items, targets, toy_data(20)[0], gold)
    result = train(session.toy, method, data, LoopRuntime(0))
    assert result.best_step == kept
    figures = [point.validation_figure for point in result.curve if point.validation_accuracy is not None]
    assert (figures == [None, None]) == (metric == "accuracy")


def test_balanced_weights_let_a_rare_label_pull_as_hard(session):
    # four of one label and two of the other: weighted, they pull the bias neither way
    items = [replace(item, features=(0.0,) * 4) for item in toy_data(6)[0]]
    method = ToyMethod(num_train_epochs=1, per_device_train_batch_size=6, class_weight="balanced")
    data = TrainingData(items, np.array([0, 1, 0, 0, 1, 0]), items, np.array([0, 1, 0, 0, 1, 0]))
    train(session.toy, method, data, LoopRuntime(0))
    torch.testing.assert_close(session.toy.layer.bias.detach(), torch.zeros(2), atol=1e-6, rtol=0)
