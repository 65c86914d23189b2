import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entailor.evaluation.calibration import (
    abstaining,
    apply_temperature,
    area_over_coverage,
    coverage_curve,
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
)
from entailor.evaluation.calibration_error import calibration_error


def test_confident_and_always_right_is_calibrated():
    assert expected_calibration_error(np.ones(50), np.ones(50, dtype=bool)) == 0.0


def test_confident_and_always_wrong_is_as_wrong_as_can_be():
    assert expected_calibration_error(np.ones(50), np.zeros(50, dtype=bool)) == 1.0


def test_worked_by_hand():
    confidence = np.array([0.62, 0.64, 0.95, 0.97])
    correct = np.array([True, False, True, True])
    bins = reliability_bins(confidence, correct)
    assert [one.n for one in bins] == [2, 2]
    assert bins[0].confidence == pytest.approx(0.63)
    assert bins[0].accuracy == 0.5
    assert expected_calibration_error(confidence, correct) == pytest.approx(0.5 * 0.13 + 0.5 * 0.04)


def test_edges_belong_to_the_bin_below():
    bins = reliability_bins(np.array([0.0, 0.5, 1.0]), np.ones(3, dtype=bool), num_bins=2)
    assert [(one.low, one.high, one.n) for one in bins] == [(0.0, 0.5, 2), (0.5, 1.0, 1)]


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_bins_hold_everything_and_the_error_is_a_share(pairs):
    confidence = np.array([pair[0] for pair in pairs])
    correct = np.array([pair[1] for pair in pairs])
    bins = reliability_bins(confidence, correct)
    assert sum(one.n for one in bins) == len(pairs)
    for one in bins:
        assert one.low - 1e-9 <= one.confidence <= one.high + 1e-9
    assert 0 <= expected_calibration_error(confidence, correct) <= 1


def confident(temperature, n=4000, seed=0):
    """Return probabilities that are right as often as they say at some temperature, and the gold labels."""
    generator = np.random.default_rng(seed)
    logits_NL = 2.0 * generator.standard_normal((n, 3))
    honest_NL = np.exp(logits_NL) / np.exp(logits_NL).sum(axis=1, keepdims=True)
    gold_N = (generator.random((n, 1)) > honest_NL.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    return apply_temperature(honest_NL, 1 / temperature), gold_N


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(temperature):
    probabilities_NL, gold_N = confident(temperature)
    assert fit_temperature(probabilities_NL, gold_N) == pytest.approx(temperature, rel=0.07)


def test_scaling_mends_calibration_on_other_examples_and_changes_no_prediction():
    fitted = fit_temperature(*confident(2.5, seed=1))
    probabilities_NL, gold_N = confident(2.5, seed=2)
    scaled_NL = apply_temperature(probabilities_NL, fitted)
    said_N = probabilities_NL.argmax(axis=1)
    assert np.array_equal(scaled_NL.argmax(axis=1), said_N)
    before = expected_calibration_error(probabilities_NL.max(axis=1), said_N == gold_N)
    after = expected_calibration_error(scaled_NL.max(axis=1), said_N == gold_N)
    assert before > 0.1
    assert after < 0.03


def test_twenty_examples_that_are_all_right_do_not_ask_for_certainty():
    probabilities_NL = np.tile([0.8, 0.1, 0.1], (20, 1))
    fitted = fit_temperature(probabilities_NL, np.zeros(20, dtype=int))
    assert 0.3 < fitted < 1.0
    assert apply_temperature(probabilities_NL, fitted)[0, 0] < 0.999


def test_probabilities_of_zero_are_taken():
    probabilities_NL = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    fitted = fit_temperature(probabilities_NL, np.array([0, 1, 1]))
    assert 0.05 <= fitted <= 20.0
    assert apply_temperature(probabilities_NL, fitted).sum(axis=1) == pytest.approx(1.0)


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=5), st.floats(0.05, 20))
def test_a_temperature_keeps_probabilities_and_their_order(weights, temperature):
    probabilities_NL = np.array([weights]) / np.sum(weights)
    scaled_NL = apply_temperature(probabilities_NL, temperature)
    assert scaled_NL.sum() == pytest.approx(1)
    assert apply_temperature(probabilities_NL, 1.0) == pytest.approx(probabilities_NL)
    assert scaled_NL[0, probabilities_NL.argmax()] == scaled_NL.max()


def test_coverage_worked_by_hand():
    confidence_N = np.array([0.9, 0.6, 0.8, 0.7])
    correct_N = np.array([True, False, True, False])
    points = coverage_curve(confidence_N, correct_N, (1.0, 0.75, 0.5, 0.25))
    assert [point.accuracy for point in points] == pytest.approx([0.5, 2 / 3, 1.0, 1.0])
    assert [point.confidence for point in points] == [0.6, 0.7, 0.8, 0.9]
    assert area_over_coverage(confidence_N, correct_N) == pytest.approx(1 - (1 + 1 + 2 / 3 + 0.5) / 4)


def test_equal_confidence_says_nothing_of_which_to_answer():
    correct_N = np.array([True, True, False, False])
    for order in (correct_N, correct_N[::-1]):
        assert {point.accuracy for point in coverage_curve(np.full(4, 0.5), order)} == {0.5}


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_everything_answered_is_the_accuracy(pairs):
    confidence_N, correct_N = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    points = coverage_curve(confidence_N, correct_N)
    assert points[0].coverage == 1.0
    assert points[0].accuracy == pytest.approx(correct_N.mean())
    assert points[0].confidence == confidence_N.min()
    assert 0 <= area_over_coverage(confidence_N, correct_N) <= 1


@pytest.mark.parametrize("off", [0.0, 0.1])
@pytest.mark.parametrize("n", [50, 400])
def test_the_debiased_error_is_that_of_the_classifier_and_not_of_few_examples(n, off):
    rng, found = np.random.default_rng(n), []
    for _ in range(40):
        confidence_N = 0.6 + 0.4 * rng.beta(2, 1, n)
        found.append(calibration_error(confidence_N, rng.random(n) < confidence_N - off))
    assert np.mean([one.low <= off <= one.high for one in found]) >= 0.9
    squares = np.mean([one.value**2 for one in found])  # cut off at 0, so a little above where the truth is 0
    assert squares == pytest.approx(off**2, abs=0.3 / n)


def test_repeated_examples_know_no_more_of_calibration():
    rng = np.random.default_rng(6)
    confidence_N = 0.6 + 0.4 * rng.random(120)
    right_N = rng.random(120) < confidence_N - 0.1
    once = calibration_error(confidence_N, right_N)
    repeated = calibration_error(np.repeat(confidence_N, 5), np.repeat(right_N, 5), np.repeat(np.arange(120), 5))
    taken_for_more = calibration_error(np.repeat(confidence_N, 5), np.repeat(right_N, 5))
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high), abs=0.02)
    assert taken_for_more.high - taken_for_more.low < 0.7 * (once.high - once.low)


def test_thresholds_of_validation_promise_no_more_than_they_keep():
    rng, promised, kept = np.random.default_rng(7), [], []
    for _ in range(60):
        confidence_N, validation_V = rng.random(60), rng.random(60)
        correct_N = rng.random(60) < 0.7  # confidence that knows nothing
        (read_off,) = coverage_curve(confidence_N, correct_N, (0.5,))
        (chosen,) = abstaining(validation_V, confidence_N, correct_N, (0.5,))
        promised.append(read_off.coverage)
        kept.append(chosen.coverage)
        assert chosen.accuracy == correct_N[confidence_N >= chosen.confidence].mean()
    assert set(promised) == {0.5}
    assert np.std(kept) > 0.05
    assert np.mean(kept) == pytest.approx(0.5, abs=0.03)


def test_where_no_example_is_sure_enough_nothing_is_right_or_wrong():
    (everything, few) = abstaining(np.full(10, 0.9), np.full(10, 0.5), np.ones(10, dtype=bool), (1.0, 0.5))
    assert (everything.coverage, everything.accuracy) == (1.0, 1.0)
    assert (few.coverage, few.accuracy, few.confidence) == (0.0, None, 0.9)
