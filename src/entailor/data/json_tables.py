"""Objects out of JSON: one a line, or an array, alone or under a key of one object."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from entailor.data.batches import BATCH_ROWS, Batch, Table, inner_names, inner_value
from entailor.data.files import FileFormat, empty_file, open_text
from entailor.data.values import Repeated
from entailor.errors import DataError

RECORDS_LOOKED_AT = 50
MAX_RECORD_CHARACTERS = 64_000_000
_SPACE = re.compile(r"[ \t\r\n]*")


class JsonTable(Table):
    """A file of JSON objects; keys are columns, and inner keys are dotted paths.

    The content decides, not the suffix: one object a line, or one document that is an array of objects or an object
    with such an array under one of its keys.
    """

    def __init__(self, path: Path, form: FileFormat) -> None:
        self._path, self._form, self.source = path, form, str(path)
        self._document = self._is_document()
        head = [record for _, record in islice(self._records(), RECORDS_LOOKED_AT)]
        if not head:
            raise empty_file(path)
        if len(head) == 1 and _is_columns(head[0]):
            raise DataError(
                "one object that holds columns, expected one object for each example",
                path=path,
                remedy='Write the examples one by one, as pandas does with to_json(orient="records")',
            )
        outer = dict.fromkeys(chain.from_iterable(head))
        inner = chain.from_iterable(inner_names(name, record.get(name)) for record in head for name in record)
        self.columns = tuple(dict.fromkeys((*outer, *inner)))

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Stream the named keys; an object that lacks one has None there."""
        records = self._records()
        while rows := [record for _, record in islice(records, BATCH_ROWS)]:
            yield [
                [inner_value(row, name) for row in rows] if "." in name else [row.get(name) for row in rows]
                for name in columns
            ]

    def row_number(self, index: int) -> int:
        """Return the line, or in an array the place, of object `index`."""
        return next(islice(self._records(), index, None))[0]

    def places(self) -> Iterator[tuple[int, bool]]:
        """Stream the line or the place of each object, and blank lines."""
        if self._document:
            yield from ((number, False) for number, _ in self._records())
            return
        with open_text(self._path, newline="\n", form=self._form) as lines:
            yield from ((number, line.isspace()) for number, line in enumerate(lines, start=1))

    def _is_document(self) -> bool:
        with open_text(self._path, newline="\n", form=self._form) as lines:
            line = next((line for line in _bounded_lines(self._path, lines) if not line.isspace()), "")
        start = line.lstrip()
        if start[:1] == "[":
            return True
        if start[:1] != "{":
            return False
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            return error.pos >= len(line.rstrip())  # an object that goes on over the next lines
        except (ValueError, RecursionError):
            return False
        return any(_is_rows(inner) for inner in value.values()) and not self._has_second_line()

    def _has_second_line(self) -> bool:
        with open_text(self._path, newline="\n", form=self._form) as lines:
            return sum(1 for _ in islice((line for line in lines if not line.isspace()), 2)) > 1

    def _records(self) -> Iterator[tuple[int, dict[str, object]]]:
        with open_text(self._path, newline="\n", form=self._form) as lines:
            if self._document:
                text = lines.read()
                values = enumerate(_Document(self._path, text).rows(), start=1)
                yield from ((number, _json_object(self._path, number, value)) for number, value in values)
                return
            for number, line in enumerate(_bounded_lines(self._path, lines), start=1):
                if not line.isspace():
                    yield number, _json_object(self._path, number, _json_value(self._path, number, line))


def _unrepeated(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    values: dict[str, list[Any]] = {}
    for key, value in pairs:
        values.setdefault(key, []).append(value)
    return {key: some[0] if len(some) == 1 else Repeated(some) for key, some in values.items()}


_DECODER = json.JSONDecoder(object_pairs_hook=_unrepeated)


class _Document:
    """Walks over an array value by value, so that a large one is never held as objects all at once."""

    def __init__(self, path: Path, text: str) -> None:
        self._path, self._text = path, text

    def rows(self) -> Iterator[Any]:
        at = self._after_space(0)
        if self._text[at] == "[":
            return self._items(at)
        document, end = self._value(at)
        self._check_end(end)
        found = {key: value for key, value in document.items() if _is_rows(value)}
        if len(found) != 1:
            names = f" ({', '.join(list(found)[:5])})" if found else ""
            raise DataError(
                f"one object with {len(found)} arrays of objects{names}, expected one",
                path=self._path,
                remedy="Write the rows as one array, or one object a line",
            )
        return chain.from_iterable(found.values())

    def _items(self, at: int) -> Iterator[Any]:
        at = self._after_space(at + 1)
        while self._text[at : at + 1] != "]":
            value, at = self._value(at)
            yield value
            at = self._after_space(at)
            if self._text[at : at + 1] == ",":
                at = self._after_space(at + 1)
            elif self._text[at : at + 1] != "]":
                raise self._broken("',' or ']' is missing", at)
        self._check_end(at + 1)

    def _check_end(self, at: int) -> None:
        at = self._after_space(at)
        if at < len(self._text):
            raise self._broken("more text behind the end", at)

    def _value(self, at: int) -> tuple[Any, int]:
        try:
            return _DECODER.raw_decode(self._text, at)
        except json.JSONDecodeError as error:
            raise self._broken(error.msg, error.pos) from None
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"JSON that cannot be taken: {error}", path=self._path, remedy="Write the file again"
            ) from None

    def _after_space(self, at: int) -> int:
        found = _SPACE.match(self._text, at)
        return found.end() if found else at

    def _broken(self, message: str, at: int) -> DataError:
        line = self._text.count("\n", 0, at) + 1
        place = f"line {line}, character {at - self._text.rfind(chr(10), 0, at)}"
        return DataError(f"broken JSON: {message} at {place}", path=self._path, remedy="Write the file again")


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _is_columns(record: Mapping[str, Any]) -> bool:
    """Tell whether an object is a whole table: lists of one length, or values by the number of their example."""
    columns = list(record.values())
    if all(isinstance(column, list) for column in columns):
        return len(columns) > 1 and len(set(map(len, columns))) == 1 and len(columns[0]) > 1
    return all(isinstance(column, dict) and column and all(map(str.isdecimal, column)) for column in columns)


def _bounded_lines(path: Path, lines: TextIO) -> Iterator[str]:
    number = 0
    while line := lines.readline(MAX_RECORD_CHARACTERS + 1):
        number += 1
        if len(line) > MAX_RECORD_CHARACTERS and not line.lstrip().startswith("["):
            problem = f"a line of more than {MAX_RECORD_CHARACTERS:,} characters"
            raise DataError(problem, path=path, row=number, remedy="Write one JSON object a line")
        yield line


def _json_value(path: Path, row: int, text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        problem = f"broken JSON: {error.msg} at character {error.colno}"
    except (ValueError, RecursionError) as error:
        problem = f"JSON that cannot be taken: {error}"
    raise DataError(problem, path=path, row=row, remedy="One whole JSON object a line is expected")


def _json_object(path: Path, row: int, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        kinds = {list: "a list", str: "a string", type(None): "null", bool: "a boolean"}
        found = kinds.get(type(value), "a number")
        raise DataError(
            f"{found}, expected a JSON object", path=path, row=row, remedy='Write {"text": ..., "label": ...}'
        )
    return value
