"""Results to standard output, remarks to standard error."""

from __future__ import annotations

import sys
from typing import TextIO


def print_result(text: str) -> None:
    """Write a result to standard output, at once, so that a closed pipe is met here."""
    _write(sys.stdout, text)
    sys.stdout.flush()


def remark(text: str) -> None:
    """Write a remark to standard error, where it does not disturb a pipe."""
    _write(sys.stderr, text)


def _write(stream: TextIO, text: str) -> None:
    """Write a line; a character that the stream cannot encode, as names from a stranger's run hold, as an escape."""
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
