"""Hostile and broken inputs, made in code, over every command: one clear error, in bounded time and memory.

A case is a family, a name, and a function that makes files in an empty folder and returns command lines. All of them
run in one process with a limit of memory, each with a limit of time:

    PYTHONPATH=src:. .venv/bin/python -m tests.hostile [--pending] [--family NAME] [--quick]

prints as JSON what is wrong with each case that is not right. --quick runs one command of each case, another one from
case to case, and draws no figures; so does tests/test_hostile.py. A case that does not hold yet stands in `PENDING`.
The file is long because it is a list.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import os
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from entailor.cli import app as cli
from entailor.config.parts import DataSettings
from entailor.data.example import Split
from entailor.data.splits import load_data
from entailor.report import plots
from entailor.runs.integrity import BLANK_CHECKSUM, checksums, with_checksum

MOST_CPU_SECONDS = 4  # of one command; a hostile one takes a fraction of a second
MOST_WALL_SECONDS = 60  # of one command that waits instead of working; generous, since the machine may be busy
MOST_MEMORY = 1 << 30  # above what the libraries take

Words = list[str]
Build = Callable[[Path], Sequence[Words]]


@dataclass(frozen=True)
class Case:
    """An input and the command lines that read it.

    Attributes:
        family: config, overrides, run, data, model or template.
        name: what is odd about it.
        build: makes it in an empty folder, and returns words after `entailor`.
        codes: exit codes that are right.
    """

    family: str
    name: str
    build: Build
    codes: tuple[int, ...] = (2,)


TRAIN_CSV = "text,label\n" + "".join(
    f"{'good' if i % 2 else 'bad'} thing number {i},{'ab'[i % 2]}\n" for i in range(60)
)


# --- configuration: files


def _config(content: str | bytes) -> Build:
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


def _special(make: Callable[[Path], Any]) -> Build:
    def build(folder: Path) -> Sequence[Words]:
        file = folder / "a.yaml"
        make(file)
        return _with_config(file, folder)

    return build


_LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
_MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i}\n  <<: [*a{i - 1}, *a{i - 1}]\n  k{i}: 1\n" for i in range(1, 40))
CONFIG_FILES: dict[str, str | bytes] = {
    "alias bomb": _LAUGHS,
    "alias bomb under data": "data:\n  labels: &l [a, b]\n" + _LAUGHS,
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

# --- configuration: words of the command line

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


def _override(word: str) -> Build:
    return lambda folder: [[verb, word, *_no_data(verb, folder, word)] for verb in ("compare", "validate")]


# --- run folders


@cache
def sound_run() -> Path:
    """A finished run of two rows without a model."""
    from entailor.config.experiment import Experiment, parse_settings
    from entailor.study.compare import compare

    folder = Path(tempfile.mkdtemp(prefix="sound-"))
    (folder / "train.csv").write_text(TRAIN_CSV)
    settings = {
        "data": {"train": str(folder / "train.csv")},
        "methods": "majority,bag_of_words",
        "out": str(folder / "run"),
        "doctor": False,
        "estimate": False,
    }
    compare(parse_settings(Experiment, settings))
    return folder


@cache
def sound_split() -> Split:
    """The split of the sound run."""
    return load_data(DataSettings(train=str(sound_run() / "train.csv"))).split


def run_copy(folder: Path) -> Path:
    shutil.copytree(sound_run() / "run", folder / "run")
    return folder / "run"


def first_trial(run: Path) -> Path:
    return run / "trials" / "none" / "majority" / "seed-0"


def over_run(run: Path) -> Sequence[Words]:
    """Every command that takes a run folder."""
    source, trial = str(sound_run() / "train.csv"), first_trial(run)
    again = ["--train", source, "--methods", "majority,bag_of_words", "--out", str(run), "doctor=false"]
    return [
        ["verify", "--run", str(run), "--sample", "2"],
        ["report", "--run", str(run)],
        ["diff", str(run), str(sound_run() / "run")],
        ["evaluate", "--run", str(trial), "--test", source],
        ["predict", "--run", str(trial), "--input", source, "--output", str(run.parent / "out.csv")],
        ["predict", "--run", str(run), "--input", source, "--output", str(run.parent / "out.csv")],
        ["export", "--run", str(trial), "--format", "transformers", "--out", str(run.parent / "out")],
        ["compare", *again, "estimate=false"],
    ]


def write_sealed(file: Path, text: str) -> None:
    """Write a file with the checksum that fits; a stranger can do that too."""
    if file.name.endswith(".yaml"):
        text = f"{text}# checksum {BLANK_CHECKSUM}\n"
    file.write_bytes(with_checksum(text).encode("utf-8", "surrogatepass"))


def write_value(file: Path, value: Any) -> None:
    write_sealed(file, json.dumps({**value, "checksum": BLANK_CHECKSUM}) + "\n")


def read_value(file: Path) -> Any:
    value = json.loads(file.read_bytes().decode("utf-8", "surrogatepass"))
    value.pop("checksum", None)
    return value


def sign_trial(trial: Path) -> None:
    """Let the record's checksums be those of the files that stand there."""
    head = read_value(trial / "record.json")
    write_value(trial / "record.json", {**head, "files": checksums(trial, leave_out=("record.json",))})


RUN_FILES = (
    "experiment.yaml",
    "environment.json",
    "split.json",
    "comparison.json",
    "test_access.json",
    "trials/none/majority/seed-0/record.json",
    "trials/none/majority/seed-0/classifier.json",
    "trials/none/majority/seed-0/predictions.jsonl",
    "trials/none/majority/seed-0/curve.jsonl",
    "trials/none/majority/seed-0/adapter/frequencies.json",
)
RUN_CODES = (0, 1, 2)  # not every command reads every file, and what is written again is right again


def _in_place_of(name: str, make: Callable[[Path], Any]) -> Build:
    def build(folder: Path) -> Sequence[Words]:
        run = run_copy(folder)
        (run / name).unlink()
        make(run / name)
        return over_run(run)

    return build


DOCUMENTS: dict[str, str] = {
    "nested": "[" * 200_000,
    "nested closed": "[" * 20_000 + "]" * 20_000,
    "nested mappings": '{"a":' * 20_000 + "1" + "}" * 20_000,
    "many empty lists": "[" + "[]," * 9_000_000 + "[]]",
    "long number": '{"version": ' + "9" * 6_000 + "}",
    "large number": '{"version": 1e999}',
    "not a number": '{"version": NaN}',
    "a list": "[1, 2]",
    "a text": '"hello"',
    "half a pair": '{"\\ud800": "\\ud800"}',
    "unclosed text": '{"a": "' + '\\"' * 500_000,
}


def _document(name: str, text: str) -> Build:
    def build(folder: Path) -> Sequence[Words]:
        run = run_copy(folder)
        (run / name).write_text(text)
        return over_run(run)

    return build


def _changed(name: str, change: Callable[[Any], Any]) -> Build:
    """A JSON file with another content and the right checksum."""

    def build(folder: Path) -> Sequence[Words]:
        run = run_copy(folder)
        value = read_value(run / name)
        replaced = change(value)
        file = run / name
        if file.name in ("record.json", "comparison.json", "split.json", "environment.json", "test_access.json"):
            write_value(file, value if replaced is None else replaced)
        else:
            file.write_text(json.dumps(value if replaced is None else replaced))
            sign_trial(first_trial(run))
        return over_run(run)

    return build


def _lines(change: Callable[[list[dict[str, Any]]], Any]) -> Build:
    """Other predictions, with the right checksum."""

    def build(folder: Path) -> Sequence[Words]:
        run = run_copy(folder)
        file = first_trial(run) / "predictions.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        change(rows)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        sign_trial(first_trial(run))
        return over_run(run)

    return build


def _set(*path: Any, to: Any) -> Callable[[Any], None]:
    def change(value: Any) -> None:
        for part in path[:-1]:
            value = value[part]
        value[path[-1]] = to

    return change


RECORD = "trials/none/majority/seed-0/record.json"
CLASSIFIER = "trials/none/majority/seed-0/classifier.json"
CHANGES: dict[str, Build] = {
    "a file outside": _changed(RECORD, _set("files", to={"../../../../../etc/passwd": "0" * 64})),
    "a device as a file": _changed(RECORD, _set("files", to={"/dev/zero": "0" * 64, "predictions.jsonl": "x"})),
    "files is a list": _changed(RECORD, _set("files", to=["predictions.jsonl"])),
    "a billion predictions": _changed(RECORD, _set("num_predictions", to=10**9)),
    "predictions counted in text": _changed(RECORD, _set("num_predictions", to="18")),
    "row name outwards": _changed(RECORD, _set("name", to="../../../x")),
    "half a pair as model": _changed(RECORD, _set("model", to="\ud800")),
    "seed of a list": _changed(RECORD, _set("seed", to=[0])),
    "labels of numbers": _changed(RECORD, _set("labels", to=[1, 2])),
    "labels twice": _changed(RECORD, _set("labels", to=["a", "a"])),
    "no labels": _changed(RECORD, _set("labels", to=[])),
    "100,000 labels": _changed(RECORD, _set("labels", to=[str(i) for i in range(100_000)])),
    "unknown status": _changed(RECORD, _set("status", to="perhaps")),
    "failed without a reason": _changed(RECORD, _set("status", to="failed")),
    "costs are a list": _changed(RECORD, _set("costs", to=[])),
    "costs of text": _changed(RECORD, _set("costs", "train_seconds", to="long")),
    "costs beyond": _changed(RECORD, _set("costs", "stored_bytes", to=10**400)),
    "hyperparameters are text": _changed(RECORD, _set("hyperparameters", to="x")),
    "provenance is a list": _changed(RECORD, _set("provenance", to=[])),
    "prompts of numbers": _changed(RECORD, _set("provenance", "prompts", to=[1, 2])),
    "temperature is text": _changed(RECORD, _set("temperature", to="hot")),
    "temperature of nought": _changed(RECORD, _set("temperature", to=0)),
    "an unknown key": _changed(RECORD, _set("surprise", to=1)),
    "classifier of a list": _changed(CLASSIFIER, _set("labels", to={"a": 1})),
    "classifier of other labels": _changed(CLASSIFIER, _set("labels", to=["x", "y", "z"])),
    "classifier of an unknown method": _changed(CLASSIFIER, _set("method", to="../x")),
    "classifier of another method": _changed(CLASSIFIER, _set("method", to="bag_of_words")),
    "hyperparameters are a list": _changed(CLASSIFIER, _set("hyperparameters", to=[1])),
    "batches of text": _changed(CLASSIFIER, _set("scoring_batch_tokens", to="many")),
    "batches below nought": _changed(CLASSIFIER, _set("scoring_batch_tokens", to=-1)),
    "prompt of numbers": _changed(CLASSIFIER, _set("prompt", to={"template": 3})),
    "frequencies are a list": _changed("trials/none/majority/seed-0/adapter/frequencies.json", lambda value: [1]),
    "frequencies of text": _changed("trials/none/majority/seed-0/adapter/frequencies.json", lambda value: {"a": "x"}),
    "rows are text": _changed("comparison.json", _set("candidates", to="many")),
    "rows of numbers": _changed("comparison.json", _set("candidates", to=[1, 2])),
    "row outwards": _changed("comparison.json", _set("candidates", 0, "method", to="../../x")),
    "row is absolute": _changed("comparison.json", _set("candidates", 0, "method", to="/etc")),
    "seeds outwards": _changed("comparison.json", _set("candidates", 0, "seeds", to=["../../x"])),
    "seeds are a number": _changed("comparison.json", _set("candidates", 0, "seeds", to=3)),
    "a seed of 400 digits": _changed("comparison.json", _set("candidates", 0, "seeds", to=[10**400])),
    "confusion is empty": _changed("comparison.json", _set("candidates", 0, "confusion", to=[])),
    "accuracy is text": _changed("comparison.json", _set("candidates", 0, "accuracy", to="good")),
    "no recommendation": _changed("comparison.json", _set("recommendation", to=[1])),
    "labels are null": _changed("comparison.json", _set("labels", to=None)),
    "a count beyond": _changed("comparison.json", _set("num_test", to=10**400)),
    "precision is a list": _changed("environment.json", _set("precision", to=[1])),
    "versions are text": _changed("environment.json", _set("versions", to="x")),
    "data notes are numbers": _changed("environment.json", _set("data", to=3)),
    "parts are numbers": _changed("split.json", _set("train", to=5)),
    "ids are lists": _changed("split.json", lambda value: {**value, "fingerprint": "x", "train": [[1], [2]]}),
    "reads are numbers": _changed("test_access.json", _set("reads", to=[1])),
    "a probability of text": _lines(_set(0, "probabilities", to={"a": "x", "b": 1})),
    "a probability of 7": _lines(_set(0, "probabilities", to={"a": 7, "b": -6})),
    "probabilities of other labels": _lines(_set(0, "probabilities", to={"x": 1.0})),
    "probabilities are a list": _lines(_set(0, "probabilities", to=[0.5, 0.5])),
    "no probabilities": _lines(_set(0, "probabilities", to={})),
    "an unknown gold label": _lines(_set(0, "label", to="z")),
    "an id of a number": _lines(_set(0, "id", to=5)),
    "a line twice": _lines(lambda rows: rows.append(rows[0])),
    "no lines": _lines(lambda rows: rows.clear()),
}


def _experiment_of(text: str) -> Build:
    def build(folder: Path) -> Sequence[Words]:
        run = run_copy(folder)
        write_sealed(run / "experiment.yaml", text)
        return over_run(run)

    return build


def _shallow(folder: Path) -> Sequence[Words]:
    """A trial's folder moved to the top of the file system, as a container mounts it."""
    shallow = Path(tempfile.mkdtemp(prefix="x", dir="/tmp"))
    shutil.copytree(first_trial(sound_run() / "run"), shallow, dirs_exist_ok=True)
    source = str(sound_run() / "train.csv")
    return [
        ["evaluate", "--run", str(shallow), "--test", source],
        ["export", "--run", str(shallow), "--format", "transformers", "--out", str(folder / "out")],
        ["evaluate", "--run", "/", "--test", source],
        ["export", "--run", "/tmp", "--format", "transformers", "--out", str(folder / "out")],
        ["verify", "--run", "/"],
        ["report", "--run", "/"],
    ]


def _odd_folders(folder: Path) -> Sequence[Words]:
    run = run_copy(folder)
    for name in ("trials/none/majority/seed-x", "curve/none/majority/n-x/seed-0", "curve/none/majority/n-20/seed-0"):
        shutil.copytree(first_trial(run), run / name)
    return over_run(run)


def _not_a_run(folder: Path) -> Sequence[Words]:
    (folder / "file").write_text("x")
    places = [folder / "none", folder / "file", Path("a\0b"), Path("\ud800"), Path("x" * 5_000), Path("/dev/zero")]
    return [words for place in places for words in over_run(place)[:-1]]


# --- data, model folders and templates: what holds today; their owners add to it


def _data(name: str, content: bytes) -> Build:
    def build(folder: Path) -> Sequence[Words]:
        (folder / name).write_bytes(content)
        return over_data(folder / name, folder)

    return build


def over_data(file: Path, folder: Path) -> Sequence[Words]:
    """Every command that reads labelled data."""
    trial = str(first_trial(sound_run() / "run"))
    return [
        ["validate", "--train", str(file)],
        ["compare", "--train", str(file), "--methods", "majority", "--out", str(folder / "run")],
        ["evaluate", "--run", trial, "--test", str(file)],
        ["predict", "--run", trial, "--input", str(file), "--output", str(folder / "out.csv")],
    ]


DATA_FILES: dict[str, tuple[str, bytes]] = {
    "nested JSON": ("a.json", b"[" * 200_000),
    "nested JSON line": ("a.jsonl", b'{"text": ' + b"[" * 200_000 + b"}\n"),
    "a long number": ("a.jsonl", b'{"text": ' + b"9" * 6_000 + b', "label": 1}\n'),
    "empty": ("a.csv", b""),
    "binary": ("a.csv", bytes(range(256)) * 20),
    "not gzip": ("a.csv.gz", b"text,label\na,b\n"),
    "gzip cut short": ("a.csv.gz", gzip.compress(TRAIN_CSV.encode())[:-20]),
    "not Parquet": ("a.parquet", b"PAR1" + b"\0" * 100 + b"PAR1"),
    "unclosed JSON": ("a.jsonl", b'{"text": "a", "label"'),
    "JSON of numbers": ("a.json", b"[1, 2, 3]"),
}


def _model(files: dict[str, bytes]) -> Build:
    def build(folder: Path) -> Sequence[Words]:
        model = folder / "model"
        model.mkdir()
        for name, content in files.items():
            (model / name).write_bytes(content)
        return over_model(model, folder)

    return build


def over_model(model: Path, folder: Path) -> Sequence[Words]:
    """Every command that takes a model."""
    (folder / "train.csv").write_text(TRAIN_CSV)
    train = ["--train", str(folder / "train.csv")]
    out = ["--out", str(folder / "run"), "doctor=false", "estimate=false"]
    return [
        ["compare", "--model", str(model), "--methods", "lora", *train, *out],
        ["models", "pull", str(model)],
        ["validate", "--model", str(model), *train],
    ]


MODELS: dict[str, dict[str, bytes]] = {
    "empty": {},
    "config is a list": {"config.json": b"[]"},
    "config is binary": {"config.json": bytes(range(256))},
    "no model type": {"config.json": b"{}"},
    "pickle": {"config.json": b'{"model_type": "bert"}', "pytorch_model.bin": b"\x80\x04N."},
    "weights cut short": {"config.json": b'{"model_type": "bert"}', "model.safetensors": struct.pack("<Q", 1 << 60)},
}


def _template(text: str) -> Build:
    def build(folder: Path) -> Sequence[Words]:
        (folder / "train.csv").write_text(TRAIN_CSV)
        (folder / "a.yaml").write_text(json.dumps({"prompt": {"template": text}}))
        out = ["--out", str(folder / "run"), "doctor=false", "estimate=false"]
        words = ["--config", str(folder / "a.yaml"), "--train", str(folder / "train.csv")]
        return [["compare", *words, "--methods", "in_context", "--model", str(folder / "none"), *out]]

    return build


LOOPS = "{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}"
TEMPLATES = (
    "{{ ",
    "{% for a in labels %}",
    "{{ ''.__class__ }}",
    "{{ 9**9**9 }}",
    "{% include '/etc/passwd' %}",
    LOOPS,
)

CASES: list[Case] = [
    *(Case("config", name, _config(content)) for name, content in CONFIG_FILES.items()),
    *(Case("config", name, _special(make)) for name, make in SPECIAL.items()),
    *(Case("overrides", f"{word[:40]!r}, {len(word)}", _override(word)) for word in OVERRIDES),
    *(
        Case("run", f"{name} is {kind}", _in_place_of(name, make), RUN_CODES)
        for name in RUN_FILES
        for kind, make in SPECIAL.items()
        if kind in ("a pipe", "a folder", "a link to a device")
    ),
    *(
        Case("run", f"{name}: {kind}", _document(name, text), RUN_CODES)
        for name in ("comparison.json", RECORD)
        for kind, text in DOCUMENTS.items()
    ),
    *(Case("run", name, build, RUN_CODES) for name, build in CHANGES.items()),
    Case("run", "alias bomb in experiment.yaml", _experiment_of(_LAUGHS), RUN_CODES),
    Case("run", "experiment.yaml of numbers", _experiment_of("data: 3\nmethods: 4\nrecommend: 5\n"), RUN_CODES),
    Case("run", "experiment.yaml is a list", _experiment_of("- 1\n"), RUN_CODES),
    Case("run", "label names are a list", _experiment_of("data: {label_names: [1, 2]}\n"), RUN_CODES),
    Case("run", "a shallow place", _shallow, RUN_CODES),
    Case("run", "folders of odd names", _odd_folders, RUN_CODES),
    Case("run", "not a run", _not_a_run),
    *(Case("data", name, _data(*file), (1, 2)) for name, file in DATA_FILES.items()),
    *(Case("model", name, _model(files)) for name, files in MODELS.items()),
    *(Case("template", text, _template(text)) for text in TEMPLATES),
]


def _bomb(rows: int) -> bytes:
    return gzip.compress(b"text,label\n" + b"a,b\n" * rows)


def _model_link(target: str) -> Build:
    def build(folder: Path) -> Sequence[Words]:
        (folder / "model").mkdir()
        (folder / "model" / "config.json").symlink_to(target)
        return over_model(folder / "model", folder)

    return build


def _model_pipe(folder: Path) -> Sequence[Words]:
    (folder / "model").mkdir()
    os.mkfifo(folder / "model" / "config.json")
    return over_model(folder / "model", folder)


# Of families that others work on, and not yet right: who fixes them moves them to CASES.
PENDING: list[Case] = [
    Case("data", "gzip bomb", _data("a.csv.gz", _bomb(30_000_000)), (1, 2)),
    Case("model", "nested config", _model({"config.json": b"[" * 200_000})),
    Case("model", "config is a device", _model_link("/dev/zero")),
    Case("model", "config is a pipe", _model_pipe),
]


# --- running them


class _TooLong(BaseException):
    """Outside of everything a command catches."""


def _stop(number: int, frame: object) -> None:
    raise _TooLong(signal.Signals(number).name)


@contextlib.contextmanager
def time_limit(cpu_seconds: float, wall_seconds: float) -> Iterator[None]:
    """Raise where what is inside works for longer than the one or takes longer than the other."""
    signal.signal(signal.SIGPROF, _stop)
    signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    signal.setitimer(signal.ITIMER_REAL, wall_seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def command(words: Words) -> tuple[int, str]:
    """Run the command line in this process; return its exit code and what it said. Anything else comes out."""
    said, before = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True), sys.argv
    sys.argv = ["entailor", *words]
    code: object = 0
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                cli.main()
            except SystemExit as ended:
                code = ended.code
    finally:
        sys.argv = before
    text = said.buffer.getvalue().decode()  # type: ignore[attr-defined]
    return code if isinstance(code, int) else int(code is not None), text


def problem(case: Case, folder: Path, only: int | None = None) -> str | None:
    """Return what is wrong with how a case ends, or None; `only` picks one of its commands."""
    commands = case.build(folder)
    for words in commands if only is None else [commands[only % len(commands)]]:
        try:
            with time_limit(MOST_CPU_SECONDS, MOST_WALL_SECONDS):
                code, text = command(words)
        except BaseException:
            return f"{words[0]}: {traceback.format_exc(limit=-6)}"[-2_000:]
        if code not in case.codes:
            return f"{words[0]}: exit code {code}: {text[-500:]}"
        if code == 2 and not re.search(r"^(error: |Usage: )", text, re.MULTILINE):
            return f"{words[0]}: no error was told: {text[-500:]}"
        if len(text) > 20_000:
            return f"{words[0]}: {len(text):,} characters were said: {text[:300]}"
    return None


def limit_memory() -> None:
    """Let this process take so much more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MOST_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--pending", action="store_true")
    options.add_argument("--family")
    options.add_argument("--quick", action="store_true")
    chosen = options.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", COLUMNS="200")
    with tempfile.TemporaryDirectory() as name:  # libraries are loaded before anything counts
        for words in over_run(run_copy(Path(name))):
            command(words)
    if chosen.quick:
        plots._svg = lambda figure: '<svg width="1pt" height="1pt" viewBox="0 0 1 1"></svg>'
    limit_memory()
    wrong = {}
    for number, case in enumerate(PENDING if chosen.pending else CASES):
        if chosen.family in (None, case.family):
            with tempfile.TemporaryDirectory() as name:
                if found := problem(case, Path(name), number if chosen.quick else None):
                    wrong[f"{case.family}: {case.name}"] = found
    shutil.rmtree(sound_run())
    sys.stdout.write(json.dumps(wrong, indent=2) + "\n")
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
