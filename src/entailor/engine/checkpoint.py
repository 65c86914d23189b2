"""Checkpoints of a training: one safetensors file each, written whole or not at all, the last two kept.

Where weights are divided among processes, each process writes a further file with its rows.

Tensors and plain values only, never a pickle. What stands in them is the business of `training_state`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from entailor.engine.checkpoint_files import (
    DividedTensors,
    is_whole,
    step_name,
    what_went_wrong,
    write_file,
    write_part,
)
from entailor.engine.ranks import ALONE, Ranks
from entailor.engine.stopping import StopSwitch
from entailor.events import SILENT, Observer
from entailor.models.sharded import is_sharded, own_part
from entailor.runs.ownership import remove_files

if TYPE_CHECKING:
    from torch import Tensor

CHECKPOINT_VERSION = 6
KEPT = 2
_NAME = re.compile(r"step-(?P<step>\d{9,})(?:-attempt-(?P<attempt>\d+))?-(?P<sha256>[0-9a-f]{64})\.safetensors")
_PART = re.compile(r"step-\d{9,}(-attempt-\d+)?-part-\d+-of-\d+-[0-9a-f]{64}\.safetensors")
_TEMPORARY = re.compile(r"\.step-\d{9,}(-attempt-\d+)?(-part-\d+-of-\d+)?\.tmp")


@dataclass(frozen=True)
class Snapshot:
    """One moment of a training.

    Attributes:
        step: optimizer steps done.
        tensors: by name, on the CPU when read back.
        values: what JSON can hold.
        context: what surrounds the training and is needed to come back to it.
        attempt: how often the training had been started again before, each time from step 0.
    """

    step: int
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]
    context: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 0


class CheckpointStore:
    """The folder of one trial's checkpoints. Files with other names than its own are never touched.

    Args:
        folder: made when the first checkpoint is written.
        observer: told of every checkpoint that is skipped or cannot be written.
    """

    def __init__(self, folder: Path, observer: Observer = SILENT) -> None:
        self.folder, self.observer = folder, observer
        self._current: dict[Path, tuple[str, ...]] = {}  # of the training under way, the newest last, with their parts

    def files(self) -> list[Path]:
        """Return the checkpoints there are, the newest first; none where the folder is a link to another place."""

        def age(path: Path) -> tuple[int, int, str]:
            found = _NAME.fullmatch(path.name)
            assert found is not None
            return int(found["attempt"] or 0), int(found["step"]), path.name

        return sorted(self._own(_NAME), key=age, reverse=True)

    def _own(self, pattern: re.Pattern[str]) -> list[Path]:
        """Return files that no one else would name so; behind a link nothing is ours."""
        if self.folder.is_symlink() or not self.folder.is_dir():
            return []
        return [path for path in self.folder.iterdir() if pattern.fullmatch(path.name) and not path.is_symlink()]

    def write(self, snapshot: Snapshot, identity: str, parts: tuple[str, ...] = ()) -> bool:
        """Write a checkpoint and drop all but the last two of this training.

        The name holds the file's SHA-256, so that a file cannot be taken for whole when it is not. A disk that is
        full costs the checkpoint and not the training: the earlier ones stay, and the note says so.

        Args:
            snapshot: what to write.
            identity: of the training it belongs to.
            parts: names of files in the folder that hold further tensors, in the order of their rows.

        Returns:
            Whether it was written.
        """
        head = {
            "version": CHECKPOINT_VERSION,
            "identity": identity,
            "attempt": snapshot.attempt,
            "step": snapshot.step,
            "values": snapshot.values,
            "context": snapshot.context,
            "parts": parts,
        }
        stem = step_name(snapshot.step, snapshot.attempt)
        try:
            path = write_file(self.folder, stem, snapshot.tensors, {"checkpoint": json.dumps(head)})
        except (OSError, SafetensorError) as error:
            self.not_written(snapshot.step, what_went_wrong(error))
            return False
        # by what this training wrote, not by step: another training's checkpoints may have got further
        self._current = dict(
            [*((one, its) for one, its in self._current.items() if one != path), (path, parts)][-KEPT:]
        )
        kept = {*(one.name for one in self._current), *(name for its in self._current.values() for name in its)}
        for old in [*self.files(), *self._own(_PART)]:
            if old.name not in kept:
                old.unlink(missing_ok=True)
        return True

    def not_written(self, step: int, problem: str) -> None:
        """Say that there is no checkpoint of a step."""
        self.observer.note(f"no checkpoint at step {step}: {self.folder}: {problem}. The training goes on")

    def newest(self, identity: str) -> Snapshot | None:
        """Return the newest checkpoint that is whole and belongs to this training, or None.

        Args:
            identity: of the training that wants to go on.
        """
        for path in self.files():
            problem = None
            try:
                if not is_whole(path):
                    problem = "damaged, its content is not what was written"
                elif found := self._read(path, identity):
                    return found
                else:
                    problem = "of other settings, data, model or versions"
            except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
                problem = f"cannot be read ({error})"
            self.observer.note(f"checkpoint skipped: {path}: {problem}")
        return None

    def _read(self, path: Path, identity: str) -> Snapshot | None:
        """Return a checkpoint that is whole; None where it belongs to another training.

        Raises:
            ValueError: a part of it is missing or damaged.
        """
        with safe_open(path, framework="pt") as file:
            head = json.loads(file.metadata()["checkpoint"])
            if (head["version"], head["identity"]) != (CHECKPOINT_VERSION, identity):
                return None
            names = tuple(head["parts"])
            tensors: Mapping[str, Tensor] = {} if names else {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if names:
            parts = [self.folder / name for name in names]
            here = set(self._own(_PART))
            if odd := [one.name for one in parts if one not in here or not is_whole(one)]:
                raise ValueError(f"its part {odd[0]} is missing or damaged")
            tensors = DividedTensors(path, parts)
        self._current = {path: names}
        return Snapshot(head["step"], tensors, head["values"], head["context"], head["attempt"])

    def clear(self) -> None:
        """Remove every checkpoint, and the folder unless somebody else's files are in it."""
        ours = [*self._own(_NAME), *self._own(_PART), *self._own(_TEMPORARY)]
        with suppress(OSError):  # a checkpoint that stays is never taken for another training's
            remove_files(self.folder.parent, (f"{self.folder.name}/{path.name}" for path in ours))


class NoCheckpoints:
    """In the place of a store where another process writes the checkpoints of this training.

    Args:
        folder: of that process's store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def not_written(self, step: int, problem: str) -> None:
        """Leave it to that process."""

    def files(self) -> list[Path]:
        """There are none of its own."""
        return []

    def newest(self, identity: str) -> Snapshot | None:
        """What there is comes from the process that writes."""
        return None

    def write(self, snapshot: Snapshot, identity: str, parts: tuple[str, ...] = ()) -> bool:
        """Leave it to that process."""
        return True

    def clear(self) -> None:
        """Nothing is there."""


@dataclass
class Saving:
    """When a training is saved, and where.

    Attributes:
        store: where.
        identity: of the training; a checkpoint of another one is never taken.
        every_steps: optimizer steps between two checkpoints, or None.
        every_minutes: minutes between two checkpoints, or None.
        context: kept with every checkpoint.
        attempt: how often the training had been started again before.
        resume_from: the moment to go on from, or None.
        stop: asked after every step.
        ranks: the processes that train together.
    """

    store: CheckpointStore | NoCheckpoints
    identity: str
    every_steps: int | None = None
    every_minutes: float | None = None
    context: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 0
    resume_from: Snapshot | None = None
    stop: StopSwitch | None = None
    ranks: Ranks = ALONE
    _written_at: float = field(init=False)
    _written_step: int = field(default=-1, init=False)

    def __post_init__(self) -> None:
        self._written_at = time.monotonic()

    def is_due(self, step: int) -> bool:
        """Tell whether a checkpoint shall be written after this step."""
        if self.every_steps is not None and step % self.every_steps == 0:
            return True
        # a clock that is set back must neither stop the checkpoints nor bring them all at once
        return self.every_minutes is not None and time.monotonic() - self._written_at >= 60 * self.every_minutes

    def write(self, step: int, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> bool:
        """Write a checkpoint; return whether the newest one is of this step."""
        if step != self._written_step:
            held = {name: own_part(tensor) for name, tensor in tensors.items() if is_sharded(tensor)}
            others = {name: tensor for name, tensor in tensors.items() if name not in held}
            snapshot = Snapshot(step, others, values, self.context, self.attempt)
            if self._write_divided(snapshot, held) if held else self.store.write(snapshot, self.identity):
                self._written_step = step
        self._written_at = time.monotonic()
        return step == self._written_step

    def _write_divided(self, snapshot: Snapshot, held: Mapping[str, Tensor]) -> bool:
        """Let each process write its rows, and the first one what lists them; return the same in all of them."""
        place = self.ranks.rank, self.ranks.size
        names = self.ranks.gather(write_part(self.store.folder, snapshot.step, self.attempt, held, place))

        def finish() -> bool:
            if problems := [name for name in names if not name.endswith(".safetensors")]:
                self.store.not_written(snapshot.step, problems[0])
                return False
            return self.store.write(snapshot, self.identity, tuple(names))

        return self.ranks.from_first(finish)
