"""Accuracy at more labels than there are: several laws, judged on the largest size, or no prediction at all.

Each law is c + a f(n) with a >= 0 and a shape f from a small family, so that all resampled curves are fitted at once:
for a given shape it is linear. The power law is that of Hestness et al. 2017 (section 3) and Rosenfeld et al. 2020; the
sigmoid over log n begins slowly and levels off (Viering and Loog 2022, *The Shape of Learning Curves: a Review*).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEAST_SIZES = 4  # three to fit, and the largest to judge by
FACTORS = (2, 10)
JUDGED = 0.99  # a law is out where so much of the resamples lies on one side of what it says of the largest size
MOST_WIDTH = 0.25  # of a prediction's interval; a wider one says nothing
INTERVAL = (2.5, 97.5)
MOST_PASSES = 0.025  # of the resamples: where all laws pass 100 % in more, accuracy levels off before, unseen

Floats = npt.NDArray[np.float64]


def _shapes(name: str, log_N: Floats, log_scale: float) -> Floats:
    """Return the family of a law at log numbers of labels, shape (family, N)."""
    if name == "power":
        exponents = np.linspace(0.025, 2.0, 60)
        return np.asarray(1 - np.exp(-exponents[:, None] * (log_N - log_scale)))
    if name == "logarithmic":
        return np.asarray(log_N - log_scale)[None]
    steep, middle = np.meshgrid(np.linspace(0.4, 3.0, 9), log_scale + np.linspace(0.0, 5.0, 16))
    return np.asarray(1 / (1 + np.exp(-steep.reshape(-1, 1) * (log_N - middle.reshape(-1, 1)))))


LAWS = ("power", "logarithmic", "sigmoid")


@dataclass(frozen=True)
class Fitted:
    """A law fitted to D curves: accuracy c + a f(n).

    Attributes:
        name: one of `LAWS`.
        log_scale: logarithm of the smallest size.
        shape_D: place in the law's family.
        a_D: how far accuracy rises.
        c_D: where it begins.
    """

    name: str
    log_scale: float
    shape_D: npt.NDArray[np.int64]
    a_D: Floats
    c_D: Floats

    def value(self, n: float) -> Floats:
        """Return what the law gives at n labels, shape (D,); a logarithm passes 1 somewhere."""
        values_F = _shapes(self.name, np.array([np.log(n)]), self.log_scale)[:, 0]
        return np.asarray(self.c_D + self.a_D * values_F[self.shape_D])

    def accuracy(self, n: float) -> Floats:
        """Return the accuracy at n labels, 0 to 1, shape (D,)."""
        return np.clip(self.value(n), 0.0, 1.0)


def fit(name: str, sizes: Sequence[int], accuracy_DN: Floats) -> Fitted:
    """Return the law of least squares of each of D curves.

    Args:
        name: one of `LAWS`.
        sizes: N numbers of labels, at least three different ones.
        accuracy_DN: 0 to 1.
    """
    log_N = np.log(np.asarray(sizes, float))
    values_FN = _shapes(name, log_N, float(log_N[0]))
    centred_FN = values_FN - values_FN.mean(axis=1, keepdims=True)
    squares_F = (centred_FN**2).sum(axis=1) + 1e-12
    mean_D = accuracy_DN.mean(axis=1)
    a_DF = np.maximum(0.0, (accuracy_DN - mean_D[:, None]) @ centred_FN.T / squares_F)
    total_D = ((accuracy_DN - mean_D[:, None]) ** 2).sum(axis=1)
    explained_DF = 2 * a_DF * ((accuracy_DN - mean_D[:, None]) @ centred_FN.T) - a_DF**2 * squares_F
    # nothing is right more often than always: such a law is no law of an accuracy
    top_F = _shapes(name, np.array([50.0]), float(log_N[0]))[:, 0] if name != "logarithmic" else values_FN.max(axis=1)
    impossible_DF = mean_D[:, None] + a_DF * (top_F - values_FN.mean(axis=1)) > 1.0 + 1e-9
    loss_DF = total_D[:, None] - explained_DF + np.where(impossible_DF, 1.0, 0.0)
    shape_D = loss_DF.argmin(axis=1)
    rows = np.arange(len(accuracy_DN))
    a_D = a_DF[rows, shape_D]
    return Fitted(name, float(log_N[0]), shape_D, a_D, mean_D - a_D * values_FN.mean(axis=1)[shape_D])


@dataclass(frozen=True)
class Prediction:
    """What is said of a curve.

    Attributes:
        laws: those that foresaw the largest size from the smaller ones, the nearest first.
        refused: why nothing is predicted, or None.
        at: a factor of the largest size to value, low, high and gain with its ends, and in what share of the resamples
            every law `passes` 100 %; empty where refused.
    """

    laws: tuple[str, ...]
    refused: str | None
    at: dict[int, dict[str, float]]


def predict(sizes: Sequence[int], accuracy_N: Floats, drawn_DN: Floats) -> Prediction:
    """Return the accuracy at twice and ten times the largest size.

    A law counts if it foresees the largest size from the smaller ones, chance aside. The value is that of the one that
    came nearest, and does not pass 100 % where another does not; the interval reaches over all that count.

    Args:
        sizes: numbers of labels, smallest first.
        accuracy_N: as seen.
        drawn_DN: the same under resampled test examples and seeds.
    """
    if len(sizes) < LEAST_SIZES:
        return Prediction((), f"{len(sizes)} sizes; a prediction needs {LEAST_SIZES}", {})
    rises = float(np.mean(drawn_DN[:, -1] > drawn_DN[:, 0]))
    if rises < JUDGED:
        return Prediction((), "accuracy does not surely rise with the number of labels", {})
    misses = {}
    for name in LAWS:
        ahead_D = fit(name, sizes[:-1], drawn_DN[:, :-1]).accuracy(sizes[-1]) - drawn_DN[:, -1]
        if min(np.mean(ahead_D > 0), np.mean(ahead_D < 0)) > (1 - JUDGED) / 2:
            seen = fit(name, sizes[:-1], accuracy_N[None, :-1]).accuracy(sizes[-1])[0]
            misses[name] = abs(float(seen - accuracy_N[-1]))
    laws = tuple(sorted(misses, key=misses.__getitem__))
    if not laws:
        return Prediction((), "no law foresees the accuracy at the largest size from the smaller ones", {})
    if laws == ("sigmoid",):
        return Prediction(laws, "accuracy rises faster with each doubling: where it levels off cannot be seen yet", {})
    at = {factor: _at(factor * sizes[-1], laws, sizes, accuracy_N, drawn_DN) for factor in FACTORS}
    wide = at[FACTORS[0]]["high"] - at[FACTORS[0]]["low"]
    if wide > MOST_WIDTH:
        return Prediction(laws, f"the prediction at twice the labels is {100 * wide:.0f} points wide", {})
    return Prediction(laws, None, at)


def _at(n: int, laws: Sequence[str], sizes: Sequence[int], accuracy_N: Floats, drawn_DN: Floats) -> dict[str, float]:
    fits = [fit(name, sizes, drawn_DN) for name in laws]
    ends = [np.percentile(one.accuracy(n), INTERVAL) for one in fits]
    gains = [np.percentile(one.accuracy(n) - one.accuracy(sizes[-1]), INTERVAL) for one in fits]
    alone = [fit(name, sizes, accuracy_N[None]) for name in laws]
    first = next((one for one in alone if one.value(n)[0] <= 1), alone[0])
    value, here = float(first.accuracy(n)[0]), float(first.accuracy(sizes[-1])[0])
    return {
        "accuracy": value,
        "low": min(value, *(float(low) for low, _ in ends)),
        "high": max(value, *(float(high) for _, high in ends)),
        "passes": float(np.mean(np.min([one.value(n) for one in fits], axis=0) > 1)),
        "gain": value - here,
        "gain_low": min(float(low) for low, _ in gains),
        "gain_high": max(float(high) for _, high in gains),
    }
