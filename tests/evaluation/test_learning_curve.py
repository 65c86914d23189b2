"""Predictions that hold the truth or are refused, crossings told only where sure, and labels that adapting takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from entailor.errors import RunError
from entailor.evaluation.learning_curve import CandidateCurve, describe_curves
from entailor.evaluation.learning_laws import LAWS, fit, predict
from entailor.runs.record import Prediction, RunRecord

SIZES = (50, 100, 200, 400, 800)


def record(name: str, right: np.ndarray, deterministic: bool = True) -> RunRecord:
    predictions = tuple(
        Prediction(str(i), "a", {"a": 0.9, "b": 0.1} if ok else {"a": 0.1, "b": 0.9}) for i, ok in enumerate(right)
    )
    provenance = {"deterministic": deterministic}
    return RunRecord("m", name, name, 0, ("a", "b"), predictions=predictions, provenance=provenance)


def curve(name: str, errors: list[float], num_test: int = 2000, sizes: tuple[int, ...] = SIZES) -> CandidateCurve:
    """A candidate whose examples have a fixed difficulty, so that points of a curve share their mistakes."""
    difficulty = np.random.default_rng(1).permutation(num_test) / num_test
    found = {size: [record(name, difficulty >= error)] for size, error in zip(sizes, errors, strict=True)}
    return CandidateCurve("m", name, found)


def law(a: float, b: float, c: float) -> list[float]:
    return [a * n**-b + c for n in SIZES]


TRUTHS = {
    "power": lambda n: 0.85 - 1.2 * n**-0.5,
    "logarithmic": lambda n: 0.45 + 0.045 * np.log(n),
    "sigmoid": lambda n: 0.5 + 0.35 / (1 + np.exp(-1.5 * (np.log(n) - np.log(150)))),
}


@pytest.mark.parametrize("name", LAWS)
def test_a_law_is_found_again(name):
    accuracy = np.array([TRUTHS[name](n) for n in SIZES])
    found = fit(name, SIZES, accuracy[None])
    assert [found.accuracy(n)[0] for n in SIZES] == pytest.approx(accuracy, abs=0.005)
    assert found.accuracy(1600)[0] == pytest.approx(TRUTHS[name](1600), abs=0.02)


def noisy(name, rng, draws=100):
    """A curve as seen, and resamples of it, with a deviation of a point at each size."""
    seen_N = np.array([TRUTHS[name](n) for n in SIZES]) + 0.01 * rng.standard_normal(len(SIZES))
    return seen_N, seen_N + 0.01 * rng.standard_normal((draws, len(SIZES)))


@pytest.mark.parametrize("name", LAWS)
def test_predictions_hold_the_truth_of_every_law_in_90_of_100(name):
    rng, held = np.random.default_rng(3), []
    for _ in range(12):
        found = predict(SIZES, *noisy(name, rng))
        held += [one["low"] <= TRUTHS[name](factor * SIZES[-1]) <= one["high"] for factor, one in found.at.items()]
    assert len(held) >= 18
    assert np.mean(held) >= 0.9


def test_what_rises_faster_and_faster_is_not_continued():
    late_N = np.array([0.5 + 0.4 / (1 + np.exp(-2.2 * (np.log(n) - np.log(900)))) for n in SIZES])
    drawn_DN = late_N + 0.008 * np.random.default_rng(4).standard_normal((200, len(SIZES)))
    found = predict(SIZES, late_N, drawn_DN)
    assert found.at == {}
    assert "where it levels off cannot be seen yet" in (found.refused or "")


def test_the_sentence_says_whether_more_labels_pay():
    document = describe_curves([curve("one", law(2.5, 0.5, 0.05))])
    (found,) = document["candidates"]
    assert found["refused"] is None
    for one in found["predicted"]:
        assert one["low"] <= 1 - (2.5 * one["n"] ** -0.5 + 0.05) <= one["high"]
        assert one["gain_low"] <= one["gain"] <= one["gain_high"]
    assert [one["n"] for one in found["predicted"]] == [1600, 8000]
    assert "2 times as many (1,600) would give" in document["sentence"]


def test_where_every_law_passes_all_right_nothing_is_said():
    sizes = (96, 384, 1536, 3000)
    one = curve("one", [0.45 - 0.05 * np.log(n) for n in sizes], sizes=sizes)  # none at 8,100
    seeded = {
        n: [replace(records[0], seed=seed, provenance={"deterministic": False}) for seed in range(3)]
        for n, records in one.sizes.items()
    }
    document = describe_curves([CandidateCurve("m", "one", seeded)])
    (found,) = document["candidates"]
    assert found["laws"] == ["logarithmic"]
    twice, ten = found["predicted"]
    assert twice["accuracy"] == pytest.approx(0.976, abs=0.01)
    assert "refused" not in twice
    assert "the law would pass 100 %: accuracy levels off before" in ten["refused"]
    assert "10 times as many cannot be said (the law would pass 100 %" in document["sentence"]


@pytest.mark.parametrize(
    ("errors", "sizes", "why"),
    [
        ([0.5, 0.4, 0.3], (50, 100, 200), "3 sizes; a prediction needs 4"),
        ([0.3, 0.3, 0.3, 0.3, 0.3], SIZES, "accuracy does not surely rise"),
        ([0.5, 0.2, 0.45, 0.2, 0.4], SIZES, "no law foresees"),
    ],
)
def test_what_cannot_be_predicted_is_refused_with_the_reason(errors, sizes, why):
    document = describe_curves([curve("one", errors, sizes=sizes)])
    (found,) = document["candidates"]
    assert why in found["refused"]
    assert found["predicted"] == []
    assert "is not predicted" in document["sentence"]


def test_nothing_is_predicted_from_one_seed():
    one = curve("one", law(1.5, 0.5, 0.1))
    seeded = {n: [record("one", np.ones(len(records[0].predictions)), False)] for n, records in one.sizes.items()}
    (found,) = describe_curves([CandidateCurve("m", "one", seeded)])["candidates"]
    assert found["refused"] == "one seed; a prediction needs two or more at every size"


def test_a_sure_crossing_is_told_with_its_place_and_an_unsure_one_is_not():
    slow, quick = curve("slow", [0.5, 0.4, 0.3, 0.2, 0.1]), curve("quick", [0.35, 0.34, 0.33, 0.32, 0.31])
    document = describe_curves([slow, quick])
    (crossing,) = document["crossings"]
    assert (crossing["method"], crossing["over_method"]) == ("slow", "quick")
    assert crossing["between"] == [100, 200]
    assert 100 < crossing["at"] < 200
    assert [one["method"] for one in document["best"]] == ["quick", "quick", "slow", "slow", "slow"]
    assert [one["sure"] for one in document["best"]] == [True] * 5
    twins = describe_curves([quick, curve("twin", [0.35, 0.34, 0.33, 0.32, 0.309])])
    assert (twins["crossings"], twins["best"][0]["sure"]) == ([], False)


def test_how_many_labels_it_takes_to_beat_the_best_that_needs_none():
    learns = curve("learns", [0.5, 0.4, 0.3, 0.2, 0.1])
    asked = curve("asked", [0.25], sizes=(800,))
    worse = curve("worse", [0.6], sizes=(800,))
    (found,) = describe_curves([learns], [worse, asked])["overtakes_untrained"]
    assert (found["method"], found["over_method"]) == ("learns", "asked")
    assert found["at"] == pytest.approx(200 * 2**0.5, rel=0.01)
    assert 200 < found["low"] < found["at"] < found["high"] < 400
    (never,) = describe_curves([learns], [curve("asked", [0.02], sizes=(800,))])["overtakes_untrained"]
    assert (never["at"], never["low"], never["high"], never["before_first"]) == (None, 800, None, False)
    (always,) = describe_curves([learns], [curve("asked", [0.7], sizes=(800,))])["overtakes_untrained"]
    assert (always["at"], always["low"], always["high"], always["before_first"]) == (None, None, 50, True)


def test_the_interval_of_labels_holds_the_truth():
    """Three seeds that lie a point apart; the truth is where the curve meets the line in a world without chance."""
    rng, held, truth = np.random.default_rng(5), 0, 200
    level, runs = TRUTHS["logarithmic"](truth), 12
    for _ in range(runs):
        shared_N = rng.standard_normal(400)

        def drawn(p, seeds, shared_N=shared_N):
            own_S = p + (0.01 * rng.standard_normal(seeds) if seeds > 1 else np.zeros(1))
            latent_SN = np.sqrt(0.5) * shared_N + np.sqrt(0.5) * rng.standard_normal((seeds, 400))
            return [record("x", right_N, seeds == 1) for right_N in latent_SN < norm.ppf(own_S)[:, None]]

        one = CandidateCurve("m", "one", {n: drawn(TRUTHS["logarithmic"](n), 3) for n in SIZES})
        (found,) = describe_curves([one], [CandidateCurve("m", "asked", {800: drawn(level, 1)})])["overtakes_untrained"]
        held += (found["low"] or 0) <= truth <= (found["high"] or np.inf)
    assert held >= runs - 1


def test_the_same_curves_give_the_same_document():
    rows = [curve("one", law(1.5, 0.5, 0.1)), curve("two", law(1.0, 0.3, 0.0))]
    assert describe_curves(rows) == describe_curves(rows)


def test_points_over_other_examples_are_refused():
    other = curve("two", law(1.5, 0.5, 0.1), num_test=100)
    with pytest.raises(RunError, match="tested on other examples"):
        describe_curves([curve("one", law(1.5, 0.5, 0.1)), other])


def test_nothing_yet():
    assert describe_curves([])["candidates"] == []
