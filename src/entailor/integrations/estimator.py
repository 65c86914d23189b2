"""A comparison as a classifier of scikit-learn: fit it on texts and labels, ask it for labels and probabilities."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from entailor.config.experiment import DEFAULT_MODEL
from entailor.data.columns import find_columns
from entailor.data.in_memory import as_text, column_names, document, is_missing, is_table, plain_list
from entailor.data.values import plain_number
from entailor.errors import DataError, LabelError, RunError
from entailor.shipping.predictor import Predictor, texts_of
from entailor.study.compare import compare
from entailor.study.results import Comparison


class EntailorClassifier(ClassifierMixin, BaseEstimator):
    """Compare methods on texts and labels, and answer with the recommended one.

    `fit` sets validation and test examples aside, trains every method, and keeps the recommended candidate (where none
    is recommended, the most accurate one). Each fit has a run folder of its own below `out`, named by a hash of data
    and parameters; the same fit again trains nothing. A pickle holds the path of that folder and no weights.

    >>> from entailor import EntailorClassifier
    >>> texts = [f"{word} film {n}" for n in range(60) for word in ("good", "bad")]
    >>> labels = [text.split()[0] for text in texts]
    >>> classifier = EntailorClassifier(methods="bag_of_words").fit(texts, labels)
    >>> classifier.predict(["a good one", "bad, bad"]).tolist()
    ['good', 'bad']

    Args:
        methods: as in :class:`~entailor.Experiment`: names with commas, a list, or a mapping from name to settings.
        models: Hub ids, folders, GGUF files or packages.
        seeds: how many, or which.
        settings: further keys of an experiment, e.g. ``{"data": {"test_size": 0.1}}``.
        out: the folder under which the run folders lie.

    Attributes:
        classes_: the labels of y, sorted, shape (L,).
        run_: the :class:`~entailor.Comparison` of the last fit.
        is_pair_: whether inputs are pairs of texts.
    """

    def __init__(
        self,
        methods: Any = "lora",
        *,
        models: str | Sequence[str] = DEFAULT_MODEL,
        seeds: int | Sequence[int] = 1,
        settings: Mapping[str, Any] | None = None,
        out: str = "runs/classifier",
    ) -> None:
        self.methods = methods
        self.models = models
        self.seeds = seeds
        self.settings = settings
        self.out = out

    def fit(self, X: Any, y: ArrayLike) -> Self:
        """Compare and keep the recommended candidate.

        Args:
            X: N texts or pairs of texts: a list, an array, a Series, or a table with columns of usual names (text;
                premise and hypothesis).
            y: N labels: text or integers.

        Raises:
            DataError: X is no sequence of texts or pairs, or y is of another length.
            LabelError: two labels that read alike, an empty one, or one that is missing.
            RunError: no trial finished.
            EntailorError: as for :func:`entailor.compare`.
        """
        X = _listed(X)
        is_pair = _are_pairs(X)
        texts = _texts(X, is_pair=is_pair)
        labels_N = _labels(y, len(texts))
        classes_L = np.unique(labels_N)
        names = _names(classes_L)
        named = [names[label] for label in labels_N.tolist()]
        examples = [(first, second, label) if is_pair else (first, label)
                    for (first, second), label in zip(texts, named, strict=True)]  # fmt: skip
        run = compare(
            train=examples,
            out=str(Path(self.out) / self._digest(document(examples, "X"))),
            methods=self.methods,
            models=self.models,
            seeds=self.seeds,
            **(self.settings or {}),
        )
        picked = (run.recommendation and run.recommendation.candidate) or run.best
        if picked is None:
            raise RunError(f"{run.folder.path}: no trial finished: {run.records[0].error}")
        self.classes_, self.run_, self.is_pair_ = classes_L, run, is_pair
        self._trial = picked.trial
        self._predictor: Predictor | None = None
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable label of each input, shape (N,).

        Raises:
            NotFittedError: `fit` was not called.
            DataError: single texts where pairs are expected or the other way round, or something that is no text.
        """
        probabilities_NL = self.predict_proba(X)
        return np.asarray(self.classes_[probabilities_NL.argmax(axis=1)])

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return probabilities, shape (N, L), in the order of `classes_`.

        Raises:
            NotFittedError: `fit` was not called.
            DataError: as for `predict`.
        """
        check_is_fitted(self)
        texts = _texts(_listed(X), is_pair=self.is_pair_)
        if self._predictor is None:
            self._predictor = Predictor.load(self._trial)
        answers = self._predictor.predict(texts if self.is_pair_ else [first for first, _ in texts])
        names = _names(self.classes_)
        order = [names[label] for label in self.classes_.tolist()]
        return np.array([[answer.probabilities[name] for name in order] for answer in answers]).reshape(-1, len(order))

    def _digest(self, content: str) -> str:
        parameters = {name: value for name, value in self.get_params(deep=False).items() if name != "out"}
        digest = hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=8)
        digest.update(json.dumps(parameters, sort_keys=True, default=str).encode())
        return digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        run = state.pop("run_", None)
        if "_predictor" in state:
            state["_predictor"] = None
        return state if run is None else {**state, "_run": str(run.folder.path)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        run = state.pop("_run", None)
        super().__setstate__(state)
        if run is not None:
            self.run_ = Comparison.read(run)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.no_validation = True  # texts are checked by Entailor's own reader
        return tags


def _listed(inputs: Any) -> Any:
    """Return a table as it is and anything else as a list, which can be gone through twice."""
    return inputs if is_table(inputs) else plain_list(inputs, "X", "a list of texts, or of pairs of texts")


def _labels(y: Any, count: int) -> NDArray[Any]:
    """Return one label a text, as NumPy sorts them.

    Raises:
        DataError: another number of labels, or a table of them.
        LabelError: a label is missing, or texts and numbers are mixed.
    """
    if is_table(y):
        problem = f"{type(y).__name__} found, expected one label for each text"
        raise DataError(problem, path="y", remedy="Give one column of it, such as y['label']")
    listed = plain_list(y, "y", "a list of labels")
    if missing := [place for place, label in enumerate(listed, start=1) if is_missing(label)]:
        raise LabelError("no label", path="y", row=missing[0], remedy="Leave out examples without a label")
    if several := [place for place, label in enumerate(listed, start=1) if isinstance(label, list | tuple)]:
        raise LabelError("several labels", path="y", row=several[0], remedy="Give one label for each text: y.ravel()")
    if len(listed) != count:
        raise DataError(f"{len(listed):,} labels for {count:,} texts", path="y", remedy="Give one label for each text")
    if len({isinstance(label, str) for label in listed}) > 1:
        remedy = "Make all of them text: [str(label) for label in y]"
        raise LabelError("labels that are text and others that are none", path="y", remedy=remedy)
    return np.asarray(y if hasattr(y, "dtype") else listed)


def _are_pairs(inputs: Any) -> bool:
    """Tell whether inputs are pairs, by the columns of a table or the first input."""
    if is_table(inputs):
        names = [str(name) for name in column_names(inputs, "X")]
        try:
            return "text_pair" in find_columns(names, {}, source="X", require_labels=False)
        except DataError as error:  # which proposes an option of the command line
            remedy = "Give a table with a column text, or with premise and hypothesis"
            raise DataError(error.problem, path="X", remedy=remedy) from None
    first = inputs[0] if inputs else ""
    return not isinstance(first, str) and isinstance(first, Iterable)


def _texts(inputs: Any, *, is_pair: bool) -> list[tuple[str, str | None]]:
    if not is_table(inputs):
        inputs = [tuple(one) if is_pair and not isinstance(one, str) else one for one in inputs]
        for place, one in enumerate(inputs, start=1):
            if is_pair and len(one) != 2 and not isinstance(one, str):
                raise DataError(f"{len(one)} parts found, expected a text, or a pair of texts", path="X", row=place)
    texts = texts_of(inputs, is_pair=is_pair)
    if None in texts:
        raise DataError("no text", path="X", row=texts.index(None) + 1, remedy="Fill it in or leave the example out")
    return [one for one in texts if one is not None]


def _names(classes_L: NDArray[Any]) -> dict[Any, str]:
    """Return label to the name it has in the run.

    Raises:
        LabelError: a name is empty, or two labels have one.
    """
    names = {label: plain_number(str(as_text(label)).strip()) for label in classes_L.tolist()}
    if "" in names.values():
        raise LabelError("an empty label", path="y", remedy="Leave out examples without a label")
    if len(set(names.values())) < len(names):
        raise LabelError(f"two labels that read alike: {', '.join(names.values())}", path="y", remedy="Rename one")
    return names
