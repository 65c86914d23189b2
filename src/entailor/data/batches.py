"""What every kind of source offers: columns, and batches of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

BATCH_ROWS = 1024

Batch = list[Sequence[Any]]


class Table(Protocol):
    """A source that was opened once to learn its columns, and is opened again for its rows.

    Attributes:
        source: the file or data set, for errors.
        columns: column names in order.
        class_names: for columns of integer codes that carry their names, the names by code.
        notes: what a reader of the result should know.
        header_row: the 1-based row of the column names, where they stand in a row.
    """

    source: str
    columns: tuple[str, ...]
    class_names: Mapping[str, Sequence[str]] = MappingProxyType({})
    notes: tuple[str, ...] = ()
    header_row: int | None = None

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Stream the named columns, at least one row and at most `BATCH_ROWS` at a time."""

    def row_number(self, index: int) -> int:
        """Return the 1-based line of a text file where record `index` begins, or the 1-based record elsewhere."""

    def places(self) -> Iterator[tuple[int, bool]]:
        """Stream what `row_number` gives for each record, with False, and blank lines between them, with True."""
        num_records = sum(len(batch[0]) for batch in self.batches(self.columns[:1]))
        return ((number, False) for number in range(1, num_records + 1))

    def place(self, index: int) -> tuple[str, int]:
        """Return the file and the row of record `index`."""
        return self.source, self.row_number(index)


def inner_names(name: str, value: Any, depth: int = 4) -> Iterator[str]:
    """Name a value and what lies in it by dotted paths; of a list, what lies in its first member."""
    yield name
    value = next(iter(value), None) if isinstance(value, list) else value
    if isinstance(value, dict) and depth:
        for key, inner in value.items():
            yield from inner_names(f"{name}.{key}", inner, depth - 1)


def inner_value(record: Any, name: str) -> Any:
    """Return what a dotted path leads to, or None; a key that holds the dots itself goes first.

    Through a list it leads to what all members have there, or to the one value they agree in.
    """
    if isinstance(record, list):
        found = [one for member in record if (one := inner_value(member, name)) not in (None, [])]
        if not found or all(one == found[0] for one in found):
            return found[0] if found else None
        return found
    if not isinstance(record, dict):
        return None
    if name in record:
        return record[name]
    first, dot, rest = name.partition(".")
    while dot:
        if first in record:
            return inner_value(record[first], rest)
        more, dot, rest = rest.partition(".")
        first = f"{first}.{more}"
    return None
