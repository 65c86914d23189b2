"""Columns out of text files, tables and Hugging Face data sets, a batch of rows at a time.

A batch holds columns, not rows, so that reading and checking run over whole columns at once; where something is
wrong the source is walked a second time, row by row, to name the place. Knows nothing of labels or examples.
"""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, dropwhile, islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from entailor.data.batches import BATCH_ROWS, Batch, Table
from entailor.data.columns import usual_names_in
from entailor.data.files import (
    KINDS_IN_WORDS,
    FileFormat,
    check_regular,
    divided,
    empty_file,
    is_file,
    kind_of,
    open_text,
    utf16_without_mark,
    zip_member,
)
from entailor.data.json_tables import JsonTable
from entailor.data.shards import shards_of
from entailor.errors import DataError, one_line
from entailor.runs.network import hub_is_silent
from entailor.runs.paths import user_path

if TYPE_CHECKING:
    from _csv import Reader

# Far above the longest text that is taken, so that an error can name the column; an unclosed quote still ends here.
CSV_CELL_LIMIT = 32_000_000
SAMPLE_CHARACTERS = 1 << 16
DELIMITERS = (",", ";", "\t", "|")
_JSON = re.compile(r'\s*(\[\s*)?\{\s*"(?:[^"\\]|\\.)*"\s*:')  # an object, or an array of them


def open_table(
    source: str, *, config_name: str | None = None, split: str | None = None, form: FileFormat | None = None
) -> Table:
    """Open a file, a folder or glob of shards, or a data set, and learn its columns.

    Args:
        source: path of a file or folder, a glob, a file in an archive (``a.zip/train.csv``), a sheet of a workbook
            (``a.xlsx/Sheet2``), or a Hugging Face data set id.
        config_name: configuration of a data set.
        split: split of a data set.
        form: how files are read.

    Raises:
        DataError: the source is missing, cannot be read, is empty, or is of no known kind.
    """
    if not is_file(source):
        return _hub_table(source, config_name, split)
    if "://" in source:
        raise DataError("an address, expected a file", path=source, remedy="Download it, and give the path of the file")
    form = form or FileFormat()
    path, inside = divided(user_path(source))
    shards = shards_of(path, split)
    if shards is None:
        return _file_table(path, replace(form, inside=inside))
    with_rows = [shard for shard in shards if shard.stat().st_size] or shards  # Spark leaves empty parts
    tables = [_file_table(shard, form) for shard in with_rows]
    return tables[0] if len(tables) == 1 else ShardedTable(str(path), tables)


def _file_table(path: Path, form: FileFormat) -> Table:
    check_regular(path)
    kind = kind_of(path.name)
    if kind == ".zip":
        kind = kind_of(zip_member(path, form.inside).filename)
        if kind in (".parquet", ".arrow", ".feather", ".xlsx", ".zip"):
            raise DataError(f"a {kind} file in an archive", path=path, remedy="Unpack the archive")
    if kind in (".parquet", ".arrow", ".feather"):
        from entailor.data.arrow_tables import arrow_file, parquet_file

        return (parquet_file if kind == ".parquet" else arrow_file)(path, form)
    if kind == ".xlsx":
        from entailor.data.excel import ExcelTable

        return ExcelTable(path, form)
    if kind is None:
        raise DataError(f"files of kind {path.suffix!r} are not read, expected {KINDS_IN_WORDS}", path=path)
    if kind in (".csv", ".tsv", ".txt") and not _holds_json(path, form):
        return CsvTable(path, form, kind)
    return JsonTable(path, form)


def _holds_json(path: Path, form: FileFormat) -> bool:
    with open_text(path, newline="\n", form=form) as lines:
        return _JSON.match(lines.read(SAMPLE_CHARACTERS)) is not None


class ShardedTable(Table):
    """Several files of the same columns, one after the other."""

    def __init__(self, source: str, tables: Sequence[Table]) -> None:
        self.source, self._tables, self._counts = source, tables, [0] * len(tables)
        self.class_names = tables[0].class_names
        self.columns = tuple(dict.fromkeys(chain.from_iterable(table.columns for table in tables)))
        for table in tables:
            if isinstance(table, JsonTable):
                continue  # it knows the keys of its first objects, and a value that is missing has none
            if set(table.columns) != set(self.columns) or table.class_names != self.class_names:
                one_table = "Give a glob that names only files of one table"
                headers = "If these are no names of columns, write each file with a header line"
                raise DataError(
                    f"other columns or label names than in {tables[0].source}: {', '.join(table.columns)}",
                    path=table.source,
                    remedy=one_table if usual_names_in(self.columns) else headers,
                )
        self.notes = (
            f"{source}: read from {len(tables)} files",
            *chain.from_iterable(table.notes for table in tables),
        )

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Stream the named columns of each file in turn."""
        for number, table in enumerate(self._tables):
            self._counts[number] = 0
            for batch in table.batches(columns):
                self._counts[number] += len(batch[0])
                yield batch

    def row_number(self, index: int) -> int:
        """Return the row in its shard."""
        return self.place(index)[1]

    def places(self) -> Iterator[tuple[int, bool]]:
        """Stream the places in each file in turn."""
        return chain.from_iterable(table.places() for table in self._tables)

    def place(self, index: int) -> tuple[str, int]:
        """Return the shard and the row in it."""
        for table, count in zip(self._tables, self._counts, strict=True):
            if index < count:
                return table.place(index)
            index -= count
        raise AssertionError("a row that was not read")


class CsvTable(Table):
    """A CSV or TSV file with a header line; blank lines, and those of delimiters alone, are skipped.

    Empty cells behind the last column that has a name may be missing, or be more than there are columns: so
    spreadsheets write them.
    """

    def __init__(self, path: Path, form: FileFormat, kind: str) -> None:
        # The limit belongs to the process; it is only ever raised, so that nobody else's files stop being readable.
        csv.field_size_limit(max(csv.field_size_limit(), CSV_CELL_LIMIT))
        self._path, self._form, self.source = path, form, str(path)
        self._plain_quotes, self._skipped, self._has_header = False, 0, True
        self._delimiter = self._find_delimiter(kind)
        if not self._plain_quotes:
            self._plain_quotes = self._delimiter == "\t" and _quotes_are_plain(path, form)
        line, header = next(self._records(), (0, []))
        if not header:
            raise empty_file(path)
        if any("\0" in name for name in header):
            utf16 = utf16_without_mark(path, form)
            remedy = f"It looks like UTF-16: give --encoding {utf16}" if utf16 else "Remove it from the file"
            raise DataError("NUL byte in the header", path=path, row=line, remedy=remedy)
        self.header_row = line
        self.columns = tuple(header) if self._has_header else ("text",)
        self._fewest_cells = max((place for place, name in enumerate(self.columns, start=1) if name), default=0)
        notes = []
        if not self._has_header:
            notes.append(f"{path}: no header of known names; every line is taken as one text")
        elif self._plain_quotes:
            notes.append(f"{path}: double quotes are taken as plain characters")
        self.notes = tuple(notes)

    def _find_delimiter(self, kind: str) -> str:
        """Return what was asked for, what a first line ``sep=;`` says, or what divides the header into known names."""
        with open_text(self._path, newline="", form=self._form) as lines:
            start = lines.read(SAMPLE_CHARACTERS)
        first = re.split(r"[\r\n]", start.lstrip("\r\n"), maxsplit=1)[0]
        said = re.fullmatch(r'"?sep=(.)"?', first)
        if said:
            self._skipped = 1
            return self._form.delimiter or said[1]
        if self._form.delimiter is not None:
            return self._form.delimiter
        usual = "\t" if kind == ".tsv" else ","
        ways = {mark: next(csv.reader([first], delimiter=mark), []) for mark in DELIMITERS} if first else {}
        if not ways:
            return usual
        best = max(DELIMITERS, key=lambda mark: (usual_names_in(ways[mark]), mark == usual and len(ways[mark]) > 1,
                                                 len(ways[mark])))  # fmt: skip
        if kind == ".txt" and usual_names_in(ways[best]) == 0:
            if first.startswith("__label__"):
                raise DataError(
                    "lines of fastText (__label__NAME TEXT), which are not read",
                    path=self._path,
                    remedy="Write a CSV file with the columns text and label",
                )
            self._has_header, self._plain_quotes = False, True
            return "\0"  # unused: lines are not divided
        return best if len(ways[best]) > 1 else usual

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Stream the named columns."""
        picks = [self.columns.index(name) for name in columns]
        width = {len(self.columns)}
        with open_text(self._path, newline="", form=self._form) as lines:
            records = islice(filter(_is_record, self._reader(lines)), self._skipped + self._has_header, None)
            try:
                while rows := list(islice(records, BATCH_ROWS)):
                    if set(map(len, rows)) != width:
                        if not all(map(self._fits, rows)):
                            raise self._first_error()
                        rows = [list(islice(chain(cells, repeat("")), len(self.columns))) for cells in rows]
                    cells = list(zip(*rows, strict=True))
                    yield [cells[pick] for pick in picks]
            except csv.Error:
                raise self._first_error() from None

    def row_number(self, index: int) -> int:
        """Return the line record `index` begins on."""
        return next(islice(self._records(), index + self._has_header, None))[0]

    def places(self) -> Iterator[tuple[int, bool]]:
        """Stream the line each record begins on, and blank lines."""
        from_header = dropwhile(lambda found: not found[1], self._lines())
        return ((line, not cells) for line, cells in islice(from_header, int(self._has_header), None))

    def _reader(self, lines: TextIO) -> Reader | _Lines:
        if not self._has_header:
            return _Lines(lines)
        if self._plain_quotes:
            return csv.reader(lines, delimiter=self._delimiter, quoting=csv.QUOTE_NONE)
        return csv.reader(lines, delimiter=self._delimiter, strict=True)

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Stream the header and the records, each with the line it begins on."""
        return ((line, cells) for line, cells in self._lines() if cells)

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        """Stream as `_records`, and blank lines as well, without cells."""
        with open_text(self._path, newline="", form=self._form) as lines:
            reader = self._reader(lines)
            line, skipped = 1, 0
            try:
                for cells in reader:
                    if cells and skipped < self._skipped:
                        skipped += 1
                    else:
                        yield line, cells if _is_record(cells) else []
                    line = reader.line_num + 1
            except csv.Error as error:
                raise _csv_error(self._path, line, str(error)) from None

    def _fits(self, cells: Sequence[str]) -> bool:
        return len(cells) >= self._fewest_cells and not any(cells[len(self.columns) :])

    def _first_error(self) -> DataError:
        """Walk the file again, record by record, to the first that is wrong."""
        try:
            line, cells = next((line, cells) for line, cells in self._records() if not self._fits(cells))
        except DataError as error:
            return error
        if any("\0" in cell for cell in cells):
            problem = "NUL bytes, as a write that was cut off leaves them"
            remedy = f"Remove them, e.g. tr -d '\\0' < {shlex.quote(str(self._path))} > NEW_FILE"
            return DataError(problem, path=self._path, row=line, remedy=remedy)
        return DataError(
            f"{len(cells)} cells, expected {len(self.columns)} as in the header",
            path=self._path,
            row=line,
            remedy="Put cells that hold the delimiter or a line break between double quotes, or give --delimiter",
        )


def _is_record(cells: Sequence[str]) -> bool:
    """Tell a record from a blank line, or one of delimiters alone as spreadsheets leave them below a table."""
    return bool(cells) and (len(cells) == 1 or any(cells))


class _Lines:
    """Reads as `csv.reader` does, each line being one cell."""

    def __init__(self, lines: TextIO) -> None:
        self._lines, self.line_num = lines, 0

    def __iter__(self) -> Iterator[list[str]]:
        for line in self._lines:  # opened with newline="": ends at \r, \n and \r\n, and keeps them
            self.line_num += 1
            text = line.rstrip("\r\n")
            yield [text] if text else []


def _csv_error(path: Path, row: int, message: str) -> DataError:
    if "field larger" in message:
        return DataError(
            f"a cell of more than {csv.field_size_limit():,} characters",
            path=path,
            row=row,
            remedy="Cut the text; or, if a double quote opens the cell and nothing closes it, close it",
        )
    if "unexpected end" in message:
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


_QUOTED_CELL = re.compile(r'"(?:[^"]|"")*"')


def _quotes_are_plain(path: Path, form: FileFormat) -> bool:
    """Tell whether a TSV file was written without quoting, as the files of GLUE and MultiNLI are.

    So it is when every line has as many tabs as the first and yet some cell opens with a quote it does not close.
    """
    tabs, plain = None, False
    with open_text(path, newline="\n", form=form) as lines:
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
            f"no such file, and as a Hugging Face data set{wanted} it cannot be loaded ({one_line(error)})",
            path=source,
            remedy="Check the id, data.config_name and the split, or give the path of a file",
        ) from error
    if isinstance(data, dict):
        raise DataError(f"several splits ({', '.join(data)}), expected the name of one", path=source)

    from entailor.data.arrow_tables import ArrowTable

    def read(columns: list[str]) -> Iterator[Any]:
        yield from data.select_columns(columns).with_format("arrow").iter(BATCH_ROWS)

    names = {name: kind.names for name, kind in data.features.items() if isinstance(kind, datasets.ClassLabel)}
    return ArrowTable(source, data.column_names, names, read)
