"""The files of a checkpoint: safetensors whose names hold their SHA-256, written whole or not at all.

Where weights are divided among processes, each writes its rows in a file of its own, a part; the checkpoint lists them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from entailor.runs.integrity import disk_trouble, file_sha256
from entailor.runs.ownership import refuse_links

if TYPE_CHECKING:
    from torch import Tensor


def write_file(folder: Path, stem: str, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> Path:
    """Write STEM-SHA256.safetensors, on the disk when this returns.

    Args:
        folder: made where it is missing; behind a link nothing is written.
        stem: of the name.
        tensors: from wherever they are.
        metadata: texts that stand in front of them.

    Raises:
        OSError: it cannot be written.
        SafetensorError: the same, as that library says it.
    """
    from safetensors.torch import save_file

    refuse_links(folder)
    temporary = folder / f".{stem}.tmp"
    try:
        if folder.is_symlink():
            raise OSError(errno.ELOOP, "a link to another place. Remove the link", str(folder))
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: one.detach().cpu().contiguous() for name, one in tensors.items()}, temporary, metadata)
        path = folder / f"{stem}-{file_sha256(temporary)}.safetensors"
        _flush(temporary)
        temporary.replace(path)
        _flush(folder)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def is_whole(path: Path) -> bool:
    """Tell whether a file's content is what was written.

    Raises:
        OSError: it cannot be read.
    """
    return path.name.endswith(f"-{file_sha256(path)}.safetensors")


def what_went_wrong(error: Exception) -> str:
    """Return in words why a file could not be written."""
    return disk_trouble(error) or (isinstance(error, OSError) and error.strerror) or str(error)


def step_name(step: int, attempt: int) -> str:
    """Return how the names of a checkpoint's files begin."""
    return f"step-{step:09d}" + (f"-attempt-{attempt}" if attempt else "")


def write_part(folder: Path, step: int, attempt: int, rows: Mapping[str, Tensor], place: tuple[int, int]) -> str:
    """Write the rows that this process holds.

    Args:
        folder: of the checkpoints, which all processes reach.
        step: optimizer steps done.
        attempt: how often the training had been started again before.
        rows: by the name of their tensor.
        place: number of this process, and how many there are.

    Returns:
        The file's name, or what went wrong, which is no name.
    """
    stem = f"{step_name(step, attempt)}-part-{place[0] + 1}-of-{place[1]}"
    try:
        return write_file(folder, stem, rows, {}).name
    except (OSError, SafetensorError) as error:
        return f"process {place[0]}: {what_went_wrong(error)}"


class DividedTensors(Mapping[str, "Tensor"]):
    """The tensors of a checkpoint in parts; each is read, and put together, when it is asked for.

    Args:
        file: holds the tensors that were not divided.
        parts: in the order of their rows.
    """

    def __init__(self, file: Path, parts: Sequence[Path]) -> None:
        self.file, self.parts = file, parts
        self.places = dict.fromkeys(_names(file), (file,)) | {name: tuple(parts) for name in _names(parts[0])}

    def __getitem__(self, name: str) -> Tensor:
        import torch

        rows = []
        for path in self.places[name]:
            with safe_open(path, framework="pt") as file:
                rows.append(file.get_tensor(name))
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def __contains__(self, name: object) -> bool:
        return name in self.places

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def _names(path: Path) -> list[str]:
    with safe_open(path, framework="pt") as file:
        return list(file.keys())


def _flush(path: Path) -> None:
    """Make the disk hold a file's content, or a folder's names."""
    if path.is_dir() and os.name == "nt":
        return  # folders cannot be opened there
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows flushes what it may write
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
