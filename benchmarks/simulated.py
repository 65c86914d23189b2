"""What simulation.py draws: right and wrong answers, probabilities and learning curves whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from scipy.stats import norm

from entailor.evaluation.learning_curve import CandidateCurve
from entailor.evaluation.metrics import Outcome
from entailor.evaluation.variance import Scored

SHARED, TASTE = 0.5, 0.25  # of the latent variance: what all candidates, and all seeds of one, find hard alike


@dataclass(frozen=True)
class World:
    """What a comparison is drawn from.

    Attributes:
        accuracies: true accuracy of each candidate, the mean over all seeds.
        examples: in the test set.
        seeds: of each candidate.
        deviation: standard deviation of a seed's accuracy at 50 %, in points; less near 0 and 100 %, as a share's is.
            One for all candidates, or one each.
        cluster: examples a cluster.
        together: share of the shared latent variance that a whole cluster has in common.
        deterministic: so many candidates, the first ones, have nothing random and so one trial.
    """

    accuracies: tuple[float, ...]
    examples: int
    seeds: int = 1
    deviation: float | tuple[float, ...] = 0.0
    cluster: int = 1
    together: float = 0.9
    deterministic: int = 0

    def seed_accuracies(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Return accuracies of single seeds, (candidates, size)."""
        mean_C = np.array(self.accuracies)
        scale_C = np.array(self.deviation) / 100 * 2 * np.sqrt(mean_C * (1 - mean_C))
        return np.clip(mean_C[:, None] + scale_C[:, None] * rng.standard_normal((len(mean_C), size)), 1e-4, 1 - 1e-4)

    def truth(self) -> np.ndarray:
        """Return the mean accuracy of each candidate; it differs from what was set where accuracies are cut at 1."""
        return self.seed_accuracies(np.random.default_rng(0), 200_000).mean(axis=1)

    def draw(self, rng: np.random.Generator) -> list[Scored]:
        """Return the candidates' answers."""
        n, c = self.examples, len(self.accuracies)
        shared_N = rng.standard_normal(n)
        cluster_N = np.arange(n) // self.cluster
        if self.cluster > 1:
            whole_G = rng.standard_normal(cluster_N[-1] + 1)
            shared_N = np.sqrt(self.together) * whole_G[cluster_N] + np.sqrt(1 - self.together) * shared_N
        taste_CN = rng.standard_normal((c, n))
        if self.cluster > 1:
            taste_CN = (
                np.sqrt(self.together) * rng.standard_normal((c, cluster_N[-1] + 1))[:, cluster_N]
                + np.sqrt(1 - self.together) * taste_CN
            )
        noise_CSN = rng.standard_normal((c, self.seeds, n))
        latent_CSN = (
            np.sqrt(SHARED) * shared_N + np.sqrt(TASTE) * taste_CN[:, None] + np.sqrt(1 - SHARED - TASTE) * noise_CSN
        )
        right = latent_CSN < norm.ppf(self.seed_accuracies(rng, self.seeds))[:, :, None]
        clusters = cluster_N if self.cluster > 1 else None
        varies = self.seeds > 1 or np.max(self.deviation) > 0
        return [
            Scored(one_SN[:1], False, clusters) if k < self.deterministic else Scored(one_SN, bool(varies), clusters)
            for k, one_SN in enumerate(right)
        ]


def drawn_outcomes(rng: np.random.Generator, n: int, gold_N: np.ndarray | None = None, seeds: int = 3) -> list[Outcome]:
    """Return what the seeds of a classifier say of examples of three labels."""
    if gold_N is None:
        gold_N = rng.choice(3, size=n, p=(0.6, 0.3, 0.1))
    own_NL = rng.standard_normal((n, 3)) + 1.5 * np.eye(3)[gold_N] + np.log((0.6, 0.3, 0.1))
    outcomes = []
    for _ in range(seeds):
        logits_NL = own_NL + 0.7 * rng.standard_normal((n, 3))
        weights_NL = np.exp(logits_NL - logits_NL.max(axis=1, keepdims=True))
        probabilities_NL = weights_NL / weights_NL.sum(axis=1, keepdims=True)
        outcomes.append(Outcome(gold_N, probabilities_NL.argmax(axis=1), probabilities_NL))
    return outcomes


CURVES = {
    "power law": lambda n: 0.85 - 1.2 * np.asarray(n, float) ** -0.5,
    "slow power law": lambda n: 0.80 - 0.5 * np.asarray(n, float) ** -0.25,
    "logarithmic": lambda n: 0.45 + 0.045 * np.log(np.asarray(n, float)),
    "sigmoid": lambda n: 0.5 + 0.35 / (1 + np.exp(-1.5 * (np.log(np.asarray(n, float)) - np.log(150)))),
    "late start": lambda n: 0.5 + 0.4 / (1 + np.exp(-2.2 * (np.log(np.asarray(n, float)) - np.log(900)))),
}
SIZES = (50, 100, 200, 400, 800)


def curve_of(name: str, law, rng, shared_N, seeds: int = 3, sizes=SIZES) -> CandidateCurve:
    """Return one candidate's answers at every size."""
    n = len(shared_N)
    taste_N = rng.standard_normal(n)
    points = {}
    for size in sizes:
        p_S = np.clip(law(size) + (0.01 if seeds > 1 else 0.0) * rng.standard_normal(seeds), 0.01, 0.99)
        latent_SN = (
            np.sqrt(SHARED) * shared_N
            + np.sqrt(TASTE) * taste_N
            + np.sqrt(1 - SHARED - TASTE) * rng.standard_normal((seeds, n))
        )
        right_SN = latent_SN < norm.ppf(p_S)[:, None]
        points[size] = [Answers("m", name, right_N, seeds == 1) for right_N in right_SN]
    return CandidateCurve("m", name, points)


class Answers:
    """Stands for a RunRecord: what learning_curve.py reads of it."""

    costs = SimpleNamespace(epochs=1.0, train_seconds=1.0)

    def __init__(self, model: str, name: str, right_N: np.ndarray, deterministic: bool = False) -> None:
        self.model, self.name, self.provenance = model, name, {"deterministic": deterministic}
        self.predictions = [ANSWERS[int(i < right_N.size and right_N[i])][i] for i in range(len(right_N))]


ANSWERS = [
    [
        SimpleNamespace(id=i, predicted=right, label=1, text="", text_pair=None, group=None, cluster=None)
        for i in range(1000)
    ]
    for right in (0, 1)
]
