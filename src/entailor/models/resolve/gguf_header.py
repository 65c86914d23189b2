"""Reads what a GGUF file says of itself, once its counts and lengths have been held against its size.

The `gguf` library believes every count: a hundred bytes can keep it busy for ever, or fill the memory.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from entailor.errors import ModelError
from entailor.runs.documents import open_regular

READER_FAILURES = (ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, OSError, struct.error)
"""What the readers raise on files they cannot take; none of them raises an error of its own."""
MOST_KEYS, MOST_TENSORS, MOST_ENTRIES = 10_000, 100_000, 2**21
"""Most keys, tensors, and entries of all lists; a vocabulary of 260,000 tokens with its merges has 1,300,000."""
MOST_TEXT, MOST_ENTRY_TEXT = 2**24, 4096
"""Most bytes of a value, such as a chat template, and of an entry of a list, such as a token."""
MOST_NESTING = 4
MOST_SIZE = 2**24
"""Most that a size may be in a model of fewer parameters, such as the length of its context."""
STRING, ARRAY = 8, 9
SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file says of itself.

    Attributes:
        architecture: llama.cpp's name of the model family.
        parameters: number of weights.
    """

    architecture: str
    parameters: int


def require_magic(path: Path) -> None:
    """Refuse a file that does not start as every GGUF file does.

    Raises:
        ModelError: it starts otherwise, or cannot be opened.
    """
    try:
        with open_regular(path) as file:
            start = file.read(4)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}. Give the path of a GGUF file") from None
    if start != b"GGUF":
        raise ModelError(
            f"{path}: not a GGUF file (it starts with {start!r}, b'GGUF' was expected). "
            "Download it again; an error page or a Git LFS pointer may have been saved under its name"
        )


def read_header(path: Path) -> GgufHeader:
    """Read names and sizes, and hold them against the length of the file.

    Raises:
        ModelError: the file is cut short or damaged.
    """
    import gguf

    try:
        with open_regular(path) as file:
            _Scan(file).check()
        reader = gguf.GGUFReader(path)
        architecture = str(reader.fields["general.architecture"].contents())
        parameters = sum(int(tensor.n_elements) for tensor in reader.tensors)
        for name, field in reader.fields.items():
            value = field.contents() if len(field.data) == 1 and field.types[0].name != "STRING" else 0
            most = len(reader.tensors) if name.endswith("block_count") else max(parameters, MOST_SIZE)
            if name.startswith(f"{architecture}.") and isinstance(value, int) and value > most:
                raise ValueError(f"{name} is {value:,}, at most {most:,} were expected")
    except READER_FAILURES as error:
        size = path.stat().st_size
        raise ModelError(f"{path}: cut short or damaged ({size:,} bytes; {error}). Download it again") from None
    return GgufHeader(architecture, parameters)


class _Scan:
    """Goes through the metadata of a file without keeping them."""

    def __init__(self, file: BufferedReader) -> None:
        self.file = file
        self.left = os.fstat(file.fileno()).st_size
        self.entries = 0
        self.order = "<"

    def check(self) -> None:
        """Raise ValueError where a count or a length is beyond what is left of the file, or beyond a limit."""
        self._skip(4)
        (version,) = struct.unpack("<I", self._read(4))
        self.order = ">" if version & 0xFFFF == 0 else "<"  # written on a machine of the other byte order
        tensors, keys = self._number("Q"), self._number("Q")
        if tensors > MOST_TENSORS or keys > MOST_KEYS:
            raise ValueError(f"{tensors:,} tensors and {keys:,} keys, at most {MOST_TENSORS:,} and {MOST_KEYS:,}")
        for _ in range(keys):
            self._skip_text(MOST_ENTRY_TEXT)
            self._skip_value(self._number("I"), MOST_TEXT)

    def _skip_value(self, kind: int, most_text: int, depth: int = 0) -> None:
        if kind == STRING:
            self._skip_text(most_text)
        elif kind != ARRAY:
            self._skip(SCALAR_BYTES[kind])
        else:
            inner, count = self._number("I"), self._number("Q")
            self.entries += count
            if self.entries > MOST_ENTRIES or depth == MOST_NESTING:
                raise ValueError(f"lists of {self.entries:,} entries, {depth + 1} deep; at most {MOST_ENTRIES:,}")
            if inner in SCALAR_BYTES:
                self._skip(count * SCALAR_BYTES[inner])
            else:
                for _ in range(count):
                    self._skip_value(inner, MOST_ENTRY_TEXT, depth + 1)

    def _skip_text(self, most: int) -> None:
        length = self._number("Q")
        if length > most:
            raise ValueError(f"a text of {length:,} bytes, at most {most:,}")
        self._skip(length)

    def _skip(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise ValueError("its lists are longer than the file")
        self.file.seek(count, os.SEEK_CUR)

    def _read(self, count: int) -> bytes:
        self.left -= count
        content = self.file.read(count)
        if len(content) < count:
            raise ValueError("its lists are longer than the file")
        return content

    def _number(self, kind: str) -> int:
        return int(struct.unpack(self.order + kind, self._read(struct.calcsize(kind)))[0])
