"""The contract of every classifier: texts in, one logit per label out.

Shape letters used from here on: B examples of a batch, T tokens, L labels, H hidden size, N virtual tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from entailor.data.example import Example
from entailor.errors import MethodError
from entailor.tasks import Task

if TYPE_CHECKING:  # baselines on words do without
    from torch import Tensor

    from entailor.accel.embedding_rows import EmbeddingRows


class Encoded(Protocol):
    """One input of a classifier; the engine looks at these three things only."""

    @property
    def example_index(self) -> int:
        """Index of the example it belongs to; windows of one long text share it."""
        ...

    @property
    def truncated(self) -> bool:
        """Whether text was cut off."""
        ...

    def __len__(self) -> int:
        """Return its cost in tokens."""
        ...


class Classifier(ABC):
    """Inputs to logits, one per label, in the order of `task.labels`."""

    task: Task
    method_name: str = ""
    abstains: ClassVar[bool] = False
    """Whether it may give no answer: a row of logits that are all minus infinity, which counts as wrong."""
    offset_L: NDArray[np.float64] | None = None
    """What is added to the logits and stands in none of its own files, so that classifier.json keeps it."""

    @property
    def pads(self) -> bool:
        """Whether padding takes what tokens take; False where it is left out of the computation."""
        return True

    def notes(self) -> tuple[str, ...]:
        """Return what the reader of a record must know about how it ran."""
        return ()

    def measured_costs(self) -> dict[str, float]:
        """Return fields of a record's costs that only it can know; they go before what is measured from outside."""
        return {}

    @abstractmethod
    def encode(self, examples: Sequence[Example]) -> Sequence[Encoded]:
        """Turn text into inputs, once a data set; one entry an example (more with windows), in order."""

    @abstractmethod
    def collate(self, inputs: Sequence[Any]) -> Any:
        """Make one batch of encoded inputs."""

    @abstractmethod
    def logits(self, batch: Any) -> Tensor | NDArray[np.float32]:
        """Return logits_BL, float32; a NumPy array where no torch is needed for them."""

    @property
    def tokens_together(self) -> int | None:
        """Tokens of the batches that go through layer by layer; None: each batch goes by itself."""
        return None

    def logits_together(self, batches: Sequence[Any]) -> list[Any]:
        """Return the logits of several batches."""
        return [self.logits(batch) for batch in batches]

    def rows_to_train(self, inputs: Sequence[Any]) -> EmbeddingRows | None:
        """Put the rows of a large embedding that occur in its place, for as long as these inputs train it.

        None where the embedding is not trained, or nothing is won. Whoever asks calls `finish` of what it gets.
        """
        return None

    def shift(self, shift_L: NDArray[np.float64]) -> None:
        """Add to each label's logit from now on, also in what is saved: how thresholds decide.

        Raises:
            MethodError: it has no place for them.
        """
        raise MethodError(f"{self.method_name or type(self).__name__} keeps no thresholds. Set thresholds=none")

    @contextmanager
    def scoring(self, inputs: Sequence[Any]) -> Iterator[Sequence[Any]]:
        """Prepare for scoring a set of inputs, and give what is scored in their place; `rows` tells whose it is."""
        yield inputs

    def rows(self, inputs: Sequence[Any]) -> list[int]:
        """Return the index of the example that each row of a batch's logits belongs to."""
        return [item.example_index for item in inputs]

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what was learned, and nothing else, into an empty folder."""

    @abstractmethod
    def load(self, folder: Path) -> None:
        """Read back what :meth:`save` wrote into a freshly adapted classifier."""

    @abstractmethod
    def parameter_counts(self) -> tuple[int, int, int]:
        """Return how many parameters are trained, stored, and there in all."""


class FittedClassifier(Classifier):
    """A classifier that is fitted in one go instead of being trained by gradients."""

    @abstractmethod
    def features(self, batch: Any) -> Any:
        """Return what the fit needs of one batch: a matrix with one row an input, or a list."""

    @abstractmethod
    def fit(self, train: FitData, validation: FitData) -> tuple[str, ...]:
        """Fit on train, choosing on validation; return events worth recording."""


class PromptedClassifier(Classifier):
    """A classifier that is shown examples instead of being trained."""

    @property
    @abstractmethod
    def needs_validation(self) -> bool:
        """Whether the validation split must be scored before :meth:`calibrate`."""

    @abstractmethod
    def demonstrate(self, train: Sequence[Example]) -> tuple[str, ...]:
        """Choose what is shown, from train alone; return events worth recording."""

    @abstractmethod
    def calibrate(self, logprobs_EL: NDArray[np.float64], targets_E: NDArray[np.int64]) -> tuple[str, ...]:
        """Fit what is taken off the scores, on validation; return events worth recording."""


@dataclass(frozen=True)
class FitData:
    """Features of a split, in the order of its examples.

    Attributes:
        features: one array of shape (examples, features), or a list with one entry an example.
        targets: output indices.
    """

    features: Any
    targets: NDArray[np.int64]


def count_parameters(parameters: Iterable[Tensor]) -> int:
    """Return the number of elements, each shared tensor once."""
    return sum(_elements(tensor) for tensor in {id(tensor): tensor for tensor in parameters}.values())


def _elements(tensor: Tensor) -> int:
    """Return the number of elements; of a weight in 4 bits those it stands for, not the bytes they are packed in."""
    packed = getattr(tensor, "quant_state", None)
    return tensor.numel() if packed is None else int(packed.shape.numel())


def pad_ids(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """Return ids_BT, right-padded with `fill`."""
    import torch

    longest = max(len(row) for row in rows)
    padded = np.full((len(rows), longest), fill, dtype=np.int64)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return torch.from_numpy(padded)
