"""Nothing but an `EntailorError` comes out, whatever goes in. The long search is tests/long/fuzzing.py."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.fuzz import TARGETS, attempt

from entailor.tasks import foreign

COLUMNS = st.sampled_from(["text", "label", "premise", "hypothesis", "id", "genre", "", "\ufeff", "é"])
CELLS = st.text(max_size=12) | st.sampled_from(['"', '""', ",", "\t", "\n", "=1+1", "<s>", "\ud800", "-1", "nan"])
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | CELLS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(COLUMNS, inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module", autouse=True)
def templates_that_never_end_are_stopped_sooner():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foreign, "SECONDS", 0.2)
        yield


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("target", TARGETS)
@given(data=st.binary(max_size=200))
@settings(max_examples=15)
def test_any_bytes(target, data):
    attempt(target, data)


@given(st.integers(0, 6), st.lists(st.lists(CELLS, max_size=4), max_size=4), st.lists(COLUMNS, max_size=4))
@settings(max_examples=30)
def test_tables(kind, rows, header):
    lines = [",".join(cells) for cells in [header, *rows]]
    attempt("readers", bytes([kind]) + encoded("\n".join(lines)))


@given(st.sampled_from([2, 3]), st.lists(st.dictionaries(COLUMNS, ANY_JSON, max_size=4) | ANY_JSON, max_size=4))
@settings(max_examples=30)
@example(2, [{"text": "a", "label": "\ud800"}])
@example(2, [{"text": "a", "label": "b", "id": "\ud800"}, {"text": "a", "label": "c", "group": "\ud800"}])
def test_objects(kind, rows):
    text = json.dumps(rows) if kind == 3 else "\n".join(map(json.dumps, rows))
    attempt("readers", bytes([kind]) + encoded(text))


KEYS = st.sampled_from(
    ["data", "models", "model", "methods", "seeds", "out", "lora", "r", "prompt", "max_length", "train", "labels", "x"]
)


@given(st.dictionaries(KEYS, ANY_JSON | st.dictionaries(KEYS, ANY_JSON, max_size=3), max_size=4), st.lists(CELLS))
@settings(max_examples=30)
def test_settings(values, words):
    attempt("configuration", encoded(json.dumps(values) + "\n\n" + "\n".join(f"{word}={word}" for word in words)))


PIECES = st.sampled_from(
    (
        *("{{ premise }}", "{{ hypothesis }}", "{{ label }}", "{% for a in labels %}", "{% endfor %}", "\0label\0"),
        *("{{ 'a' * 10**9 }}", "{{ ''.__class__ }}", "{{ 9**9**9 }}", "{{ labels[9] }}", "{% if", "}}", "{#"),
        *("{{ '%9999999999d' % 1 }}", "{{ range(10**9) | list }}", "{{ 1 / 0 }}", "{{ lipsum(10**9) }}"),
        *("{{ '{:>9999999999}'.format(1) }}", "{{ premise | center(9999999999) }}", "{{ premise.x.y }}"),
        *("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "{% set a = a ~ a %}", "{{ premise.zfill(9999999999) }}"),
        *("{{ 'a' * 9999999 * 9999999 }}", "{{ (premise ~ premise) | replace('', premise) }}"),
    )
)


@given(st.lists(PIECES | st.text(max_size=5), max_size=6))
@settings(max_examples=40)
def test_prompt_templates(pieces):
    attempt("templates", encoded("".join(pieces)))


@given(st.integers(0, 9), st.integers(2, 255), ANY_JSON)
@settings(max_examples=50)
def test_records(file, how, value):
    attempt("run_folders", bytes([file, how]) + encoded(json.dumps(value)))


@given(st.sampled_from([0, 2, 4, 5, 6]), ANY_JSON)
@settings(max_examples=30)
def test_model_files(file, value):
    attempt("model_folders", bytes([file, 200]) + encoded(json.dumps(value)))


@given(st.integers(0, 6), st.lists(st.sampled_from(["--run", "--json", "--input", "x", "--seeds", "-1", "a=b", "é"])))
@settings(max_examples=30)
def test_words(verb, words):
    attempt("command_lines", bytes([verb]) + encoded("\0".join(words)))
