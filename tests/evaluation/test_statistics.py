import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas import DataFrame
from scipy.stats import binom, binomtest, f_oneway
from scipy.stats import t as student
from statsmodels.formula.api import ols
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from entailor.evaluation.statistics import (
    accuracy_interval,
    binomial_interval,
    clustering,
    holm,
    mcnemar_exact,
    number_clusters,
    wilson_interval,
)
from entailor.evaluation.variance import Scored, Spread, spread_of_mean


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


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_mid_p_interval_is_where_half_of_what_was_seen_counts(case):
    right, n = case
    found = binomial_interval(right / n, n)
    for bound, tail in ((found.low, 0.025), (found.high, 0.975)):
        if 0 < bound < 1:
            at_least = binom.sf(right - 1, n, bound) - binom.pmf(right, n, bound) / 2
            assert at_least == pytest.approx(tail, abs=1e-9)
    low, high = proportion_confint(right, n, method="beta")  # Clopper and Pearson's is the wider one
    assert low - 1e-9 <= found.low <= found.value <= found.high <= high + 1e-9


def test_agreement_with_statsmodels():
    generator = np.random.default_rng(8)
    for _ in range(3):
        a, b = generator.random((2, 60)) < np.array([[0.8], [0.6]])
        table = [[np.sum(a & b), np.sum(a & ~b)], [np.sum(~a & b), np.sum(~a & ~b)]]
        assert mcnemar_exact(a, b) == pytest.approx(mcnemar(table, exact=True).pvalue, abs=1e-9)
        p_values = generator.random(9) ** 3
        assert holm(list(p_values)) == pytest.approx(list(multipletests(p_values, method="holm")[1]), abs=1e-9)
        low, high = proportion_confint(int(a.sum()), 60, method="wilson")
        found = wilson_interval(float(a.mean()), 60)
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


def test_the_clustered_variance_agrees_with_statsmodels():
    generator = np.random.default_rng(9)
    cluster_N = generator.integers(0, 40, 300)
    cluster_N = np.unique(cluster_N, return_inverse=True)[1]
    value_N = generator.random(300) + generator.random(40)[cluster_N]
    model = OLS(value_N, np.ones(300))
    expected = model.fit(cov_type="cluster", cov_kwds={"groups": cluster_N, "df_correction": True}).bse[0]
    found = spread_of_mean(Scored(value_N[None], False, cluster_N))
    clusters = cluster_N.max() + 1
    # statsmodels multiplies by (n - 1) / (n - 1) x G / (G - 1) for one parameter
    assert found.examples == pytest.approx(expected**2, abs=1e-9)
    assert found.freedom_examples <= clusters - 1


def test_the_intraclass_correlation_is_that_of_a_one_way_analysis_of_variance():
    generator = np.random.default_rng(4)
    cluster_N = np.repeat(np.arange(50), 6)
    right_N = generator.random(300) < generator.random(50)[cluster_N]
    f = f_oneway(*right_N.reshape(50, 6).astype(float)).statistic
    found = clustering([Scored(right_N[None], False, cluster_N)])
    assert found.intraclass_correlation == pytest.approx((f - 1) / (f + 5), abs=1e-9)


def test_seeds_and_their_disagreement_are_those_of_a_two_way_analysis_of_variance():
    generator = np.random.default_rng(6)
    value_SN = generator.random((4, 30)) + generator.random(30) + generator.random((4, 1))
    factors = {"value": value_SN.ravel(), "seed": np.repeat(np.arange(4), 30), "example": np.tile(np.arange(30), 4)}
    mean_square = anova_lm(ols("value ~ C(seed) + C(example)", DataFrame(factors)).fit())["mean_sq"]
    found = Scored(value_SN).seed_variance
    assert found.between == pytest.approx(mean_square["C(seed)"] / 30, abs=1e-9)
    assert found.disagreement == pytest.approx(mean_square["Residual"] / 30, abs=1e-9)


@pytest.mark.parametrize("freedom", [1, 1.5, 2, 2.7, 4, 8, 30])
def test_where_seeds_or_examples_are_everything_the_test_is_scipys_t(freedom):
    for difference in (0.3, 1.0, 2.5, 6.0, 20.0):
        expected = 2 * student.sf(difference, freedom)
        for spread in (Spread(0.0, math.inf, 1.0, 0.0, freedom), Spread(1.0, freedom)):
            assert spread.p(difference) == pytest.approx(expected, abs=1e-9)
            assert spread.p_below(-difference) == pytest.approx(expected / 2, abs=1e-9)
    assert Spread(1.0, freedom).half_width() == pytest.approx(student.ppf(0.975, freedom), rel=1e-9)


def test_an_accuracy_of_one_seed_has_the_binomial_interval():
    right_SN = np.random.default_rng(2).random((1, 200)) < 0.7
    found, expected = accuracy_interval(Scored(right_SN)), binomial_interval(float(right_SN.mean()), 200)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_repeated_examples_count_once():
    right_N = np.random.default_rng(2).random(100) < 0.7
    five = Scored(np.repeat(right_N, 5)[None], cluster_N=np.repeat(np.arange(100), 5))
    once, repeated = accuracy_interval(Scored(right_N[None])), accuracy_interval(five)
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high), abs=0.01)
    found = clustering([five])
    assert (found.clusters, found.largest) == (100, 5)
    assert found.intraclass_correlation == pytest.approx(1.0)
    assert found.design_effect == pytest.approx(5, rel=0.05)
    assert found.effective_examples == pytest.approx(100, abs=5)


def test_one_cluster_alone_is_no_cluster():
    assert number_clusters(["premise"] * 5) is None
    assert number_clusters(list("abcde")) is None
    assert list(number_clusters(list("abab"))) == [0, 1, 0, 1]


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
    assert found == binomial_interval(share, 50)
    assert found.high > found.low
