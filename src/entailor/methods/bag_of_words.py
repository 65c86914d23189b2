"""TF-IDF and logistic regression on all the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat

from entailor.classifiers.base import FitData, FittedClassifier
from entailor.classifiers.linear_model import LinearModel, LinearOutput
from entailor.data.example import Example
from entailor.data.words import words_of
from entailor.errors import MethodError
from entailor.methods.base import LinearMethod
from entailor.runs.files import read_json, write_json
from entailor.tasks import Task

if TYPE_CHECKING:
    from entailor.models.load import Backbone


class BagOfWords(LinearMethod, name="bag_of_words"):
    """Logistic regression on TF-IDF of word n-grams; the texts of a pair have features of their own."""

    summary: ClassVar[str] = "TF-IDF and logistic regression on the text"
    needs_backbone: ClassVar[bool] = False
    deterministic: ClassVar[bool] = True

    max_ngram: int = Field(default=2, ge=1, le=5)
    """Longest n-gram, in words."""
    max_features: int = Field(default=100_000, ge=1)
    """Most n-grams kept for each text, by frequency."""
    min_df: int = Field(default=1, ge=1)
    """Fewest training examples an n-gram must stand in."""
    C: tuple[PositiveFloat, ...] = Field(default=(0.1, 1.0, 10.0), min_length=1)
    """Inverse regularisation strengths; the best on validation is kept."""

    def adapt(self, backbone: Backbone | None, task: Task, seed: int) -> BagOfWordsClassifier:
        """Return the unfitted classifier."""
        return BagOfWordsClassifier(self, task, ("text", "text_pair") if task.is_pair else ("text",))


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of one example that are read."""

    example_index: int
    texts: tuple[str, ...]
    truncated: bool = False

    def __len__(self) -> int:
        return 1


class BagOfWordsClassifier(LinearOutput, FittedClassifier):
    """One TF-IDF vectorizer for each text that is read, one linear model over all of them."""

    def __init__(self, method: BagOfWords, task: Task, fields: tuple[str, ...]) -> None:
        self.task, self.method, self.fields = task, method, fields
        self.vectorizers: list[Any] = []
        self.linear = LinearModel(len(task.labels))

    def encode(self, examples: Sequence[Example]) -> list[Texts]:
        """Keep the texts."""
        return [
            Texts(row, tuple(getattr(example, field) or "" for field in self.fields))
            for row, example in enumerate(examples)
        ]

    def collate(self, inputs: Sequence[Texts]) -> list[tuple[str, ...]]:
        """Return the texts of a batch."""
        return [item.texts for item in inputs]

    def features(self, batch: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
        """Return the texts; the vocabulary needs all of them at once."""
        return batch

    def _vectorizer(self, **settings: Any) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer

        return TfidfVectorizer(
            ngram_range=(1, self.method.max_ngram),
            tokenizer=words_of,
            token_pattern=None,
            lowercase=False,  # words_of does it
            sublinear_tf=True,
            **settings,
        )

    def _transform(self, rows: Sequence[tuple[str, ...]]) -> Any:
        from scipy.sparse import hstack

        columns = zip(*rows, strict=True)
        parts = zip(self.vectorizers, columns, strict=True)
        return hstack([vectorizer.transform(texts) for vectorizer, texts in parts], format="csr")

    def fit(self, train: FitData, validation: FitData) -> tuple[str, ...]:
        """Learn vocabulary, weights and the regularisation strength.

        Raises:
            MethodError: no n-gram is left to learn from, or train has one label only.
        """
        settings = {"max_features": self.method.max_features, "min_df": self.method.min_df}
        try:
            self.vectorizers = [self._vectorizer(**settings).fit(texts) for texts in zip(*train.features, strict=True)]
        except ValueError as error:
            raise MethodError(
                f"{self.method.name}: the training texts have no n-gram that stands in {self.method.min_df} examples "
                f"({error}). Lower min_df or look for empty texts"
            ) from None
        return self.linear.fit(
            (self._transform(train.features), train.targets),
            (self._transform(validation.features), validation.targets),
            self.method.C,
            self.method.max_iter,
            self.method.class_weight,
        )

    def logits(self, batch: list[tuple[str, ...]]) -> NDArray[np.float32]:
        """Return logits_BL."""
        return self.linear.logits(self._transform(batch)).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write vocabularies, inverse document frequencies and the linear model."""
        self.linear.save(folder)
        write_json(
            folder / "vocabulary.json",
            [
                {"terms": list(map(str, vectorizer.get_feature_names_out())), "idf": vectorizer.idf_.tolist()}
                for vectorizer in self.vectorizers
            ],
        )

    def load(self, folder: Path) -> None:
        """Read them back."""
        self.vectorizers = []
        for saved in read_json(folder / "vocabulary.json"):
            terms = {str(term): index for index, term in enumerate(saved["terms"])}
            vectorizer = self._vectorizer(vocabulary=terms)
            vectorizer.idf_ = np.array([float(weight) for weight in saved["idf"]])
            if not len(terms) == len(saved["terms"]) == len(saved["idf"]):
                raise ValueError("vocabulary.json: as many different terms as weights were expected")
            self.vectorizers.append(vectorizer)
        if len(self.vectorizers) != len(self.fields):
            raise ValueError(f"vocabulary.json: {len(self.vectorizers)} vocabularies, {len(self.fields)} expected")
        self.linear.load(folder, sum(len(one.vocabulary) for one in self.vectorizers))

    def parameter_counts(self) -> tuple[int, int, int]:
        """Return the size of the linear model; inverse document frequencies are stored beside it."""
        idf = sum(len(vectorizer.vocabulary_) for vectorizer in self.vectorizers)
        return self.linear.size, self.linear.size + idf, self.linear.size + idf
