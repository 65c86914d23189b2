"""Reads documents that may come from a stranger: regular files only, and JSON and YAML under limits.

The limits are on bytes, nesting, digits and the memory that the values will take, so that a small file cannot fill the
memory or hang. What a document means is the business of whoever asks for it.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from entailor.errors import EntailorError

MOST_BYTES = 128 << 20  # of a JSON document
MOST_LINE_BYTES = 64 << 20  # of a line of JSON lines: two of the longest texts and the labels fit
MOST_MEMORY = 512 << 20  # that the values of a JSON document may take
MOST_NESTING = 100
MOST_YAML_BYTES = 512 << 10  # PyYAML reads a megabyte a second
MOST_YAML_NODES = 20_000  # aliases written out; about 25,000 are read in a second
MOST_DIGITS = 400

_PACKAGE = Path(__file__).parents[1]
# What a value costs in memory, told by the byte that opens it: pointer and number, list, mapping, half a text.
_COSTS = {b",": 40, b"[": 88, b"{": 232, b'"': 30}
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
# Windows knows neither of the first two, and turns line ends without the last.
_AS_BYTES = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NONBLOCK", "O_BINARY"))
# A text, or a bracket outside of one; a text that is not closed reaches to the end, so that nothing is read twice.
_BRACKETS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)


@contextmanager
def open_regular(path: Path) -> Iterator[BufferedReader]:
    """Open a file for reading bytes, never waiting for a pipe or reading from a device.

    Raises:
        OSError: it cannot be opened, or is no regular file; `strerror` says which.
    """
    try:
        handle = os.open(path, _AS_BYTES)
    except ValueError as error:  # a null character, or half of a surrogate pair
        raise OSError(errno.EINVAL, f"not the name of a file: {error}", None) from None
    with os.fdopen(handle, "rb") as file:
        kind = stat.S_IFMT(os.fstat(handle).st_mode)
        if kind != stat.S_IFREG:
            raise OSError(errno.EINVAL, f"{_KINDS.get(kind, 'something else')}, a regular file was expected", str(path))
        yield file


def read_bytes(path: Path, limit: int = MOST_BYTES) -> bytes:
    """Read a regular file whole.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger than `limit` bytes; `strerror` says which.
    """
    with open_regular(path) as file:
        content = file.read(limit + 1)
        if len(content) > limit:
            size = os.fstat(file.fileno()).st_size
            raise OSError(errno.EFBIG, f"{size:,} bytes, at most {limit:,} are read", str(path))
    return content


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each line of a file of JSON lines that is not empty.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: a line is too long or is not JSON within the limits; the text names the line.
    """
    with open_regular(path) as file:
        number = 0
        while line := file.readline(MOST_LINE_BYTES + 1):
            number += 1
            if len(line) > MOST_LINE_BYTES:
                raise ValueError(f"line {number}: more than {MOST_LINE_BYTES:,} bytes")
            if line.strip():
                try:
                    value = parse_json(line)
                except ValueError as error:
                    raise ValueError(f"line {number}: {error}") from None
                yield number, value


def check_size(content: bytes) -> None:
    """Refuse a JSON document that takes too much memory to be read.

    Raises:
        ValueError: its bytes or its values are beyond the limits.
    """
    if len(content) > MOST_BYTES:
        raise ValueError(f"{len(content):,} bytes, at most {MOST_BYTES:,} are read")
    cost = sum(content.count(byte) * each for byte, each in _COSTS.items())
    if cost > MOST_MEMORY:
        raise ValueError(f"its values would take about {cost >> 20:,} MB of memory, at most {MOST_MEMORY >> 20} are")


def parse_json(content: bytes, *, finite: bool = True) -> Any:
    """Return the value of a JSON document; halves of surrogate pairs are kept.

    Args:
        content: the document.
        finite: refuse Infinity and NaN, which are no JSON, but which Python writes.

    Raises:
        ValueError: it is not JSON, or is beyond the limits.
    """
    check_size(content)
    if content.count(b"[") + content.count(b"{") > MOST_NESTING:
        _check_nesting(content)
    text = content.decode("utf-8", "surrogatepass")
    return json.loads(text, parse_constant=_not_a_number, parse_float=_finite) if finite else json.loads(text)


def _check_nesting(content: bytes) -> None:
    depth = 0
    for found in _BRACKETS.finditer(content):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(found[0], 0)
        if depth > MOST_NESTING:
            raise ValueError(f"nested more than {MOST_NESTING} deep")


def _not_a_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


@contextmanager
def well_formed(error: type[EntailorError], path: Path, remedy: str) -> Iterator[None]:
    """Turn what goes wrong inside for lack of a key, or a value of the wrong type, into one error about a file.

    For documents whose checksum fits but which another program may have made up. Where no model of the document says
    what is wrong, it may as well be a fault of Entailor, so the error tells where it was met.
    """
    try:
        yield
    except ValidationError as found:
        raise error(f"{path}: not what Entailor writes ({first_complaint(found)}). {remedy}") from found
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as found:
        text = f"missing {found}" if isinstance(found, KeyError) else str(found) or type(found).__name__
        problem = f"not what Entailor writes ({' '.join(text.split())[:200]})"
        bug = f"if nobody changed it, please report this: {type(found).__name__} at {_place_of(found)}"
        raise error(f"{path}: {problem}; {bug}. {remedy}") from found


def _place_of(error: BaseException) -> str:
    """Return file and line of the innermost of our own functions that an error went through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(_PACKAGE)] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "an unknown place"


def first_complaint(error: ValidationError) -> str:
    """Return where the first of pydantic's complaints is, and what it is."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:200]


class PlainLoader(yaml.SafeLoader):
    """Makes plain values only, of documents within the limits; every complaint is a `yaml.YAMLError`.

    Dates stay text, as everything else that no setting takes. An alias counts with all it stands for.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.name = "YAML"  # in what PyYAML says of a place
        self._depth = self._nodes = 0
        self._sizes: dict[int, int] = {}  # nodes below an anchored node, by its identity

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose as PyYAML does, and count."""
        before, event = self._nodes, self.peek_event()  # type: ignore[no-untyped-call]
        is_alias = isinstance(event, yaml.AliasEvent)
        self._depth += 1
        if self._depth > MOST_NESTING:
            raise yaml.composer.ComposerError(None, None, f"nested more than {MOST_NESTING} deep", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias and id(node) not in self._sizes:
            raise yaml.composer.ComposerError(None, None, "an alias of what it stands in", event.start_mark)
        self._nodes += self._sizes[id(node)] if is_alias else 1
        if self._nodes > MOST_YAML_NODES:
            problem = f"more than {MOST_YAML_NODES:,} values, aliases written out"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        if not is_alias:
            self._sizes[id(node)] = self._nodes - before
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Compose as PyYAML does, but refuse a key that stands twice: one of the two would be lost."""
        mapping = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in mapping.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    problem = f"the key {key.value[:40]!r} stands twice. Keep one of them"
                    raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
                seen.add((key.tag, key.value))
        return mapping

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """Construct as PyYAML does; what Python cannot make of a scalar is a complaint with its place."""
        if isinstance(node, yaml.ScalarNode) and node.tag in _NUMBERS and len(node.value) > MOST_DIGITS:
            problem = f"a number of {len(node.value):,} characters, at most {MOST_DIGITS} are read"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (ValueError, ArithmeticError, LookupError):
            problem = f"{str(node.value)[:40]!r} is no {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None

    def refuse_tag(self, node: Any) -> Any:
        """Say of a tag that only plain values are taken."""
        problem = f"the tag {node.tag[:60]!r} is not taken. Write a plain value, without a tag"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_PLAIN = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")}
_NUMBERS = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}
PlainLoader.yaml_constructors = {
    **{tag: make for tag, make in yaml.SafeLoader.yaml_constructors.items() if tag in _PLAIN},
    None: PlainLoader.refuse_tag,
}
PlainLoader.yaml_implicit_resolvers = {
    start: [(tag, pattern) for tag, pattern in kinds if tag != "tag:yaml.org,2002:timestamp"]
    for start, kinds in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str, loader: type[PlainLoader] = PlainLoader) -> Any:
    """Return the value of a YAML document.

    Raises:
        yaml.YAMLError: it is not YAML, holds tags of programs, or is beyond the limits.
    """
    if len(text) > MOST_YAML_BYTES:
        raise yaml.YAMLError(f"{len(text):,} characters, at most {MOST_YAML_BYTES:,} are read")
    try:
        return yaml.load(text, Loader=loader)  # noqa: S506 - a safe loader, see above
    except (ValueError, ArithmeticError, LookupError) as error:  # of PyYAML's scanner: a character or version too large
        raise yaml.YAMLError(f"a character or a version that cannot be ({str(error)[:80]})") from None
