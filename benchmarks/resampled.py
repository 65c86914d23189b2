"""Cross-validation and repeated cuts where the truth is known: a table of simulation.py.

Labels follow a logistic model of two blocks of features that count alike. One candidate is fitted on the first block,
the second on the other block: in expectation over samples they are equally good, and on any one they are not. A third
has half of the first block. All are refitted on every split. The noisy ones are fitted on a bootstrap sample of their
part, as a training whose seed matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np

from entailor.evaluation.pairs import compare_scored
from entailor.evaluation.statistics import accuracy_interval
from entailor.evaluation.variance import Folds, Scored, Spread

BLOCK = 6  # features of a block
FEATURES = (slice(0, BLOCK), slice(BLOCK, 2 * BLOCK), slice(0, BLOCK // 2))  # of each candidate
WEIGHT, PENALTY, STEPS = 0.7, 1.0, 6
WORLD_EXAMPLES, WORLD_DRAWS = 4_000, 500  # the truth is known to 0.1 points


@dataclass(frozen=True)
class Sample:
    """Labelled examples: features_ND and labels_N of 0 and 1."""

    features_ND: np.ndarray
    labels_N: np.ndarray

    @classmethod
    def drawn(cls, n: int, rng: np.random.Generator) -> Sample:
        """Draw examples of the model."""
        features_ND = rng.standard_normal((n, 2 * BLOCK))
        return cls(features_ND, rng.random(n) < 1 / (1 + np.exp(-WEIGHT * features_ND.sum(axis=1))))

    def right(self, train_N: np.ndarray, test_N: np.ndarray, rng: np.random.Generator, *, noisy: bool) -> np.ndarray:
        """Fit every candidate on one part and return which examples of another each gets right, (candidates, test)."""
        fitted_N = rng.choice(train_N, len(train_N)) if noisy else train_N
        return np.array(
            [
                (self.features_ND[test_N, part] @ fit(self.features_ND[fitted_N, part], self.labels_N[fitted_N]) > 0)
                == self.labels_N[test_N]
                for part in FEATURES
            ]
        )


def fit(features_ND: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """Return the weights of a logistic regression with an L2 penalty, by Newton's method."""
    weights_D = np.zeros(features_ND.shape[1])
    for _ in range(STEPS):
        p_N = 1 / (1 + np.exp(-features_ND @ weights_D))
        curvature_DD = (features_ND * (p_N * (1 - p_N))[:, None]).T @ features_ND
        curvature_DD += PENALTY * np.eye(len(weights_D))
        weights_D = weights_D + np.linalg.solve(curvature_DD, features_ND.T @ (labels_N - p_N) - PENALTY * weights_D)
    return weights_D


def crossed(labels_N: np.ndarray, k: int, repeats: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the test part of each fold, in the labels' proportions."""
    for _ in range(repeats):
        order_N = rng.permutation(len(labels_N))
        order_N = order_N[np.argsort(labels_N[order_N], kind="stable")]
        yield from (order_N[fold::k] for fold in range(k))


def cut(labels_N: np.ndarray, splits: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the test part of each of several cuts, a fifth each."""
    for _ in range(splits):
        yield next(crossed(labels_N, 5, 1, rng))


def candidates(sample: Sample, tests: list[np.ndarray], rng: np.random.Generator, *, noisy: bool) -> list[Scored]:
    """Refit every candidate on every split, and return what the comparison is made of."""
    every_N = np.arange(len(sample.labels_N))
    right = [sample.right(np.setdiff1d(every_N, test_N), test_N, rng, noisy=noisy) for test_N in tests]
    tested_A = np.concatenate(tests)
    fold_A = np.repeat(np.arange(len(tests)), [len(test_N) for test_N in tests])
    share = float(np.mean([len(test_N) / (len(every_N) - len(test_N)) for test_N in tests]))
    _, cluster_A = np.unique(tested_A, return_inverse=True)  # an example that is tested twice is one
    again = len(np.unique(tested_A)) < len(tested_A)
    return [
        Scored(one_A[None], cluster_N=cluster_A if again else None, folds=Folds(fold_A, share))
        for one_A in np.concatenate(right, axis=1)
    ]


@cache
def truth(num_train: int, *, noisy: bool) -> np.ndarray:
    """Return the expected accuracy of each candidate when it is fitted on so many examples."""
    rng, found = np.random.default_rng(1), []
    for _ in range(WORLD_DRAWS):
        sample = Sample.drawn(num_train + WORLD_EXAMPLES, rng)
        train_N, test_N = np.arange(num_train), np.arange(num_train, num_train + WORLD_EXAMPLES)
        found.append(sample.right(train_N, test_N, rng, noisy=noisy).mean(axis=1))
    true_C = np.mean(found, axis=0)
    true_C[:2] = true_C[:2].mean()  # equal by the model's symmetry
    return true_C


def plain_p(a: Scored, b: Scored) -> float:
    """Return the p-value of a t test that takes folds for independent, as it is often done."""
    means_J = a.folds.means(a.mean_N - b.mean_N)
    return Spread(float(means_J.var(ddof=1)) / len(means_J), len(means_J) - 1.0).p(float(means_J.mean()))


def resampling(draws: int) -> None:
    """Print coverage and false differences of cross-validation and of repeated cuts."""
    print("\nseveral splits, candidates refitted: coverage of accuracy and of a difference, false differences (%)")
    print("noisy  n    splits             accuracy  difference  false  false, folds independent  found  lead")
    ways: list[tuple[str, float, Callable[..., Iterator[np.ndarray]], tuple[int, ...]]] = [
        *((f"{k}-fold, {r} x", 1 - 1 / k, crossed, (k, r)) for k, r in product((5, 10), (1, 5))),
        *((f"{s} cuts", 0.8, cut, (s,)) for s in (3, 5, 10)),
    ]
    for noisy, n in product((False, True), (180, 500)):
        for name, share, way, sizes in ways:
            true_C = truth(round(share * n), noisy=noisy)
            rng, found = np.random.default_rng([n, *sizes, noisy]), []
            for _ in range(draws):
                sample = Sample.drawn(n, rng)
                a, b, weak = candidates(sample, list(way(sample.labels_N, *sizes, rng)), rng, noisy=noisy)
                own, equal, lead = accuracy_interval(a), compare_scored(a, b), compare_scored(a, weak)
                found.append(
                    (
                        own.low <= true_C[0] <= own.high,
                        lead.low <= true_C[0] - true_C[2] <= lead.high,
                        equal.p < 0.05,
                        plain_p(a, b) < 0.05,
                        lead.p < 0.05 and lead.value > 0,
                    )
                )
            held, both, wrong, naive, seen = 100 * np.mean(found, axis=0)
            points = 100 * (true_C[0] - true_C[2])
            shown = f"{'yes' if noisy else 'no':<6} {n:<4} {name}"
            print(
                f"{shown:<30} {held:<9.1f} {both:<11.1f} {wrong:<6.1f} {naive:<25.1f} {seen:<6.1f} {points:.1f} points",
                flush=True,
            )
