"""Pitfall 21: test set used for tuning; a lucky seed published; no interval (peft#3546)."""

import numpy as np

from entailor.evaluation.statistics import mcnemar_exact, wilson_interval


def test_usual_the_best_of_many_coins_looks_better_than_a_coin():
    """Twenty settings that are all guessing, the best by test accuracy published against one baseline run."""
    rng = np.random.default_rng(0)
    gains = [rng.binomial(300, 0.5, 20).max() / 300 - rng.binomial(300, 0.5) / 300 for _ in range(200)]
    assert np.mean(gains) > 0.04


def test_ours_cannot_tell_guessing_from_guessing():
    rng = np.random.default_rng(1)
    guesses = rng.random((200, 2, 1, 300)) < 0.5
    told = [mcnemar_exact(one[0], other[0]) < 0.05 for one, other in guesses]
    assert np.mean(told) <= 0.07
    assert wilson_interval(0.5, 300).high - wilson_interval(0.5, 300).low > 0.1


def test_ours_gives_every_row_an_interval_and_a_paired_test(finished_run):
    rows = finished_run.summary["candidates"]
    assert all(row["accuracy"]["low"] <= row["accuracy"]["mean"] <= row["accuracy"]["high"] for row in rows)
    assert all(0 <= row["difference_to_best"]["p_holm"] <= 1 for row in rows if not row["best"])
    assert any(row["tied_with_best"] for row in rows if not row["best"])
    assert len({row["num_seeds"] for row in rows if row["method"] == "lora"}) == 1
    # what is shipped is the first seed's, not the luckiest one's
    assert finished_run.winner is not None
    assert finished_run.winner.name == "seed-0"
