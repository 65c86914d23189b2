"""A text without an end costs time by its length, not by its square: a million characters where a word was expected."""

import io
from collections.abc import Callable

import pytest
from tests.hostile.running import time_limit

from entailor.data.excel import _merged_cells
from entailor.data.files import first_odd_word
from entailor.data.labels import label_key
from entailor.diagnostics.scripts import MARKUP
from entailor.runs.redaction import without_secrets
from entailor.shipping.inference import harmless

LONG = 1_000_000


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(lambda: first_odd_word(b"a" * LONG + b" \xe9", "cp1252"), id="a word that is not UTF-8"),
        pytest.param(lambda: list(_merged_cells(io.BytesIO(b"<mergeCell " * LONG))), id="merged cells"),
        pytest.param(lambda: label_key("'" * LONG), id="a label of quotes"),
        pytest.param(lambda: MARKUP.search("<p " * LONG), id="tags without an end"),
        pytest.param(lambda: without_secrets("sk-" * LONG), id="what may be a token"),
        pytest.param(lambda: harmless("-" + "1" * LONG + "x"), id="a number to write"),
    ],
)
def test_long_texts_are_read_once(read: Callable[[], object]):
    with time_limit(cpu_seconds=20, wall_seconds=300):
        read()


@pytest.mark.parametrize(
    ("sample", "word"),
    [("naïve words", "naïve"), ("x" * 100 + "é", "x" * 15 + "é"), ("no word – here", "–"), ("ASCII", "")],
)
def test_the_first_word_beyond_ascii(sample, word):
    assert first_odd_word(sample.encode("cp1252"), "cp1252") == word
