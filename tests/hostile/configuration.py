"""Configuration files and words of the command line that are hostile or broken."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.hostile.cases import Build, Words


def config(content: str | bytes) -> Build:
    def build(folder: Path) -> Sequence[Words]:
        file = folder / "a.yaml"
        file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        return _with_config(file, folder, str(content))

    return build


def _with_config(file: Path, folder: Path, said: str = "") -> Sequence[Words]:
    return [[verb, "--config", str(file), *_no_data(verb, folder, said)] for verb in ("compare", "validate", "train")]


def _no_data(verb: str, folder: Path, said: str) -> Words:
    """A file that is not there ends the command where the configuration does not; what was said stays as it is."""
    out = [] if verb == "validate" or "out" in said else ["--out", str(folder / "run")]
    return [*([] if "train" in said else ["--train", str(folder / "none.csv")]), *out]


def special(make: Callable[[Path], Any]) -> Build:
    def build(folder: Path) -> Sequence[Words]:
        file = folder / "a.yaml"
        make(file)
        return _with_config(file, folder)

    return build


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
_MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i}\n  <<: [*a{i - 1}, *a{i - 1}]\n  k{i}: 1\n" for i in range(1, 40))
CONFIG_FILES: dict[str, str | bytes] = {
    "alias bomb": LAUGHS,
    "alias bomb under data": "data:\n  labels: &l [a, b]\n" + LAUGHS,
    "merge bomb": _MERGES,
    "alias of itself": "data: &a {train: *a}\n",
    "nested lists": "seeds: " + "[" * 100_000,
    "nested closed lists": "seeds: " + "[" * 5_000 + "]" * 5_000,
    "nested mappings": "data: " + "{a: " * 20_000 + "1" + "}" * 20_000,
    "nested blocks": "".join(" " * i + "a:\n" for i in range(700)),
    "impossible date as a seed": "seeds: [2001-99-99]\n",
    "date tag": "out: !!timestamp 2001-99-99\n",
    "long integer": f"seeds: {'9' * 6_000}\n",
    "long hexadecimal": f"seeds: 0x{'f' * 300_000}\n",
    "sixties": f"seeds: {':'.join(['1'] + ['30'] * 50_000)}\n",
    "float seeds": "seeds: 1e32\n",
    "very many seeds": "seeds: 100000000000\n",
    "200,000 seeds": "seeds: [" + ", ".join(map(str, range(200_000))) + "]\n",
    "5,000 seeds": "seeds: [" + ", ".join(map(str, range(5_000))) + "]\n",
    "seed beyond": "seeds: [4294967296]\n",
    "integer beyond": "data: {max_train_examples: 1000000000000000000000}\n",
    "not finite": "data: {validation_size: .nan, test_size: .inf}\n",
    "overflowing float": "data: {validation_size: 1e999}\n",
    "null character in a path": 'data: {train: "a\\0b"}\n',
    "null character in out": 'out: "a\\0b"\ndata: {validation: none.csv}\n',
    "half a pair in a path": 'data: {train: "\\uD800"}\n',
    "half a pair in a key": '"\\uD800": 1\n',
    "character beyond Unicode": 'out: "\\UFFFFFFFF"\n',
    "huge text": f"out: {'x' * 400_000}\ndata: 3\n",
    "very huge text": f"out: {'x' * 3_000_000}\n",
    "duplicate keys": "seeds: 1\nseeds: 2\n",
    "duplicate nested keys": "data: {train: a.csv, train: b.csv}\n",
    "python tag": "out: !!python/object/apply:os.system ['touch hacked']\n",
    "python name": "out: !!python/name:os.system\n",
    "binary tag": "out: !!binary abc\n",
    "set tag": "seeds: !!set {1, 2}\n",
    "omap tag": "data: !!omap [a: 1]\n",
    "bool tag": "doctor: !!bool perhaps\n",
    "empty float tag": "restarts: !!float ''\n",
    "int tag": "restarts: !!int many\n",
    "own tag": "out: !mine x\n",
    "list as key": "? [a, b]\n: 1\n",
    "mapping as key": "? {a: b}\n: 1\n",
    "number as key": "1: 2\n",
    "null as key": "~: 2\n",
    "number as section key": "data: {1: 2}\n",
    "unknown key": "sedes: 3\n",
    "100,000 unknown keys": "".join(f"key{i}: 1\n" for i in range(100_000)),
    "5,000 unknown keys": "".join(f"key{i}: 1\n" for i in range(5_000)),
    "long unknown key": f"? {'k' * 100_000}\n: 1\n",
    "list at the top": "- a\n- b\n",
    "text at the top": "hello\n",
    "two documents": "seeds: 1\n---\nseeds: 2\n",
    "version beyond": f"%YAML {'9' * 6_000}.1\n---\nseeds: 1\n",
    "unclosed quote": 'out: "abc\n' + "x\n" * 1_000,
    "tabs": "data:\n\ttrain: a\n",
    "binary": bytes(range(256)) * 50,
    "UTF-16": "seeds: 2\n".encode("utf-16"),
    "Latin-1": "out: é\n".encode("latin-1"),
    "methods of a number": "methods: 3\n",
    "methods of lists": "methods: [[lora]]\n",
    "method of a list": "methods: {lora: [1, 2]}\n",
    "row name outwards": "methods: {../../x: {method: lora}}\n",
    "long row name": f"methods: {{{'x' * 5_000}: {{method: lora}}}}\n",
    "method of a long name": f"methods: {{a: {{method: {'x' * 50_000}}}}}\n",
    "models of a number": "methods: {lora: {models: 3}}\n",
    "model of a list": "methods: {lora: {model: [1]}}\n",
    "every section a number": "data: 1\nmodel: 2\nprompt: 3\nbudget: 4\nrecommend: 5\n",
    "a rank beyond": "methods: {lora: {r: 99999999999999999999}}\n",
}


def _large(file: Path) -> None:
    with file.open("wb") as opened:
        opened.truncate(100 << 20)


def _socket(file: Path) -> None:
    import socket

    with contextlib.closing(socket.socket(socket.AF_UNIX)) as opened:
        here = Path.cwd()
        os.chdir(file.parent)  # the name of a socket is short
        try:
            opened.bind(file.name)
        finally:
            os.chdir(here)


SPECIAL: dict[str, Callable[[Path], Any]] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a socket": _socket,
    "a link to a device": lambda file: file.symlink_to("/dev/zero"),
    "a link to itself": lambda file: file.symlink_to(file),
    "a link to nothing": lambda file: file.symlink_to(file.with_name("nothing")),
    "100 MB of nulls": _large,
}

OVERRIDES = (
    "seeds=1e32",
    "seeds=100000000000",
    f"seeds={'9' * 6_000}",
    f"seeds=[{', '.join(map(str, range(30_000)))}]",
    "seeds=2001-99-99",
    "seeds=.nan",
    "seeds=!!python/name:os.system",
    f"lora.r={'[' * 50_000}",
    "lora.r=.inf",
    "lora.r=99999999999999999999",
    f"lora.learning_rate={'9' * 5_000}",
    "lora.learning_rate=1e999",
    "data.train=a\0b",
    "data.train=\ud800",
    "data.columns.text=a\0b",
    "out=a\0b",
    "models=a\0b",
    f"data.train={'x' * 600_000}",
    "data.columns=&a [*a]",
    "data.labels=[a, a]",
    f"{'x' * 100_000}=1",
    f"{'a.' * 10_000}b=1",
    f"data.columns.{'a.' * 15}b=1",
    f"data.{'a.' * 10_000}b=1",
    "=",
    "x" * 100_000,
    f"methods={'a,' * 50_000}a",
    "methods={1: {2: 3}}",
    "\ud800=1",
)


def override(word: str) -> Build:
    return lambda folder: [[verb, word, *_no_data(verb, folder, word)] for verb in ("compare", "validate")]
