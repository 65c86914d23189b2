import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_rel

from entailor.evaluation.pairs import compact_letters, compare_all, compare_scored
from entailor.evaluation.statistics import mcnemar_exact
from entailor.evaluation.variance import Scored


def right(share, seeds=1, seed=0, examples=300):
    return np.random.default_rng([seed, round(1000 * share)]).random((seeds, examples)) < share


def test_interval_and_p_value_never_contradict_each_other():
    for seed in range(40):
        found = compare_scored(Scored(right(0.7, 1 + seed % 3, seed)), Scored(right(0.64, 1 + seed % 2, seed + 99)))
        assert (found.low <= 0 <= found.high) == (found.p >= 0.05)


def test_one_seed_of_a_method_that_varies_says_nothing_of_methods():
    a, b = right(0.8), right(0.6)
    assert not compare_scored(Scored(a), Scored(b)).holds_seeds
    assert compare_scored(Scored(a, False), Scored(b, False)).holds_seeds
    assert compare_scored(Scored(right(0.8, 3)), Scored(b)).holds_seeds


def test_one_seed_and_independent_examples_agree_with_scipys_paired_t():
    a, b = right(0.8)[0], right(0.6)[0]
    found = compare_scored(Scored(a[None], False), Scored(b[None], False))
    expected = ttest_rel(a.astype(float), b.astype(float))
    assert found.value / math.sqrt(found.spread.variance) == pytest.approx(expected.statistic, abs=1e-9)


def test_the_set_that_may_be_best():
    pairs = compare_all({"a": Scored(right(0.9, 3)), "twin": Scored(right(0.9, 3)), "c": Scored(right(0.3, 3))})
    assert [pairs.may_be_best(name) for name in ("a", "twin", "c")] == [True, True, False]
    assert compare_all({"a": Scored(right(0.5))}).may_be_best("a")


def test_mcnemar_is_that_of_the_classifiers_that_ship():
    a, b = right(0.8, 3), right(0.6, 2)
    found = compare_scored(Scored(a), Scored(b))
    assert found.p_mcnemar == mcnemar_exact(a[0], b[0])
    assert found.discordant == np.mean(a[0] != b[0])


def test_a_difference_is_the_same_from_both_sides():
    pairs = compare_all({"a": Scored(right(0.8, 3)), "b": Scored(right(0.6))})
    there, back = pairs.between("a", "b"), pairs.between("b", "a")
    assert (back.value, back.low, back.high) == (-there.value, -there.high, -there.low)
    assert (back.p, back.p_holm) == (there.p, there.p_holm)
    assert not pairs.significant("a", "a")


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 10])
def test_where_one_is_right_on_all_and_the_other_on_none_as_in_a_sign_test(count):
    """The variance seen is 0, and one example was a significant difference."""
    for cluster_N in (None, np.repeat(np.arange(count), 20)):
        size = count if cluster_N is None else 20 * count
        all_right, none = (Scored(np.full((1, size), right), False, cluster_N) for right in (True, False))
        found = compare_scored(all_right, none)
        assert found.p == pytest.approx(binomtest(count, count).pvalue, abs=0.15)
        assert (found.p < 0.05) == (count >= 6)


def test_two_clusters_that_happen_to_agree_show_nothing():
    """With two clusters of 20 their differences are equal in one of ten runs, which was called significant."""
    generator, cluster_N = np.random.default_rng(0), np.repeat([0, 1], 20)
    found = [
        compare_scored(*(Scored(generator.random((1, 40)) < 0.8, False, cluster_N) for _ in range(2))).p < 0.05
        for _ in range(400)
    ]
    assert np.mean(found) < 0.05


@pytest.mark.parametrize("count", [20, 40, 79, 81, 300])
def test_the_same_answers_on_few_examples_do_not_show_that_two_are_alike(count):
    """Nothing was seen of what may be 1 - 0.2^(1/n) at 80 % confidence; the interval had no width at all."""
    same = Scored(np.arange(count)[None] % 5 > 0, False)
    found = compare_scored(same, same)
    assert found.p == 1.0
    assert -found.lower_bound(0.8) == pytest.approx(1 - 0.2 ** (1 / count), rel=0.06)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / count), rel=0.2)
    assert (found.lower_bound(0.8) > -0.02) == (count > 80)


def test_the_same_classifier_under_two_names_is_never_told_apart():
    one = right(0.7, 3)
    pairs = compare_all({"a": Scored(one), "twin": Scored(one), "c": Scored(right(0.3, 3))})
    assert pairs.between("a", "twin").p_holm == pytest.approx(1.0)
    assert pairs.letters["a"] == pairs.letters["twin"]


def test_every_pair_is_corrected_for_all():
    rows = {name: Scored(right(share)) for name, share in (("a", 0.8), ("b", 0.7), ("c", 0.6), ("d", 0.5))}
    pairs = compare_all(rows)
    assert set(pairs.differences) == set(combinations("abcd", 2))
    smallest = min(pairs.differences.values(), key=lambda one: one.p)
    assert smallest.p_holm == pytest.approx(min(1.0, 6 * smallest.p))


def test_many_rows_can_still_be_told_apart():
    """Forty candidates are 780 pairs."""
    rows = {i: Scored(right(0.9 if i else 0.2, 5, seed=i, examples=100)) for i in range(40)}
    assert compare_all(rows).significant(0, 1)


def test_no_rows_and_one_row():
    assert compare_all({}).letters == {}
    assert compare_all({"a": Scored(right(0.5))}).letters == {"a": "a"}


def test_letters_worked_by_hand():
    assert compact_letters("abc", set()) == {"a": "a", "b": "a", "c": "a"}
    assert compact_letters("abc", {("a", "c")}) == {"a": "a", "b": "ab", "c": "b"}
    assert compact_letters("abc", {("a", "b"), ("a", "c"), ("b", "c")}) == {"a": "a", "b": "b", "c": "c"}
    # Piepho (2004): what is not significantly different need not be a chain
    assert compact_letters("abcd", {("a", "b"), ("c", "d")}) == {"a": "ab", "b": "cd", "c": "ac", "d": "bd"}


@given(
    st.integers(1, 8).flatmap(
        lambda n: st.tuples(st.just(n), st.sets(st.sampled_from(list(combinations(range(n), 2)) or [(0, 0)])))
    )
)
def test_rows_share_a_letter_exactly_when_they_are_not_told_apart(case):
    n, differing = case
    differing.discard((0, 0))
    letters = compact_letters(range(n), differing)
    assert all(letters.values())
    for a, b in combinations(range(n), 2):
        assert bool(set(letters[a]) & set(letters[b])) == ((a, b) not in differing)


def test_letters_go_on_behind_z():
    rows = list(range(30))
    letters = compact_letters(rows, set(combinations(rows, 2)))
    assert letters[25] == "z"
    assert letters[26] == "a1"
