import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from entailor.evaluation.variance import Scored
from entailor.evaluation.statistics import accuracy_interval, holm, mcnemar_exact, wilson_interval


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_agrees_with_scipy_where_scipy_has_it(case):
    right, n = case
    expected = binomtest(right, n).proportion_ci(method="wilson")
    found = wilson_interval(right / n, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_wilson_takes_means_over_seeds():
    assert wilson_interval(0.5, 3).low < wilson_interval(1.6 / 3, 3).low < wilson_interval(2 / 3, 3).low


def test_mcnemar_counts_only_where_the_two_differ():
    a = np.array([True] * 90 + [True] * 9 + [False] * 1)
    b = np.array([True] * 90 + [False] * 9 + [True] * 1)
    assert mcnemar_exact(a, b) == pytest.approx(2 * (1 + 10) / 2**10)  # 1 or fewer of 10, both tails
    assert mcnemar_exact(a, b) == mcnemar_exact(b, a)
    assert mcnemar_exact(a, a) == 1.0


def test_holm_worked_by_hand():
    # Holm (1979): 4 x 0.005, 3 x 0.01, 2 x 0.03, then 0.04 may not fall below the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_between_uncorrected_and_bonferroni(p_values):
    corrected = holm(p_values)
    for p, q in zip(p_values, corrected, strict=True):
        assert p <= q <= 1.0
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(corrected)[order]) >= 0)
    assert corrected[order[0]] == min(1.0, p_values[order[0]] * len(p_values))


def test_an_accuracy_of_one_seed_has_wilsons_interval():
    right_SN = np.random.default_rng(2).random((1, 200)) < 0.7
    assert accuracy_interval(Scored(right_SN)) == wilson_interval(float(right_SN.mean()), 200)


def test_seeds_that_agree_on_everything_add_nothing():
    right_N = np.random.default_rng(2).random(200) < 0.7
    one, three = accuracy_interval(Scored(right_N[None, :])), accuracy_interval(Scored(np.array([right_N] * 3)))
    assert (three.low, three.high) == pytest.approx((one.low, one.high), abs=0.002)


def test_seeds_far_apart_widen_the_interval():
    generator = np.random.default_rng(3)
    close = np.array([generator.random(400) < share for share in (0.7, 0.7, 0.7)])
    apart = np.array([generator.random(400) < share for share in (0.5, 0.7, 0.9)])
    narrow, wide = accuracy_interval(Scored(close)), accuracy_interval(Scored(apart))
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)
    assert 0 <= wide.low <= wide.value <= wide.high <= 1


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_right_or_all_wrong_still_has_an_interval(share):
    found = accuracy_interval(Scored(np.full((3, 50), share == 1.0)))
    assert found == wilson_interval(share, 50)
    assert found.high > found.low
