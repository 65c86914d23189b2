"""What a hostile input is: a family, a name, and a function that makes files and returns command lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

Words = list[str]
Build = Callable[[Path], Sequence[Words]]


@dataclass(frozen=True)
class Case:
    """An input and the command lines that read it.

    Attributes:
        family: config, overrides, run, data, model or template.
        name: what is odd about it.
        build: makes it in an empty folder, and returns words after `entailor`.
        codes: exit codes that are right.
    """

    family: str
    name: str
    build: Build
    codes: tuple[int, ...] = (2,)


TRAIN_CSV = "text,label\n" + "".join(
    f"{'good' if i % 2 else 'bad'} thing number {i},{'ab'[i % 2]}\n" for i in range(60)
)
