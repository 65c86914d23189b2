"""The same candidates over several data sets: average ranks, paired tests, and what to expect of the next data set.

Reads the comparison.json of finished runs, one a data set. Ranks and tests as in Demsar 2006 (Statistical Comparisons
of Classifiers over Multiple Data Sets, JMLR 7), with Wilcoxon's test in place of tests of mean ranks, whose outcome for
two candidates depends on the others (Benavoli, Corani and Mangili 2016, JMLR 17). Probabilities as in Benavoli et al.
2017 (Time for a Change, JMLR 18): better, equivalent within a margin, worse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from entailor.errors import RunError
from entailor.evaluation.pairs import SIGNIFICANCE
from entailor.evaluation.recommendation import CandidateKey, Name, key_of
from entailor.evaluation.statistics import holm
from entailor.runs.documents import well_formed
from entailor.runs.files import read_checked_json
from entailor.runs.layout import RunFolder
from entailor.runs.record import NO_MODEL

VERSION = 1
LEAST_DATA_SETS = 3  # two say nothing of how far differences vary from one data set to the next
SHUFFLES = 9_999  # of Friedman's test; with fewer ways to shuffle every one is taken
GRID = 400  # deviations between data sets that are weighed
AGAIN = "Run the command that made it again"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RankedCandidate:
    """A candidate over the data sets.

    Attributes:
        model: as the runs name it.
        method: its name.
        mean_rank: mean of `ranks`; 1 is best.
        ranks: on each data set, ties shared.
        values: the metric on each data set.
    """

    model: str
    method: str
    mean_rank: float
    ranks: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class PairAcrossRuns:
    """Candidate a against candidate b over the data sets; more is better, whatever the metric.

    Attributes:
        a: one candidate.
        b: another, with the same or a higher mean rank.
        difference: mean of `differences`.
        differences: a's metric minus b's on each data set.
        p: two-sided p-value of Wilcoxon's signed-rank test, not corrected.
        p_holm: corrected for the number of pairs.
        significant: whether `p_holm` is below 0.05.
        better: probability that a is better than b by more than the margin on the next data set of this kind.
        equivalent: that they are within the margin.
        worse: that a is worse by more than the margin.
    """

    a: Name
    b: Name
    difference: float
    differences: tuple[float, ...]
    p: float
    p_holm: float
    significant: bool
    better: float
    equivalent: float
    worse: float


@dataclass(frozen=True, slots=True)
class AcrossRuns:
    """What several data sets together say of the same candidates.

    Attributes:
        metric: that all runs were compared by.
        margin: differences up to it count as none.
        data_sets: name of each run.
        candidates: those of every run, the lowest mean rank first.
        left_out: candidates that not every run has.
        pairs: every two candidates, in the order of `candidates`.
        friedman_chi_square: Friedman's statistic over the ranks.
        friedman_p: its p-value by shuffling ranks within data sets.
        critical_difference: of two mean ranks at 5 % (Nemenyi).
        data_sets_needed: fewest with which Wilcoxon's test of one pair can be significant after correction.
        claims: "methods", or "classifiers" where a run has one seed of a method that varies.
    """

    metric: str
    margin: float
    data_sets: tuple[str, ...]
    candidates: tuple[RankedCandidate, ...]
    left_out: tuple[Name, ...]
    pairs: tuple[PairAcrossRuns, ...]
    friedman_chi_square: float
    friedman_p: float
    critical_difference: float
    data_sets_needed: int
    claims: str

    def document(self) -> Mapping[str, Any]:
        """Return plain values that go into JSON as they are."""
        return {"version": VERSION, **asdict(self)}


@dataclass(frozen=True)
class _Run:
    name: str
    path: Path
    fingerprint: str
    metric: str
    margin: float
    claims: str
    values: dict[CandidateKey, float]
    differences: dict[tuple[CandidateKey, CandidateKey], tuple[float, float]]

    def between(self, a: CandidateKey, b: CandidateKey) -> tuple[float, float]:
        """Return a's metric minus b's, more is better, and its variance."""
        if (a, b) in self.differences:
            return self.differences[a, b]
        value, variance = self.differences[b, a]
        return -value, variance


def compare_runs(runs: Sequence[str | Path], *, margin: float | None = None) -> AcrossRuns:
    """Compare the candidates that all of several finished runs have, one run a data set.

    Args:
        runs: their folders.
        margin: differences up to it count as none, in units of the metric. None: the runs' own `recommend.margin`.

    Raises:
        RunError: fewer than three runs, two of them over the same data, different metrics or margins, fewer than two
            common candidates, or a folder that is no finished run or is damaged.
    """
    if len(runs) < LEAST_DATA_SETS:
        raise RunError(
            f"{len(runs)} {'run' if len(runs) == 1 else 'runs'} given, at least {LEAST_DATA_SETS} are needed, each on "
            "another data set: from fewer nothing is known of how far differences vary between data sets. "
            "For two runs on the same data see `entailor diff`"
        )
    found = [_read(Path(run)) for run in runs]
    _check_different_data(found)
    metric = _agreed([(one, one.metric) for one in found], "metric", "Run one of them again with recommend.metric")
    if margin is None:
        margin = _agreed([(one, one.margin) for one in found], "margin", "Say which counts with --margin")
    if not (math.isfinite(margin) and margin >= 0):
        raise RunError(f"margin: {margin} found, expected 0 or more, in units of the metric. Give another --margin")
    every = list(dict.fromkeys(key for one in found for key in one.values))
    common = [key for key in every if all(key in one.values for one in found)]
    if len(common) < 2:
        has = "; ".join(f"{one.name}: {', '.join(sorted({name for _, name in one.values}))}" for one in found)
        only = "none stands in all runs"
        if common:
            model, name = common[0]
            only = f"only {name}{'' if model == NO_MODEL else f' on {model}'} stands in all runs"
        raise RunError(
            f"at least two common candidates (same name, same model) are needed, {only} ({has}). "
            "Compare the same methods and models on every data set"
        )
    return _across(found, common, [key for key in every if key not in common], metric, margin)


def _across(
    runs: Sequence[_Run], common: Sequence[CandidateKey], left_out: Sequence[CandidateKey], metric: str, margin: float
) -> AcrossRuns:
    ranks_DK = np.array([_ranks(one, common) for one in runs])
    order = sorted(range(len(common)), key=lambda k: (ranks_DK[:, k].mean(), common[k]))
    ordered, ranks_DK = [common[k] for k in order], ranks_DK[:, order]
    both = list(combinations(ordered, 2))
    gaps = [np.array([one.between(a, b) for one in runs]) for a, b in both]  # (data sets, difference and variance)
    p_values = [wilcoxon_p(gap[:, 0]) for gap in gaps]
    chi_square, p = friedman(ranks_DK)
    return AcrossRuns(
        metric=metric,
        margin=margin,
        data_sets=tuple(one.name for one in runs),
        candidates=tuple(
            RankedCandidate(
                *key, float(ranks_D.mean()), tuple(ranks_D.tolist()), tuple(one.values[key] for one in runs)
            )
            for key, ranks_D in zip(ordered, ranks_DK.T, strict=True)
        ),
        left_out=tuple(Name(*key) for key in left_out),
        pairs=tuple(
            PairAcrossRuns(
                Name(*a),
                Name(*b),
                float(gap[:, 0].mean()),
                tuple(gap[:, 0].tolist()),
                one_p,
                one_holm,
                one_holm < SIGNIFICANCE,
                *next_data_set(gap[:, 0], gap[:, 1], margin),
            )
            for (a, b), gap, one_p, one_holm in zip(both, gaps, p_values, holm(p_values), strict=True)
        ),
        friedman_chi_square=chi_square,
        friedman_p=p,
        critical_difference=critical_difference(len(runs), len(common)),
        data_sets_needed=data_sets_needed(len(both)),
        claims="methods" if all(one.claims == "methods" for one in runs) else "classifiers",
    )


def friedman(ranks_DK: Floats) -> tuple[float, float]:
    """Return Friedman's chi-square statistic, and its p-value by shuffling ranks within data sets.

    The chi-square distribution asks for more than ten data sets (Demsar 2006, section 3.2.2); shuffling asks for none.

    Args:
        ranks_DK: rank of each candidate on each data set, shape (data sets, candidates).
    """
    from scipy.stats import permutation_test

    data_sets, candidates = ranks_DK.shape
    scale = 12 * data_sets / (candidates * (candidates + 1))

    def chi_square(*ranks: Floats, axis: int) -> Floats:
        means_K = np.stack([one.mean(axis=axis) for one in ranks])
        return np.asarray(scale * ((means_K - (candidates + 1) / 2) ** 2).sum(axis=0))

    found = permutation_test(
        tuple(ranks_DK.T),
        chi_square,
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=SHUFFLES,
        rng=np.random.default_rng(0),
    )
    return float(found.statistic), float(found.pvalue)


def critical_difference(data_sets: int, candidates: int) -> float:
    """Return by how much two mean ranks must differ at 5 % (Nemenyi 1963; Demsar 2006, section 3.2.2)."""
    from scipy.stats import studentized_range

    quantile = float(studentized_range.ppf(1 - SIGNIFICANCE, candidates, np.inf)) / math.sqrt(2)
    return quantile * math.sqrt(candidates * (candidates + 1) / (6 * data_sets))


def wilcoxon_p(difference_D: Floats) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test; differences of 0 count half to either side."""
    from scipy.stats import wilcoxon

    rounded_D = difference_D.round(12)  # what differs by rounding alone is tied
    return float(wilcoxon(rounded_D, zero_method="zsplit").pvalue) if rounded_D.any() else 1.0


def data_sets_needed(pairs: int) -> int:
    """Return the fewest data sets with which one pair can be significant: all differences have the same sign then."""
    return math.floor(1 + math.log2(pairs / SIGNIFICANCE)) + 1


def next_data_set(difference_D: Floats, variance_D: Floats, margin: float) -> tuple[float, float, float]:
    """Return the probabilities that a is better, equivalent and worse on the next data set of the same kind.

    A hierarchical model as in Benavoli et al. 2017, section 4.3, normal in place of Student: true differences are
    normal around a common mean with a flat prior, what was seen is normal around the true one with the variance that
    examples, clusters and seeds give (variance.py). The deviation between data sets has a half-Cauchy prior, for few
    groups (Gelman 2006, Bayesian Analysis 1), at the scale of what was seen. The mean is integrated out, the deviation
    by a grid.

    Args:
        difference_D: a's metric minus b's on each data set, three or more.
        variance_D: of each difference.
        margin: of practical equivalence, in the units of the differences.
    """
    from scipy.special import ndtr

    scale = math.sqrt(float((difference_D**2 + variance_D).mean()))
    if scale == 0:  # the same answers everywhere
        return 0.0, 1.0, 0.0
    between_Q = scale * np.tan((np.arange(GRID) + 0.5) / GRID * math.pi / 2)  # quantiles of the half-Cauchy prior
    # no test set tells differences to the last digit, and a variance of 0 would outweigh every other data set
    variance_QD = np.maximum(variance_D, 1e-6 * scale**2) + between_Q[:, None] ** 2
    precision_Q = (1 / variance_QD).sum(axis=1)
    mean_Q = (difference_D / variance_QD).sum(axis=1) / precision_Q
    log_Q = -0.5 * (
        np.log(precision_Q)
        + np.log(variance_QD).sum(axis=1)
        + ((difference_D - mean_Q[:, None]) ** 2 / variance_QD).sum(axis=1)
    )
    weight_Q = np.exp(log_Q - log_Q.max())
    weight_Q /= weight_Q.sum()
    deviation_Q = np.sqrt(1 / precision_Q + between_Q**2)
    better = float(weight_Q @ ndtr((mean_Q - margin) / deviation_Q))
    worse = float(weight_Q @ ndtr((-margin - mean_Q) / deviation_Q))
    return better, max(0.0, 1 - better - worse), worse


def _ranks(run: _Run, common: Sequence[CandidateKey]) -> Floats:
    """Return the rank of each candidate on one data set, 1 for the best, ties shared."""
    from scipy.stats import rankdata

    first = common[0]
    gaps = [0.0, *(run.between(first, other)[0] for other in common[1:])]  # how far the first is ahead
    return np.asarray(rankdata(np.round(gaps, 12)))


def _read(path: Path) -> _Run:
    folder = RunFolder(path)
    folder.check_version()
    comparison = read_checked_json(folder.comparison_file, AGAIN)
    split = read_checked_json(folder.split_file, AGAIN)
    with well_formed(RunError, folder.comparison_file, AGAIN):
        metric, rule = comparison["metric"], comparison["recommendation"]
        if rule is None:
            raise RunError(f"{path}: no trial of this run finished. {AGAIN}, or leave it out")
        return _Run(
            name=path.resolve().name,
            path=path,
            fingerprint=split["fingerprint"],
            metric=metric,
            margin=float(rule["rule"]["margin"]),
            claims=comparison["claims"],
            values={key_of(one): float(one["intervals"][metric]["value"]) for one in comparison["candidates"]},
            differences={
                (key_of(one["a"]), key_of(one["b"])): (float(one["value"]), _variance(one["spread"]))
                for one in comparison["pairs"]
            },
        )


def _variance(spread: dict[str, float]) -> float:
    return float(spread["examples"] + max(0.0, spread["between"] - spread["disagreement"]))


def _check_different_data(runs: Sequence[_Run]) -> None:
    seen: dict[str, _Run] = {}
    for one in runs:
        other = seen.setdefault(one.fingerprint, one)
        if other is not one:
            raise RunError(
                f"{other.path} and {one.path}: the same data, which count as one data set. Leave one of them out"
            )


def _agreed(given: Sequence[tuple[_Run, Any]], what: str, remedy: str) -> Any:
    """Return what all runs have in common.

    Raises:
        RunError: they have not.
    """
    if len({value for _, value in given}) > 1:
        listed = ", ".join(f"{one.name} {value}" for one, value in given)
        raise RunError(f"the runs were compared with different {what}s: {listed}. {remedy}")
    return given[0][1]
