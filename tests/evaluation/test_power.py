import math

import numpy as np
import pytest
from scipy.stats import chi2, norm
from statsmodels.stats.power import NormalIndPower

from entailor.evaluation.power import (
    detectable_difference,
    examples_for_margin,
    examples_needed,
    power_lines,
    usual_spread,
)
from entailor.evaluation.variance import Spread


def test_a_difference_that_is_detectable_needs_that_many_examples():
    for n in (1000, 20_000):
        spread = usual_spread(n, 1)
        assert examples_needed(detectable_difference(spread, 7), spread, n, 7) == pytest.approx(n, rel=0.05)


def test_more_examples_and_seeds_show_less_and_more_candidates_ask_for_more():
    shown = [detectable_difference(usual_spread(n, 3)) for n in (4000, 1000, 200)]
    assert shown == sorted(shown)
    assert detectable_difference(usual_spread(1000, 5)) < detectable_difference(usual_spread(1000, 2))
    assert detectable_difference(usual_spread(1000, 3)) < detectable_difference(usual_spread(1000, 3), 7)
    # normal theory, one-sided: (1.645 + 0.842) x sqrt(0.2 / 1000)
    assert detectable_difference(usual_spread(1000, 1)) == pytest.approx(0.0352, abs=0.0003)


def test_what_is_needed_agrees_with_statsmodels():
    """One sample, normal theory, one-sided at 5 and 20 %; differences of variance 0.2 an example."""
    spread, power = usual_spread(100, 1), NormalIndPower()
    for difference in (0.02, 0.05):
        asked = {"effect_size": difference / 0.2**0.5, "power": 0.8, "ratio": 0, "alternative": "larger"}
        expected = power.solve_power(alpha=0.05, **asked)
        assert examples_needed(difference, spread, 100) == pytest.approx(expected, rel=1e-9)
        expected = power.solve_power(alpha=0.2, **asked)
        assert examples_for_margin(difference, 0.8, spread, 100) == pytest.approx(expected, rel=1e-9)


def test_what_only_more_seeds_would_show_asks_for_no_number_of_examples():
    between_seeds = Spread(examples=0.0001, between=0.0099, freedom_seeds=4)
    assert examples_needed(0.02, between_seeds, 1000) == math.inf
    assert examples_for_margin(0.02, 0.8, between_seeds, 1000) == math.inf


def test_what_is_needed_for_a_margin_by_hand():
    # two one-sided quantiles at 80 % (0.8416 each), variance 0.2 an example: (2 x 0.8416 / 0.02)^2 x 0.2
    assert examples_for_margin(0.02, 0.8, usual_spread(100, 1), 100) == pytest.approx(1416.6, rel=1e-3)


def test_candidates_that_answer_alike_show_nothing():
    assert detectable_difference(Spread(0.0)) is None


def test_it_is_said_before_the_run():
    said, seeds = power_lines(1000, 8, 1)
    assert said.startswith("1,000 test examples can show a lead of the best of 8 candidates of about")
    assert "not the methods: give --seeds 3" in seeds
    assert "two seeds say little" in power_lines(1000, 8, 2)[1]
    assert len(power_lines(1000, 8, 3)) == 1
    assert "too few to show which of two candidates is best" in power_lines(12, 2, 3)[0]
    assert power_lines(1000, 1, 1) == []
    assert len(power_lines(1000, 2, 0)) == 1  # deterministic candidates do not vary with the seed


@pytest.mark.parametrize("deviation", [0.0, 1.0, 2.0])
def test_the_lead_said_after_a_run_of_three_seeds_is_found_in_75_to_85_of_100_runs(deviation):
    """Two candidates, nothing drawn: every variance their seeds may show in this run, and in the next one."""
    freedom, disagreement, places_Q = 4.0, 0.25, (np.arange(8) + 0.5) / 8
    spreads = [
        Spread(1.0, 200.0, shown * (deviation**2 + disagreement), disagreement, freedom)
        for shown in chi2.ppf(places_Q, freedom) / freedom
    ]
    bound_Q = np.array([one.bound(0.95) for one in spreads])
    found = [
        norm.cdf((detectable_difference(one, known=freedom) - bound_Q) / math.hypot(1, deviation)) for one in spreads
    ]
    assert 0.75 <= np.mean(found) <= 0.85
