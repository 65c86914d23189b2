import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap

from entailor.evaluation.bootstrap import (
    Scored,
    hierarchical_bootstrap,
    paired_bootstrap,
    seed_luck,
    spread_of_accuracy,
    spread_of_difference,
)


def test_bootstrap_agrees_with_scipy():
    generator = np.random.default_rng(3)
    a = (generator.random((3, 400)) < 0.7).mean(axis=0)
    b = (generator.random((3, 400)) < 0.6).mean(axis=0)
    found = paired_bootstrap(a, b)
    expected = bootstrap(
        (a - b,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.004)
    assert found.p < 0.01


def test_bootstrap_is_the_same_each_time():
    generator = np.random.default_rng(1)
    a, b = generator.random(200) < 0.6, generator.random(200) < 0.5
    assert paired_bootstrap(a * 1.0, b * 1.0) == paired_bootstrap(a * 1.0, b * 1.0)
    rows = Scored(generator.random((3, 200)) < 0.6), Scored(generator.random((2, 200)) < 0.6)
    assert hierarchical_bootstrap(*rows) == hierarchical_bootstrap(*rows)


def test_rows_that_never_differ_cannot_be_told_apart():
    a = np.full(50, 2 / 3)
    found = paired_bootstrap(a, a)
    assert (found.low, found.high, found.p) == (0, 0, 1)
    same = Scored(np.tile(np.arange(50) % 3 > 0, (3, 1)))
    found = hierarchical_bootstrap(same, same)
    assert found is not None
    assert (found.low, found.high, found.p) == (0, 0, 1)


def naive_hierarchical(a_SN, b_SN, draws, generator):
    """Seeds, then examples, drawn one by one, seeds as they are: what the fast version is held to where it applies."""
    means = []
    for _ in range(draws):
        rows = [row[generator.integers(0, len(row), len(row))] for row in (a_SN, b_SN)]
        places = generator.integers(0, a_SN.shape[1], a_SN.shape[1])
        means.append(rows[0][:, places].mean() - rows[1][:, places].mean())
    return np.array(means)


def test_with_many_seeds_it_is_the_hierarchical_bootstrap_drawn_one_by_one():
    generator = np.random.default_rng(0)
    a = generator.random((25, 300)) < 0.7 + 0.08 * generator.standard_normal((25, 1))
    b = generator.random((25, 300)) < 0.65 + 0.08 * generator.standard_normal((25, 1))
    found = hierarchical_bootstrap(Scored(a), Scored(b))
    low, high = np.quantile(naive_hierarchical(a, b, 1500, generator), (0.025, 0.975))
    assert found is not None
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.012)


def test_luck_is_what_the_finite_test_set_does_not_explain():
    generator = np.random.default_rng(4)
    none, much = [], []
    for _ in range(300):
        none.append(seed_luck(generator.random((3, 200)) < 0.7).variance)
        much.append(seed_luck(generator.random((3, 200)) < 0.7 + 0.1 * generator.standard_normal((3, 1))).variance)
    assert np.mean(none) < 0.0006  # 0.7 x 0.3 / 200 = 0.00105 is what the test set explains
    assert np.mean(much) == pytest.approx(0.01, rel=0.15)
    assert seed_luck(generator.random((1, 200)) < 0.7) is None


@given(st.integers(2, 6), st.integers(2, 40), st.integers(0, 1000))
def test_the_cautious_luck_is_never_the_smaller(num_seeds, num_examples, seed):
    luck = seed_luck(np.random.default_rng(seed).random((num_seeds, num_examples)) < 0.6)
    assert 0 <= luck.variance <= luck.cautious
    assert luck.variance <= luck.uncorrected
    assert luck.deviations_S.sum() == pytest.approx(0, abs=1e-9)
    assert np.mean(luck.deviations_S**2) == pytest.approx(luck.variance, abs=1e-12)  # what drawing them has


def test_few_seeds_that_differ_leave_few_degrees_of_freedom():
    generator = np.random.default_rng(5)
    apart = Scored(np.array([generator.random(500) < share for share in (0.6, 0.7, 0.8)]))
    alone = Scored(generator.random((1, 500)) < 0.7, varies=False)
    assert 2 <= spread_of_accuracy(apart).freedom < 3
    assert spread_of_accuracy(apart).factor > 1.6
    assert spread_of_difference(apart, alone).freedom < 3
    assert spread_of_accuracy(alone).freedom > 100


def test_a_handful_of_differing_examples_is_no_certainty():
    """Four examples of a thousand, all in favour of one row: t over a thousand would call that p = 0.045."""
    same = np.arange(1000) % 4 > 0
    better = same.copy()
    better[np.flatnonzero(~same)[:4]] = True
    found = hierarchical_bootstrap(Scored(np.array([better] * 2)), Scored(np.array([same] * 2)))
    assert found is not None
    assert found.p > 0.1


def test_one_seed_that_varies_is_given_the_luck_of_the_other_row():
    generator = np.random.default_rng(6)
    apart = Scored(np.array([generator.random(500) < share for share in (0.6, 0.7, 0.8)]))
    right_SN = generator.random((1, 500)) < 0.7
    fixed, lucky = Scored(right_SN, varies=False), Scored(right_SN, varies=True)
    luck = seed_luck(apart.correct_SN)
    wider = spread_of_difference(apart, lucky).variance - spread_of_difference(apart, fixed).variance
    assert wider == pytest.approx(luck.variance)
    assert hierarchical_bootstrap(fixed, lucky) is None  # nobody has two seeds


def test_intervals_stay_where_differences_can_be():
    apart = np.array([[True] * 20, [False] * 20, [True] * 20])
    found = hierarchical_bootstrap(Scored(apart), Scored(~apart[:1], varies=False))
    assert found is not None
    assert -1 <= found.low <= found.high <= 1
    assert math.isfinite(found.p)
