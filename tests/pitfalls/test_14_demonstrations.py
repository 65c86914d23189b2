"""Pitfall 14: demonstrations drawn from the test set, unbalanced, or one lucky draw.

(lighteval#1309, lm-evaluation-harness#1906)
"""

import random
from collections import Counter

from tests.conftest import NLI_LABELS, make_examples

from entailor.methods import build_method

ROWS = make_examples(90, seed=1)


def test_usual_a_plain_draw_is_seldom_balanced_and_may_hold_the_question():
    shots = 3
    draws = [random.Random(seed).sample(ROWS, shots) for seed in range(200)]
    balanced = [len(Counter(row.label for row in draw)) == len(NLI_LABELS) for draw in draws]
    assert sum(balanced) / len(draws) < 0.4
    # drawn from the rows that are asked, as scripts with one split do, some questions stand in their own prompt
    assert any(row in draw for row, draw in zip(ROWS, draws, strict=False))


def drawn(load_tiny, nli_task, seed, shots=6):
    method = build_method("in_context", {"num_fewshot": shots})
    classifier = method.adapt(load_tiny("llama", objective="language_model"), nli_task, seed)
    told = classifier.demonstrate(ROWS)
    return classifier.demonstrations.shots, told


def test_ours_draws_from_every_label_and_from_train_alone(load_tiny, nli_task):
    draws = []
    for seed in range(3):
        shots, told = drawn(load_tiny, nli_task, seed)
        assert Counter(row.label for row in shots) == dict.fromkeys(NLI_LABELS, 2)
        assert all(row in ROWS for row in shots)
        assert told == ("6 demonstrations from train (entailment 2, neutral 2, contradiction 2)",)
        draws.append(shots)
    assert len(set(draws)) == 3  # another draw with each seed, so that the spread is seen


def test_ours_draws_with_a_generator_of_its_own(load_tiny, nli_task):
    first, _ = drawn(load_tiny, nli_task, seed=0)
    random.seed(123)
    random.random()
    assert drawn(load_tiny, nli_task, seed=0)[0] == first


def test_ours_runs_one_trial_a_draw():
    assert build_method("in_context", {"num_fewshot": 6}).is_seeded
    assert not build_method("in_context", {"num_fewshot": 0}).is_seeded
