"""Labels that look wrong: where out-of-fold predictions disagree more than their own errors explain.

Confident learning (Northcutt, Jiang and Chuang 2021, *Confident Learning: Estimating Uncertainty in Dataset Labels*,
section 3) through cleanlab ranks them. How well that can work on the data at hand is measured: labels are made wrong on
purpose, and the check says how many of those it finds. By them the share that is wrong is bounded as well: wrong labels
are spoken against as those are, so there are no more of them than examples so strongly spoken against (the proportion
in a mixture, Blanchard, Lee and Scott 2010). Few examples decide that bound, so where there are few, other labels are
made wrong and other folds dealt, and the least of the bounds holds.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from entailor.data.text_keys import normalised_keys
from entailor.data.words import Floats, Integers, group_codes
from entailor.diagnostics.base import MOST_SHOWN, CheckInput, CheckOutcome, DoctorFinding, check, shown
from entailor.diagnostics.cross_validation import MANY_LABELS, held_out_accuracy, out_of_fold, word_features

NAME = "label_noise"
PLANTED = 0.05  # share of labels made wrong on purpose
ENOUGH_PLANTED, MOST_DRAWS = 300, 3  # labels made wrong, in several draws where examples are few
MOST_CANDIDATES = 0.1  # share of rows; where more disagree, it is the classifier that is weak
FEWEST_LISTED = 20
# found in clean data too: a share of the classifier's own errors, and never less than so much (docs/guides/doctor.md)
OWN_ERRORS, OWN_SHARE, RIGHT_ENOUGH = 0.19, 0.02, 0.67
WORTH_READING = 3.0  # times a random pick
STRENGTH_WORDS, STRENGTH_ENCODER, STRENGTH_WEIGHTS = 1.0, 0.0003, 1.0


@check(NAME, "labels that look wrong")
def label_noise(evidence: CheckInput) -> CheckOutcome:
    """Rank training examples by how little their label agrees with out-of-fold predictions."""
    if reason := evidence.too_few():
        return CheckOutcome(skipped=reason)
    rows, targets = evidence.fitted.rows, evidence.targets
    fit = _Fit(evidence)
    probabilities = fit.probabilities(targets)
    held = held_out_accuracy(probabilities, targets)
    power = _power(fit, targets, evidence.seed)
    listed = min(_most(len(targets)), max(FEWEST_LISTED, round(2 * power["share"] * len(targets))))
    candidates = noise_candidates(targets, probabilities)[:listed]
    facts = {"accuracy": held.accuracy, "majority": held.majority, "features": fit.words, **power}
    if not len(candidates):
        return CheckOutcome((), facts)
    telling = held.tells and power["times_chance"] >= WORTH_READING
    own = max(OWN_SHARE, OWN_ERRORS * (1 - held.accuracy))
    above = telling and held.accuracy >= RIGHT_ENOUGH and power["share"] > own
    tried = (
        f"Tried on labels made wrong on purpose ({100 * PLANTED:.0f} %): the first {power['planted']:,} examples held "
        f"{100 * power['precision']:.0f} % of wrong ones, {power['times_chance']:.1f} times a random pick"
    )
    remedy = "Read the first examples and correct what is wrong; all ids are listed, the likeliest first"
    if not telling:
        message = f"held-out predictions from {fit.words} speak against labels. {tried}. "
        message += "That is too little to find wrong labels by"
        remedy = "Do not act on these examples" + (
            "" if evidence.encoder else ". Give --model, so that the examples are read by an encoder"
        )
    else:
        message = f"at most about {100 * power['share']:.1f} % of train have a wrong label, by held-out predictions "
        message += f"from {fit.words}"
        if not above:
            message += f"; up to {100 * own:.1f} % are found in clean data too"
        message += f". {tried}"
    notes = [
        f"{evidence.labels[int(probabilities[at].argmax())]} expected "
        f"({100 * probabilities[at].max():.0f} %, the label given {100 * probabilities[at, targets[at]]:.0f} %)"
        for at in candidates[:MOST_SHOWN]
    ]
    found = DoctorFinding(
        NAME,
        "label_noise",
        "warning" if above else "info",
        message,
        remedy,
        tuple(shown("train", rows[at], note) for at, note in zip(candidates[:MOST_SHOWN], notes, strict=True)),
        tuple(rows[at].id for at in candidates),
        facts,
    )
    return CheckOutcome((found,), facts)


def noise_candidates(targets: Integers, probabilities: Floats) -> list[int]:
    """Return the examples whose label is likely wrong, the likeliest first.

    Args:
        targets: label codes. Shape (N,).
        probabilities: out of fold. Shape (N, L).
    """
    from cleanlab.filter import find_label_issues

    # cleanlab wants every code to occur
    known, codes = np.unique(targets, return_inverse=True)
    if len(known) < 2:
        return []
    some = probabilities[:, known] + 1e-9
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of labels that have one example
        ranked = find_label_issues(
            codes, some / some.sum(1, keepdims=True), return_indices_ranked_by="normalized_margin", n_jobs=1
        )
    return [int(place) for place in ranked]


def _most(num_rows: int) -> int:
    return max(1, round(MOST_CANDIDATES * num_rows))


class _Fit:
    """Features made once, fitted to labels as often as wanted: words, and a model's features beside them."""

    def __init__(self, evidence: CheckInput) -> None:
        self.groups = group_codes(normalised_keys([row.text for row in evidence.fitted.rows]))
        self.num_labels, self.seed = len(evidence.labels), evidence.seed
        self.views: list[tuple[Any, float]] = [(word_features(evidence.fitted, self.num_labels), STRENGTH_WORDS)]
        self.words = "words and word overlap" if evidence.is_pair else "words"
        if evidence.encoder is not None:
            values = evidence.encoder.values.astype(np.float64)
            self.views.append(((values - values.mean(0)) / (values.std(0) + 1e-6), STRENGTH_ENCODER))
            self.words += f" and features of {evidence.encoder.model}"

    def probabilities(self, targets: Integers, draw: int = 0) -> Floats:
        """Return out-of-fold probabilities; with two views, of a regression that weighs them. Shape (N, L).

        Args:
            targets: label codes. Shape (N,).
            draw: of the folds.
        """
        from scipy.special import softmax

        fit = partial(out_of_fold, targets=targets, groups=self.groups, num_labels=self.num_labels)
        views = [fit(view, seed=self.seed + 2 * draw, C=strength) for view, strength in self.views]
        if len(views) == 1:
            return views[0]
        logs = [np.log(view + 1e-9) for view in views]
        if self.num_labels > MANY_LABELS:  # too many weights to learn
            return np.asarray(softmax(sum(logs), axis=1))
        return fit(np.hstack(logs), seed=self.seed + 2 * draw + 1, C=STRENGTH_WEIGHTS)


def _power(fit: _Fit, targets: Integers, seed: int) -> Mapping[str, Any]:
    """Make some labels wrong on purpose, and tell how many of them are found; few examples several times."""
    count = max(1, round(PLANTED * len(targets)))
    shares, found, first = [], [], []
    for draw in range(min(MOST_DRAWS, math.ceil(ENOUGH_PLANTED / count))):
        rng = np.random.default_rng((seed, 3, draw))
        wrong = rng.choice(len(targets), count, replace=False)
        planted = targets.copy()
        planted[wrong] = (planted[wrong] + rng.integers(1, fit.num_labels, count)) % fit.num_labels
        probabilities = fit.probabilities(planted, draw)
        hits = np.isin(noise_candidates(planted, probabilities)[: _most(len(targets))], wrong)
        first.append(float(hits[:count].sum() / count))
        found.append(float(hits.sum() / count))
        shares.append(_share_of_wrong(planted, probabilities, wrong))
    precision = float(np.mean(first))
    return {
        "planted": count,
        "precision": precision,
        "recall": float(np.mean(found)),
        "times_chance": precision * len(targets) / count,
        "share": min(shares),  # each is a bound from above
    }


def _share_of_wrong(targets: Integers, probabilities: Floats, wrong: Integers) -> float:
    """Return the most that the share of wrong labels can be, by those that were made wrong on purpose.

    Args:
        targets: label codes, some made wrong. Shape (N,).
        probabilities: out of fold. Shape (N, L).
        wrong: examples whose label was made wrong.
    """
    rows = np.arange(len(targets))
    others = probabilities.copy()
    others[rows, targets] = -1.0
    support = probabilities[rows, targets] - others.max(axis=1)  # of the label given; low where it is spoken against
    known = support[wrong]
    rest = np.delete(support, wrong)
    # at least a tenth of the known ones, or a handful decides
    thresholds = np.quantile(known, np.linspace(0.1, 1.0, 19))
    return min(1.0, *(float(np.mean(rest <= at) / np.mean(known <= at)) for at in thresholds))
