"""Checkpoints of a training: one safetensors file each, written whole or not at all, the last two kept.

Tensors and plain values only, never a pickle. What stands in them is the business of `training_state`.
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from entailor.engine.stopping import StopSwitch
from entailor.events import SILENT, Observer
from entailor.runs.integrity import disk_trouble, file_sha256
from entailor.runs.ownership import refuse_links, remove_files

if TYPE_CHECKING:
    from torch import Tensor

CHECKPOINT_VERSION = 5
KEPT = 2
_NAME = re.compile(r"step-(?P<step>\d{9,})(?:-attempt-(?P<attempt>\d+))?-(?P<sha256>[0-9a-f]{64})\.safetensors")
_TEMPORARY = re.compile(r"\.step-\d{9,}\.tmp")


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
        self._current: list[Path] = []  # of the training under way, the newest last

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

    def write(self, snapshot: Snapshot, identity: str) -> bool:
        """Write a checkpoint and drop all but the last two of this training.

        The name holds the file's SHA-256, so that a file cannot be taken for whole when it is not. A disk that is
        full costs the checkpoint and not the training: the earlier ones stay, and the note says so.

        Args:
            snapshot: what to write.
            identity: of the training it belongs to.

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
        }
        from safetensors.torch import save_file

        refuse_links(self.folder)
        temporary = self.folder / f".step-{snapshot.step:09d}.tmp"
        try:
            if self.folder.is_symlink():
                raise OSError(errno.ELOOP, "a link to another place. Remove the link", str(self.folder))
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(
                {name: tensor.detach().cpu().contiguous() for name, tensor in snapshot.tensors.items()},
                temporary,
                metadata={"checkpoint": json.dumps(head)},
            )
            digest = file_sha256(temporary)
            _flush(temporary)
            again = f"-attempt-{snapshot.attempt}" if snapshot.attempt else ""
            path = self.folder / f"step-{snapshot.step:09d}{again}-{digest}.safetensors"
            temporary.replace(path)
            _flush(self.folder)
        except (OSError, SafetensorError) as error:
            problem = disk_trouble(error) or (isinstance(error, OSError) and error.strerror) or str(error)
            self.observer.note(f"no checkpoint at step {snapshot.step}: {self.folder}: {problem}. The training goes on")
            return False
        finally:
            temporary.unlink(missing_ok=True)
        # by what this training wrote, not by step: another training's checkpoints may have got further
        self._current = [*(one for one in self._current if one != path), path][-KEPT:]
        for old in self.files():
            if old not in self._current:
                old.unlink(missing_ok=True)
        return True

    def newest(self, identity: str) -> Snapshot | None:
        """Return the newest checkpoint that is whole and belongs to this training, or None.

        Args:
            identity: of the training that wants to go on.
        """
        for path in self.files():
            problem = None
            try:
                if not path.name.endswith(f"-{file_sha256(path)}.safetensors"):
                    problem = "damaged, its content is not what was written"
                else:
                    with safe_open(path, framework="pt") as file:
                        head = json.loads(file.metadata()["checkpoint"])
                        if (head["version"], head["identity"]) == (CHECKPOINT_VERSION, identity):
                            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
                            self._current = [path]
                            return Snapshot(head["step"], tensors, head["values"], head["context"], head["attempt"])
                    problem = "of other settings, data, model or versions"
            except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
                problem = f"cannot be read ({error})"
            self.observer.note(f"checkpoint skipped: {path}: {problem}")
        return None

    def clear(self) -> None:
        """Remove every checkpoint, and the folder unless somebody else's files are in it."""
        ours = [*self._own(_NAME), *self._own(_TEMPORARY)]
        with suppress(OSError):  # a checkpoint that stays is never taken for another training's
            remove_files(self.folder.parent, (f"{self.folder.name}/{path.name}" for path in ours))


class NoCheckpoints:
    """In the place of a store where another process writes the checkpoints of this training."""

    def files(self) -> list[Path]:
        """There are none of its own."""
        return []

    def newest(self, identity: str) -> Snapshot | None:
        """What there is comes from the process that writes."""
        return None

    def write(self, snapshot: Snapshot, identity: str) -> bool:
        """Leave it to that process."""
        return True

    def clear(self) -> None:
        """Nothing is there."""


def _flush(path: Path) -> None:
    """Make the disk hold a file's content, or a folder's names."""
    if path.is_dir() and os.name == "nt":
        return  # folders cannot be opened there
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows flushes what it may write
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
    """

    store: CheckpointStore | NoCheckpoints
    identity: str
    every_steps: int | None = None
    every_minutes: float | None = None
    context: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 0
    resume_from: Snapshot | None = None
    stop: StopSwitch | None = None
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
            snapshot = Snapshot(step, tensors, values, self.context, self.attempt)
            if self.store.write(snapshot, self.identity):
                self._written_step = step
        self._written_at = time.monotonic()
        return step == self._written_step
