"""How the engine sees the processes that share one trial: how many there are, which one this is, and what they add up.

One process is the trivial case, :data:`ALONE`. Several are made by `scale`, with the same few operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from entailor.classifiers.base import Classifier
    from entailor.engine.checkpoint import Snapshot

T = TypeVar("T")


class Ranks(Protocol):
    """The processes that run one trial together, seen from one of them.

    Every operation but `seed_step` is one that all of them call, in the same order.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.
        way: how they share a training: `ddp`, or `fsdp` where each holds a part of every weight and all go through
            the model equally often; None where there is one process.
    """

    rank: int
    size: int
    way: str | None

    def together(self, work: Callable[..., None], *what: Any) -> AbstractContextManager[None]:
        """Let the others do their part while this process, the first, is inside the block.

        Args:
            work: a function of a module; called in the others with `what` and their own run context.
            what: its arguments.

        Raises:
            ProcessError: another process ended with an error, or is gone; nothing can go on.
        """
        ...

    def seed_step(self, seed: int, step: int) -> None:
        """Seed torch for one step, so that no two processes draw the same dropout masks, and a resumed one does."""
        ...

    def copy_first(self, tensors: Sequence[Tensor]) -> None:
        """Make tensors those of the first process, in place."""
        ...

    def divide(self, classifier: Classifier) -> str:
        """Divide the weights of a classifier among the processes, and return what is then not as in one."""
        ...

    def put_together(self, classifier: Classifier) -> dict[str, Tensor]:
        """Return the trained tensors of a divided classifier by name, on the CPU; in the other processes none."""
        ...

    def snapshot_from_first(self, make: Callable[[], Snapshot | None]) -> Snapshot | None:
        """Return what `make` gives in the first process; all ask for its tensors in one order, and each once."""
        ...

    def sum_gradients(self, parameters: Sequence[Tensor], loss: Tensor) -> Tensor:
        """Add up the gradients over the processes, in place, and return the sum of the losses."""
        ...

    def add_up(self, *arrays: NDArray[Any]) -> None:
        """Add up arrays over the processes, in place."""
        ...

    def largest(self, *numbers: int) -> tuple[int, ...]:
        """Return the largest of each number over the processes."""
        ...

    def gather(self, value: T) -> list[T]:
        """Return the value of each process, in their order."""
        ...

    def from_first(self, make: Callable[[], T]) -> T:
        """Return what `make` gives in the first process; the others do not call it."""
        ...


class Alone:
    """One process: nothing to share, nothing to wait for."""

    rank, size = 0, 1
    way: str | None = None

    def together(self, work: Callable[..., None], *what: Any) -> AbstractContextManager[None]:
        """Nobody else is there."""
        return nullcontext()

    def seed_step(self, seed: int, step: int) -> None:
        """The generators go on as they are."""

    def copy_first(self, tensors: Sequence[Tensor]) -> None:
        """They are already."""

    def divide(self, classifier: Classifier) -> str:
        """There is one holder, who is never asked."""
        raise AssertionError("one process divides nothing")

    def put_together(self, classifier: Classifier) -> dict[str, Tensor]:
        """It is whole."""
        return {}

    def snapshot_from_first(self, make: Callable[[], Snapshot | None]) -> Snapshot | None:
        """Make it."""
        return make()

    def sum_gradients(self, parameters: Sequence[Tensor], loss: Tensor) -> Tensor:
        """Return the loss."""
        return loss

    def add_up(self, *arrays: NDArray[Any]) -> None:
        """They are the sum."""

    def largest(self, *numbers: int) -> tuple[int, ...]:
        """Return the numbers."""
        return numbers

    def gather(self, value: T) -> list[T]:
        """Return the one value."""
        return [value]

    def from_first(self, make: Callable[[], T]) -> T:
        """Make it."""
        return make()


ALONE = Alone()
