"""Solved examples in front of a question: the settings that choose them, and the choice, from train alone.

Shared by the methods that ask a language model. Brown et al. 2020, section 2; neighbours as demonstrations: Liu et al.
2022, section 2.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, TypeAdapter

from entailor.config.experiment import DEFAULT_MODEL
from entailor.data.example import Example
from entailor.errors import MethodError, near_miss
from entailor.methods.base import Method
from entailor.tasks import Task

if TYPE_CHECKING:  # brings torch, which an answer from a server does without
    from entailor.classifiers.retrieval import Retriever


class DemonstratedMethod(Method):
    """A method whose prompts hold demonstrations."""

    num_fewshot: int = Field(default=0, ge=0)
    """Demonstrations in front of each example; 0: none."""
    demonstrations: Literal["random", "nearest", "fixed"] = "random"
    """random: stratified by label, drawn and shuffled by the seed. nearest: for each example its neighbours in train,
    the nearest last. fixed: those of demonstration_ids, in that order."""
    demonstration_ids: tuple[str, ...] = ()
    """Ids of training examples, for demonstrations=fixed."""
    retriever: str = DEFAULT_MODEL
    """Frozen encoder that finds neighbours, for demonstrations=nearest."""

    @property
    def is_seeded(self) -> bool:
        """Only drawn demonstrations depend on the seed."""
        return self.num_fewshot > 0 and self.demonstrations == "random"

    def check(self, task: Task) -> None:
        """Raise MethodError where demonstrations are asked for in two ways."""
        if (self.demonstrations == "fixed") != bool(self.demonstration_ids):
            raise MethodError(f"{self.name}: demonstrations=fixed goes with demonstration_ids. Give both or neither")
        if self.demonstrations == "fixed" and self.num_fewshot != len(self.demonstration_ids):
            raise MethodError(
                f"{self.name}: num_fewshot={self.num_fewshot}, but demonstration_ids names "
                f"{len(self.demonstration_ids)}. Make them agree"
            )


class Demonstrations:
    """What is shown.

    Args:
        method: how it is chosen.
        task: whose labels are balanced.
        seed: of a draw.

    Attributes:
        shots: those in front of every example, or those neighbours are found among.
    """

    def __init__(self, method: DemonstratedMethod, task: Task, seed: int) -> None:
        self.method, self.task, self.seed = method, task, seed
        self.shots: tuple[Example, ...] = ()
        self._retriever: Retriever | None = None

    def choose(self, train: Sequence[Example]) -> tuple[str, ...]:
        """Choose from train; return events worth recording.

        Raises:
            MethodError: fewer training examples than demonstrations, or an id that is not in train.
        """
        method = self.method
        if method.num_fewshot > len(train):
            raise MethodError(
                f"{method.name}: num_fewshot={method.num_fewshot}, but train has {len(train)} examples. Lower "
                "num_fewshot"
            )
        if not method.num_fewshot:
            return ()
        if method.demonstrations == "nearest":
            self.restore(train)
            return ()
        self.shots = self._fixed(train) if method.demonstrations == "fixed" else self._drawn(train)
        counts = [sum(shot.label == label for shot in self.shots) for label in self.task.labels]
        named = ", ".join(f"{label} {count}" for label, count in zip(self.task.labels, counts, strict=True))
        return (f"{len(self.shots)} demonstrations from train ({named})",)

    def restore(self, shots: Sequence[Example]) -> None:
        """Take what was chosen before."""
        self.shots = tuple(shots)
        if self.shots and self.method.demonstrations == "nearest":
            from entailor.classifiers.retrieval import Retriever

            self._retriever = Retriever(self.method.retriever, self.shots)

    def before(self, examples: Sequence[Example]) -> Callable[[int], Sequence[Example]]:
        """Return index of an example to the demonstrations in front of it."""
        if self._retriever is None:
            return lambda row: self.shots
        found = self._retriever.nearest(examples, self.method.num_fewshot)
        return lambda row: [self.shots[index] for index in reversed(found[row])]

    def document(self) -> list[Any]:
        """Return what JSON holds of them."""
        return [[row.id, row.text, row.text_pair, row.label] for row in self.shots]

    def read(self, document: Any) -> None:
        """Take them back from JSON.

        Raises:
            ValueError: it is not what :meth:`document` gave.
        """
        rows = TypeAdapter(list[tuple[str, str, str | None, str | None]]).validate_python(document)
        self.restore([Example(*row) for row in rows])

    def _drawn(self, train: Sequence[Example]) -> tuple[Example, ...]:
        """Draw in turn from every label, in an order of labels of its own, then shuffle."""
        rng = random.Random(f"demonstrations-{self.seed}")
        by_label = {label: [row for row in train if row.label == label] for label in self.task.labels}
        labels = [label for label in self.task.labels if by_label[label]]
        rng.shuffle(labels)
        for rows in by_label.values():
            rng.shuffle(rows)
        chosen: list[Example] = []
        while len(chosen) < self.method.num_fewshot:
            for label in labels:
                if by_label[label] and len(chosen) < self.method.num_fewshot:
                    chosen.append(by_label[label].pop())
        rng.shuffle(chosen)
        return tuple(chosen)

    def _fixed(self, train: Sequence[Example]) -> tuple[Example, ...]:
        by_id = {row.id: row for row in train}
        for wanted in self.method.demonstration_ids:
            if wanted not in by_id:
                raise MethodError(
                    f"{self.method.name}: demonstration_ids names {wanted!r}, which is no example of train."
                    f"{near_miss(wanted, by_id)}"
                )
        return tuple(by_id[wanted] for wanted in self.method.demonstration_ids)
