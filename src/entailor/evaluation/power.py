"""How small a difference a test set can show, said before and after a run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from entailor.evaluation.variance import Spread

POWER = 0.8
SIGNIFICANCE = 0.05
USUAL_DISCORDANT = 0.2  # share of examples on which two classifiers of 70 to 80 % usually part
USUAL_DEVIATION = 0.01  # between the accuracies of seeds, where nothing is known of them yet


def usual_spread(num_test: int, num_seeds: int, discordant: float = USUAL_DISCORDANT) -> Spread:
    """Return the chance in a difference of two usual candidates, before anything has been measured.

    Args:
        num_test: test examples.
        num_seeds: of each candidate; with one, seeds are left out, since no test can hold them.
        discordant: share of examples that one candidate gets right and the other wrong.
    """
    examples, own = discordant / num_test, max(1.0, discordant * num_test - 1)
    if num_seeds < 2:
        return Spread(examples, own, examples, own)
    seeds = 2 * USUAL_DEVIATION**2 / num_seeds
    freedom = 2.0 * (num_seeds - 1)
    return Spread(examples + seeds, (examples + seeds) ** 2 / (examples**2 / own + seeds**2 / freedom), examples, own)


def usual_of(spreads: Sequence[Spread]) -> Spread:
    """Return the median variance over examples and the mean over seeds of several differences.

    Each difference knows its seeds poorly; their mean is used, with the degrees of freedom a test has for one.
    """
    examples = statistics.median(one.examples for one in spreads)
    seeds = statistics.fmean(one.seeds for one in spreads)
    own = statistics.median(one.freedom_examples for one in spreads)
    return Spread(examples + seeds, statistics.median(one.freedom for one in spreads), examples, own)


def detectable_difference(spread: Spread, comparisons: int = 1) -> float | None:
    """Return by how much the best must lead so that another is ruled out as the best in 4 of 5 runs.

    From the noncentral t distribution.

    Args:
        spread: variance of a difference, and how well it is known.
        comparisons: candidates that are compared with the best, for which the level is corrected.

    Returns:
        A difference, or None where the variance is 0, so that nothing is known of it.
    """
    from scipy.optimize import brentq
    from scipy.special import nctdtr

    if spread.variance <= 0:
        return None
    critical = spread.quantile(1 - SIGNIFICANCE / max(1, comparisons))
    freedom = min(spread.freedom, 1e6)
    noncentrality = brentq(lambda delta: 1 - nctdtr(freedom, delta, critical) - POWER, 0, 4 * critical + 10)
    return float(noncentrality) * math.sqrt(spread.variance)


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


def power_lines(num_test: int, num_candidates: int, num_seeds: int) -> list[str]:
    """Return what test size and seeds can show, as sentences for before the run; none for one candidate alone.

    Args:
        num_test: test examples.
        num_candidates: candidates that will be compared.
        num_seeds: of the candidates with the most of them.
    """
    if num_candidates < 2:
        return []
    shown = detectable_difference(usual_spread(num_test, num_seeds), num_candidates - 1)
    candidates = f"{num_candidates} candidates" if num_candidates > 2 else "two candidates"
    disagree = f"disagree on {USUAL_DISCORDANT:.0%} of the examples"
    if num_seeds > 1:
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
    return [said, few[num_seeds]] if num_seeds in few else [said]
