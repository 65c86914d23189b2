"""Decisions moved on validation: the best of those tried, and the least expected cost."""

from functools import partial

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import f1_score, matthews_corrcoef

from entailor.classifiers.linear_model import LinearModel
from entailor.classifiers.thresholds import FIGURES, adjusted_biases, chosen_shift
from entailor.methods import build_method


@pytest.mark.parametrize("metric", FIGURES)
def test_thresholds_of_two_labels_are_the_best_of_those_tried(metric):
    rng = np.random.default_rng(3)
    gold = (rng.random(80) < 0.2).astype(int)
    logits = np.stack([np.zeros(80), rng.normal(1.5 * gold - 2.5, 1.0)], axis=1)
    shift, words = adjusted_biases(logits, gold, np.array([800, 200]), metric)
    of = {"macro_f1": partial(f1_score, average="macro"), "mcc": matthews_corrcoef}[metric]
    tried = [of(gold, (logits[:, 1] + tau * np.log(4) > 0).astype(int)) for tau in np.arange(31) / 20]
    assert of(gold, (logits + shift).argmax(1)) == pytest.approx(max(tried), abs=1e-12)
    assert f"{metric} {max(tried):.3f}, without {tried[0]:.3f}" in words


def test_thresholds_find_rare_labels_in_other_examples_too():
    gains = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        parts = []
        for n in (400, 400, 2000):
            gold = rng.choice(3, n, p=(0.8, 0.15, 0.05))
            parts.append((rng.normal(size=(n, 6)) + 1.2 * np.eye(6)[gold], gold))
        train, validation, (test_x, test_y) = parts
        model = LinearModel(4)  # one label that train lacks
        model.fit(train, validation, [1.0], 300)
        counts = np.bincount(train[1], minlength=4)
        shift, _ = adjusted_biases(model.logits(validation[0]), validation[1], counts, "macro_f1")
        assert shift[3] == 0.0
        logits = model.logits(test_x)
        without, found = (f1_score(test_y, one.argmax(1), average="macro") for one in (logits, logits + shift))
        gains.append(found - without)
    assert np.mean(gains) > 0.02


@pytest.mark.parametrize(
    "cost",
    [[[0, 1], [20, 0]], [[-0.0, 7], [2, 1]], [[0, 2, 2], [30, 0, 30], [1, 1, 0]], [[0, 1, 1], [5, 3, 5], [0, 0, 0]]],
    ids=["two labels", "what is right costs", "three labels", "one that may be missed"],
)
def test_the_answer_is_that_of_least_expected_cost_at_the_temperature(cost):
    cost, rng = np.array(cost, dtype=float), np.random.default_rng(0)
    labels = ("a", "b", "c")[: len(cost)]
    logits, gold = rng.normal(scale=3, size=(500, len(cost))), rng.integers(0, len(cost), 500)
    costs = {one: dict(zip(labels, row, strict=True)) for one, row in zip(labels, cost.tolist(), strict=True)}
    method = build_method("bag_of_words", {"thresholds": "cost", "costs": costs})
    shift, words = chosen_shift(method, logits, gold, np.ones(len(cost), int), 2.5, labels)
    answers = (logits + shift).argmax(axis=1)
    np.testing.assert_array_equal(answers, (softmax(logits / 2.5, axis=1) @ cost).argmin(axis=1))
    paid, before = (cost[gold, one].mean() for one in (answers, logits.argmax(axis=1)))
    assert f"mean cost on validation {paid:.3g}, without {before:.3g}" in words
