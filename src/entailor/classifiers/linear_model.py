"""Multinomial logistic regression by scikit-learn, kept as plain numbers so that nothing is pickled."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from entailor.errors import MethodError

FILE = "linear.safetensors"


class LinearModel:
    """Features to logits: ``x @ weight_FL + bias_L``.

    Args:
        num_labels: L; labels that never occur in training keep a logit of minus ten.
    """

    def __init__(self, num_labels: int) -> None:
        self.num_labels = num_labels
        self.weight_FL: NDArray[np.float64] = np.zeros((0, num_labels))
        self.bias_L: NDArray[np.float64] = np.zeros(num_labels)

    def fit(
        self,
        train: tuple[Any, NDArray[np.int64]],
        validation: tuple[Any, NDArray[np.int64]],
        strengths: Sequence[float],
        max_iterations: int,
        class_weight: Literal["none", "balanced"] = "none",
    ) -> tuple[str, ...]:
        """Fit one model a regularisation strength; keep the one with the least log loss on validation.

        Args:
            train: features (dense or sparse, one row an example) and targets.
            validation: the same.
            strengths: scikit-learn's C.
            max_iterations: of L-BFGS.
            class_weight: balanced: examples count by the inverse frequency of their label in train, here and in the log
                loss on validation.

        Returns:
            The choice in words.

        Raises:
            MethodError: train has one label only, or there is no strength to try.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import log_loss

        if len(np.unique(train[1])) < 2:
            raise MethodError("all training examples have the same label, so there is nothing to learn")
        known = np.isin(validation[1], train[1])
        if not known.any():
            raise MethodError("validation has none of the labels that train has, so nothing can be chosen on it")
        weighting = None if class_weight == "none" else class_weight
        counts_L = np.bincount(train[1], minlength=self.num_labels)
        weight_V = 1 / counts_L[validation[1][known]] if weighting else None
        best: tuple[float, float, Any] | None = None
        for strength in strengths:
            model = LogisticRegression(C=strength, max_iter=max_iterations, class_weight=weighting)
            with warnings.catch_warnings():
                # a fit that stops early is still judged by its log loss on validation
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(*train)
            probabilities_VL = model.predict_proba(validation[0][known])
            loss = log_loss(validation[1][known], probabilities_VL, labels=model.classes_, sample_weight=weight_V)
            if best is None or loss < best[0]:
                best = (loss, strength, model)
        if best is None:
            raise MethodError("no regularisation strength to fit with. Give at least one value of C")
        self._take(best[2])
        return (f"C={best[1]:g} chosen on validation (log loss {best[0]:.4f})",)

    def _take(self, model: Any) -> None:
        coefficients, intercepts = model.coef_, model.intercept_
        if len(model.classes_) == 2:  # scikit-learn keeps one row for two classes
            coefficients = np.vstack([np.zeros_like(coefficients), coefficients])
            intercepts = np.concatenate([[0.0], intercepts])
        self.weight_FL = np.zeros((coefficients.shape[1], self.num_labels))
        self.bias_L = np.full(self.num_labels, -10.0)
        self.weight_FL[:, model.classes_] = coefficients.T
        self.bias_L[model.classes_] = intercepts

    def logits(self, features: Any) -> NDArray[np.float64]:
        """Return logits_BL for dense or sparse features."""
        return np.asarray(features @ self.weight_FL) + self.bias_L

    def save(self, folder: Path) -> None:
        """Write weight and bias."""
        save_file({"weight": np.ascontiguousarray(self.weight_FL), "bias": self.bias_L}, folder / FILE)

    def load(self, folder: Path, features: int | None = None) -> None:
        """Read weight and bias.

        Raises:
            ValueError: they are for another number of labels or, where it is given, of features.
        """
        saved = load_file(folder / FILE)
        weight_FL, bias_L = saved["weight"], saved["bias"]
        expected = (len(weight_FL) if features is None else features, self.num_labels)
        if (weight_FL.shape, bias_L.shape) != (expected, (self.num_labels,)):
            raise ValueError(f"weight and bias of {weight_FL.shape} and {bias_L.shape}, expected {expected}")
        self.weight_FL, self.bias_L = weight_FL, bias_L

    @property
    def size(self) -> int:
        """Number of parameters."""
        return int(self.weight_FL.size + self.bias_L.size)


class LinearOutput:
    """A classifier whose logits a linear model gives."""

    linear: LinearModel

    def shift(self, shift_L: NDArray[np.float64]) -> None:
        """Add to the biases."""
        self.linear.bias_L = self.linear.bias_L + shift_L

    def save(self, folder: Path) -> None:
        """Write the linear model."""
        self.linear.save(folder)

    def load(self, folder: Path) -> None:
        """Read it back."""
        self.linear.load(folder)
