"""Every candidate against every other on the same examples, and groups without a significant difference.

How variances are estimated is variance.py.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Generic, TypeVar

import numpy as np

from entailor.evaluation.statistics import holm, mcnemar_exact
from entailor.evaluation.variance import Scored, Spread, spread_of_difference

SIGNIFICANCE = 0.05

CandidateT = TypeVar("CandidateT", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Difference:
    """One candidate's metric minus that of another on the same examples.

    Interval, p-value and every decision come from `spread`, so that no two of them can contradict each other.

    Attributes:
        value: the difference, -1 to 1 for accuracy.
        low: lower end of its 95 % interval.
        high: upper end.
        p: two-sided p-value of "no difference" (paired t over examples in clusters, and seeds), not corrected.
        p_mcnemar: of McNemar's exact test between the classifiers of the first seeds, which are the ones that ship;
            None for a metric that is not accuracy, and with folds, of which no classifier ships.
        discordant: share of examples for which these two give different values.
        holds_seeds: whether interval and p-value hold the chance of seeds, not of examples alone.
        spread: variance and degrees of freedom of the difference.
        p_holm: `p` corrected for the number of pairs.
    """

    value: float
    low: float
    high: float
    p: float
    p_mcnemar: float | None
    discordant: float
    holds_seeds: bool
    spread: Spread
    p_holm: float = 1.0

    @property
    def significant(self) -> bool:
        """Whether the candidates differ significantly."""
        return self.p_holm < SIGNIFICANCE

    @property
    def p_worse(self) -> float:
        """The one-sided p-value of "not worse"."""
        return self.spread.p_below(self.value)

    def lower_bound(self, level: float) -> float:
        """Return the one-sided lower confidence bound of the difference."""
        return self.value - self.spread.bound(level)

    def mirrored(self) -> Difference:
        """Return the same difference with the candidates exchanged."""
        return replace(self, value=0.0 - self.value, low=0.0 - self.high, high=0.0 - self.low)


def compare_scored(a: Scored, b: Scored) -> Difference:
    """Return the difference of two candidates.

    Args:
        a: one candidate.
        b: another, over the same examples.
    """
    first_a, first_b = a.values_SN[0], b.values_SN[0]
    value, spread = a.mean - b.mean, spread_of_difference(a, b)
    half, counts = spread.half_width(), first_a.dtype == bool and first_b.dtype == bool
    return Difference(
        value=value,
        low=max(-1.0, value - half) if counts else value - half,
        high=min(1.0, value + half) if counts else value + half,
        p=spread.p(value),
        p_mcnemar=mcnemar_exact(first_a, first_b) if counts and a.folds is None else None,
        discordant=float(np.mean(first_a != first_b)),
        holds_seeds=a.folds is not None
        or not any(one.varies for one in (a, b))
        or any(len(one.values_SN) > 1 for one in (a, b)),
        spread=spread,
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
        """Return a's metric minus b's."""
        found = self.differences.get((a, b))
        return found if found is not None else self.differences[b, a].mirrored()

    def significant(self, a: CandidateT, b: CandidateT) -> bool:
        """Return whether two candidates differ significantly."""
        return a != b and self.between(a, b).significant

    def p_best(self, candidate: CandidateT) -> float:
        """Return the p-value of "this is the best of all": small where another is surely better.

        Multiple comparisons with the best (Hsu 1984), with Bonferroni's correction for the other candidates in place of
        Dunnett's: the truly best candidate is ruled out in at most 5 of 100 runs at 0.05.
        """
        others = [self.between(candidate, other).p_worse for other in self.candidates if other != candidate]
        return min(1.0, len(others) * min(others)) if others else 1.0

    def may_be_best(self, candidate: CandidateT) -> bool:
        """Return whether a candidate is in the set that holds the truly best one with 95 % confidence."""
        return self.p_best(candidate) >= SIGNIFICANCE

    @property
    def letters(self) -> dict[CandidateT, str]:
        """Return candidate to letters: candidates that share one do not differ significantly."""
        return compact_letters(self.candidates, {pair for pair, one in self.differences.items() if one.significant})


def compare_all(scored: Mapping[CandidateT, Scored]) -> Pairs[CandidateT]:
    """Compare every two candidates; p-values are corrected for the number of pairs (Holm 1979).

    Args:
        scored: candidate to what its seeds give, all over the same examples.
    """
    both = list(combinations(scored, 2))
    found = [compare_scored(scored[a], scored[b]) for a, b in both]
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
