"""Rows out of a sheet of an Excel workbook."""

from __future__ import annotations

import re
import zipfile
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

from entailor.data.batches import BATCH_ROWS, Batch, Table
from entailor.data.columns import usual_names_in
from entailor.data.files import FileFormat, empty_file, too_large, translated
from entailor.data.labels import listed
from entailor.errors import DataError

MAX_COLUMNS = 1000
MAX_MERGED, MAX_ROW = 100_000, 10**7
_MERGED = re.compile(rb'<(?:\w+:)?mergeCell\s[^<>]*?ref="([A-Z]{1,3})(\d{1,7}):[A-Z]{1,3}(\d{1,7})"')
_CHUNK, _TAG = 1 << 20, 1 << 8  # bytes read at once, and more than a tag of a merged cell has


class ExcelTable(Table):
    """One sheet; its first row with a value names the columns, and blank rows are left out.

    Of several sheets, the one that was named, or else the first with a column of a usual name. Cells that are merged
    over several rows have the value they show in each of them.
    """

    def __init__(self, path: Path, form: FileFormat) -> None:
        self._path, self.source = path, str(path)
        with translated(path), zipfile.ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > form.max_bytes:
                raise too_large(path, form.max_bytes)
        sheets = self._sheets()
        if form.inside is not None and form.inside not in sheets:
            remedy = f"Name one: {path}/{next(iter(sheets), 'SHEET')}"
            raise DataError(f"no sheet {form.inside!r}, but {listed(list(sheets))}", path=path, remedy=remedy)
        fitting = (name for name, (_, columns) in sheets.items() if usual_names_in(columns))
        self._sheet = form.inside or next(fitting, next(iter(sheets), ""))
        if len(sheets) > 1:
            self.source = f"{path}/{self._sheet}"
            if form.inside is None:
                columns = {name: names for name, (_, names) in sheets.items()}
                self.notes = (_which_sheet(path, self._sheet, columns),)
        self.header_row, self.columns = sheets.get(self._sheet, (0, ()))
        if not self.header_row:
            raise empty_file(path)
        self._merged = self._merged_rows()
        if count := sum(map(len, self._merged.values())):
            cells = "1 cell is" if count == 1 else f"{count:,} cells are"
            self.notes += (f"{self.source}: {cells} merged over several rows; each of these rows has the value",)

    def _sheets(self) -> dict[str, tuple[int, tuple[str, ...]]]:
        """Return the sheets that are shown and hold something: name to the row of the column names, and these."""
        found = {}
        with self._opened() as book:
            for sheet in book.worksheets:
                rows = _filled(sheet, MAX_COLUMNS)
                number, header = next(rows, (0, ()))
                names = ["" if cell is None else str(cell) for cell in header]
                while names and not names[-1]:
                    names.pop()
                if names and sheet.sheet_state == "visible":
                    found[sheet.title] = (number, tuple(names))
        return found

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Stream the named columns."""
        picks = [self.columns.index(name) for name in columns]
        rows = islice(self._rows(len(self.columns)), 1, None)
        while batch := [cells for _, cells in islice(rows, BATCH_ROWS)]:
            yield [[cells[pick] if pick < len(cells) else None for cells in batch] for pick in picks]

    def row_number(self, index: int) -> int:
        """Return the row of the sheet."""
        return next(islice(self._rows(len(self.columns)), index + 1, None))[0]

    def _rows(self, width: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
        with self._opened() as book:
            rows = _filled(book[self._sheet], width)
            yield from self._whole(rows) if self._merged else rows

    def _whole(self, rows: Iterator[tuple[int, tuple[Any, ...]]]) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Give each row the values of the merged cells that reach over it."""
        shown: dict[int, tuple[int, Any]] = {}  # column to the first row of a merged cell and what stands there
        for number, cells in rows:
            filled = list(cells)
            for column, spans in self._merged.items():
                first, last = spans[max(bisect_right(spans, (number, MAX_ROW)) - 1, 0)]
                if first == number:
                    shown[column] = (first, filled[column])
                elif first < number <= last and filled[column] is None and shown.get(column, (0, None))[0] == first:
                    filled[column] = shown[column][1]
            yield number, tuple(filled)

    def _merged_rows(self) -> dict[int, list[tuple[int, int]]]:
        """Return the first and last rows of cells that are merged over several rows below the header, by column."""
        from openpyxl.utils import column_index_from_string

        found: dict[int, list[tuple[int, int]]] = {}
        with self._opened() as book:
            part = book[self._sheet]._worksheet_path
        with translated(self._path), zipfile.ZipFile(self._path) as archive, archive.open(part) as file:
            for number, (name, first, last) in enumerate(_merged_cells(file), start=1):
                if number > MAX_MERGED:
                    problem = f"more than {MAX_MERGED:,} merged cells"
                    raise DataError(problem, path=self._path, remedy="Save the sheet as CSV")
                column = column_index_from_string(name) - 1
                if (self.header_row or 0) < first < last and column < len(self.columns):
                    found.setdefault(column, []).append((first, last))
        return {column: sorted(spans) for column, spans in found.items()}

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            import openpyxl
        except ImportError:
            raise DataError(
                "an Excel workbook, which needs openpyxl",
                path=self._path,
                remedy='Install it with pip install "entailor[excel]", or save the sheet as CSV',
            ) from None
        from xml.etree.ElementTree import ParseError

        try:
            book = openpyxl.load_workbook(self._path, read_only=True, data_only=True)
            try:
                yield book
            finally:
                book.close()
        except (KeyError, ValueError, IndexError, ParseError, zipfile.BadZipFile) as error:
            raise DataError(f"not an Excel workbook, or a damaged one ({error})", path=self._path) from None


def _filled(sheet: Any, width: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Yield the rows of a sheet that hold something, with their numbers."""
    from openpyxl.cell.cell import ERROR_CODES  # of formulas that failed: as good as empty

    sheet.reset_dimensions()  # some programs write other sizes than the sheet has; rows beyond them would be lost
    for number, cells in enumerate(sheet.iter_rows(max_col=width, values_only=True), start=1):
        if any(cell is not None for cell in cells):
            yield number, tuple(None if cell in ERROR_CODES else cell for cell in cells)


def _merged_cells(file: IO[bytes]) -> Iterator[tuple[str, int, int]]:
    """Yield the first column, the first row and the last row of every merged cell of a sheet's XML."""
    rest = b""
    while piece := file.read(_CHUNK):
        rest += piece
        end = 0
        for found in _MERGED.finditer(rest):
            yield found[1].decode(), int(found[2]), int(found[3])
            end = found.end()
        rest = rest[max(end, len(rest) - _TAG) :]


def _which_sheet(path: Path, sheet: str, columns: Mapping[str, Sequence[str]]) -> str:
    """Say which of several sheets is read, and how to name another one that has columns of usual names."""
    others = [name for name, names in columns.items() if name != sheet and usual_names_in(names)]
    offer = f"name another as {path}/{others[0]}" if others else "no other has columns of usual names"
    return f"{path}: of {len(columns)} sheets {sheet!r} is read; {offer}"
