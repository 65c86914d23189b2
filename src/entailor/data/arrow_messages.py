"""How much the batches of an Arrow file unpack to, read from what they say of themselves before anything is unpacked.

A batch is a message: a FlatBuffers table, and a body of buffers of which each compressed one begins with its true size.
The layout is that of the Arrow columnar format, *Serialization and Interprocess Communication*, and its Message.fbs.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

MAGIC = b"ARROW1"
_DICTIONARY, _BATCH = 2, 3  # kinds of a message that have a body
_KIND, _HEADER = 1, 2  # fields of a message
_DATA = 1  # field of a dictionary
_BUFFERS, _COMPRESSION = 2, 3  # fields of a batch


def unpacked_bytes(path: Path) -> int:
    """Return how many bytes the compressed buffers of an Arrow file or stream say that they unpack to.

    Raises:
        pyarrow.ArrowInvalid: it is damaged.
    """
    import pyarrow as pa

    with pa.memory_map(str(path)) as file:
        if file.read(len(MAGIC)) == MAGIC:
            file.seek(8)  # behind it the file goes on as a stream does
        else:
            file.seek(0)
        try:
            return sum(map(_message_bytes, pa.ipc.MessageReader.open_stream(file)))
        except (struct.error, IndexError, TypeError, ValueError) as error:
            raise pa.ArrowInvalid(f"a batch that cannot be read ({error})") from None


def _message_bytes(message: Any) -> int:
    table = _Table(memoryview(message.metadata), 0).inner(0)
    kind = table.byte(_KIND)
    if kind not in (_DICTIONARY, _BATCH):
        return 0
    batch = table.child(_HEADER) if kind == _BATCH else table.child(_HEADER).child(_DATA)
    if not batch.has(_COMPRESSION):
        return 0
    body = memoryview(message.body)
    places = [offset for offset, length in batch.pairs(_BUFFERS) if length >= 8]
    return sum(max(0, int(struct.unpack_from("<q", body, offset)[0])) for offset in places)


class _Table:
    """A table of FlatBuffers: fields by number, each at a place that the table's own index tells."""

    def __init__(self, data: memoryview, at: int) -> None:
        self._data, self._at = data, at

    def inner(self, place: int) -> _Table:
        return _Table(self._data, place + self._number("<I", place))

    def has(self, field: int) -> bool:
        return bool(self._place(field))

    def byte(self, field: int) -> int:
        return self._number("<B", self._place(field))

    def child(self, field: int) -> _Table:
        return self.inner(self._place(field))

    def pairs(self, field: int) -> list[tuple[int, int]]:
        """Return the structs of two 64-bit integers a field lists."""
        start = self.child(field)._at
        count = self._number("<I", start)
        numbers = struct.unpack_from(f"<{2 * count}q", self._data, start + 4)
        return list(zip(numbers[::2], numbers[1::2], strict=True))

    def _place(self, field: int) -> int:
        """Return where a field stands, or 0 where it is left out."""
        index = self._at - self._number("<i", self._at)
        offset = self._number("<H", index + 4 + 2 * field) if 4 + 2 * field < self._number("<H", index) else 0
        return self._at + offset if offset else 0

    def _number(self, kind: str, place: int) -> int:
        if place < 0:
            raise ValueError("an offset before the beginning")
        return int(struct.unpack_from(kind, self._data, place)[0])
