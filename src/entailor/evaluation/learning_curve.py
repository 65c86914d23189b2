"""Accuracy by number of labels: a power law with its interval, the best candidate, and whether more labels pay.

Error falls with the number of labels n about as a * n^-b + c (Hestness et al. 2017, section 3; Rosenfeld et al. 2020).
A law fitted to a few noisy points says little, so every figure has a bootstrap interval, and a poor fit is refused.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from entailor.errors import RunError
from entailor.evaluation.comparison import short_model_names
from entailor.evaluation.statistics import wilson_interval
from entailor.runs.record import RunRecord

DRAWS = 200
SEED = 0
LEAST_SIZES = 4  # three parameters, and one point that can contradict them
LEAST_R2 = 0.8  # of the mean error by size
MOST_WIDTH = 0.25  # of a prediction's interval; a wider one says nothing
FACTORS = (2, 10)
SURE = 0.9  # share of draws in which the lead must change for a crossing to be told
STEEPEST = 2.0  # largest exponent b
EXPONENTS = 81  # that are tried for resampled curves

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CandidateCurve:
    """One candidate's records by number of training labels; all over the same test examples."""

    model: str
    method: str
    sizes: Mapping[int, Sequence[RunRecord]]


@dataclass(frozen=True)
class PowerLaw:
    """Error as a * n^-b + c."""

    a: float
    b: float
    c: float

    def error(self, n: float) -> float:
        """Return the error at n labels, 0 to 1."""
        return float(min(1.0, self.a * n**-self.b + self.c))


def fit_power_law(sizes: Sequence[int], errors: Sequence[float]) -> PowerLaw | None:
    """Return the law of least squares with a >= 0, 0 <= b <= 2, 0 <= c <= 1, or None where none is found.

    Args:
        sizes: numbers of labels, at least three different ones.
        errors: error at each, 0 to 1.
    """
    from scipy.optimize import OptimizeWarning, curve_fit

    n, e = np.asarray(sizes, float), np.asarray(errors, float)
    scale = float(n.min())  # in units of the smallest sample the parameters are of one size
    first = (max(1e-3, float(e[0] - 0.9 * e.min())), 0.5, 0.9 * float(e.min()))
    bounds = ((0.0, 0.0, 0.0), (10.0, STEEPEST, 1.0))
    begin = [min(max(value, low), high) for value, low, high in zip(first, *bounds, strict=True)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)  # the interval is the bootstrap's, not the covariance's
            (a, b, c), _ = curve_fit(
                lambda x, a, b, c: a * (x / scale) ** -b + c, n, e, p0=begin, bounds=bounds, maxfev=400
            )
    except RuntimeError:
        return None
    return PowerLaw(float(a) * scale ** float(b), float(b), float(c))


def fit_resampled(sizes: Sequence[int], errors_DN: Floats) -> list[PowerLaw]:
    """Return the law of least squares of each of many curves, under the same bounds, over a grid of exponents.

    For a given exponent the law is linear in a and c, so all curves are solved at once; :func:`fit_power_law` for each
    would take seconds.

    Args:
        sizes: N numbers of labels.
        errors_DN: D curves.
    """
    scale = float(min(sizes))
    n = np.asarray(sizes, float) / scale
    mean_D = errors_DN.mean(axis=1)
    best_D = np.full(len(errors_DN), np.inf)
    laws_D3 = np.zeros((len(errors_DN), 3))
    for b in np.linspace(0.025, STEEPEST, EXPONENTS):
        x_N = n**-b
        centred_N = x_N - x_N.mean()
        a_D = np.maximum(0.0, (errors_DN @ centred_N) / (centred_N @ centred_N))
        c_D = mean_D - a_D * x_N.mean()
        below = c_D < 0
        a_D, c_D = np.where(below, (errors_DN @ x_N) / (x_N @ x_N), a_D), np.maximum(c_D, 0.0)
        loss_D = ((a_D[:, None] * x_N + c_D[:, None] - errors_DN) ** 2).sum(axis=1)
        better = loss_D < best_D
        best_D = np.where(better, loss_D, best_D)
        laws_D3[better] = np.stack([a_D * scale**b, np.full_like(a_D, b), c_D], axis=1)[better]
    return [PowerLaw(*map(float, law)) for law in laws_D3]


def describe_curves(candidates: Sequence[CandidateCurve]) -> dict[str, Any]:
    """Return each candidate's points, fit and predictions, the best at each size, and where the lead changes.

    Args:
        candidates: at least two sizes each.

    Raises:
        RunError: two points were tested on different examples.
    """
    if not candidates:
        return {"candidates": [], "num_test": 0, "best": [], "crossings": [], "sentence": "No curve has two sizes yet."}
    correct = [
        {size: _correct(records, candidates[0]) for size, records in sorted(candidate.sizes.items())}
        for candidate in candidates
    ]
    num_test = next(iter(correct[0].values())).shape[1]
    drawn = _draws(correct, num_test)
    documents = [
        _row_document(candidate, found, errors, num_test)
        for candidate, found, errors in zip(candidates, correct, drawn, strict=True)
    ]
    names = _names(candidates)
    best = _best_by_size(candidates, drawn)
    return {
        "num_test": num_test,
        "candidates": documents,
        "best": best,
        "crossings": _crossings(candidates, correct, drawn),
        "sentence": _sentence(documents, names),
    }


def _names(candidates: Sequence[CandidateCurve]) -> list[str]:
    short = short_model_names([candidate.model for candidate in candidates])
    return [
        candidate.method + (f" on {short[candidate.model]}" if len(short) > 1 and candidate.model in short else "")
        for candidate in candidates
    ]


def _correct(records: Sequence[RunRecord], first: CandidateCurve) -> Floats:
    """Return right or wrong, (seeds, test examples), in the order of the first candidate's examples."""
    ids = [one.id for one in next(iter(first.sizes.values()))[0].predictions]
    lines = []
    for record in records:
        right = {one.id: one.predicted == one.label for one in record.predictions}
        if right.keys() != set(ids):
            raise RunError(
                f"{record.name} on {record.model}: a point of its learning curve was tested on other examples. "
                "Delete the folder `curve` and run the same command again"
            )
        lines.append([right[id_] for id_ in ids])
    return np.array(lines, dtype=float)


def _draws(correct: Sequence[Mapping[int, Floats]], num_test: int) -> list[dict[int, Floats]]:
    """Return errors under resampled test examples (the same for every point) and resampled seeds, (draws,) a size."""
    rng = np.random.default_rng(SEED)
    weights_DN = rng.multinomial(num_test, np.full(num_test, 1 / num_test), size=DRAWS) / num_test
    drawn = []
    for candidate in correct:
        errors = {}
        for size, right_SN in candidate.items():
            by_seed_DS = 1 - weights_DN @ right_SN.T
            seeds = right_SN.shape[0]
            picked_DS = rng.integers(seeds, size=(DRAWS, seeds))
            errors[size] = np.take_along_axis(by_seed_DS, picked_DS, axis=1).mean(axis=1)
        drawn.append(errors)
    return drawn


def _row_document(
    candidate: CandidateCurve, correct: Mapping[int, Floats], drawn: Mapping[int, Floats], num_test: int
) -> dict[str, Any]:
    points = []
    for size, right_SN in correct.items():
        mean = float(right_SN.mean())
        wilson = wilson_interval(mean, num_test)
        points.append(
            {
                "n": size,
                "accuracy": {"mean": mean, "low": wilson.low, "high": wilson.high},
                "per_seed": right_SN.mean(axis=1).tolist(),
                "epochs": float(np.mean([record.costs.epochs for record in candidate.sizes[size]])),
                "train_seconds": float(np.mean([record.costs.train_seconds for record in candidate.sizes[size]])),
            }
        )
    sizes = list(correct)
    errors = [1 - point["accuracy"]["mean"] for point in points]
    law, r2, refused = _checked_fit(sizes, errors)
    document: dict[str, Any] = {"model": candidate.model, "method": candidate.method, "points": points}
    document |= {"fit": None, "refused": refused, "predicted": []}
    if law is None or refused:
        return document
    found = fit_resampled(sizes, np.array([drawn[size] for size in sizes]).T)
    largest = sizes[-1]
    predicted = [_prediction(law, found, largest, factor) for factor in FACTORS]
    if predicted[0]["high"] - predicted[0]["low"] > MOST_WIDTH:
        wide = 100 * (predicted[0]["high"] - predicted[0]["low"])
        return {**document, "refused": f"the prediction at twice the labels is {wide:.0f} points wide"}
    for one in predicted[1:]:
        if one["high"] - one["low"] > MOST_WIDTH:
            one["refused"] = f"the interval is {100 * (one['high'] - one['low']):.0f} points wide"
    return {**document, "fit": {"a": law.a, "b": law.b, "c": law.c, "r2": r2}, "predicted": predicted}


def _checked_fit(sizes: Sequence[int], errors: Sequence[float]) -> tuple[PowerLaw | None, float, str | None]:
    """Return the law, the share of variance it explains, and why it is refused, if it is."""
    if len(sizes) < LEAST_SIZES:
        return None, 0.0, f"{len(sizes)} sizes; a fit needs {LEAST_SIZES}"
    law = fit_power_law(sizes, errors)
    if law is None:
        return None, 0.0, "no power law was found"
    total = float(np.var(errors))
    left = float(np.mean([(law.error(n) - e) ** 2 for n, e in zip(sizes, errors, strict=True)]))
    r2 = 1 - left / total if total > 0 else 0.0
    if errors[-1] >= errors[0]:
        return law, r2, "accuracy does not rise with the number of labels"
    return law, r2, None if r2 >= LEAST_R2 else f"the power law explains {100 * r2:.0f} % of what the points vary"


def _prediction(law: PowerLaw, found: Sequence[PowerLaw], largest: int, factor: int) -> dict[str, Any]:
    """Return the accuracy at more labels, and what it gains over the fitted accuracy at the largest size."""
    n = factor * largest
    accuracies = np.array([1 - one.error(n) for one in found])
    gains = np.array([one.error(largest) - one.error(n) for one in found])
    low, high = np.percentile(accuracies, (2.5, 97.5))
    gain_low, gain_high = np.percentile(gains, (2.5, 97.5))
    value = 1 - law.error(n)
    return {
        "factor": factor,
        "n": n,
        "accuracy": value,
        "low": float(min(low, value)),
        "high": float(max(high, value)),
        "gain": law.error(largest) - law.error(n),
        "gain_low": float(gain_low),
        "gain_high": float(gain_high),
    }


def _best_by_size(candidates: Sequence[CandidateCurve], drawn: Sequence[Mapping[int, Floats]]) -> list[dict[str, Any]]:
    """Return the best candidate at each size that all candidates have, with the share of draws in which it is best."""
    shared = sorted(set.intersection(*(set(errors) for errors in drawn)))
    best = []
    for size in shared:
        errors_RD = np.array([errors[size] for errors in drawn])
        place = int(errors_RD.mean(axis=1).argmin())
        first_D = errors_RD[place] <= errors_RD.min(axis=0)
        one = {"n": size, "model": candidates[place].model, "method": candidates[place].method}
        best.append({**one, "share_of_draws": float(first_D.mean())})
    return best


def _crossings(
    candidates: Sequence[CandidateCurve], correct: Sequence[Mapping[int, Floats]], drawn: Sequence[Mapping[int, Floats]]
) -> list[dict[str, Any]]:
    """Return where one candidate overtakes another for good measure: behind at one size, ahead at a later one.

    Both must hold in at least `SURE` of the draws, or the change of lead is noise. Between the last size behind and the
    first ahead the place is interpolated over log n.
    """
    found = []
    for i, behind in enumerate(candidates):
        for j, ahead in enumerate(candidates):
            shared = sorted(set(drawn[i]) & set(drawn[j])) if i != j else []
            # how often candidate i is behind, and ahead of, candidate j at each size
            loses = [float((drawn[i][n] > drawn[j][n]).mean()) for n in shared]
            wins = [float((drawn[i][n] < drawn[j][n]).mean()) for n in shared]
            later = next((k for k in range(len(shared)) if wins[k] >= SURE), None)
            earlier = [k for k in range(later or 0) if loses[k] >= SURE]
            if later is None or not earlier:
                continue
            low, high = shared[earlier[-1]], shared[later]
            gaps = [float(correct[i][n].mean() - correct[j][n].mean()) for n in (low, high)]
            share = -gaps[0] / (gaps[1] - gaps[0]) if gaps[1] != gaps[0] else 0.5
            at = math.exp(math.log(low) + min(1.0, max(0.0, share)) * (math.log(high) - math.log(low)))
            names = {"model": behind.model, "method": behind.method}
            over = {"over_model": ahead.model, "over_method": ahead.method}
            found.append({**names, **over, "between": [low, high], "at": round(at)})
    return found


def _sentence(documents: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Say of the candidate that is best at its largest size whether more labels are worth it."""
    place = max(range(len(documents)), key=lambda i: documents[i]["points"][-1]["accuracy"]["mean"])
    candidate, name = documents[place], names[place]
    last = candidate["points"][-1]
    here = f"{name}, best at {last['n']:,} labels ({100 * last['accuracy']['mean']:.1f} %)"
    if candidate["refused"]:
        return f"{here}: what more labels would give is not predicted: {candidate['refused']}."
    words = []
    for one in candidate["predicted"]:
        if "refused" in one:
            words.append(f"{one['factor']} times as many cannot be said ({one['refused']})")
        else:
            words.append(
                f"{one['factor']} times as many ({one['n']:,}) would give {100 * one['accuracy']:.1f} % "
                f"({100 * one['low']:.1f} to {100 * one['high']:.1f})"
            )
    twice = candidate["predicted"][0]
    if twice["gain_low"] > 0.01:
        verdict = "More labels are worth it"
    elif twice["gain_high"] < 0.01:
        verdict = "Twice the labels would gain less than a point"
    else:
        verdict = "Whether twice the labels gain a point is open"
    return f"{here}: {'; '.join(words)}. {verdict}."
