"""How small a difference a test set can show, said before and after a run."""

from __future__ import annotations

import math
from statistics import NormalDist

POWER = 0.8
SIGNIFICANCE = 0.05
USUAL_DISCORDANT = 0.2  # share of examples on which two classifiers of 70 to 80 % usually part


def detectable_difference(n: int, discordant: float = USUAL_DISCORDANT, pairs: int = 1) -> float | None:
    """Return the smallest difference in accuracy that a paired test finds in 4 of 5 runs (Connor 1987).

    Holds the chance of examples alone: seeds of differing luck ask for a larger difference.

    Args:
        n: test examples.
        discordant: share of examples that one candidate gets right and the other wrong.
        pairs: number of pairs of candidates, for which the level is corrected as in the first step of Holm's method.

    Returns:
        A difference of shares, or None where even candidates that never agree the other way round would not be
        significantly different.
    """
    from scipy.optimize import brentq

    if n < 1 or discordant <= 0:
        return None

    def missing(difference: float) -> float:
        return n - examples_needed(difference, discordant, pairs)

    if missing(discordant) < 0:
        return None
    smallest = discordant * 1e-6
    return float(brentq(missing, smallest, discordant)) if missing(smallest) < 0 else smallest


def examples_needed(difference: float, discordant: float, pairs: int = 1) -> float:
    """Return how many test examples show a difference in 4 of 5 runs (Connor 1987); infinite for none.

    Args:
        difference: of their accuracies, -1 to 1.
        discordant: share of examples that one gets right and the other wrong.
        pairs: number of pairs of candidates that are tested together.
    """
    size = min(abs(difference), discordant)
    if size == 0:
        return math.inf
    level = NormalDist().inv_cdf(1 - SIGNIFICANCE / (2 * max(1, pairs)))
    power = NormalDist().inv_cdf(POWER)
    return ((level * math.sqrt(discordant) + power * math.sqrt(discordant - size**2)) / size) ** 2


def power_lines(num_test: int, num_candidates: int, num_seeds: int) -> list[str]:
    """Return what test size and seeds can show, as sentences for before the run; none for one candidate alone.

    Args:
        num_test: test examples.
        num_candidates: candidates that will be compared.
        num_seeds: of the candidates with the most of them.
    """
    pairs = num_candidates * (num_candidates - 1) // 2
    if pairs == 0:
        return []
    shown = detectable_difference(num_test, pairs=pairs)
    candidates = f"{num_candidates} candidates" if num_candidates > 2 else "two candidates"
    disagree = f"disagree on {USUAL_DISCORDANT:.0%} of the examples"
    if shown is None:
        said = (
            f"{num_test:,} test examples are too few to show a difference between {candidates} that "
            f"{disagree}, however they differ"
        )
    else:
        said = (
            f"{num_test:,} test examples can show a difference between {candidates} of about {100 * shown:.1f} "
            f"points or more "
            f"(in 4 of 5 runs, if they {disagree}; more where seeds differ)"
        )
    few = {
        1: "with one seed these classifiers are compared, not the methods: give --seeds 3 or more to hold their luck",
        2: "two seeds say little of how far seeds differ, so that few candidates will be significantly "
        "different: give --seeds 3 or more",
    }
    return [said, few[num_seeds]] if num_seeds in few else [said]
