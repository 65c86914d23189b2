"""How small a difference a test set can show, said before and after a run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from entailor.evaluation.resampling import Resampling
from entailor.evaluation.variance import Spread

POWER = 0.8
SIGNIFICANCE = 0.05
USUAL_DISCORDANT = 0.2  # share of examples on which two classifiers of 70 to 80 % usually part
USUAL_INTERACTION = 0.2  # of the variance over examples, from seeds that disagree about single ones
NEXT_RUNS = 20
USUAL_DEVIATION = 0.01  # between the accuracies of seeds, where nothing is known of them yet


def usual_spread(
    num_test: int, num_seeds: int, discordant: float = USUAL_DISCORDANT, resampling: Resampling | None = None
) -> Spread:
    """Return the chance in a difference of two usual candidates, before anything has been measured.

    Args:
        num_test: test examples.
        num_seeds: of each candidate; with one, seeds are left out, since no test can hold them.
        discordant: share of examples that one candidate gets right and the other wrong.
        resampling: how several splits were made; None for one.
    """
    if resampling is not None and not resampling.same_test:
        splits, repeats = len(resampling.numbers), resampling.repeats
        fold = num_test * (repeats / splits if resampling.kind == "cv" else resampling.test_share)
        return Spread((1 / splits + resampling.test_share) * discordant / fold, splits - 1.0)
    examples, own = discordant / num_test, max(1.0, discordant * num_test - 1)
    if num_seeds < 2:
        return Spread(examples, own)
    disagreement = USUAL_INTERACTION * examples
    seeds = 2 * USUAL_DEVIATION**2 / num_seeds
    return Spread(examples, own, seeds + disagreement, disagreement, 1.5 * (num_seeds - 1))


def usual_of(spreads: Sequence[Spread]) -> Spread:
    """Return the median variance over examples and the mean over seeds of several differences.

    Each difference knows its seeds poorly; their mean is used, with the degrees of freedom a test has for one. The mean
    itself is better known, see :func:`freedom_of_usual`.
    """
    return Spread(
        statistics.median(one.examples for one in spreads),
        statistics.median(one.freedom_examples for one in spreads),
        statistics.fmean(one.between for one in spreads),
        statistics.fmean(one.disagreement for one in spreads),
        statistics.median(one.freedom_seeds for one in spreads),
    )


def freedom_of_usual(spread: Spread, candidates: int) -> float:
    """Return the degrees of freedom of the mean variance between seeds of all pairs: a pair holds two candidates'."""
    return spread.freedom_seeds * candidates / 2


def detectable_difference(spread: Spread, comparisons: int = 1, known: float = math.inf) -> float | None:
    """Return by how much the best must lead so that another is ruled out as the best in 4 of 5 runs.

    The next run will see another variance between seeds than this one, so power is averaged over what it may see. What
    this one saw is no more certain: few seeds give too short a lead more often than too long a one. With 1/known more
    of that variance the lead is found in 75 to 85 of 100 runs, the mean over what runs of three seeds or more say
    (docs/statistics.md).

    Args:
        spread: variance of a difference, and how well one run knows it.
        comparisons: candidates that are compared with the best, for which the level is corrected.
        known: degrees of freedom of `spread.between`; infinite where it is assumed, and not measured.

    Returns:
        A difference, or None where the variance is 0, so that nothing is known of it.
    """
    from scipy.optimize import brentq
    from scipy.special import gammaincinv, ndtr

    if spread.variance <= 0:
        return None
    spread = replace(spread, between=spread.between * (1 + 1 / known))
    seen_R = [1.0]  # of the expected variance between seeds
    if spread.between:
        places_R = (np.arange(NEXT_RUNS) + 0.5) / NEXT_RUNS
        seen_R = list(2 * gammaincinv(spread.freedom_seeds / 2, places_R) / spread.freedom_seeds)
    level = 1 - SIGNIFICANCE / max(1, comparisons)
    bounds_R = np.array([replace(spread, between=seen * spread.between).bound(level) for seen in seen_R])
    deviation = math.sqrt(spread.variance)
    most = float(bounds_R.max()) + 10 * deviation
    return float(brentq(lambda lead: ndtr((lead - bounds_R) / deviation).mean() - POWER, 0, most))


def examples_needed(difference: float, spread: Spread, num_test: int, comparisons: int = 1) -> float:
    """Return how many test examples show a difference in 4 of 5 runs; infinite where only more seeds would.

    Args:
        difference: that is taken to be true.
        spread: as measured on `num_test` examples.
        num_test: test examples there are.
        comparisons: as for :func:`detectable_difference`.
    """
    return _needed(difference, spread, num_test, SIGNIFICANCE / max(1, comparisons))


def examples_for_margin(margin: float, level: float, spread: Spread, num_test: int) -> float:
    """Return how many test examples show in 4 of 5 runs that an equally good candidate is not worse by the margin.

    Args:
        margin: of non-inferiority.
        level: of the one-sided bound.
        spread: as measured on `num_test` examples.
        num_test: test examples there are.
    """
    return _needed(margin, spread, num_test, 1 - level)


def _needed(difference: float, spread: Spread, num_test: int, tail: float) -> float:
    from scipy.special import ndtri

    wanted = (abs(difference) / float(ndtri(1 - tail) + ndtri(POWER))) ** 2 - spread.seeds
    return spread.examples * num_test / wanted if wanted > 0 else math.inf


def power_lines(num_test: int, num_candidates: int, num_seeds: int, resampling: Resampling | None = None) -> list[str]:
    """Return what test size and seeds can show, as sentences for before the run; none for one candidate alone.

    Args:
        num_test: test examples.
        num_candidates: candidates that will be compared.
        num_seeds: of the candidates with the most of them.
        resampling: how several splits were made; None for one.
    """
    if num_candidates < 2:
        return []
    shown = detectable_difference(usual_spread(num_test, num_seeds, resampling=resampling), num_candidates - 1)
    candidates = f"{num_candidates} candidates" if num_candidates > 2 else "two candidates"
    disagree = f"disagree on {USUAL_DISCORDANT:.0%} of the examples"
    if num_seeds > 1 and resampling is None:
        disagree += f" and seeds by {100 * USUAL_DEVIATION:.0f} point"
    if shown is None or shown > USUAL_DISCORDANT:
        said = (
            f"{num_test:,} test examples are too few to show which of {candidates} is best where they {disagree}, "
            "however they differ"
        )
    else:
        said = (
            f"{num_test:,} test examples can show a lead of the best of {candidates} of about {100 * shown:.1f} points "
            f"or more (in 4 of 5 runs, if they {disagree})"
        )
    few = {
        1: "with one seed these classifiers are compared, not the methods: give --seeds 3 or more to compare methods",
        2: "two seeds say little of how far seeds differ, so that few candidates will be significantly "
        "different: give --seeds 3 or more",
    }
    return [said, few[num_seeds]] if num_seeds in few and resampling is None else [said]
