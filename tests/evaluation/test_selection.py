"""The best of several looks too good; what is taken off is about what it was too good by."""

from __future__ import annotations

import numpy as np
import pytest

from entailor.evaluation.comparison import compare_records
from entailor.evaluation.selection import corrected_best, optimism_of_best
from entailor.evaluation.targets import TARGETS
from entailor.evaluation.variance import Scored
from entailor.report.advice import correction

ACCURACY = TARGETS["accuracy"]


def candidates(rng, accuracies, examples=300):
    """Half of what makes an example hard is shared."""
    shared_N = rng.random(examples)
    own = [np.where(rng.random(examples) < 0.5, shared_N, rng.random(examples)) for _ in accuracies]
    return [Scored((one_N < accuracy)[None], False) for one_N, accuracy in zip(own, accuracies, strict=True)]


@pytest.mark.parametrize(
    ("accuracies", "too_good"),
    [((0.8,) * 8, 0.02), ((0.86, *(0.78,) * 5), -0.01), ((0.8, 0.8, 0.8, 0.7, 0.7), 0.01)],
    ids=["equal", "one ahead", "three ahead"],
)
def test_the_corrected_figure_is_right_in_the_mean_and_its_interval_covers(accuracies, too_good):
    rng, seen, left, held = np.random.default_rng(1), [], [], 0
    for _ in range(60):
        drawn = candidates(rng, accuracies)
        truth = accuracies[int(np.argmax([one.mean for one in drawn]))]
        found = corrected_best(drawn, ACCURACY)
        seen.append(found.value + found.optimism - truth)
        left.append(found.value - truth)
        held += found.low <= truth <= found.high
    assert np.mean(seen) > too_good
    assert abs(np.mean(left)) < 0.015
    assert held >= 54  # 95 % of 60 are 57; 54 or more are seen in 98 of 100 such tests


def test_a_candidate_alone_or_far_ahead_is_not_corrected():
    rng = np.random.default_rng(2)
    assert optimism_of_best(candidates(rng, (0.8,))) == 0.0
    assert optimism_of_best(candidates(rng, (0.9, 0.5, 0.5))) < 0.002


def test_the_luck_of_seeds_is_chosen_too():
    rng = np.random.default_rng(3)
    steady = candidates(rng, (0.8,) * 4)
    lucky = [Scored(np.stack([rng.random(300) < p for p in (0.72, 0.8, 0.88)])) for _ in range(4)]
    assert optimism_of_best(lucky) > optimism_of_best(steady)


def test_it_is_said_in_one_line(record):
    records = [record(name, accuracy=0.7) for name in ("a", "bb", "ccc", "dddd")]
    found = compare_records(records)
    corrected = found["winner"]["corrected"]
    assert corrected["value"] == pytest.approx(found["winner"]["accuracy"]["mean"] - corrected["optimism"])
    assert correction(found).startswith("The best of 4 looks better than it is on the examples it was chosen by: ")
    assert f"accuracy {100 * corrected['value']:.1f} % (" in correction(found)
    assert correction(compare_records(records[:1])) is None
