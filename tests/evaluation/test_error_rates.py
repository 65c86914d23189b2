"""Simulated comparisons whose truth is known: how often intervals hold it, and how often chance is called a difference.

The rows share what is hard about an example; each has tastes of its own; and each seed of a row has its luck.
"""

import math

import numpy as np
import pytest
from scipy.stats import binom, chi2, norm

from entailor.evaluation.pairs import SIGNIFICANCE, compare_all, compare_scored
from entailor.evaluation.power import detectable_difference, usual_spread
from entailor.evaluation.statistics import accuracy_interval
from entailor.evaluation.variance import Scored, Spread

EXAMPLES = 300
EASE, DIFFICULTY, TASTE = 0.8, 1.5, 1.0  # logits: mean, spread over examples, spread over a row's own tastes


def simulated_rows(generator, layout, examples=EXAMPLES):
    """Return equally good rows; `layout` is (seeds, standard deviation of luck in logits, whether seeds matter)."""
    shared_N = EASE + DIFFICULTY * generator.standard_normal(examples)
    rows = []
    for seeds, luck, varies in layout:
        logits_SN = (
            shared_N + TASTE * generator.standard_normal(examples) + luck * generator.standard_normal((seeds, 1))
        )
        rows.append(Scored(generator.random((seeds, examples)) < 1 / (1 + np.exp(-logits_SN)), varies))
    return rows


def true_accuracy(luck):
    spread = np.sqrt(DIFFICULTY**2 + TASTE**2 + luck**2)
    logits = EASE + spread * np.random.default_rng(0).standard_normal(1_000_000)
    return float(np.mean(1 / (1 + np.exp(-logits))))


FIXED = (1, 0.0, False)
DIFFERENCES = {
    "one trial each": [FIXED, FIXED],
    "three seeds each, little luck": [(3, 0.05, True), (3, 0.05, True)],
    "three seeds each, luck of five points": [(3, 0.25, True), (3, 0.25, True)],
    "five seeds each": [(5, 0.15, True), (5, 0.15, True)],
    "a deterministic row and three seeds": [FIXED, (3, 0.15, True)],
    "luck of different size": [(3, 0.05, True), (3, 0.2, True)],
}


@pytest.mark.parametrize("layout", DIFFERENCES.values(), ids=DIFFERENCES)
def test_intervals_of_differences_hold_the_truth_in_95_of_100(layout):
    generator = np.random.default_rng(11)
    truth = true_accuracy(layout[0][1]) - true_accuracy(layout[1][1])
    runs = 400
    held = 0
    for _ in range(runs):
        found = compare_scored(*simulated_rows(generator, layout))
        held += found.low <= truth <= found.high
    assert held / runs >= 0.93
    # that seeds may have shown too little of their variance is in the interval: up to 99 % with three of them
    assert held / runs <= (0.97 if layout == [FIXED, FIXED] else 0.996)


@pytest.mark.parametrize(("seeds", "luck"), [(1, 0.0), (3, 0.0), (3, 0.2), (5, 0.3)])
def test_intervals_of_accuracies_hold_the_truth_in_95_of_100(seeds, luck):
    generator = np.random.default_rng(12)
    truth, runs, held = true_accuracy(luck), 500, 0
    for _ in range(runs):
        found = accuracy_interval(simulated_rows(generator, [(seeds, luck, True)])[0])
        held += found.low <= truth <= found.high
    assert 0.93 <= held / runs <= (0.97 if seeds == 1 else 0.99)


@pytest.mark.parametrize("level", [0.05, 0.05 / 28], ids=["one pair", "one of 28 pairs"])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_few_seeds_call_no_more_differences_than_the_level_says(seeds, level):
    """Without drawing: the bound at each variance the seeds may show, and how often a difference goes beyond it."""
    freedom, shares_Q = seeds - 1, (np.arange(60) + 0.5) / 60
    shown_Q = chi2.ppf(shares_Q, freedom) / freedom
    for deviation in (0.0, 1.0, 2.5, 5.0):  # of the mean over seeds, where examples alone have 1
        for disagreement in (0.05, 0.3):
            expected = deviation**2 + disagreement
            spreads = [Spread(1.0, math.inf, shown * expected, disagreement, freedom) for shown in shown_Q]
            bounds_Q = np.array([one.bound(1 - level / 2) for one in spreads])
            false = np.mean(2 * norm.sf(bounds_Q / math.sqrt(1 + deviation**2)))
            assert false <= 1.1 * level


EQUALS = {
    **DIFFERENCES,
    "one seed whose luck is not known, and three": [(1, 0.15, True), (3, 0.15, True)],
    "two seeds each": [(2, 0.2, True), (2, 0.2, True)],
    "luck of ten points on one side": [(3, 0.05, True), (3, 0.5, True)],
}


@pytest.mark.parametrize("layout", EQUALS.values(), ids=EQUALS)
def test_equal_rows_are_called_different_in_5_of_100_at_most(layout):
    generator = np.random.default_rng(13)
    runs = 300
    called = sum(compare_scored(*simulated_rows(generator, layout)).p < SIGNIFICANCE for _ in range(runs))
    assert called / runs <= 0.05


def test_among_all_pairs_a_false_difference_is_found_in_5_of_100_runs_at_most():
    generator = np.random.default_rng(14)
    layout = [FIXED, FIXED, (3, 0.05, True), (3, 0.15, True), (3, 0.4, True)]
    runs, wrong = 100, 0
    for _ in range(runs):
        rows = simulated_rows(generator, layout)
        wrong += any(one.significant for one in compare_all(dict(enumerate(rows))).differences.values())
    # what a rate of 5 % stays below in 99 of 100 such tests; docs/statistics.md has longer runs
    assert wrong <= binom.ppf(0.99, runs, 0.05)


def test_a_lucky_seed_does_not_win():
    """Means over seeds say 76 against 70 %, examples alone call that a difference; one seed in three made it."""
    generator = np.random.default_rng(15)
    shared_N = generator.random(1000)
    lucky = Scored(np.array([shared_N < share for share in (0.70, 0.69, 0.89)]))
    steady = Scored(np.array([shared_N < share for share in (0.70, 0.70, 0.70)]))
    found = compare_scored(lucky, steady)
    assert found.value > 0.05
    assert found.p > 0.2
    assert found.low < 0 < found.high


def test_a_real_difference_is_found():
    generator = np.random.default_rng(16)
    shared_N = generator.random(1000)
    rows = [
        np.array([(shared_N < share) ^ (generator.random(1000) < 0.05) for _ in range(3)]) for share in (0.75, 0.65)
    ]
    assert compare_scored(Scored(rows[0]), Scored(rows[1])).p < 0.001


def test_the_difference_said_to_be_detectable_is_found_in_4_of_5_runs():
    generator = np.random.default_rng(17)
    examples, discordant = 500, 0.2
    difference = detectable_difference(usual_spread(examples, 1, discordant))
    only_a, only_b = (discordant + difference) / 2, (discordant - difference) / 2
    found = 0
    for _ in range(400):
        place_N = generator.random(examples)
        a_N = (place_N < only_a) | (place_N > 0.5)
        b_N = ((place_N >= only_a) & (place_N < only_a + only_b)) | (place_N > 0.5)
        found += compare_scored(Scored(a_N[None], False), Scored(b_N[None], False)).mirrored().p_worse < 0.05
    assert 0.74 <= found / 400 <= 0.86
