"""Rows out of the first sheet of an Excel workbook."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from entailor.data.batches import BATCH_ROWS, Batch, Table
from entailor.data.files import FileFormat, empty_file, too_large, translated
from entailor.errors import DataError

MAX_COLUMNS = 1000


class ExcelTable(Table):
    """The first sheet; its first row with a value names the columns, and blank rows are left out."""

    def __init__(self, path: Path, form: FileFormat) -> None:
        self._path, self.source = path, str(path)
        with translated(path), zipfile.ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > form.max_bytes:
                raise too_large(path, form.max_bytes)
        number, header = next(self._rows(MAX_COLUMNS), (0, ()))
        if not number:
            raise empty_file(path)
        names = ["" if cell is None else str(cell) for cell in header]
        while names and not names[-1]:
            names.pop()
        self.columns, self.header_row = tuple(names), number

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
                sheet = book.worksheets[0]
                for number, cells in enumerate(sheet.iter_rows(max_col=width, values_only=True), start=1):
                    if any(cell is not None for cell in cells):
                        yield number, cells
            finally:
                book.close()
        except (KeyError, ValueError, IndexError, ParseError, zipfile.BadZipFile) as error:
            raise DataError(f"not an Excel workbook, or a damaged one ({error})", path=self._path) from None
