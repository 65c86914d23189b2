"""Labelled data that a program holds in memory, as files that a run can be made from again.

DataFrames of pandas and polars, `datasets.Dataset`, columns and lists become JSON documents of the columns that are
read, with a checksum; from there on they are files like any other. None of these libraries is imported.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from numbers import Real
from pathlib import Path
from typing import Any

from entailor.config.experiment import Experiment
from entailor.config.parts import DataSettings
from entailor.data.batches import inner_names, inner_value
from entailor.data.columns import ANSWER, PRODIGY, find_columns
from entailor.data.example import Example
from entailor.data.values import only
from entailor.errors import DataError
from entailor.runs.integrity import BLANK_CHECKSUM, with_checksum
from entailor.runs.ownership import DATA_FOLDER

PARTS = ("train", "validation", "test")
MAPPING_HINT = "Name them: data={'columns': {'text': COLUMN, 'label': COLUMN}}"
MOST_BITS = 1024  # of a whole number; JSON takes more, Python writes no more than 4,300 digits
SHAPES = (
    "a path, a DataFrame of pandas or polars, a datasets.Dataset, a mapping of column name to list, or a list of "
    "(text, label), (premise, hypothesis, label), mappings or Examples"
)

Columns = dict[str, list[Any]]


def with_files(experiment: Experiment, parts: Mapping[str, Any]) -> tuple[Experiment, dict[Path, str]]:
    """Return an experiment that reads files, and the files it takes for that.

    Args:
        experiment: whose run folder the files will lie in.
        parts: train, validation and test as a path or data; None leaves what the experiment says. A `DatasetDict`
            gives the one it is given for; for train, all of the three that are not given.

    Returns:
        The experiment, and path to content of ``data/train.json`` and so on; empty where only paths were given.

    Raises:
        DataError: something that is no table of labelled texts.
    """
    given = {name: part for name, part in parts.items() if part is not None}
    for part, splits in list(given.items()):
        if isinstance(splits, Mapping) and splits and all(hasattr(one, "column_names") for one in splits.values()):
            if part not in splits:
                remedy = f"Give one of them, such as {part}=splits[{next(iter(splits))!r}]"
                raise DataError(f"splits {', '.join(splits)}, expected one called {part}", path=part, remedy=remedy)
            given[part] = splits[part]
            if part == "train":
                given = {name: splits[name] for name in PARTS if name in splits} | given
    sources: dict[str, str] = {}
    files: dict[Path, str] = {}
    for name, part in given.items():
        if isinstance(part, str | Path):
            sources[name] = str(part)
            continue
        path = Path(experiment.out) / DATA_FOLDER / f"{name}.json"
        files[path] = document(part, name, experiment.data)
        sources[name] = str(path)
    return experiment.model_copy(update={"data": experiment.data.model_copy(update=sources)}), files


def document(data: Any, name: str, settings: DataSettings | None = None) -> str:
    """Return a table as a JSON document with a checksum; the same data give the same text.

    Args:
        data: see `SHAPES`.
        name: what it is called in errors: train, validation or test.
        settings: whose `columns` map fields to columns.

    Raises:
        DataError: no table, no column of texts or of labels, or a cell that is neither text, number nor missing.
    """
    columns = _columns(data, name, (settings or DataSettings()).columns)
    cells = [[_plain(value, name, place, column) for place, value in enumerate(values, start=1)]
             for column, values in columns.items()]  # fmt: skip
    if not any(cells):
        raise DataError("no examples", path=name, remedy="Give a table with some")
    lines = ",\n".join(
        json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) for row in zip(*cells, strict=True)
    )
    return with_checksum(f'{{"examples": [\n{lines}\n], "checksum": "{BLANK_CHECKSUM}"}}\n')


def _columns(data: Any, name: str, mapping: Mapping[str, str]) -> Columns:
    """Return the columns that are read, by name."""
    if is_table(data):
        source = name if isinstance(data, Mapping) else f"{name} ({type(data).__name__})"
        return table_columns(data, name, lambda names: _read(names, mapping, source))
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, list) for part in data):
        raise DataError("two lists found, expected one", path=name, remedy="Write list(zip(texts, labels))")
    return _of_list(plain_list(data, name, SHAPES), name, mapping)


def is_table(data: Any) -> bool:
    """Tell whether data has columns with names: a DataFrame, a data set, an Arrow table, a mapping, a record array."""
    if isinstance(data, Mapping) or getattr(getattr(data, "dtype", None), "names", None):
        return True
    return any(hasattr(data, name) for name in ("collect", "column_names", "columns"))


def column_names(table: Any, name: str) -> list[Any]:
    """Return the names of a table's columns, which need not be text.

    Args:
        table: what `is_table` takes.
        name: what it is called in errors.

    Raises:
        DataError: it has not been computed.
    """
    if hasattr(table, "collect"):  # polars: what has not been computed has no cells
        raise DataError(f"{type(table).__name__} found, expected a DataFrame", path=name, remedy="Call its collect()")
    if isinstance(table, Mapping):
        return list(table)
    for place, key in ((table, "column_names"), (table, "columns"), (getattr(table, "dtype", None), "names")):
        if (found := getattr(place, key, None)) is not None:
            return list(found)
    return []


def table_columns(data: Any, name: str, pick: Callable[[list[str]], Iterable[str]]) -> Columns:
    """Return columns of a table as lists of equal length.

    Args:
        data: what `is_table` takes.
        name: what it is called in errors.
        pick: takes all names and gives those of the columns that are read.

    Raises:
        DataError: it has not been computed, two columns that are read have one name, or they are of different lengths.
    """
    listed = column_names(data, name)
    original, counts = {str(column): column for column in listed}, Counter(map(str, listed))
    columns: Columns = {}
    for column in pick([str(column) for column in listed]):
        if counts[column] > 1:
            raise DataError("two columns have one name", path=name, column=column, remedy="Rename one of them")
        columns[column] = _values(data, original[column], name, column)
    if len(set(map(len, columns.values()))) > 1:
        told = ", ".join(f"{column} {len(values):,}" for column, values in columns.items())
        raise DataError(f"columns of different lengths ({told})", path=name)
    return columns


def plain_list(values: Any, name: str, expected: str = "a list", column: str | None = None) -> list[Any]:
    """Return values as a list, arrays and Arrow's as Python's own types: of a masked array what is masked is None.

    Args:
        values: a list, an array, a Series, anything that can be gone through.
        name: what it is called in errors.
        expected: what should have been given, in words.
        column: where it stands.

    Raises:
        DataError: one text, something that holds none, or a set, whose order is another one in every process.
    """
    kind = type(values).__name__
    if isinstance(values, set | frozenset):
        problem = f"{kind} found, which has no order, expected {expected}"
        raise DataError(problem, path=name, column=column, remedy="Give a list")
    if isinstance(values, str | bytes):
        problem = f"one text found, expected {expected}" if column else f"{kind} found, expected {expected}"
        raise DataError(problem, path=name, column=column)
    convert = next((getattr(values, one) for one in ("to_pylist", "tolist") if hasattr(values, one)), None)
    found = convert() if convert else list(values) if hasattr(values, "__iter__") else values
    if not isinstance(found, list):  # an array without an axis is one value
        raise DataError(f"{type(found).__name__} found, expected {expected}", path=name, column=column)
    return found


def _of_list(rows: list[Any], name: str, mapping: Mapping[str, str]) -> Columns:
    if rows and hasattr(rows[0], "_asdict"):  # named tuples, as itertuples() gives them, with the index in front
        rows = [row._asdict() if hasattr(row, "_asdict") else row for row in rows]
    first = rows[0] if rows else ("", "")
    if isinstance(first, Example):
        fields: tuple[str, ...] = ("id", "premise", "hypothesis", "label", "group")
        if first.text_pair is None:
            fields = ("id", "text", "label", "group")
        rows = [_fields_of(row, name, place, fields) for place, row in enumerate(rows, start=1)]
        return {field: [row[field] for row in rows] for field in fields}
    if isinstance(first, Mapping):
        names = dict.fromkeys(
            inner
            for row in rows
            if isinstance(row, Mapping)
            for key in row
            for inner in inner_names(str(key), row[key])
        )
        return {
            column: [inner_value(_same(row, Mapping, name, place), column) for place, row in enumerate(rows, start=1)]
            for column in _read(names, mapping, name)
        }
    shapes = {2: ("text", "label"), 3: ("premise", "hypothesis", "label")}
    width = len(first) if isinstance(first, tuple | list) else 0
    if width not in shapes:
        raise DataError(
            f"{type(first).__name__} found, expected {SHAPES}",
            path=name,
            row=1,
            remedy="Where texts and labels are two lists, write list(zip(texts, labels))",
        )
    for place, row in enumerate(rows, start=1):
        if not isinstance(row, tuple | list) or len(row) != width:
            raise DataError(f"another shape than the first, which has {width} parts", path=name, row=place)
    return {column: [row[at] for row in rows] for at, column in enumerate(shapes[width])}


def _fields_of(row: Any, name: str, place: int, fields: Sequence[str]) -> Mapping[str, Any]:
    one = _same(row, Example, name, place)
    if (one.text_pair is None) != ("text" in fields):
        raise DataError("pairs and single texts", path=name, row=place, remedy="Give one kind")
    return {**{field: getattr(one, field, None) for field in fields}, "text": one.text, "premise": one.text,
            "hypothesis": one.text_pair}  # fmt: skip


def _same(row: Any, kind: type, name: str, place: int) -> Any:
    if not isinstance(row, kind):
        raise DataError(f"{type(row).__name__} found, expected {kind.__name__} as before", path=name, row=place)
    return row


def _read(names: Any, mapping: Mapping[str, str], source: str) -> Iterator[str]:
    """Yield the columns that are read; the others are not written."""
    try:
        found = find_columns(list(map(str, names)), mapping, source=source, require_labels=True)
        yield from found.values()
        yield from (name for name in map(str, names) if name in PRODIGY and ANSWER in found)
    except DataError as error:  # which proposes an option of the command line
        raise DataError(error.problem, path=source, remedy=MAPPING_HINT) from None


def _values(data: Any, place: Any, name: str, column: str) -> list[Any]:
    """Return a column, with names for codes where a data set carries them (ClassLabel); -1 is no label."""
    values = plain_list(data[place], name, column=column)
    names = getattr(getattr(data, "features", {}).get(place), "names", None)
    return [None if value in (None, -1) else names[value] for value in values] if names else values


def _plain(value: Any, name: str, place: int, column: str) -> Any:
    """Return a cell as JSON holds it; None where it is missing."""
    if hasattr(value, "tolist"):  # an array or a number of NumPy
        value = value.tolist()
    value = as_text(only(list(value) if isinstance(value, tuple) else value))
    if is_missing(value):
        return None
    if isinstance(value, str):
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            problem, remedy = "half of a surrogate pair, which no file holds", "Take it out"
            raise DataError(problem, path=name, row=place, column=column, remedy=remedy)
        return str(value)
    if (isinstance(value, bool | int) and value.bit_length() < MOST_BITS) or (
        isinstance(value, float) and math.isfinite(value)
    ):
        return value
    found = value if isinstance(value, float) else type(value).__name__
    remedy = "Make it text, for example with str()"
    raise DataError(f"{found} found, expected text or a number", path=name, row=place, column=column, remedy=remedy)


def as_text(value: Any) -> Any:
    """Return what Spark and databases write for text, UTF-8 in bytes and decimals, as text; anything else as it is."""
    if isinstance(value, Decimal) and value.is_finite():
        return f"{value:f}"
    if isinstance(value, bytes):
        with suppress(UnicodeDecodeError):
            return value.decode()
    return value


def is_missing(value: Any) -> bool:
    """Tell whether a cell stands for nothing: None, a NaN of any library, or what pandas takes for them."""
    return (
        value is None
        or type(value).__name__ in ("NAType", "NaTType", "MaskedConstant")
        or (isinstance(value, Real | Decimal) and value != value)  # noqa: PLR0124 - a NaN is not
    )
