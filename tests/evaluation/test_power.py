import math

import pytest

from entailor.evaluation.power import detectable_difference, examples_needed, power_lines


def test_a_difference_that_is_detectable_needs_that_many_examples():
    for n in (200, 1000, 20_000):
        difference = detectable_difference(n, 0.2, 10)
        assert examples_needed(difference, 0.2, 10) == pytest.approx(n, rel=1e-6)


def test_more_examples_show_less_and_more_pairs_ask_for_more():
    assert detectable_difference(4000) < detectable_difference(1000) < detectable_difference(1000, pairs=28)
    assert detectable_difference(1000, 0.1) < detectable_difference(1000, 0.3)
    # Connor (1987): with a fifth of the examples in dispute a thousand show four points
    assert detectable_difference(1000) == pytest.approx(0.0396, abs=0.0005)


def test_what_cannot_be_shown_is_none():
    assert detectable_difference(18) is None
    assert detectable_difference(1000, 0.0) is None
    assert detectable_difference(0) is None
    assert examples_needed(0.0, 0.2) == math.inf


def test_it_is_said_before_the_run():
    said, seeds = power_lines(1000, 8, 1)
    assert said.startswith("1,000 test examples can show a difference between 8 candidates of about 5.6 points or more")
    assert "not the methods: give --seeds 3" in seeds
    assert "two seeds say little" in power_lines(1000, 8, 2)[1]
    assert len(power_lines(1000, 8, 3)) == 1
    assert "too few to show a difference between two candidates" in power_lines(18, 2, 3)[0]
    assert power_lines(1000, 1, 1) == []
    assert len(power_lines(1000, 2, 0)) == 1  # deterministic rows have no luck
