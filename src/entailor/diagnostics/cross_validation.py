"""Out-of-fold probabilities of a linear classifier, and what an accuracy on N examples can show."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from entailor.data.words import Floats, Integers, TextFeatures

FOLDS = 5
MOST_ITERATIONS = 100
MANY_LABELS = 20  # above it, naive Bayes: one pass for all labels, where regressions take one each
SMOOTHING, TEMPERATURE = 0.1, 2.0  # of naive Bayes: pseudo-counts, and what tempers it, as words are not independent
SHRINKAGE = 0.1  # of covariances of dense features


@dataclass(frozen=True)
class Held:
    """Accuracy on examples that were held out, against naming the most frequent label.

    Attributes:
        accuracy: share of examples that are right.
        low: lower end of the 95 % interval (Wilson).
        high: upper end.
        majority: share of the most frequent label.
    """

    accuracy: float
    low: float
    high: float
    majority: float

    @property
    def tells(self) -> bool:
        """Whether it is above the majority, chance aside."""
        return self.low > self.majority


def out_of_fold(features: Any, targets: Integers, groups: Integers, num_labels: int, *, seed: int, C: float) -> Floats:
    """Return each example's probabilities from a fit on the folds it does not stand in. Shape (N, L).

    Args:
        features: sparse or dense, one example an example.
        targets: label codes. Shape (N,).
        groups: examples of one group stand in one fold, so that no text is learned and asked. Shape (N,).
        num_labels: L; a label that a fold's training examples lack gets probability 0 there.
        seed: of the folds.
        C: inverse regularisation strength.
    """
    probabilities = np.zeros((len(targets), num_labels))
    fold_of = _folds(groups, seed)
    for fold in range(FOLDS):
        held = fold_of == fold
        known = np.unique(targets[~held])
        if len(known) < 2 or not held.any():
            probabilities[np.ix_(held, known)] = 1 / max(1, len(known))
            continue
        model = _fitted(features[~held], targets[~held], num_labels, C, seed)
        probabilities[np.ix_(held, model.classes_)] = _probabilities(model, features[held])
    return probabilities


def word_features(texts: TextFeatures, num_labels: int) -> Any:
    """Return all features of texts that the classifier for so many labels takes, sparse. Shape (N, F)."""
    from scipy.sparse import csr_matrix, hstack

    views = list(texts.tfidf.values())
    if texts.are_pairs:
        views.append(texts.swaps)
        if num_labels <= MANY_LABELS:  # naive Bayes counts, and cannot count below zero
            views.append(csr_matrix(texts.overlap))
    return hstack(views, format="csr")


def expected_labels(features: Any, targets: Integers, num_labels: int, asked: Any, seed: int) -> Integers:
    """Return the likeliest label code of other examples, learned from these."""
    model = _fitted(features, targets, num_labels, 1.0, seed)
    return np.asarray(model.predict(asked))


def _fitted(features: Any, targets: Integers, num_labels: int, C: float, seed: int) -> Any:
    model = _classifier(features, num_labels, C, seed)
    with warnings.catch_warnings():
        # a fit that stops early, or of a label with one example, is good enough to find what stands out
        warnings.simplefilter("ignore", UserWarning)
        return model.fit(features, targets)


def _classifier(features: Any, num_labels: int, C: float, seed: int) -> Any:
    """Return an unfitted classifier, the quickest that ranks as well on such features."""
    from scipy.sparse import issparse
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.naive_bayes import MultinomialNB

    if not features.shape[1]:  # no word stands in two texts, such as in numbers of orders
        return DummyClassifier()
    if num_labels > MANY_LABELS:
        return (
            MultinomialNB(alpha=SMOOTHING)
            if issparse(features)
            else LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRINKAGE)
        )
    if issparse(features):  # of many sparse features one a label in the dual, ten times as quick
        one = LogisticRegression(C=C, solver="liblinear", dual=True, tol=0.1, max_iter=10, random_state=seed)
        return OneVsRestClassifier(one)
    return LogisticRegression(C=C, max_iter=MOST_ITERATIONS, tol=1e-3)


def _probabilities(model: Any, features: Any) -> Floats:
    from scipy.special import softmax
    from sklearn.naive_bayes import MultinomialNB

    if isinstance(model, MultinomialNB):
        return np.asarray(softmax(model.predict_joint_log_proba(features) / TEMPERATURE, axis=1))
    return np.asarray(model.predict_proba(features))


def held_out_accuracy(probabilities: Floats, targets: Integers) -> Held:
    """Return the accuracy of out-of-fold probabilities with its interval."""
    from scipy.stats import binomtest

    right, total = int((probabilities.argmax(axis=1) == targets).sum()), len(targets)
    interval = binomtest(right, total).proportion_ci(method="wilson")
    majority = float(np.bincount(targets).max() / total)
    return Held(right / total, float(interval.low), float(interval.high), majority)


def _folds(groups: Integers, seed: int) -> Integers:
    """Deal whole groups in random order to folds, each to the one with the fewest examples."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng((seed, 2)).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    fold_of_group, filled = np.zeros(len(sizes), np.int64), [0] * FOLDS
    for one in order.tolist():
        fold = filled.index(min(filled))
        fold_of_group[one] = fold
        filled[fold] += int(sizes[one])
    folds: Integers = fold_of_group[group]
    return folds
