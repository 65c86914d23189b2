"""Looks at a checkpoint folder without loading it: what is there, what is missing, what is damaged.

Reads headers only. Never opens a pickle: weights in that form are refused by name.
"""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from entailor.errors import ModelError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
VOCABULARY_PATTERNS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "*.model",  # sentencepiece: spiece.model, tokenizer.model, sentencepiece.bpe.model
    "*.tiktoken",
    "bpe.codes",
    "tekken.json",
)
TOKENIZER_PATTERNS = (
    *VOCABULARY_PATTERNS,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.*",
)
CONFIG_PATTERNS = ("config.json", "generation_config.json")
WEIGHT_PATTERNS = ("*.safetensors", "*.safetensors.index.json")
PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
BYTE_TOKENIZERS = ("ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer")
"""Tokenizers that have no vocabulary file."""
PICKLE_REMEDY = (
    "Weights stored by pickle can run code and are never loaded. Where you trust them, load them with transformers "
    "and convert: model.save_pretrained(FOLDER, safe_serialization=True); tokenizer.save_pretrained(FOLDER)"
)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Return whether a file name fits one of the patterns."""
    return any(fnmatch(name, pattern) for pattern in patterns)


def check_folder(folder: Path, *, damage_remedy: str = "Copy or download it again") -> tuple[Path, ...]:
    """Check that a folder holds a config, whole safetensors weights and a tokenizer.

    Args:
        folder: the checkpoint.
        damage_remedy: the next step where a file is damaged or missing.

    Returns:
        The weight files, in the order of their names.

    Raises:
        ModelError: something is missing, damaged, or stored by pickle.
    """
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise ModelError(f"{folder}: cannot be read ({error.strerror}). Check its permissions") from None
    _check_config(folder, names)
    files = _weight_files(folder, names, damage_remedy)
    _check_tokenizer(folder, names)
    return files


def _check_config(folder: Path, names: list[str]) -> None:
    if "config.json" not in names:
        if "adapter_config.json" in names:
            base = _read_mapping(folder / "adapter_config.json").get("base_model_name_or_path")
            raise ModelError(f"{folder}: an adapter, not a model. Name the model it was trained on ({base})")
        if gguf := next((name for name in names if name.endswith(".gguf")), None):
            raise ModelError(f"{folder}: no config.json, but a GGUF file. Give the file itself: {folder / gguf}")
        found = ", ".join(names[:5]) or "an empty folder"
        raise ModelError(f"{folder}: no config.json, found {found}. Give the folder that save_pretrained() wrote")
    if "model_type" not in _read_mapping(folder / "config.json"):
        raise ModelError(
            f"{folder / 'config.json'}: no key 'model_type', so it does not describe a transformers model. "
            "Give the folder that save_pretrained() wrote"
        )


def _weight_files(folder: Path, names: list[str], damage_remedy: str) -> tuple[Path, ...]:
    if SINGLE_FILE in names:  # transformers takes it before an index
        _tensor_names(folder / SINGLE_FILE, damage_remedy)
        return (folder / SINGLE_FILE,)
    if INDEX_FILE in names:
        return _sharded_files(folder, damage_remedy)
    if pickles := [name for name in names if matches(name, PICKLE_PATTERNS) and name != "training_args.bin"]:
        raise ModelError(f"{folder}: only {pickles[0]}, no safetensors weights. {PICKLE_REMEDY}")
    others = [name for name in names if name.endswith(".safetensors")]
    found = f"found {', '.join(others)}" if others else "no weights at all"
    raise ModelError(f"{folder}: {SINGLE_FILE} (or {INDEX_FILE} with its parts) was expected, {found}. {damage_remedy}")


def _sharded_files(folder: Path, damage_remedy: str) -> tuple[Path, ...]:
    index = folder / INDEX_FILE
    weight_map = _read_mapping(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{index}: no 'weight_map' from tensors to files. {damage_remedy}")
    files = sorted({str(name) for name in weight_map.values()})
    for name in files:
        if Path(name).name != name:
            raise ModelError(f"{index}: names {name!r}, a file outside the folder. Do not use this checkpoint")
        if not (folder / name).is_file():
            raise ModelError(f"{folder / name}: missing, though {INDEX_FILE} names it. {damage_remedy}")
        expected = {tensor for tensor, file in weight_map.items() if file == name}
        if missing := sorted(expected - _tensor_names(folder / name, damage_remedy)):
            raise ModelError(
                f"{folder / name}: does not hold {missing[0]!r} ({len(missing)} tensors missing), though {INDEX_FILE} "
                f"says so. The parts are of different checkpoints. {damage_remedy}"
            )
    return tuple(folder / name for name in files)


def _tensor_names(file: Path, damage_remedy: str) -> set[str]:
    """Read a safetensors header; the library also holds the length of the file against it."""
    from safetensors import SafetensorError, safe_open

    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            start = opened.read(24)
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror}). {damage_remedy}") from None
    if start.startswith(b"version https://git-lfs"):
        raise ModelError(f"{file}: a Git LFS pointer, not the weights. Run `git lfs pull` in its folder")
    try:
        with safe_open(file, framework="numpy") as tensors:
            return set(tensors.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{file}: cut short or not safetensors ({size:,} bytes; {error}). {damage_remedy}") from None


def _check_tokenizer(folder: Path, names: list[str]) -> None:
    if any(matches(name, VOCABULARY_PATTERNS) for name in names):
        return
    if "tokenizer_config.json" in names:
        kind = str(_read_mapping(folder / "tokenizer_config.json").get("tokenizer_class"))
        if kind in BYTE_TOKENIZERS:
            return
    raise ModelError(
        f"{folder}: no tokenizer (tokenizer.json, vocab.txt, vocab.json or a sentencepiece model was expected). "
        "Save it beside the weights with tokenizer.save_pretrained(FOLDER)"
    )


def _read_mapping(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: not JSON ({error}). Copy or download it again") from None
    if not isinstance(value, dict):
        raise ModelError(f"{file}: a mapping was expected, found a {type(value).__name__}. Copy or download it again")
    return value
