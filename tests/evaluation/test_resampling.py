"""Several splits: the corrected resampled t-test against its formula, and variance in its components."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t as student

from entailor.evaluation.pairs import compare_all, compare_scored
from entailor.evaluation.power import power_lines
from entailor.evaluation.resampling import Resampling, components, pool
from entailor.evaluation.selection import optimism_of_best
from entailor.evaluation.statistics import accuracy_interval, binomial_interval
from entailor.evaluation.variance import Folds, Scored, spread_of_difference, spread_of_mean
from entailor.runs.record import Costs, Prediction, RunRecord

SHARES = {(5, 1): 1 / 4, (10, 3): 1 / 9, (3, 1): 1 / 2}


def folded(k: int, repeats: int, size: int, *, seeds: int = 2, count: int = 3) -> list[Scored]:
    """Random answers of candidates on folds of one size; an example of a repeat is the same one in the next."""
    rng = np.random.default_rng(k)
    folds = Folds(np.repeat(np.arange(k * repeats), size), SHARES[k, repeats])
    cluster_N = np.tile(np.arange(k * size), repeats) if repeats > 1 else None
    return [Scored(rng.random((seeds, k * repeats * size)) < 0.7, True, cluster_N, None, folds) for _ in range(count)]


@pytest.mark.parametrize(("k", "repeats"), [(5, 1), (10, 3)])
def test_differences_are_those_of_the_corrected_resampled_t_test(k, repeats):
    a, b, _ = folded(k, repeats, 12)
    found = compare_scored(a, b)
    per_fold = [x.values_SN.mean(axis=0).reshape(k * repeats, 12).mean(axis=1) for x in (a, b)]
    gaps = per_fold[0] - per_fold[1]
    error = np.sqrt((1 / (k * repeats) + 1 / (k - 1)) * gaps.var(ddof=1))
    freedom = k * repeats - 1
    assert found.value == pytest.approx(gaps.mean(), abs=1e-12)
    assert found.p == pytest.approx(2 * student.sf(abs(gaps.mean()) / error, freedom), abs=1e-9)
    width = student.ppf(0.975, freedom) * error
    assert (found.low, found.high) == pytest.approx((gaps.mean() - width, gaps.mean() + width), abs=1e-9)
    assert found.lower_bound(0.8) == pytest.approx(gaps.mean() - student.ppf(0.8, freedom) * error, abs=1e-9)
    assert found.p_worse == pytest.approx(student.cdf(gaps.mean() / error, freedom), abs=1e-9)
    assert (found.p_mcnemar, found.holds_seeds) == (None, True)


def test_two_folds_that_happen_to_agree_show_nothing():
    """An example more in each of two folds of ten: the variance between folds is 0, and p was 0."""
    folds = Folds(np.repeat([0, 1], 10), 1.0)
    all_right = Scored(np.ones((1, 20), bool), False, folds=folds)
    found = compare_scored(all_right, replace(all_right, values_SN=np.arange(20)[None] % 10 > 0))
    assert found.p > 0.2
    assert found.low < 0 < found.high
    # what every example shows is found all the same, though the folds agree: a perfect candidate and the baseline
    half = replace(all_right, values_SN=np.arange(20)[None] % 2 > 0)
    assert compare_scored(all_right, half).p < 0.005


def test_a_family_of_candidates_is_corrected_as_elsewhere():
    scored = dict(enumerate(folded(5, 1, 12)))
    pairs = compare_all(scored)
    raw = sorted(one.p for one in pairs.differences.values())
    assert min(one.p_holm for one in pairs.differences.values()) == pytest.approx(min(1.0, 3 * raw[0]))
    assert pairs.p_best(0) == pytest.approx(min(1.0, 2 * min(pairs.between(0, k).p_worse for k in (1, 2))))


def test_an_interval_is_never_narrower_than_its_examples_make_it():
    """Stratified folds: the majority baseline is right equally often in each, and still its share is not known."""
    folds = Folds(np.repeat(np.arange(5), 20), 0.25)
    majority = Scored(np.tile(np.arange(20) < 11, 5)[None], False, None, None, folds)
    assert folds.spread(majority.mean_N).variance == 0
    assert spread_of_mean(majority).variance == pytest.approx(0.55 * 0.45 / 99)
    found, alone = accuracy_interval(majority), binomial_interval(0.55, 100)
    assert found.high - found.low == pytest.approx(alone.high - alone.low, rel=0.05)
    perfect = accuracy_interval(replace(majority, values_SN=np.ones((1, 100), dtype=bool)))
    assert (perfect.value, perfect.high) == (1.0, 1.0)
    assert perfect.low == pytest.approx(binomial_interval(1.0, 100).low)


def test_the_best_of_equal_candidates_is_corrected_by_the_variance_of_folds():
    rng = np.random.default_rng(0)
    folds = Folds(np.repeat(np.arange(5), 20), 0.25)
    equal = [Scored(rng.random((1, 100)) < 0.7, False, None, None, folds) for _ in range(8)]
    assert optimism_of_best(equal) > optimism_of_best([replace(one, folds=None) for one in equal]) > 0


def test_seeds_of_one_split_are_no_further_splits():
    rng = np.random.default_rng(1)
    split_S = np.repeat(np.arange(3), 4)
    rows_SN = (rng.random((3, 60)) < 0.7)[split_S]  # four seeds that agree on everything, on each of three splits
    other_SN = (rng.random((3, 60)) < 0.7)[split_S]
    a, b = Scored(rows_SN, True, None, split_S), Scored(other_SN, True, None, split_S)
    alone_a, alone_b = (Scored(one.values_SN[::4].astype(float)) for one in (a, b))
    assert spread_of_difference(a, b) == spread_of_difference(alone_a, alone_b)
    assert components(a)["seed"] == 0.0


def test_the_components_of_the_variance_are_without_bias():
    rng, found = np.random.default_rng(2), []
    split_S = np.repeat(np.arange(4), 3)
    for _ in range(300):
        level_SN = 0.03 * rng.standard_normal(4)[split_S, None] + 0.02 * rng.standard_normal((12, 1))
        hard_N = 0.4 * rng.standard_normal(200)
        found.append(components(Scored(level_SN + hard_N, True, None, split_S)))
    mean = {name: np.mean([one[name] ** 2 for one in found]) ** 0.5 for name in ("test", "seed", "split")}
    assert mean == pytest.approx({"test": 0.4 / 200**0.5, "seed": 0.02, "split": 0.03}, rel=0.1)


def test_in_folds_test_sample_and_split_are_told_from_each_other():
    rng, found = np.random.default_rng(3), []
    folds = Folds(np.repeat(np.arange(10), 50), 1 / 9)
    for _ in range(300):
        level_J = 0.1 * rng.standard_normal(10)
        found.append(components(Scored((level_J[folds.fold_N] + 0.4 * rng.standard_normal(500))[None], folds=folds)))
    mean = {name: np.mean([one[name] ** 2 for one in found]) ** 0.5 for name in ("test", "split")}
    assert mean == pytest.approx({"test": 0.4 / 50**0.5, "split": 0.1}, rel=0.1)
    assert found[0]["seed"] is None


def record(name: str, ids: str, *, seed: int = 0, right: bool = True, **changes: object) -> RunRecord:
    said = {"yes": 0.9, "no": 0.1} if right else {"yes": 0.2, "no": 0.8}
    predictions = tuple(Prediction(one, "yes", said) for one in ids)
    costs = Costs(train_seconds=2.0 if right else 4.0, peak_memory_bytes=10 if right else 30, stored_bytes=5)
    return replace(RunRecord("none", name, name, seed, ("yes", "no"), costs=costs, predictions=predictions), **changes)


def test_folds_become_one_record_with_the_means_of_costs_and_the_highest_peak():
    way = Resampling("cv", (1, 2), 1, same_test=False, test_share=1.0, num_test=5)
    parts = {1: [record("a", "xy")], 2: [record("a", "zuv", right=False)]}
    found = pool(parts, way)
    (one,) = found.records
    assert [example.id for example in one.predictions] == list("xyzuv")
    assert (one.costs.train_seconds, one.costs.peak_memory_bytes, one.costs.stored_bytes) == (3.0, 30, 5)
    assert found.folds is not None
    assert (found.folds.fold_N.tolist(), found.folds.factor) == ([0, 0, 1, 1, 1], 1.5)


def test_a_seed_that_lacks_a_fold_is_left_out_and_the_others_stay():
    way = Resampling("cv", (1, 2), 1, same_test=False, test_share=1.0, num_test=4)
    broken = record("a", "", seed=1, status="failed", error="no memory", error_type="ModelError")
    parts = {1: [record("a", "xy"), record("a", "xy", seed=1)], 2: [record("a", "zu"), broken]}
    found = pool(parts, way).records
    assert [(one.seed, one.status, one.provenance.get("split")) for one in found] == [
        (0, "complete", None),
        (1, "failed", 2),
    ]


def test_an_example_that_is_tested_twice_keeps_two_answers():
    way = Resampling("cv", (1, 2), 2, same_test=False, test_share=1.0, num_test=2)
    (one,) = pool({1: [record("a", "xy")], 2: [record("a", "yx")]}, way).records
    assert [example.id for example in one.predictions] == [f"{id_} (split {n})" for id_, n in ("x1", "y1", "y2", "x2")]


def test_what_folds_can_show_is_said_before_the_run():
    way = Resampling("cv", (1, 2, 3, 4, 5), 1, same_test=False, test_share=0.25, num_test=400)
    (said,) = power_lines(400, 3, 1, way)
    assert (
        "400 test examples can show a lead of the best of 3 candidates of about 12.1 points" in said
    )  # (t + z) times the deviation
    again = replace(way, numbers=tuple(range(1, 51)), repeats=10)
    (more,) = power_lines(400, 3, 1, again)
    assert "of about 7.4 points" in more
