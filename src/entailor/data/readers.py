"""Labelled text out of a file or a Hugging Face data set: columns found, labels mapped, every row checked.

How sources are opened is `tables`, which column is which is `columns`; whether a whole split is sound is `checks`.
"""

from __future__ import annotations

import gc
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, compress
from typing import Any, NoReturn

from entailor.config.parts import DataSettings
from entailor.data.columns import ANSWER, FIELDS, REJECTED, find_columns
from entailor.data.example import Example, content_id
from entailor.data.files import MAX_BYTES, MAX_ROWS, FileFormat
from entailor.data.labels import MOST_NAMED, NO_GOLD, ONE_LABEL, SEVERAL_REMEDY, listed, unknown_labels_remedy, visible
from entailor.data.tables import open_table
from entailor.data.values import (
    Repeated,
    is_label,
    is_nan,
    key_inside,
    kind_of,
    label_text,
    only,
    plain_number,
    unwritten,
)
from entailor.errors import DataError, LabelError

MAX_FIELD_CHARACTERS = 2_000_000
_C1 = re.compile("[\x80-\x9f]")  # control characters that no text holds on purpose


@dataclass(frozen=True)
class ReadOptions:
    """How a source is read.

    Attributes:
        columns: field to column: text (or premise), text_pair (or hypothesis), label, id, group.
        label_names: label as written to label name; what it leaves out keeps its own name.
        labels: the allowed label names, or None for any.
        config_name: configuration of a data set.
        split: split of a data set.
        require_labels: whether a label column is needed and rows without a gold label are dropped. Without it such
            rows are kept with the label None.
        no_gold: labels that mean that there is none, beside the empty one; None: the usual ones.
        flags: remedies name flags of `evaluate` instead of keys of the experiment.
        trained: `labels` are those that train has.
        nulls_are_empty: take a text that is null for an empty one, instead of refusing it.
        delimiter: between the cells of a text file; None: found in its first line.
        encoding: of text files without a byte order mark; None: UTF-8.
        max_bytes: most bytes that a compressed file may unpack to.
        max_rows: most rows of a source.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    label_names: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    config_name: str | None = None
    split: str | None = None
    require_labels: bool = True
    no_gold: tuple[str, ...] | None = None
    flags: bool = False
    trained: bool = False
    nulls_are_empty: bool = False
    delimiter: str | None = None
    encoding: str | None = None
    max_bytes: int = MAX_BYTES
    max_rows: int = MAX_ROWS

    @classmethod
    def of(cls, settings: DataSettings, **changes: Any) -> ReadOptions:
        """Return what the settings of an experiment say, with some of it changed."""
        said = ("columns", "label_names", "no_gold", "delimiter", "encoding", "max_bytes", "max_rows")
        return cls(**{name: getattr(settings, name) for name in said} | changes)

    @property
    def form(self) -> FileFormat:
        """How files are opened."""
        return FileFormat(self.delimiter, self.encoding, self.max_bytes)


@dataclass(frozen=True)
class ReadResult:
    """What a source held.

    Attributes:
        examples: in the order of the source; ids are unique.
        rows_read: rows after the header, those without gold included.
        dropped_without_gold: rows left out because they have no agreed label.
        no_gold: how these were written, and how often.
        rejected: what Prodigy says of rows whose label was not accepted, and how often; they are left out as well.
        mapped: the labels of `label_names` that stand in the source.
        columns: field to the column it was read from.
        notes: what a reader of the result should know, such as repeated ids.
    """

    examples: tuple[Example, ...]
    rows_read: int
    dropped_without_gold: int
    columns: Mapping[str, str]
    notes: tuple[str, ...] = ()
    no_gold: Mapping[str, int] = field(default_factory=dict)
    rejected: Mapping[str, int] = field(default_factory=dict)
    mapped: frozenset[str] = frozenset()


def read_examples(source: str, options: ReadOptions | None = None) -> ReadResult:
    """Read a whole file or data set.

    Args:
        source: as for `entailor.data.tables.open_table`.
        options: how it is read.

    Raises:
        DataError: the source, a column or a row cannot be read; no row has a gold label.
        LabelError: a label outside `options.labels`.
        ConfigError: `options.columns` cannot be used.
    """
    reading = _Reading(source, options or ReadOptions())
    with _collector_at_rest():
        examples = tuple(reading)
    return ReadResult(
        examples=examples,
        rows_read=reading.rows_read,
        dropped_without_gold=reading.dropped,
        columns=reading.columns,
        notes=reading.notes(),
        no_gold=reading.no_gold,
        rejected=reading.rejected,
        mapped=frozenset(reading.mapped),
    )


def iter_examples(source: str, options: ReadOptions | None = None) -> Iterator[Example]:
    """Stream a file or data set; the source is opened and its columns are found before this returns.

    Takes and raises what `read_examples` does; errors of a row come when its batch is reached.
    """
    return iter(_Reading(source, options or ReadOptions()))


NumberedRow = tuple[int, Example, bool]
"""Where a row stands (the line it begins on, or its number as a record), the example, and whether it has a text."""

_READ_TO_PREDICT = ("text", "text_pair", "id")


class NumberedRows:
    """Every row of a source, in order, with the place it stands at. Labels, groups and other columns are not read.

    A row whose text is null stays, with an empty text, so that no later row moves up.

    Args:
        source: as for `read_examples`.
        options: columns.
        is_pair: whether pairs are wanted; single texts are taken from a column `text` whatever stands beside it.

    Raises:
        DataError: the source cannot be read, or has no column of texts.
    """

    def __init__(self, source: str, options: ReadOptions, *, is_pair: bool) -> None:
        options = replace(options, require_labels=False, nulls_are_empty=True)
        self._reading = _Reading(source, options, only=_READ_TO_PREDICT, single=not is_pair)
        self._blank = self._without_text = 0

    def __iter__(self) -> Iterator[NumberedRow]:
        numbers = self._numbers()
        for index, example in enumerate(self._reading):
            number = next(numbers, None)
            if number is None:
                raise self._reading.changed()
            has_text = index not in self._reading.without_text
            self._without_text += not has_text
            yield number, example, has_text
        for _ in numbers:
            raise self._reading.changed()

    def _numbers(self) -> Iterator[int]:
        for number, is_blank in self._reading.places():
            if is_blank:
                self._blank += 1
            else:
                yield number

    def notes(self) -> Iterator[str]:
        """Yield what a reader of the predictions must know, once all rows have been read."""
        if self._blank:
            lines = "blank line of the input has" if self._blank == 1 else "blank lines of the input have"
            yield f"{self._blank:,} {lines} no prediction; go by the column `line`"
        if self._without_text:
            rows = "row has" if self._without_text == 1 else "rows have"
            yield f"{self._without_text:,} {rows} no text (null), and so no label"


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Hold back the cyclic garbage collector: rows hold no cycles, and it would walk over them again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _kept(
    kept: Sequence[bool], cells: Mapping[str, Sequence[Any]], rows: Sequence[int]
) -> tuple[dict[str, Sequence[Any]], Sequence[int]]:
    """Return the cells and the numbers of some of the rows."""
    return {name: list(compress(values, kept)) for name, values in cells.items()}, list(compress(rows, kept))


class _Reading:
    """One pass over a source, with its counts. Works on columns of a batch; rows are looked at one by one in errors."""

    def __init__(
        self, source: str, options: ReadOptions, only: Sequence[str] = (*FIELDS, ANSWER), *, single: bool = False
    ) -> None:
        self._table = open_table(source, config_name=options.config_name, split=options.split, form=options.form)
        self._source, self._options = self._table.source, options
        mapping = options.columns
        if single and "text" in self._table.columns and not {*mapping} & {"text", "premise", "text_pair", "hypothesis"}:
            mapping = {**mapping, "text": "text"}
        found = find_columns(self._table.columns, mapping, source=self._source, require_labels=options.require_labels)
        self.columns = {name: column for name, column in found.items() if name in only}
        self._check_unique()
        self.without_text: set[int] = set()
        self.rows_read = self.dropped = self._repeated_ids = self._controls = 0
        self.no_gold: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.mapped: set[str] = set()
        self._names: dict[str, str | None] = {}  # label as written -> name, or None for no gold
        self._unknown: dict[str, str] = {}  # label as written -> name outside the label set
        self._unknown_row = 0  # of the first of them
        self._class_names = self._table.class_names.get(self.columns.get("label", ""), ())
        self._seen: set[str] = set()
        self._repeats: dict[str, int] = {}
        self._groups: dict[Any, str | None] = {}

    def _check_unique(self) -> None:
        """Refuse a column that stands twice, if it is one that is read."""
        for column in self.columns.values():
            if list(self._table.columns).count(column) > 1:
                raise DataError(
                    f"column {column!r} stands twice in the header",
                    path=self._source,
                    row=self._table.header_row,
                    remedy="Rename one of the two",
                )

    def places(self) -> Iterator[tuple[int, bool]]:
        return self._table.places()

    def changed(self) -> DataError:
        """Return the error for a file that another program writes meanwhile."""
        return DataError("changed while it was read", path=self._source, remedy="Run the command again")

    def notes(self) -> tuple[str, ...]:
        notes = list(self._table.notes)
        if self._repeated_ids:
            notes.append(
                f"{self._source}: {self._repeated_ids:,} repeated values in the id column {self.columns['id']!r}; "
                "each was made unique with -2, -3, ..."
            )
        if self._controls:
            notes.append(
                f"{self._source}: {self._controls:,} texts hold control characters (U+0080 to U+009F), which are "
                "dashes, quotes or euro signs of Windows read in the wrong encoding; read the original with "
                "--encoding cp1252"
            )
        return tuple(notes)

    def __iter__(self) -> Iterator[Example]:
        return chain.from_iterable(self._batches())

    def _batches(self) -> Iterator[Iterator[Example]]:
        table = self._table.batches(list(self.columns.values()))
        batches = (dict(zip(self.columns, batch, strict=True)) for batch in table)
        for cells in batches:
            examples = self._examples(cells)
            if self._unknown:  # the error names all of them
                self._look_for_more(batches)
            yield examples
        self._check_counts()

    def _look_for_more(self, batches: Iterator[dict[str, Sequence[Any]]]) -> NoReturn:
        """Read on for further labels outside the label set, and raise the error that names them."""
        for cells in batches:
            if len(self._unknown) > MOST_NAMED:
                break
            count = len(cells["label"])
            self._labels(cells["label"], range(self.rows_read, self.rows_read + count))
            self.rows_read += count
        options, names = self._options, list(self._unknown.values())
        more = f"more than {MOST_NAMED}" if len(names) > MOST_NAMED else f"{len(names) - 1}"
        others = f" and {more} more ({listed(names[1:MOST_NAMED])})" if len(names) > 1 else ""
        raise self._error(
            f"label {visible(names[0])}{others}, expected one of {listed(options.labels or ())}",
            self._unknown_row,
            "label",
            unknown_labels_remedy(
                self._unknown, options.labels or (), options.label_names, trained=options.trained, flags=options.flags
            ),
            kind=LabelError,
        )

    def _examples(self, cells: dict[str, Sequence[Any]]) -> Iterator[Example]:
        count = len(cells["text"])
        rows: Sequence[int] = range(self.rows_read, self.rows_read + count)
        self.rows_read += count
        if self.rows_read > self._options.max_rows:
            raise DataError(
                f"more than {self._options.max_rows:,} rows",
                path=self._source,
                remedy="If you trust the file, raise data.max_rows (predict and evaluate: --max-rows)",
            )
        if self._options.require_labels and not set(REJECTED).isdisjoint(answers := cells.get(ANSWER, ())):
            self.rejected.update(answer for answer in answers if answer in REJECTED)
            cells, rows = _kept([answer not in REJECTED for answer in answers], cells, rows)
        labels: Sequence[str | None] = self._labels(cells["label"], rows) if "label" in cells else [None] * len(rows)
        if self._options.require_labels and None in labels:
            cells, rows = _kept([label is not None for label in labels], cells, rows)
            labels = [label for label in labels if label is not None]
        self.dropped += count - len(rows)
        texts = self._texts(cells["text"], rows, "text")
        pairs = self._texts(cells["text_pair"], rows, "text_pair") if "text_pair" in cells else [None] * len(texts)
        ids = self._ids(cells.get("id"), texts, pairs)
        groups = self._groups_of(cells["group"]) if "group" in cells else [None] * len(texts)
        return map(Example, ids, texts, pairs, labels, groups)

    def _texts(self, values: Sequence[Any], rows: Sequence[int], field: str) -> Sequence[str]:
        """Return the texts as they are when the whole column is sound, else find the row that is not."""
        try:
            joined = "".join(values)
            joined.encode("utf-8")
            if _C1.search(joined):
                self._controls += sum(_C1.search(value) is not None for value in values)
            if "\0" not in joined and max(map(len, values), default=0) <= MAX_FIELD_CHARACTERS:
                return values
        except (TypeError, UnicodeEncodeError):
            pass  # numbers are made text below; for the rest the row is named
        return [self._text(value, row, field) for value, row in zip(values, rows, strict=True)]

    def _text(self, value: Any, row: int, field: str) -> str:
        """Return a value as text, or say why it is none."""
        is_number = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
        if is_number and not isinstance(value, bool):
            return str(value)
        if self._options.nulls_are_empty and (value is None or is_nan(value)):
            self.without_text.add(row)
            return ""
        if not isinstance(value, str):
            raise self._error(f"{kind_of(value)}, expected text", row, field, self._inside(value, field))
        if len(value) > MAX_FIELD_CHARACTERS:
            problem = f"a text of {len(value):,} characters, expected at most {MAX_FIELD_CHARACTERS:,}"
            raise self._error(problem, row, field, "Cut the text, or look for a quote that is never closed in it")
        if "\0" in value:
            raise self._error("NUL byte in a text", row, field, "Remove it from the file")
        self._check_characters(value, row, field)
        return value

    def _check_characters(self, value: str, row: int, field: str) -> None:
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            problem = f"half of a surrogate pair ({value[error.start]!a}) at character {error.start + 1}"
            raise self._error(problem, row, field, "Write the whole character, or leave it out") from None

    def _labels(self, values: Sequence[Any], rows: Sequence[int]) -> list[str | None]:
        """Return label names; None where there is no gold label. Each way of writing a label is looked at once."""
        if not self._options.require_labels:  # what is no label is not asked for
            values = [value if is_label(only(value)) else None for value in values]
        try:
            written = values if set(map(type, values)) == {str} else [label_text(value) for value in values]
        except TypeError:
            found = zip(rows, values, strict=True)
            raise self._no_label(*next((row, value) for row, value in found if not is_label(only(value)))) from None
        for new in dict.fromkeys(written):
            if new not in self._names:
                self._names[new] = self._resolve(new.strip(), rows[written.index(new)])
        names = list(map(self._names.__getitem__, written))
        if None in names:
            self.no_gold.update(one.strip() for one, name in zip(written, names, strict=True) if name is None)
        return names

    def _no_label(self, row: int, value: Any) -> DataError:
        """Return the error for a value that is none, or several."""
        problem, remedy = f"{kind_of(value)} as a label, expected text or an integer", self._inside(value, "label")
        inner = value.values() if isinstance(value, dict) else (value,)
        if key_inside(value) is None and list in map(type, map(only, inner)):
            problem, remedy = f"{problem}. {ONE_LABEL}", SEVERAL_REMEDY
        return self._error(problem, row, "label", remedy, kind=LabelError)

    def _inside(self, value: Any, field: str) -> str:
        """Return the next step for what is no text."""
        if type(value) is Repeated:
            return "Keep one of them"
        key = key_inside(value)
        inner = f"Name a key inside: --columns {field}={self.columns[field]}.{key}"
        return "Fill it in or leave the row out" if key is None else inner

    def _resolve(self, written: str, row: int) -> str | None:
        options, codes = self._options, self._class_names
        if "\0" in written:
            raise self._error("NUL byte in a label", row, "label", "Remove it from the file")
        self._check_characters(written, row, "label")
        if written not in options.label_names and written not in (options.labels or ()):
            value = unwritten(written)
            if value is not written and not is_label(only(value)):
                raise self._no_label(row, value)
            written = plain_number(label_text(value).strip())
        name = self._mapped(written)
        no_gold = NO_GOLD if options.no_gold is None else ("", *map(str.casefold, options.no_gold))
        if name is None and written.casefold() in no_gold and written not in (options.labels or ()):
            return None
        if name is None and codes:
            if not written.isdecimal() or int(written) >= len(codes):
                problem = f"label {written}, expected a code from 0 to {len(codes) - 1} ({', '.join(codes)})"
                raise self._error(problem, row, "label", kind=LabelError)
            name = self._mapped(codes[int(written)]) or codes[int(written)]
        name = written if name is None else name
        if options.labels is not None and name not in options.labels:
            self._unknown_row = row if not self._unknown else self._unknown_row
            self._unknown[written] = name
        return name

    def _mapped(self, written: str) -> str | None:
        """Return the name that `label_names` gives a label."""
        name = self._options.label_names.get(written)
        if name is not None:
            self.mapped.add(written)
        return name

    def _ids(self, own: Sequence[Any] | None, texts: Sequence[str], pairs: Sequence[str | None]) -> Sequence[str]:
        """Return the file's own ids, or hashes of the content, all different."""
        if own is None:
            ids = list(map(content_id, texts, pairs))
        else:
            given = zip(own, texts, pairs, strict=True)
            ids = [content_id(text, pair) if value in (None, "") else str(value) for value, text, pair in given]
        new = set(ids)
        if len(new) == len(ids) and self._seen.isdisjoint(new):
            self._seen |= new
            return ids
        return [self._unique(name, own is not None and own[place] not in (None, "")) for place, name in enumerate(ids)]

    def _unique(self, name: str, own: bool) -> str:
        if name in self._seen:
            self._repeated_ids += own
            number = self._repeats.get(name, 1) + 1
            while f"{name}-{number}" in self._seen:
                number += 1
            self._repeats[name] = number
            name = f"{name}-{number}"
        self._seen.add(name)
        return name

    def _groups_of(self, values: Sequence[Any]) -> list[str | None]:
        """Return groups as text, one object for each, since a file has few groups and many rows."""
        try:
            written = dict.fromkeys(values)
        except TypeError:
            written = dict.fromkeys(
                values := [None if value is None else str(value) for value in values]
            )  # a list of tags, for example
        for value in written.keys() - self._groups.keys():
            self._groups[value] = (str(value).strip() or None) if value is not None else None
        return list(map(self._groups.__getitem__, values))

    def _check_counts(self) -> None:
        if self.rows_read == 0:
            raise DataError("column names and not one row", path=self._source, remedy="Give a file with rows")
        if self.dropped == self.rows_read:
            raise DataError(
                f"none of the {self.rows_read:,} rows has a gold label (empty, '-', -1 and null count as none)",
                path=self._source,
                column=self.columns["label"],
                remedy="Map another column with --columns label=COL, or name the labels with "
                f"{'--label-names' if self._options.flags else 'data.label_names'}",
            )

    def _error(
        self, problem: str, row: int, field: str, remedy: str | None = None, *, kind: type[DataError] = DataError
    ) -> DataError:
        path, number = self._table.place(row)
        return kind(problem, path=path, row=number, column=self.columns[field], remedy=remedy)
