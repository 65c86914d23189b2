import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap

from entailor.evaluation.statistics import (
    compare_correctness,
    holm,
    mcnemar_exact,
    paired_bootstrap,
    wilson_interval,
)


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


def test_bootstrap_agrees_with_scipy():
    generator = np.random.default_rng(3)
    a = (generator.random((3, 400)) < 0.7).mean(axis=0)
    b = (generator.random((3, 400)) < 0.6).mean(axis=0)
    found = paired_bootstrap(a, b)
    expected = bootstrap(
        (a - b,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert found.value == pytest.approx(np.mean(a - b))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.004)
    assert found.p < 0.01


def test_bootstrap_is_the_same_each_time_and_mirrors_its_arguments():
    generator = np.random.default_rng(1)
    a, b = generator.random(200) < 0.6, generator.random(200) < 0.5
    assert paired_bootstrap(a * 1.0, b * 1.0) == paired_bootstrap(a * 1.0, b * 1.0)
    assert paired_bootstrap(a * 1.0, b * 1.0).value == -paired_bootstrap(b * 1.0, a * 1.0).value


def test_rows_that_never_differ_cannot_be_told_apart():
    a = np.full(50, 2 / 3)
    found = paired_bootstrap(a, a)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_one_seed_each_is_mcnemar_and_more_is_the_bootstrap():
    generator = np.random.default_rng(0)
    a, b = generator.random((1, 300)) < 0.8, generator.random((1, 300)) < 0.6
    single = compare_correctness(a, b)
    assert single.test.startswith("McNemar")
    assert single.p == mcnemar_exact(a[0], b[0])
    several = compare_correctness(np.concatenate([a, a]), b)
    assert several.test == "paired bootstrap"
    assert several.value == single.value


def test_no_difference_is_rarely_called_one():
    generator = np.random.default_rng(5)
    called = 0
    for _ in range(200):
        a, b = generator.random((2, 150)) < 0.7, generator.random((2, 150)) < 0.7
        called += compare_correctness(a, b).p < 0.05
    assert called <= 20  # 5 % expected: 10, with room for chance
