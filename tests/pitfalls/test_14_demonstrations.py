"""Pitfall 14: demonstrations drawn from the test set, unbalanced, or one lucky draw.

(lighteval#1309, lm-evaluation-harness#1906)
"""

import random
from collections import Counter

from tests.conftest import NLI_LABELS, make_examples

ROWS = make_examples(90, seed=1)


def test_usual_a_plain_draw_is_seldom_balanced_and_may_hold_the_question():
    shots = 3
    draws = [random.Random(seed).sample(ROWS, shots) for seed in range(200)]
    balanced = [len(Counter(row.label for row in draw)) == len(NLI_LABELS) for draw in draws]
    assert sum(balanced) / len(draws) < 0.4
    # drawn from the rows that are asked, as scripts with one split do, some questions stand in their own prompt
    assert any(row in draw for row, draw in zip(ROWS, draws, strict=False))
