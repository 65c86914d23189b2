"""Power laws found again from noisy points, poor fits refused, crossings told only where they are sure."""

from __future__ import annotations

import numpy as np
import pytest

from entailor.errors import RunError
from entailor.evaluation.learning_curve import CandidateCurve, describe_curves, fit_power_law, fit_resampled
from entailor.runs.record import Prediction, RunRecord

SIZES = (50, 100, 200, 400, 800)


def record(name: str, right: np.ndarray) -> RunRecord:
    predictions = tuple(
        Prediction(str(i), "a", {"a": 0.9, "b": 0.1} if ok else {"a": 0.1, "b": 0.9}) for i, ok in enumerate(right)
    )
    return RunRecord("m", name, name, 0, ("a", "b"), predictions=predictions)


def curve(name: str, errors: list[float], num_test: int = 2000, sizes: tuple[int, ...] = SIZES) -> CandidateCurve:
    """A row whose examples have a fixed difficulty, so that points of a curve share their mistakes."""
    difficulty = np.random.default_rng(1).permutation(num_test) / num_test
    found = {size: [record(name, difficulty >= error)] for size, error in zip(sizes, errors, strict=True)}
    return CandidateCurve("m", name, found)


def law(a: float, b: float, c: float) -> list[float]:
    return [a * n**-b + c for n in SIZES]


@pytest.mark.parametrize(("a", "b", "c"), [(1.5, 0.5, 0.1), (0.8, 0.25, 0.0), (3.0, 0.9, 0.3)])
def test_a_law_is_found_again(a, b, c):
    found = fit_power_law(SIZES, law(a, b, c))
    assert found is not None
    assert [found.error(n) for n in (50, 1600)] == pytest.approx([a * n**-b + c for n in (50, 1600)], abs=1e-3)
    assert found.b == pytest.approx(b, abs=0.05)


def test_many_curves_at_once_are_fitted_as_each_alone():
    errors = np.array([law(1.5, 0.5, 0.1), law(0.8, 0.3, 0.05), law(2.0, 0.7, 0.0)])
    errors += np.random.default_rng(0).normal(0, 0.004, errors.shape)
    for one, many in zip(errors, fit_resampled(SIZES, errors), strict=True):
        alone = fit_power_law(SIZES, one)
        assert alone is not None
        for n in (50, 800, 1600):
            assert many.error(n) == pytest.approx(alone.error(n), abs=2e-3)


def test_predictions_have_intervals_that_hold_the_truth():
    document = describe_curves([curve("one", law(1.5, 0.5, 0.1))])
    (row,) = document["candidates"]
    assert row["refused"] is None
    assert row["fit"]["r2"] > 0.99
    for one in row["predicted"]:
        truth = 1 - (1.5 * one["n"] ** -0.5 + 0.1)
        assert one["low"] <= truth <= one["high"]
        assert one["gain_low"] <= one["gain"] <= one["gain_high"]
    assert [one["n"] for one in row["predicted"]] == [1600, 8000]
    assert "2 times as many (1,600) would give" in document["sentence"]
    assert document["sentence"].endswith("More labels are worth it.")


def test_a_curve_that_is_level_at_its_end_says_so():
    document = describe_curves([curve("one", law(40.0, 1.5, 0.2))])
    assert document["sentence"].endswith("Twice the labels would gain less than a point.")


@pytest.mark.parametrize(
    ("errors", "sizes", "why"),
    [
        ([0.5, 0.4, 0.3], (50, 100, 200), "3 sizes; a fit needs 4"),
        ([0.3, 0.3, 0.3, 0.3, 0.3], SIZES, "accuracy does not rise"),
        ([0.3, 0.5, 0.2, 0.45, 0.28], SIZES, "the power law explains"),
    ],
)
def test_a_poor_fit_is_refused_with_the_reason(errors, sizes, why):
    document = describe_curves([curve("one", errors, sizes=sizes)])
    (row,) = document["candidates"]
    assert why in row["refused"]
    assert (row["fit"], row["predicted"]) == (None, [])
    assert "is not predicted" in document["sentence"]


def test_a_prediction_that_says_nothing_is_refused():
    noisy = curve("one", [0.62, 0.6, 0.5, 0.48, 0.44], num_test=40)
    (row,) = describe_curves([noisy])["candidates"]
    told = [one for one in row["predicted"] if "refused" not in one]
    assert row["refused"] or len(told) < 2


def test_a_sure_crossing_is_told_with_its_place_and_an_unsure_one_is_not():
    slow, quick = curve("slow", [0.5, 0.4, 0.3, 0.2, 0.1]), curve("quick", [0.35, 0.34, 0.33, 0.32, 0.31])
    document = describe_curves([slow, quick])
    (crossing,) = document["crossings"]
    assert (crossing["method"], crossing["over_method"]) == ("slow", "quick")
    assert crossing["between"] == [100, 200]
    assert 100 < crossing["at"] < 200
    assert [one["method"] for one in document["best"]] == ["quick", "quick", "slow", "slow", "slow"]
    assert describe_curves([quick, curve("twin", [0.35, 0.34, 0.33, 0.32, 0.309])])["crossings"] == []


def test_the_same_curves_give_the_same_document():
    rows = [curve("one", law(1.5, 0.5, 0.1)), curve("two", law(1.0, 0.3, 0.0))]
    assert describe_curves(rows) == describe_curves(rows)


def test_points_over_other_examples_are_refused():
    other = curve("two", law(1.5, 0.5, 0.1), num_test=100)
    with pytest.raises(RunError, match="tested on other examples"):
        describe_curves([curve("one", law(1.5, 0.5, 0.1)), other])


def test_nothing_yet():
    assert describe_curves([])["candidates"] == []
