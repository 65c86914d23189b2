"""Lines of JSON on standard input to lines of answers: what predict.py of every export does, with numpy alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

CALIBRATED = "--calibrated"


def places_given(most: int = 0) -> list[str]:
    """Return the words of the command line but for --calibrated; other flags, and more words, end the process.

    Args:
        most: words that are taken.
    """
    words = [word for word in sys.argv[1:] if word != CALIBRATED]
    if len(words) > most or any(word.startswith("-") for word in words):
        base = "[BASE] " if most else ""
        sys.exit(f"{words[-1]!r} is not taken. Write: python predict.py {base}[{CALIBRATED}] < lines.jsonl")
    return words


def asked_lines(*, is_pair: bool) -> Iterator[tuple[str, str | None]]:
    """Yield the texts of each line; one of another form ends the process.

    Args:
        is_pair: whether an input is two texts.
    """
    expected = '{"text": "...", "text_pair": "..."}' if is_pair else '{"text": "..."}'
    for number, line in enumerate(sys.stdin, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        first, second = (row.get("text"), row.get("text_pair")) if isinstance(row, dict) else (None, None)
        if not isinstance(first, str) or not isinstance(second, str if is_pair else type(None)):
            sys.exit(f"line {number}: {expected} was expected, found {line.strip()[:100]}")
        yield first, second


def answer_lines(loaded: Any) -> None:
    """Read lines of JSON with text and text_pair, write lines with label and probabilities; say how many were cut.

    Args:
        loaded: the runtime of an export.
    """
    scale = loaded.manifest["temperature"] if CALIBRATED in sys.argv else 1.0
    tokens = getattr(loaded, "tokens", None)  # words are read whole
    count = cut = 0
    for asked in asked_lines(is_pair=loaded.manifest["is_pair"]):
        logits = loaded.logits([asked])[0] / (scale or 1.0)
        shares = np.exp(logits - logits.max())
        said = dict(zip(loaded.labels, (shares / shares.sum()).tolist(), strict=True))
        print(
            json.dumps({"label": max(said, key=lambda label: said[label]), "probabilities": said}, ensure_ascii=False)
        )
        count, cut = count + 1, cut + (tokens.cuts(*asked) if tokens else 0)
    if cut:
        print(f"{cut} of {count} inputs are longer than what the model reads, and were cut", file=sys.stderr)
