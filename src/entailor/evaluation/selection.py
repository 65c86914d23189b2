"""How much too good the best candidate looks because it was chosen on the examples it is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from entailor.evaluation.targets import Target
from entailor.evaluation.variance import Scored, cluster_sums, spread_of_difference

DRAWS = 2_000
SEED = 0


@dataclass(frozen=True, slots=True)
class Corrected:
    """The best candidate's metric, corrected for having been chosen.

    Attributes:
        value: the metric less `optimism`.
        low: lower end of its 95 % interval.
        high: upper end.
        optimism: by how much the best of these candidates is expected to look too good.
        candidates: out of how many it was chosen.
    """

    value: float
    low: float
    high: float
    optimism: float
    candidates: int


def optimism_of_best(candidates: Sequence[Scored]) -> float:
    """Return by how much the candidate with the highest mean is expected to exceed its true metric, 0 or more.

    A parametric bootstrap of the choice: means are drawn again with the covariance that shared examples, clusters and
    seeds give, and what the chosen one's draw exceeds its own mean by is averaged. Drawn around the means as seen the
    candidates lie too far apart, and half the optimism would stay; so each gap to the best is first shrunk as James and
    Stein do, by one less its variance over its square (docs/statistics.md has what that leaves).

    Args:
        candidates: all over the same examples, more is better.
    """
    if len(candidates) < 2:
        return 0.0
    mean_K = np.array([one.mean for one in candidates])
    best = int(mean_K.argmax())
    gap_K = mean_K[best] - mean_K
    variance_K = np.array([spread_of_difference(candidates[best], one).variance for one in candidates])
    kept_K = np.divide(variance_K, gap_K**2, out=np.ones_like(gap_K), where=gap_K > 0)
    true_K = mean_K[best] - gap_K * np.maximum(0.0, 1 - kept_K)
    noise_DK = np.random.default_rng(SEED).multivariate_normal(
        np.zeros(len(candidates)), _covariance(candidates), size=DRAWS, method="eigh"
    )
    chosen_D = (true_K + noise_DK).argmax(axis=1)
    return max(0.0, float(noise_DK[np.arange(DRAWS), chosen_D].mean()))


def corrected_best(candidates: Sequence[Scored], target: Target) -> Corrected:
    """Return the best candidate's metric, corrected for having been chosen.

    The interval moves with the value at its lower end and half as far at its upper one, since the optimism is not known
    for sure either.

    Args:
        candidates: all over the same examples, by the metric, more is better.
        target: the metric.
    """
    best = max(candidates, key=lambda one: one.mean)
    found, optimism = target.interval(best), target.sign * optimism_of_best(candidates)
    worse, better = (found.low, found.high)[:: target.sign]
    ends = np.clip((worse - optimism, better - optimism / 2), target.low, target.high)
    value = float(np.clip(found.value - optimism, target.low, target.high))
    return Corrected(value, float(ends.min()), float(ends.max()), abs(optimism), len(candidates))


def _covariance(candidates: Sequence[Scored]) -> npt.NDArray[np.float64]:
    """Return the covariance of the means, shape (candidates, candidates)."""
    folds, cluster_N, n = candidates[0].folds, candidates[0].cluster_N, len(candidates[0].mean_N)
    if folds is not None:
        return np.atleast_2d(folds.factor * np.cov([folds.means(one.mean_N) for one in candidates]))
    sums_KG = np.stack([cluster_sums(one.mean_N - one.mean, cluster_N) for one in candidates])
    groups = sums_KG.shape[1]
    covariance = sums_KG @ sums_KG.T * groups / max(1, groups - 1) / n**2
    for k, one in enumerate(candidates):
        own = one.seed_variance
        if own is not None:
            covariance[k, k] += max(0.0, own.between - own.disagreement) / own.seeds
    return np.asarray(covariance)
