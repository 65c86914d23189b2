"""Every candidate against every other on the same examples, and groups without a significant difference.

Decides which test speaks for a pair; how the tests are made is statistics.py and bootstrap.py.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Generic, TypeVar

import numpy as np

from entailor.evaluation.bootstrap import BOOTSTRAP_DRAWS, Scored, hierarchical_bootstrap, paired_bootstrap
from entailor.evaluation.statistics import holm, mcnemar_exact

SIGNIFICANCE = 0.05
EXACT, TWO_LEVELS = "McNemar, exact", "hierarchical bootstrap"

CandidateT = TypeVar("CandidateT", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Difference:
    """Accuracy of one candidate minus that of another on the same examples.

    Attributes:
        value: the difference, -1 to 1.
        low: lower end of its 95 % interval.
        high: upper end.
        p: two-sided p-value of "no difference", not corrected for the number of pairs.
        test: what gave the p-value, in words.
        p_bootstrap: p-value of the bootstrap that gave the interval.
        p_mcnemar: of McNemar's exact test between the classifiers of the first seeds, which are the ones that ship.
        discordant: share of examples that one of these two gets right and the other wrong.
        holds_seeds: whether interval and p-value hold the chance of seeds, not of examples alone.
        p_holm: `p` corrected for the number of pairs.
    """

    value: float
    low: float
    high: float
    p: float
    test: str
    p_bootstrap: float
    p_mcnemar: float
    discordant: float
    holds_seeds: bool
    p_holm: float = 1.0

    @property
    def significant(self) -> bool:
        """Whether the candidates differ significantly."""
        return self.p_holm < SIGNIFICANCE

    def mirrored(self) -> Difference:
        """Return the same difference with the candidates exchanged."""
        return replace(self, value=0.0 - self.value, low=0.0 - self.high, high=0.0 - self.low)


def compare_scored(a: Scored, b: Scored, draws: int = BOOTSTRAP_DRAWS) -> Difference:
    """Return the difference of two candidates.

    McNemar's exact test speaks where both have one trial, the hierarchical bootstrap where one has several. The
    interval is from the bootstrap in both cases.

    Args:
        a: one candidate.
        b: another, over the same examples.
        draws: of the bootstrap.
    """
    levels = hierarchical_bootstrap(a, b, draws)
    drawn = levels or paired_bootstrap(a.mean_N, b.mean_N, draws)
    first_a, first_b = a.correct_SN[0], b.correct_SN[0]
    exact = mcnemar_exact(first_a, first_b)
    return Difference(
        value=float(a.mean_N.mean() - b.mean_N.mean()),
        low=drawn.low,
        high=drawn.high,
        p=drawn.p if levels else exact,
        test=TWO_LEVELS if levels else EXACT,
        p_bootstrap=drawn.p,
        p_mcnemar=exact,
        discordant=float(np.mean(first_a != first_b)),
        holds_seeds=levels is not None or not (a.varies or b.varies),
    )


@dataclass(frozen=True)
class Pairs(Generic[CandidateT]):
    """All differences between candidates, corrected together.

    Attributes:
        candidates: in the order given.
        differences: the first of two candidates minus the second, for every two in the order of `candidates`.
    """

    candidates: tuple[CandidateT, ...]
    differences: Mapping[tuple[CandidateT, CandidateT], Difference]

    def between(self, a: CandidateT, b: CandidateT) -> Difference:
        """Return a's accuracy minus b's."""
        found = self.differences.get((a, b))
        return found if found is not None else self.differences[b, a].mirrored()

    def significant(self, a: CandidateT, b: CandidateT) -> bool:
        """Return whether two candidates differ significantly."""
        return a != b and self.between(a, b).significant

    @property
    def letters(self) -> dict[CandidateT, str]:
        """Return candidate to letters: candidates that share one do not differ significantly."""
        return compact_letters(self.candidates, {pair for pair, one in self.differences.items() if one.significant})


def compare_all(scored: Mapping[CandidateT, Scored], draws: int = BOOTSTRAP_DRAWS) -> Pairs[CandidateT]:
    """Compare every two candidates; p-values are corrected for the number of pairs (Holm 1979).

    Args:
        scored: candidate to which examples its seeds get right, all over the same examples.
        draws: of the bootstrap of a pair; they make intervals, and no p-value that is corrected.
    """
    both = list(combinations(scored, 2))
    found = [compare_scored(scored[a], scored[b], draws) for a, b in both]
    corrected = holm([one.p for one in found])
    differences = {pair: replace(one, p_holm=p_holm) for pair, one, p_holm in zip(both, found, corrected, strict=True)}
    return Pairs(tuple(scored), differences)


def compact_letters(
    candidates: Sequence[CandidateT], differing: set[tuple[CandidateT, CandidateT]]
) -> dict[CandidateT, str]:
    """Return the compact letter display: two candidates share a letter exactly when they are not in `differing`.

    Insert and absorb (Piepho 2004, An Algorithm for a Letter-Based Representation of All-Pairwise Comparisons).

    Args:
        candidates: best first; `a` goes to the first.
        differing: pairs that differ significantly, in either order.
    """
    columns: list[set[CandidateT]] = [set(candidates)]
    for a, b in differing:
        parted = [column for column in columns if {a, b} <= column]
        split = [column for column in columns if column not in parted]
        split += [column - {candidate} for column in parted for candidate in (a, b)]
        columns = []
        for column in sorted(split, key=len, reverse=True):  # what lies within another column says nothing more
            if not any(column <= other for other in columns):
                columns.append(column)
    place = {candidate: i for i, candidate in enumerate(candidates)}
    columns.sort(key=lambda column: sorted(place[candidate] for candidate in column))
    return {
        candidate: "".join(_letter(i) for i, column in enumerate(columns) if candidate in column)
        for candidate in candidates
    }


def _letter(index: int) -> str:
    return chr(ord("a") + index) if index < 26 else f"{chr(ord('a') + index % 26)}{index // 26}"
