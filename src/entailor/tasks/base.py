"""A classification task: its label names in a fixed order, and whether an input is one text or a pair.

Labels are mapped by name, never by index; the order here is the order of every classifier's outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property

from entailor.config.parts import PromptSettings
from entailor.data.example import Example
from entailor.data.labels import listed, visible
from entailor.errors import LabelError, near_miss
from entailor.tasks.templates import Template, build_template


@dataclass(frozen=True)
class Task:
    """Label names and the shape of the input.

    Attributes:
        labels: label names; position = index of the classifier's output.
        is_pair: True for premise and hypothesis, False for one text.
        prompt: how a decoder is asked.
        ordinal: whether the labels are steps of a scale, in their order.
        day: the date that chat templates print; a classifier keeps that of its training.
    """

    labels: tuple[str, ...]
    is_pair: bool
    prompt: PromptSettings = field(default_factory=PromptSettings)
    ordinal: bool = False
    day: date = field(default_factory=date.today, compare=False)

    @cached_property
    def template(self) -> Template:
        """What turns an example into a prompt.

        Raises:
            ConfigError: the template or the label words cannot be used.
        """
        return build_template(self.prompt, self.labels, is_pair=self.is_pair, day=self.day)

    def index_of(self, label: str) -> int:
        """Return the output index of a label.

        Raises:
            LabelError: the label is not one of the task's.
        """
        try:
            return self.labels.index(label)
        except ValueError:
            raise LabelError(
                f"label {visible(label)} is none of {listed(self.labels)}.{near_miss(label, self.labels)}",
                remedy="Write one of these labels, or leave the row out",
            ) from None

    def targets(self, examples: Sequence[Example]) -> list[int]:
        """Return one output index an example, -1 where there is no gold label."""
        index = {name: position for position, name in enumerate(self.labels)}
        return [
            -1 if row.label is None else index[row.label] if row.label in index else self.index_of(row.label)
            for row in examples
        ]
