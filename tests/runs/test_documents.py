"""Reading documents of strangers: what kind of file, and how large, deep and costly."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path

import pytest

from entailor.config.plain import share
from entailor.errors import RunError
from entailor.runs import documents
from entailor.runs.documents import json_lines, parse_json, read_bytes, well_formed
from entailor.runs.files import write_checked_json, write_json


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (Path.mkdir, "Is a directory|a folder"),
        (os.mkfifo, "a named pipe, a regular file was expected"),
        (lambda path: path.symlink_to("/dev/zero"), "a device, a regular file was expected"),
        (lambda path: path.symlink_to(path), "symbolic links"),
        (lambda path: path.write_bytes(b"x" * 11), "11 bytes, at most 10 are read"),
    ],
)
def test_only_regular_files_of_a_size_are_read(tmp_path, make, found):
    make(tmp_path / "a")
    with pytest.raises(OSError, match=found):
        read_bytes(tmp_path / "a", 10)


def test_a_name_that_can_be_no_file_is_an_error_of_the_system(tmp_path):
    for name in ("a\0b", "\ud800", "x" * 10_000):
        with pytest.raises(OSError, match=r"not the name|too long"):
            read_bytes(tmp_path / name)


def test_a_socket_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("a")
        with pytest.raises(OSError, match="No such device"):
            read_bytes(Path("a"))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"[" * 101 + b"]" * 101, "nested more than 100 deep"),
        (b"[" * 1_000_000, "nested more than 100 deep"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "nested more than 100 deep"),
        (b'{"\\"[":' * 101 + b"1" + b"}" * 101, "nested more than 100 deep"),
        (b"[NaN]", "NaN is no number of JSON"),
        (b"[-Infinity]", "-Infinity is no number"),
        (b"[1e999]", "1e999 is too large a number"),
        (b"9" * 5_000, "4300 digits"),
        (b"[" + b"[]," * 7_000_000 + b"1]", "would take about"),
        (b"\xff", "decode"),
    ],
)
def test_json_beyond_the_limits_is_refused(content, found):
    with pytest.raises(ValueError, match=found):
        parse_json(content)


@pytest.mark.parametrize(
    "value",
    [
        "[" * 500,
        {"a": '\\"[[[' * 200, "b": ["{"] * 200},
        [[[]]] * 300,
        {"\ud800": "\ud800"},
        {"a": {"b": [1.5, None, True, -3, "x" * 1_000]}},
    ],
)
def test_json_within_them_is_read_as_it_was_written(value):
    text = json.dumps(value)
    assert parse_json(text.encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")) == value


def test_brackets_in_a_text_that_never_ends_are_gone_through_once():
    """In the square of its length this would take hours."""
    with pytest.raises(ValueError, match=r"Unterminated string|delimiter"):
        parse_json(b"[" * 90 + b'"' + b'\\"[' * 1_000_000)


def test_lines_are_bounded_and_named(tmp_path, monkeypatch):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a": 1}\n\n[2]\n3')
    assert list(json_lines(file)) == [(1, {"a": 1}), (3, [2]), (4, 3)]
    file.write_bytes(b"1\n{")
    with pytest.raises(ValueError, match="line 2: "):
        list(json_lines(file))
    monkeypatch.setattr(documents, "MOST_LINE_BYTES", 10)
    file.write_bytes(b"1\n" + b" " * 20 + b"1\n")
    with pytest.raises(ValueError, match="line 2: more than 10 bytes"):
        list(json_lines(file))


def test_what_is_not_well_formed_is_one_error_about_the_file():
    for act, found in (
        (lambda: {}["candidates"], "missing 'candidates'"),
        ([].pop, "pop from empty list"),
        (lambda: "x" + 1, "concatenate"),
        (lambda: int("x"), "invalid literal"),
        (lambda: 1 / 0, "division"),
        (lambda: float(10**400), "too large"),
        (lambda: None.get("x"), "NoneType"),
    ):
        said = rf"^a\.json: not what Entailor writes .*{re.escape(found)}.*please report this: .*Copy it again$"
        with pytest.raises(RunError, match=said), well_formed(RunError, Path("a.json"), "Copy it again"):
            act()


def test_a_fault_of_our_own_is_not_laid_to_the_file_alone():
    said = r"report this: TypeError at plain\.py:\d+\. Copy"
    with pytest.raises(RunError, match=said) as caught, well_formed(RunError, Path("a.json"), "Copy it again"):
        share("one", 2)
    assert isinstance(caught.value.__cause__, TypeError)


@pytest.mark.parametrize(
    ("value", "said"),
    [({"a": "x" * 6000}, r"bytes, at most 5,000 are read"), ({"a": [0] * 400}, "MB of memory, at most 0")],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path, monkeypatch, value, said):
    monkeypatch.setattr(documents, "MOST_BYTES", 5000)
    monkeypatch.setattr(documents, "MOST_MEMORY", 10_000)
    for write in (write_json, write_checked_json):
        with pytest.raises(RunError, match=rf"a\.json: too large to be read back .*{said}.*Use fewer examples"):
            write(tmp_path / "a.json", value)
    assert not list(tmp_path.iterdir())
