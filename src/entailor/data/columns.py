"""Which column is the text, the second text, the label, the id and the group.

Knows the usual names and the user's own mapping. Sees column names only, never a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from entailor.errors import ConfigError, DataError, near_miss

FIELDS = ("text", "text_pair", "label", "id", "group")
SYNONYMS = {"premise": "text", "hypothesis": "text_pair"}

# In order of precedence: the first pair or name that is there wins.
PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("sentence_a", "sentence_b"),
    ("sentence_1", "sentence_2"),
    ("text_1", "text_2"),
    ("question1", "question2"),
    ("text", "text_pair"),
    ("text", "hypothesis"),
    ("context", "hypothesis"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "passage"),
    ("claim", "evidence"),
)
SINGLES = ("text", "sentence", "review", "content", "comment", "tweet", "document", "question", "utterance", "body")
LABELS = (
    "gold_label",
    "label",
    "labels",
    "class",
    "target",
    "gold",
    "relation",
    "intent",
    "sentiment",
    "coarse_label",
)
IDS = ("id", "pairid", "pair_id", "uid", "guid", "idx", "example_id", "index")
GROUPS = ("group", "genre", "phenomenon", "domain", "category")

ANSWER, REJECTED = "answer", ("reject", "ignore")
"""Where Prodigy says whether a row's label was accepted, and what it says of those that were not."""
PRODIGY = ("_task_hash", "_input_hash")
INNER_LABELS = ("choices", "value", "annotation", "accept", "responses", "choice", *LABELS)
"""The last part of the path to where annotation tools keep a label."""
GUESSES = ("prediction", "suggestion")
"""How the paths begin to what a model said."""

MAPPING_HINT = "Map columns with --columns premise=COL,hypothesis=COL,label=COL (or text=COL,label=COL)"
MOST_SHOWN = 20


def find_columns(
    names: Sequence[str], mapping: Mapping[str, str], *, source: str, require_labels: bool
) -> dict[str, str]:
    """Decide which column each field is read from.

    Args:
        names: the table's columns, in order.
        mapping: field to column as the user gave it; fields it leaves out are found by their usual names, upper or
            lower case. ``premise`` and ``hypothesis`` stand for ``text`` and ``text_pair``. A mapped ``text`` alone
            makes single texts; a mapped ``premise`` alone still asks for a hypothesis.
        source: the file or data set, for errors.
        require_labels: whether a missing label column is an error.

    Returns:
        Field to column name, in the order of `FIELDS`; absent fields are left out. A table of Prodigy has the field
        `ANSWER` as well, unless that column is the label.

    Raises:
        ConfigError: the mapping has an unknown field, or names one twice.
        DataError: no text or no label column, or a mapped column that is not there.
    """
    chosen = _mapped(names, mapping, source)
    if "text" not in chosen or "text_pair" not in chosen:
        _find_texts(names, chosen, source, single="text" in mapping)
    taken = set(chosen.values())
    if "label" not in chosen:
        label = _first(names, LABELS, taken)
        if label is None and require_labels:
            raise DataError(
                f"no column of labels; columns found: {_shown(names)}, expected one such as gold_label, label or class",
                path=source,
                remedy=_mapping_hint(names, chosen),
            )
        if label is not None:
            chosen["label"] = label
    taken = set(chosen.values())
    for field, usual in (("id", IDS), ("group", GROUPS)):
        column = None if field in chosen else _first(names, usual, taken)
        if column is not None:
            chosen[field] = column
    if ANSWER in names and not set(PRODIGY).isdisjoint(names) and ANSWER not in chosen.values():
        chosen[ANSWER] = ANSWER
    return {field: chosen[field] for field in (*FIELDS, ANSWER) if field in chosen}


def usual_names_in(names: Sequence[str]) -> int:
    """Count the columns that have a usual name."""
    known = {*SINGLES, *LABELS, *IDS, *GROUPS, *(name for pair in PAIRS for name in pair)}
    return sum(_plain(name) in known for name in names)


def _mapped(names: Sequence[str], mapping: Mapping[str, str], source: str) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for key, column in mapping.items():
        field = SYNONYMS.get(key, key)
        if field not in FIELDS:
            known = (*SYNONYMS, *FIELDS)
            raise ConfigError(
                f"data.columns: {key!r} is no field; known are {', '.join(known)}.{near_miss(key, known)}"
            )
        if field in chosen:
            raise ConfigError(f"data.columns: {key!r} maps {field!r} a second time. Keep one of the two")
        found = column if column in names else _first(names, (_plain(column),), ())
        if found is None:
            raise DataError(
                f"no column {column!r}, to which {key!r} is mapped; columns found: {_shown(names)}",
                path=source,
                remedy=near_miss(column, names).strip() or MAPPING_HINT,
            )
        chosen[field] = found
    contents = [chosen[field] for field in ("text", "text_pair", "label") if field in chosen]
    if len(set(contents)) < len(contents):
        raise ConfigError(f"data.columns: two of text, text_pair and label are read from one column ({contents[0]!r})")
    return chosen


def _find_texts(names: Sequence[str], chosen: dict[str, str], source: str, *, single: bool) -> None:
    """Add ``text`` and, for pairs, ``text_pair`` to what the user already mapped."""
    taken = set(chosen.values())
    if "text" in chosen:
        second = None if single else _first(names, (pair[1] for pair in PAIRS), taken)
        if second is not None:
            chosen["text_pair"] = second
        elif not single:
            raise _no_text(names, source, "no column of hypotheses beside the mapped premise")
        return
    if "text_pair" in chosen:
        first = _first(names, (*(pair[0] for pair in PAIRS), *SINGLES), taken)
        if first is None:
            raise _no_text(names, source, "no column of premises beside the mapped hypothesis")
        chosen["text"] = first
        return
    for pair in PAIRS:
        found = [_first(names, (name,), taken) for name in pair]
        if found[0] is not None and found[1] is not None:
            chosen["text"], chosen["text_pair"] = found[0], found[1]
            return
    text = _first(names, SINGLES, taken)
    if text is None:
        raise _no_text(names, source, "no column of texts")
    chosen["text"] = text


def _first(names: Sequence[str], usual: Iterable[str], taken: Iterable[str]) -> str | None:
    """Return the column that has the earliest of the usual names; an exact spelling goes before another case."""
    for wanted in usual:
        if wanted in names and wanted not in taken:
            return wanted
        for name in names:
            if name not in taken and _plain(name) == wanted:
                return name
    return None


def _plain(name: str) -> str:
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


def _no_text(names: Sequence[str], source: str, problem: str) -> DataError:
    return DataError(
        f"{problem}; columns found: {_shown(names)}, expected premise and hypothesis, sentence1 and sentence2, or text",
        path=source,
        remedy="".join(_likely_causes(names)) + _mapping_hint(names, {}),
    )


def _mapping_hint(names: Sequence[str], chosen: Mapping[str, str]) -> str:
    """Return how to map columns: those that lie inside objects, or under a name of an annotation tool, if they do."""
    last = {name: _plain(name.rsplit(".", 1)[-1]) for name in names if not name.startswith(GUESSES)}
    found = dict(chosen)
    for field, usual in (("text", (*SINGLES, "data")), ("label", INNER_LABELS)):
        inner = next((name for one in usual for name in last if last[name] == one), None)
        if field not in chosen and inner is not None:
            found[field] = inner
    if "label" not in found or "text" not in found or "text_pair" in found:
        return MAPPING_HINT
    return f"Map them: --columns {','.join(f'{field}={found[field]}' for field in ('text', 'label'))}"


def _likely_causes(names: Sequence[str]) -> Iterator[str]:
    if len(names) == 1 and any(mark in names[0] for mark in ",;\t|"):
        yield "The cells may be divided by another sign: give it with --delimiter. "
    elif any(len(name) > 40 for name in names):
        yield "The first line looks like data: add a header line with the columns' names. "
    elif not usual_names_in(names):
        yield "If these are no names of columns, add a header line, or delete what stands above it. "


def _shown(names: Sequence[str]) -> str:
    shown = [repr(name if len(name) <= 40 else f"{name[:37]}...") for name in names[:MOST_SHOWN]]
    more = len(names) - len(shown)
    return (", ".join(shown) or "none") + (f" and {more} more" if more > 0 else "")
