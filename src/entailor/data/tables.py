"""Columns out of CSV, TSV, JSON lines, Parquet and Hugging Face data sets, a batch of rows at a time.

A batch holds columns, not rows, so that reading and checking run over whole columns at once; where something is
wrong the source is walked a second time, row by row, to name the place. Knows nothing of labels or examples.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, dropwhile, islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from entailor.data.files import KINDS_IN_WORDS, empty_file, file_error, is_file, kind_of, open_text, translated
from entailor.errors import DataError
from entailor.network import hub_is_silent

if TYPE_CHECKING:
    from _csv import Reader

BATCH_ROWS = 1024
RECORDS_LOOKED_AT = 50
# Far above the longest text that is taken, so that an error can name the column; an unclosed quote still ends here.
CSV_CELL_LIMIT = 32_000_000

Batch = list[Sequence[Any]]


class Table(Protocol):
    """A source that was opened once to learn its columns, and is opened again for its rows.

    Attributes:
        source: the file or data set, for errors.
        columns: column names in order.
        class_names: for columns of integer codes that carry their names, the names by code.
        notes: what a reader of the result should know.
    """

    source: str
    columns: tuple[str, ...]
    class_names: Mapping[str, Sequence[str]] = MappingProxyType({})
    notes: tuple[str, ...] = ()

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Stream the named columns, at least one row and at most `BATCH_ROWS` at a time."""

    def row_number(self, index: int) -> int:
        """Return the 1-based line of a text file where record `index` begins, or the 1-based record elsewhere."""

    def places(self) -> Iterator[tuple[int, bool]]:
        """Stream what `row_number` gives for each record, with False, and blank lines between them, with True."""
        return ((number, False) for number in range(1, self._num_records() + 1))

    def _num_records(self) -> int:
        return sum(len(batch[0]) for batch in self.batches(self.columns[:1]))


def open_table(source: str, *, config_name: str | None = None, split: str | None = None) -> Table:
    """Open a file or a data set and learn its columns.

    Args:
        source: path of a file, or a Hugging Face data set id.
        config_name: configuration of a data set.
        split: split of a data set.

    Raises:
        DataError: the source is missing, cannot be read, is empty, or is of no known kind.
    """
    if not is_file(source):
        return _hub_table(source, config_name, split)
    path = Path(source).expanduser()
    kind = kind_of(path.name)
    if kind == ".parquet":
        return _parquet_table(path)
    if kind in (".csv", ".tsv"):
        return CsvTable(path, delimiter="," if kind == ".csv" else "\t")
    if kind is not None:
        return JsonTable(path, may_be_array=kind == ".json")
    if path.is_dir() or not path.exists():
        raise file_error(path, IsADirectoryError() if path.is_dir() else FileNotFoundError())
    raise DataError(f"files of kind {path.suffix!r} are not read, expected {KINDS_IN_WORDS}", path=path)


class CsvTable(Table):
    """A CSV or TSV file with a header line; blank lines are passed over."""

    def __init__(self, path: Path, delimiter: str) -> None:
        # The limit belongs to the process; it is only ever raised, so that nobody else's files stop being readable.
        csv.field_size_limit(max(csv.field_size_limit(), CSV_CELL_LIMIT))
        plain_quotes = delimiter == "\t" and _quotes_are_plain(path)
        self._delimiter, self._plain_quotes = delimiter, plain_quotes
        self._path, self.source = path, str(path)
        line, header = next(self._records(), (0, []))
        if not header:
            raise empty_file(path)
        _check_header(path, line, header)
        self.columns = tuple(header)
        self.notes = (f"{path}: double quotes are taken as plain characters",) if plain_quotes else ()

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Stream the named columns."""
        picks = [self.columns.index(name) for name in columns]
        width = {len(self.columns)}
        with open_text(self._path, newline="") as lines:
            records = islice(filter(None, self._reader(lines)), 1, None)
            try:
                while rows := list(islice(records, BATCH_ROWS)):
                    if set(map(len, rows)) != width:
                        raise self._first_error()
                    cells = list(zip(*rows, strict=True))
                    yield [cells[pick] for pick in picks]
            except csv.Error:
                raise self._first_error() from None

    def row_number(self, index: int) -> int:
        """Return the line record `index` begins on."""
        return next(islice(self._records(), index + 1, None))[0]

    def places(self) -> Iterator[tuple[int, bool]]:
        """Stream the line each record begins on, and blank lines."""
        after_header = dropwhile(lambda found: not found[1], self._lines())
        return ((line, not cells) for line, cells in islice(after_header, 1, None))

    def _reader(self, lines: TextIO) -> Reader:
        if self._plain_quotes:
            return csv.reader(lines, delimiter=self._delimiter, quoting=csv.QUOTE_NONE)
        return csv.reader(lines, delimiter=self._delimiter, strict=True)

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Stream the header and the records, each with the line it begins on."""
        return ((line, cells) for line, cells in self._lines() if cells)

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """Stream as `_records`, and blank lines as well, without cells."""
        with open_text(self._path, newline="") as lines:
            reader = self._reader(lines)
            line = 1
            try:
                for cells in reader:
                    yield line, cells
                    line = reader.line_num + 1
            except csv.Error as error:
                raise _csv_error(self._path, line, str(error)) from None

    def _first_error(self) -> DataError:
        """Walk the file again, record by record, to the first that is wrong."""
        width = len(self.columns)
        try:
            line, cells = next((line, cells) for line, cells in self._records() if len(cells) != width)
        except DataError as error:
            return error
        return DataError(
            f"{len(cells)} cells, expected {width} as in the header",
            path=self._path,
            row=line,
            remedy="Put cells that hold the delimiter or a line break between double quotes",
        )


def _csv_error(path: Path, row: int, message: str) -> DataError:
    if "unexpected end" in message or "field larger" in message:
        return DataError(
            "a double quote is opened and never closed",
            path=path,
            row=row,
            remedy='Close it, or write a quote inside a cell as "" with the whole cell between quotes',
        )
    if "expected after" in message:
        return DataError(
            "a closing double quote is followed by more text",
            path=path,
            row=row,
            remedy='Write a quote inside a quoted cell as ""',
        )
    return DataError(f"not CSV ({message})", path=path, row=row)


def _check_header(path: Path, row: int, header: Sequence[str]) -> None:
    if any("\0" in name for name in header):
        raise DataError("NUL byte in the header", path=path, row=row, remedy="If the file is UTF-16, save it as UTF-8")


_QUOTED_CELL = re.compile(r'"(?:[^"]|"")*"')


def _quotes_are_plain(path: Path) -> bool:
    """Tell whether a TSV file was written without quoting, as the files of GLUE and MultiNLI are.

    So it is when every line has as many tabs as the first and yet some cell opens with a quote it does not close.
    """
    tabs, plain = None, False
    with open_text(path, newline="\n") as lines:
        for line in lines:
            text = line.rstrip("\r\n")
            if not text:
                continue
            tabs = text.count("\t") if tabs is None else tabs
            if text.count("\t") != tabs:
                return False
            if '"' in text and not plain:
                plain = any(cell.startswith('"') and not _QUOTED_CELL.fullmatch(cell) for cell in text.split("\t"))
    return plain


class JsonTable(Table):
    """A file of one JSON object a line, or, for ``.json``, one array of objects; keys are columns."""

    def __init__(self, path: Path, *, may_be_array: bool) -> None:
        self._path, self.source = path, str(path)
        self._array = _json_array(path) if may_be_array and _begins_with_bracket(path) else None
        head = [record for _, record in islice(self._records(), RECORDS_LOOKED_AT)]
        if not head:
            raise empty_file(path)
        self.columns = tuple(dict.fromkeys(chain.from_iterable(head)))

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Stream the named keys; an object that lacks one has None there."""
        records = self._records()
        while rows := [record for _, record in islice(records, BATCH_ROWS)]:
            yield [[record.get(name) for record in rows] for name in columns]

    def row_number(self, index: int) -> int:
        """Return the line, or in an array the place, of object `index`."""
        return next(islice(self._records(), index, None))[0]

    def places(self) -> Iterator[tuple[int, bool]]:
        """Stream the line or the place of each object, and blank lines."""
        if self._array is not None:
            yield from ((number, False) for number in range(1, len(self._array) + 1))
            return
        with open_text(self._path, newline="\n") as lines:
            yield from ((number, line.isspace()) for number, line in enumerate(lines, start=1))

    def _records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        if self._array is not None:
            yield from enumerate(self._array, start=1)
            return
        with open_text(self._path, newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.isspace():
                    yield number, _json_object(self._path, number, _json_value(self._path, number, line))


def _json_array(path: Path) -> list[dict[str, Any]]:
    with open_text(path, newline="\n") as lines:
        text = lines.read()
    return [_json_object(path, number, value) for number, value in enumerate(_json_value(path, None, text), start=1)]


def _begins_with_bracket(path: Path) -> bool:
    with open_text(path, newline="\n") as lines:
        return lines.read(4096).lstrip()[:1] == "["


def _json_value(path: Path, row: int | None, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"character {error.colno}" if row is not None else f"line {error.lineno}, character {error.colno}"
        problem = f"broken JSON: {error.msg} at {place}"
    except (ValueError, RecursionError) as error:
        problem = f"JSON that cannot be taken: {error}"
    raise DataError(problem, path=path, row=row, remedy="One whole JSON object a line is expected")


def _json_object(path: Path, row: int, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        kinds = {list: "a list", str: "a string", type(None): "null", bool: "a boolean"}
        found = kinds.get(type(value), "a number")
        raise DataError(
            f"{found}, expected a JSON object", path=path, row=row, remedy='Write {"text": ..., "label": ...}'
        )
    return value


class ArrowTable(Table):
    """Record batches of a Parquet file or a data set."""

    def __init__(
        self, source: str, columns: Sequence[str], class_names: Mapping[str, Sequence[str]], reader: ArrowReader
    ) -> None:
        self.source, self.columns, self.class_names, self._reader = source, tuple(columns), class_names, reader

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Stream the named columns as Python values."""
        for batch in self._reader(sorted(set(columns))):
            if batch.num_rows:
                yield [self._values(batch, name) for name in columns]

    def _values(self, batch: Any, name: str) -> Sequence[Any]:
        try:
            values: list[Any] = batch.column(name).to_pylist()
        except UnicodeDecodeError:
            raise DataError("a text that is not UTF-8", path=self.source, column=name) from None
        return values

    def row_number(self, index: int) -> int:
        """Return the 1-based record."""
        return index + 1


class ArrowReader(Protocol):
    """Streams Arrow record batches or tables that hold the named columns."""

    def __call__(self, columns: list[str], /) -> Iterator[Any]:
        """Stream the batches."""


def _parquet_table(path: Path) -> Table:
    import pyarrow as pa
    from pyarrow import parquet

    @contextmanager
    def opened() -> Iterator[Any]:
        with translated(path), path.open("rb") as file:
            try:
                yield parquet.ParquetFile(file)
            except pa.ArrowException as error:
                raise DataError(f"not a Parquet file, or a damaged one ({_one_line(error)})", path=path) from None

    def read(columns: list[str]) -> Iterator[Any]:
        with opened() as file:
            yield from file.iter_batches(BATCH_ROWS, columns=columns)

    with opened() as file:
        schema = file.schema_arrow
    return ArrowTable(str(path), schema.names, _class_names_in(schema.metadata or {}), read)


def _class_names_in(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Read the names of integer labels that Hugging Face `datasets` leaves in a Parquet file's schema."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {name: list(kind["names"]) for name, kind in features.items() if kind.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # a hint by another program; without it the integers stand as they are


def _hub_table(source: str, config_name: str | None, split: str | None) -> Table:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source):
        raise DataError(f"neither a file nor a data set id, expected {KINDS_IN_WORDS}, or OWNER/NAME", path=source)
    import datasets

    if hub_is_silent():
        raise DataError(
            "no such file, and the Hugging Face Hub does not answer",
            path=source,
            remedy="Try again later, set HF_HUB_OFFLINE=1 to use what was loaded before, or give the path of a file",
        )
    try:
        data = datasets.load_dataset(source, name=config_name, split=split, streaming=False)
    except Exception as error:  # the library lets the errors of its network stack through, whatever they are
        asked = (("config_name", config_name), ("split", split))
        wanted = "".join(f", {key} {value!r}" for key, value in asked if value is not None)
        raise DataError(
            f"no such file, and as a Hugging Face data set{wanted} it cannot be loaded ({_one_line(error)})",
            path=source,
            remedy="Check the id, data.config_name and the split, or give the path of a file",
        ) from error
    if isinstance(data, dict):
        raise DataError(f"several splits ({', '.join(data)}), expected the name of one", path=source)

    def read(columns: list[str]) -> Iterator[Any]:
        yield from data.select_columns(columns).with_format("arrow").iter(BATCH_ROWS)

    names = {name: kind.names for name, kind in data.features.items() if isinstance(kind, datasets.ClassLabel)}
    return ArrowTable(source, data.column_names, names, read)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
