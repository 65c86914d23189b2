import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entailor.evaluation.calibration import expected_calibration_error, reliability_bins


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
