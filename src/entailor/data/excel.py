"""Rows out of a sheet of an Excel workbook."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from entailor.data.batches import BATCH_ROWS, Batch, Table
from entailor.data.columns import usual_names_in
from entailor.data.files import FileFormat, empty_file, too_large, translated
from entailor.data.labels import listed
from entailor.errors import DataError

MAX_COLUMNS = 1000


class ExcelTable(Table):
    """One sheet; its first row with a value names the columns, and blank rows are left out.

    Of several sheets, the one that was named, or else the first with a column of a usual name.
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
                others = [name for name in sheets if name != self._sheet]
                self.notes = (
                    f"{path}: of {len(sheets)} sheets {self._sheet!r} is read; name another as {path}/{others[0]}",
                )
        self.header_row, self.columns = sheets.get(self._sheet, (0, ()))
        if not self.header_row:
            raise empty_file(path)

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
            yield from _filled(book[self._sheet], width)

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

    for number, cells in enumerate(sheet.iter_rows(max_col=width, values_only=True), start=1):
        if any(cell is not None for cell in cells):
            yield number, tuple(None if cell in ERROR_CODES else cell for cell in cells)
