"""Labelled data that a program holds in memory, as files that a run can be made from again.

DataFrames of pandas and polars, `datasets.Dataset`, columns and lists become JSON documents of the columns that are
read, with a checksum; from there on they are files like any other. None of these libraries is imported.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from entailor.config.experiment import Experiment
from entailor.config.parts import DataSettings
from entailor.data.columns import find_columns
from entailor.data.example import Example
from entailor.errors import DataError
from entailor.runs.integrity import BLANK_CHECKSUM, with_checksum

PARTS = ("train", "validation", "test")
FOLDER = "data"  # in the run folder
SHAPES = (
    "a path, a DataFrame of pandas or polars, a datasets.Dataset, a mapping of column name to list, or a list of "
    "(text, label), (premise, hypothesis, label), mappings or Examples"
)

Columns = dict[str, list[Any]]


def with_files(experiment: Experiment, parts: Mapping[str, Any]) -> tuple[Experiment, dict[Path, str]]:
    """Return an experiment that reads files, and the files it takes for that.

    Args:
        experiment: whose run folder the files will lie in.
        parts: train, validation and test as a path or data; None leaves what the experiment says. A `DatasetDict` for
            train gives those of the three that are not given.

    Returns:
        The experiment, and path to content of ``data/train.json`` and so on; empty where only paths were given.

    Raises:
        DataError: something that is no table of labelled texts.
    """
    given = {name: part for name, part in parts.items() if part is not None}
    splits = given.get("train")
    if isinstance(splits, Mapping) and splits and all(hasattr(one, "column_names") for one in splits.values()):
        del given["train"]
        if "train" not in splits:
            raise DataError(f"splits {', '.join(splits)}, expected one called train", path="train")
        given = {name: splits[name] for name in PARTS if name in splits} | given
    sources: dict[str, str] = {}
    files: dict[Path, str] = {}
    for name, part in given.items():
        if isinstance(part, str | Path):
            sources[name] = str(part)
            continue
        path = Path(experiment.out) / FOLDER / f"{name}.json"
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
    lengths = set(map(len, cells))
    if len(lengths) > 1:
        told = ", ".join(f"{column} {len(values):,}" for column, values in zip(columns, cells, strict=True))
        raise DataError(f"columns of different lengths ({told})", path=name)
    if lengths == {0}:
        raise DataError("no examples", path=name, remedy="Give a table with some")
    lines = ",\n".join(
        json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) for row in zip(*cells, strict=True)
    )
    return with_checksum(f'{{"examples": [\n{lines}\n], "checksum": "{BLANK_CHECKSUM}"}}\n')


def _columns(data: Any, name: str, mapping: Mapping[str, str]) -> Columns:
    """Return the columns that are read, by name."""
    if hasattr(data, "collect"):  # polars: what has not been computed has no cells
        raise DataError(f"{type(data).__name__} found, expected a DataFrame", path=name, remedy="Call its collect()")
    if hasattr(data, "column_names") or hasattr(data, "columns"):
        listed = list(data.column_names if hasattr(data, "column_names") else data.columns)
        names = {str(column): column for column in listed}
        if len(names) < len(listed):
            raise DataError("two columns have one name", path=name, remedy="Rename one of them")
        return {
            column: _values(data, names[column]) for column in _read(names, mapping, f"{name} ({type(data).__name__})")
        }
    if isinstance(data, Mapping):
        found = {column: data[column] for column in _read(data, mapping, name)}
        if single := [column for column, values in found.items() if isinstance(values, str | bytes)]:
            raise DataError("one text found, expected a list", path=name, column=single[0])
        return {column: list(values) for column, values in found.items()}
    if hasattr(data, "dtype") and hasattr(data, "tolist") and getattr(data.dtype, "names", None) is None:
        data = data.tolist()  # an array of NumPy, of which a line is no tuple and a cell no text
    if isinstance(data, str | bytes) or not hasattr(data, "__iter__"):
        raise DataError(f"{type(data).__name__} found, expected {SHAPES}", path=name)
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, list) for part in data):
        raise DataError("two lists found, expected one", path=name, remedy="Write list(zip(texts, labels))")
    return _of_list(list(data), name, mapping)


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
        names = dict.fromkeys(key for row in rows if isinstance(row, Mapping) for key in row)
        return {
            column: [_same(row, Mapping, name, place).get(column) for place, row in enumerate(rows, start=1)]
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
    yield from find_columns(list(map(str, names)), mapping, source=source, require_labels=True).values()


def _values(data: Any, column: Any) -> list[Any]:
    """Return a column, with names for codes where a data set carries them (ClassLabel); -1 is no label."""
    values = data[column].to_pylist() if hasattr(data[column], "to_pylist") else list(data[column])
    names = getattr(getattr(data, "features", {}).get(column), "names", None)
    return [None if value in (None, -1) else names[value] for value in values] if names else values


def _plain(value: Any, name: str, place: int, column: str) -> Any:
    """Return a cell as JSON holds it; None where it is missing."""
    if isinstance(value, list | tuple) and len(value) == 1:  # some write the one label of a text so
        value = value[0]
    if hasattr(value, "item") and not isinstance(value, str):  # a number of NumPy
        value = value.item()
    if is_missing(value):
        return None
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    found = value if isinstance(value, float) else type(value).__name__
    raise DataError(f"{found} found, expected text or a number", path=name, row=place, column=column)


def is_missing(value: Any) -> bool:
    """Tell whether a cell stands for nothing: None, NaN, or what pandas takes for them."""
    return (
        value is None
        or type(value).__name__ in ("NAType", "NaTType")
        or (isinstance(value, float) and math.isnan(value))
    )
