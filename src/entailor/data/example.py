"""The rows everything else is about: one labelled text or pair, and the three splits of them.

Knows nothing of files, tokens or models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """One text or pair of texts.

    Attributes:
        id: stable and unique within its split; from the file's own id column, or a hash of the content.
        text: the only text, or the premise of a pair.
        text_pair: the hypothesis of a pair, or None for a single text.
        label: the label's name, or None where there is no gold label.
        group: what the report breaks accuracy down by (genre, phenomenon), or None.
    """

    id: str
    text: str
    text_pair: str | None = None
    label: str | None = None
    group: str | None = None


def content_id(text: str, text_pair: str | None) -> str:
    """Return a stable 16-hex-digit id of the content (BLAKE2b), the same on every machine and run."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(text.encode("utf-8", "surrogatepass"))
    digest.update(b"\x00" if text_pair is None else b"\x01" + text_pair.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


@dataclass(frozen=True)
class Split:
    """Train, validation and test. Validation chooses settings and stops training; test is read once, at the end."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]

    def parts(self) -> Iterator[tuple[str, Sequence[Example]]]:
        """Yield ``("train", rows)``, ``("validation", rows)``, ``("test", rows)``."""
        yield from (("train", self.train), ("validation", self.validation), ("test", self.test))

    def fingerprint(self) -> str:
        """Return a hash of ids, texts and labels of all three parts, in order (32 hex digits)."""
        digest = hashlib.blake2b(digest_size=16)
        for name, rows in self.parts():
            digest.update(name.encode())
            for row in rows:
                for value in (row.id, row.text, row.text_pair, row.label):
                    digest.update(b"\x00" if value is None else value.encode("utf-8", "surrogatepass") + b"\x01")
        return digest.hexdigest()
