"""Hostile data, model folders and templates, as far as a command can tell before it loads a model."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.hostile.cases import TRAIN_CSV, Build, Words
from tests.hostile.runs import first_trial, sound_run


def data(name: str, content: bytes) -> Build:
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
    "gzip bomb": ("a.csv.gz", gzip.compress(b"text,label\n") + gzip.compress(b"a,b\n" * 1_000_000) * 30),
}


def model(files: dict[str, bytes]) -> Build:
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
        ["compare", "--model", str(model), "--methods", "lora", "--seeds", "1", *train, *out],
        ["models", "pull", str(model)],
        ["validate", "--model", str(model), *train],
    ]


def _tensors(header: bytes, size: int | None = None) -> bytes:
    """Return a safetensors file of a header and four bytes."""
    return struct.pack("<Q", len(header) if size is None else size) + header + b"\0" * 4


ONE_TENSOR = _tensors(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}')
TOKENIZER = json.dumps({"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}).encode()
SOUND = {
    "config.json": b'{"model_type": "bert", "num_hidden_layers": 1}',
    "model.safetensors": ONE_TENSOR,
    "tokenizer.json": TOKENIZER,
    "tokenizer_config.json": b"{}",
}
"""A folder that passes for a model until its weights are counted."""


def _with(name: str, content: bytes | str) -> dict[str, bytes]:
    return {**SOUND, name: content if isinstance(content, bytes) else content.encode()}


def _config_with(values: str) -> dict[str, bytes]:
    return _with("config.json", f'{{"model_type": "bert", "num_hidden_layers": 1, {values}}}')


DEEP = '{"a": ' * 5_000 + "1" + "}" * 5_000
LABELS = ", ".join(f'"{number}": "x"' for number in range(300_000))
MODELS: dict[str, dict[str, bytes]] = {
    "empty": {},
    "config is a list": {"config.json": b"[]"},
    "config is binary": {"config.json": bytes(range(256))},
    "no model type": {"config.json": b"{}"},
    "pickle": {"config.json": b'{"model_type": "bert"}', "pytorch_model.bin": b"\x80\x04N."},
    "weights cut short": {"config.json": b'{"model_type": "bert"}', "model.safetensors": struct.pack("<Q", 1 << 60)},
    **{f"nested {name}": _with(name, DEEP) for name in SOUND if name.endswith("config.json")},
    "nested special tokens": _with("special_tokens_map.json", DEEP),
    "nested lists": _with("config.json", "[" * 200_000),
    "many empty lists": _config_with('"a": [' + "[], " * 9_000_000 + "[]]"),
    "20,000 layers": _config_with('"num_hidden_layers": 20000'),
    "layers below nought": _config_with('"num_hidden_layers": -1'),
    "no layers": _config_with('"num_hidden_layers": 0'),
    "layers of a part": _config_with('"text_config": {"num_hidden_layers": 20000}'),
    "300,000 labels": _config_with(f'"id2label": {{{LABELS}}}'),
    "labels are a number": _config_with('"id2label": 5'),
    "a billion labels": _config_with('"num_labels": 1000000000'),
    "classes are numbers": _config_with('"architectures": [5]'),
    "a kernel of the Hub": _config_with('"_attn_implementation": "someone/kernel"'),
    "other weights": _config_with('"transformers_weights": "/etc/passwd"'),
    "an adapter beside": _with("adapter_config.json", "{}"),
    "700,000 tensors": _with("model.safetensors", _tensors(b'{"a":{"dtype":"F32"}}' + b" " * 60_000_000)),
    "a header of nothing": _with("model.safetensors", _tensors(b"")),
    "a nested header": _with("model.safetensors", _tensors(DEEP.encode())),
    "a tensor beyond the file": _with(
        "model.safetensors", _tensors(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 99999999999]}}')
    ),
    "a shape beyond": _with(
        "model.safetensors",
        _tensors(b'{"a": {"dtype": "F32", "shape": [4611686018427387904, 4], "data_offsets": [0, 4]}}'),
    ),
    "an index outwards": {
        **{name: content for name, content in SOUND.items() if name != "model.safetensors"},
        "model.safetensors.index.json": b'{"weight_map": {"a": "../../../etc/passwd"}}',
    },
}


def model_file(name: str, make: Callable[[Path], Any]) -> Build:
    """Something else in the place of a file of a model folder, or of a model that is a file."""

    def build(folder: Path) -> Sequence[Words]:
        place = folder / "model"
        place.mkdir()
        for known, content in SOUND.items():
            (place / known).write_bytes(content)
        (place / name).unlink(missing_ok=True)
        make(place / name)
        return over_model(place / name if name.endswith(".gguf") else place, folder)

    return build


MODEL_FILES = (*SOUND, "chat_template.jinja", "model.gguf")


def template(text: str) -> Build:
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
