"""Checkpoints whose tensors stand in several files, one of each process."""

from pathlib import Path

import pytest
import torch
from tests.observers import listener

from entailor.engine.checkpoint import KEPT, CheckpointStore, Snapshot
from entailor.engine.checkpoint_files import write_part

WHOLE = torch.arange(10.0).reshape(5, 2)


def write(store: CheckpointStore, step: int) -> tuple[str, ...]:
    rows = WHOLE[:3] + step, WHOLE[3:] + step
    parts = tuple(write_part(store.folder, step, 0, {"weight": rows[rank]}, (rank, 2)) for rank in range(2))
    assert store.write(Snapshot(step, {"place": torch.tensor(step)}, {"seen": step}), "mine", parts)
    return parts


def test_rows_of_all_processes_come_back_as_one_tensor_and_old_parts_go(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoint")
    for step in (1, 2, 3):
        write(store, step)
    assert len(list(store.folder.iterdir())) == KEPT * 3
    found = CheckpointStore(store.folder).newest("mine")
    assert found is not None
    assert dict(found.values) == {"seen": 3}
    assert set(found.tensors) == {"place", "weight"}
    assert torch.equal(found.tensors["weight"], WHOLE + 3)
    assert found.tensors["place"] == 3
    store.clear()
    assert not store.folder.exists()


@pytest.mark.parametrize("what", ["missing", "damaged"])
def test_without_a_part_the_checkpoint_before_is_taken(what: str, tmp_path: Path) -> None:
    notes: list[str] = []
    store = CheckpointStore(tmp_path, listener(note=notes.append))
    write(store, 1)
    part = tmp_path / write(store, 2)[1]
    if what == "missing":
        part.unlink()
    else:
        part.write_bytes(part.read_bytes()[:-1] + b"?")
    found = store.newest("mine")
    assert found is not None
    assert found.step == 1
    assert f"its part {part.name} is missing or damaged" in notes[0]
