"""Results to standard output, remarks to standard error."""

from __future__ import annotations

import re
import sys
from typing import TextIO

# escape sequences, carriage returns, and marks that turn the order of what follows
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def print_result(text: str) -> None:
    """Write a result to standard output, at once, so that a closed pipe is met here."""
    _write(sys.stdout, text)
    sys.stdout.flush()


def remark(text: str) -> None:
    """Write a remark to standard error, where it does not disturb a pipe."""
    _write(sys.stderr, text)


def _write(stream: TextIO, text: str) -> None:
    """Write a line; what the stream cannot encode or a terminal would obey is written as an escape.

    Names and labels from the files of strangers may hold either.
    """
    encoding = stream.encoding or "utf-8"
    text = _OBEYED.sub(lambda found: repr(found[0])[1:-1], text)
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
