"""Rows out of what Arrow reads: Parquet, Arrow and Feather files, and data sets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from entailor.data.arrow_messages import MAGIC, unpacked_bytes
from entailor.data.batches import BATCH_ROWS, Batch, Table, inner_value
from entailor.data.files import FileFormat, too_large, translated
from entailor.errors import DataError, one_line

FEATHER_1 = b"FEA1"  # its buffers are never compressed


class ArrowTable(Table):
    """Record batches of a Parquet file or a data set."""

    def __init__(
        self,
        source: str,
        columns: Sequence[str],
        class_names: Mapping[str, Sequence[str]],
        reader: ArrowReader,
        inner: Sequence[str] = (),
    ) -> None:
        self.source, self.class_names, self._reader = source, class_names, reader
        self._stored = tuple(columns)
        self.columns = (*columns, *inner)

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Stream the named columns as Python values."""
        for batch in self._reader(sorted({self._root(name) for name in columns})):
            if batch.num_rows:
                yield [self._values(batch, name) for name in columns]

    def _values(self, batch: Any, name: str) -> Sequence[Any]:
        try:
            root = self._root(name)
            values: list[Any] = _python_values(batch.column(root))
            if root != name:
                values = [inner_value(value, name[len(root) + 1 :]) for value in values]
        except UnicodeDecodeError:
            raise DataError(
                "a text that is not UTF-8", path=self.source, column=name, remedy="Write it as UTF-8"
            ) from None
        return values

    def _root(self, name: str) -> str:
        """Return the stored column a dotted path begins at."""
        if name in self._stored:
            return name
        return next(root for root in self._stored if name.startswith(f"{root}."))

    def row_number(self, index: int) -> int:
        """Return the 1-based record."""
        return index + 1


class ArrowReader(Protocol):
    """Streams Arrow record batches or tables that hold the named columns."""

    def __call__(self, columns: list[str], /) -> Iterator[Any]:
        """Stream the batches."""


def _python_values(column: Any) -> list[Any]:
    """Return Python values; those of a dictionary are shared, however often they occur.

    Bytes are text, which Spark and others write without saying so, and decimals of a database are written out.
    """
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        return [value for chunk in column.chunks for value in _python_values(chunk)]
    if pa.types.is_dictionary(column.type):
        words = _python_values(column.dictionary)
        return [None if code is None else words[code] for code in column.indices.to_pylist()]
    values: list[Any] = column.to_pylist()
    if any(is_kind(column.type) for is_kind in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)):
        return [None if value is None else value.decode() for value in values]
    if pa.types.is_decimal(column.type):
        return [None if value is None else f"{value:f}" for value in values]
    return values


def _inner_of(schema: Any) -> Iterator[str]:
    import pyarrow as pa

    for field in schema:
        kind = field.type
        while pa.types.is_list(kind) or pa.types.is_large_list(kind):
            kind = kind.value_type
        if pa.types.is_struct(kind):
            for inner in kind:
                yield f"{field.name}.{inner.name}"
                yield from (f"{field.name}.{name}" for name in _inner_of([inner]))


def parquet_file(path: Path, form: FileFormat) -> Table:
    """Open a Parquet file."""
    from pyarrow import parquet

    def read(file: Any, columns: list[str]) -> Iterator[Any]:
        with parquet.ParquetFile(file) as opened:
            groups = [opened.metadata.row_group(number) for number in range(opened.metadata.num_row_groups)]
            if sum(group.total_byte_size for group in groups) > form.max_bytes:
                raise too_large(path, form.max_bytes)
            yield from opened.iter_batches(BATCH_ROWS, columns=columns)

    def schema(file: Any) -> Any:
        return parquet.ParquetFile(file).schema_arrow

    return _file_table(path, form, "a Parquet file", schema, read)


def arrow_file(path: Path, form: FileFormat) -> Table:
    """Open an Arrow file or stream, or a Feather file."""
    import pyarrow as pa
    from pyarrow import feather, ipc

    def batches(file: Any) -> tuple[Any, Iterator[Any]]:
        start = file.read(len(MAGIC))
        file.seek(0)
        if start[:4] != FEATHER_1 and unpacked_bytes(path) > form.max_bytes:
            raise too_large(path, form.max_bytes)
        if start == MAGIC:
            opened = ipc.open_file(file)
            return opened.schema, (opened.get_batch(number) for number in range(opened.num_record_batches))
        if start[:4] == FEATHER_1:
            table = feather.read_table(file)
            return table.schema, iter(table.to_batches(BATCH_ROWS))
        stream = ipc.open_stream(file)
        return stream.schema, iter(stream)

    def read(file: Any, columns: list[str]) -> Iterator[Any]:
        for batch in batches(file)[1]:
            chosen = pa.RecordBatch.from_arrays([batch.column(name) for name in columns], names=columns)
            chosen.validate(full=True)  # Arrow takes a damaged file as it is, and its offsets lead anywhere
            for begin in range(0, chosen.num_rows, BATCH_ROWS):
                yield chosen.slice(begin, BATCH_ROWS)

    return _file_table(path, form, "an Arrow file", lambda file: batches(file)[0], read)


def _file_table(
    path: Path,
    form: FileFormat,
    kind: str,
    schema_of: Callable[[Any], Any],
    batches: Callable[[Any, list[str]], Iterator[Any]],
) -> Table:
    import pyarrow as pa

    @contextmanager
    def opened() -> Iterator[Any]:
        with translated(path), path.open("rb") as file:
            try:
                yield file
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                raise DataError(f"not {kind}, or a damaged one ({one_line(error)})", path=path) from None

    def read(columns: list[str]) -> Iterator[Any]:
        size = 0
        with opened() as file:
            for batch in batches(file, columns):
                size += batch.nbytes  # a dictionary may unpack to far more than the metadata says
                if size > form.max_bytes:
                    raise too_large(path, form.max_bytes)
                yield batch

    with opened() as file:
        schema = schema_of(file)
        names, inner = schema.names, tuple(_inner_of(schema))
    return ArrowTable(str(path), names, _class_names_in(schema.metadata or {}), read, inner)


def _class_names_in(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Read the names of integer labels that Hugging Face `datasets` leaves in a Parquet file's schema."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {name: list(kind["names"]) for name, kind in features.items() if kind.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # a hint by another program; without it the integers stand as they are
