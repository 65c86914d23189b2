"""Looks at a checkpoint folder without loading it: what is there, what is missing, what is damaged.

Reads headers only. Never opens a pickle: weights in that form are refused by name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from entailor.errors import ModelError
from entailor.runs.documents import parse_json, read_bytes

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
    "processor_config.json",  # may hold the chat template
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.*",
)
SIDE_MAPPINGS = (
    *("generation_config.json", "processor_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "chat_template.json"),
)
"""Files beside config.json and tokenizer_config.json that transformers reads as JSON without any limit."""
FURTHER_TEMPLATES = "additional_chat_templates/*.jinja"
CONFIG_PATTERNS = ("config.json", "generation_config.json")
WEIGHT_PATTERNS = ("*.safetensors", "*.safetensors.index.json")
PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
MOST_JSON_BYTES = 64 * 2**20
"""Most bytes of a file that is read as JSON; a vocabulary of 260,000 words takes half of it."""
MOST_SMALL_BYTES = 256 * 2**20
"""Most bytes of any file beside the weights."""
MOST_HEADER_BYTES = 25 * 10**6
"""Most bytes of a safetensors header, of 200,000 tensors or so; real ones take a tenth."""
MOST_COUNTED = 2**20
"""Most that a key of config.json called num_... may be: labels, heads, experts."""
MOST_LABELS = 2**16
"""Most labels of a checkpoint's own head."""
MOST_LAYERS = 1000
"""Most layers of a kind that a configuration may have where they are fewer than the tensors."""
BYTE_TOKENIZERS = ("ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer")
"""Tokenizers that have no vocabulary file."""
PICKLE_REMEDY = (
    "Weights stored by pickle can run code and are never loaded. Where you trust them, load them with transformers "
    "and convert: model.save_pretrained(FOLDER); tokenizer.save_pretrained(FOLDER)"
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
    for name in names:
        if matches(name, (*CONFIG_PATTERNS, *TOKENIZER_PATTERNS, *WEIGHT_PATTERNS, "adapter_config.json")):
            _check_regular(folder / name, small=not name.endswith(".safetensors"))
    for template in folder.glob(FURTHER_TEMPLATES):
        _check_regular(template, small=True)
    for name in names:
        if matches(name, SIDE_MAPPINGS):
            _read_mapping(folder / name)
    config = _check_config(folder, names)
    files, tensors = _weight_files(folder, names, damage_remedy)
    _check_layers(folder / "config.json", config, tensors)
    _check_tokenizer(folder, names)
    return files


def answer_files(folder: Path, *, code: bool = False) -> tuple[Path, ...]:
    """Return the files beside the weights that decide what a model answers, in the order of their names.

    Args:
        folder: a checked checkpoint.
        code: whether the Python files in it are run.
    """
    patterns = ("config.json", *TOKENIZER_PATTERNS, *(("*.py",) if code else ()))
    beside = [entry for entry in folder.iterdir() if matches(entry.name, patterns)]
    return tuple(sorted([*beside, *folder.glob(FURTHER_TEMPLATES)]))


def _check_regular(file: Path, *, small: bool) -> None:
    """Refuse what would hang or fill the memory when it is read: a device, a pipe, a file far too large."""
    if not file.is_file():
        found = "a link to nothing" if not file.exists() else "a folder" if file.is_dir() else "a device or a pipe"
        raise ModelError(f"{file}: {found}, a regular file was expected. Copy or download it again")
    size = file.stat().st_size
    limit = MOST_JSON_BYTES if file.suffix == ".json" else MOST_SMALL_BYTES
    if small and size > limit:
        raise ModelError(
            f"{file}: {size:,} bytes, at most {limit:,} were expected in such a file. Do not use this checkpoint"
        )


def _check_config(folder: Path, names: list[str]) -> Mapping[str, Any]:
    if "config.json" not in names:
        if "adapter_config.json" in names:
            base = _read_mapping(folder / "adapter_config.json").get("base_model_name_or_path")
            raise ModelError(f"{folder}: an adapter, not a model. Name the model it was trained on ({base})")
        if gguf := next((name for name in names if name.endswith(".gguf")), None):
            raise ModelError(f"{folder}: no config.json, but a GGUF file. Give the file itself: {folder / gguf}")
        found = ", ".join(names[:5]) or "an empty folder"
        raise ModelError(f"{folder}: no config.json, found {found}. Give the folder that save_pretrained() wrote")
    config = _read_mapping(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise ModelError(
            f"{folder / 'config.json'}: no key 'model_type', so it does not describe a transformers model. "
            "Give the folder that save_pretrained() wrote"
        )
    if "adapter_config.json" in names:
        raise ModelError(
            f"{folder}: a model with an adapter beside it (adapter_config.json), which transformers would add to the "
            "weights without a word. Move the adapter_* files elsewhere to use the model alone; or load both with "
            "peft, merge_and_unload(), and save_pretrained() to a new folder"
        )
    _check_keys(folder / "config.json", config)
    return config


def _check_keys(file: Path, config: Mapping[str, Any]) -> None:
    """Refuse keys that make transformers read other files than those that are hashed, or take code from the Hub."""
    for key, value in _entries(config):
        if key == "transformers_weights":
            raise ModelError(
                f"{file}: transformers_weights names {value!r}, so other weights than {SINGLE_FILE} would be read. "
                "Load it with transformers and save it with save_pretrained() to a new folder"
            )
        if "_implementation" in key and any("/" in str(one) for _, one in [*_entries({key: value})]):
            raise ModelError(f"{file}: {key} names {value!r}, code on the Hub, which is never run. Delete the key")
        most = MOST_LABELS if key == "num_labels" else MOST_COUNTED
        if key.startswith("num_") and isinstance(value, int) and not -1 <= value <= most:
            raise ModelError(f"{file}: {key} is {value}, at most {most:,} were expected. Do not use this checkpoint")
        if key in ("id2label", "label2id") and not (value is None or isinstance(value, dict)):
            raise ModelError(f"{file}: {key} is no mapping between numbers and labels. Copy or download it again")
        if key in ("id2label", "label2id") and len(value or ()) > MOST_LABELS:
            raise ModelError(
                f"{file}: {key} names {len(value):,} labels, at most {MOST_LABELS:,} were expected. "
                "Do not use this checkpoint"
            )
        if key == "architectures" and not all(isinstance(one, str) for one in _listed(value)):
            raise ModelError(f"{file}: architectures is no list of names of classes. Copy or download it again")


def _listed(value: Any) -> list[Any]:
    """Return the entries of a list; of null none, and of anything else itself as the one entry."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _entries(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Give every key of a nested mapping with its value, mappings before what they hold."""
    if key:
        yield key, value
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _entries(inner, str(name))


def _check_layers(file: Path, config: Mapping[str, Any], tensors: int) -> None:
    """Hold the number of layers against the weights: a line of text can ask for any number of them.

    What the architecture calls it is asked of its configuration class.
    """
    from transformers import CONFIG_MAPPING

    names = {"num_hidden_layers"}
    if config["model_type"] in CONFIG_MAPPING:
        kind = CONFIG_MAPPING[config["model_type"]]
        for one in (kind, *(kind.sub_configs or {}).values()):
            names.add(getattr(one, "attribute_map", {}).get("num_hidden_layers", "num_hidden_layers"))
    for key, value in _entries(config):
        if key in names:
            fits = isinstance(value, int) and 1 <= value <= tensors
        else:
            count = value if isinstance(value, int) and key.endswith("layers") else 0
            fits = 0 <= count <= max(tensors, MOST_LAYERS)
        if not fits:
            raise ModelError(
                f"{file}: {key} is {str(value)[:40]}, but the weights are {tensors:,} tensors, and every layer has at "
                "least one. Copy or download it again"
            )


def _weight_files(folder: Path, names: list[str], damage_remedy: str) -> tuple[tuple[Path, ...], int]:
    """Return the weight files, and how many tensors they hold."""
    if SINGLE_FILE in names:  # transformers takes it before an index
        return (folder / SINGLE_FILE,), len(_tensor_names(folder / SINGLE_FILE, damage_remedy))
    if INDEX_FILE in names:
        return _sharded_files(folder, damage_remedy)
    if pickles := [name for name in names if matches(name, PICKLE_PATTERNS) and name != "training_args.bin"]:
        raise ModelError(f"{folder}: only {pickles[0]}, no safetensors weights. {PICKLE_REMEDY}")
    others = [name for name in names if name.endswith(".safetensors")]
    found = f"found {', '.join(others)}" if others else "no weights at all"
    raise ModelError(f"{folder}: {SINGLE_FILE} (or {INDEX_FILE} with its parts) was expected, {found}. {damage_remedy}")


def _sharded_files(folder: Path, damage_remedy: str) -> tuple[tuple[Path, ...], int]:
    index = folder / INDEX_FILE
    weight_map = _read_mapping(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{index}: no 'weight_map' from tensors to files. {damage_remedy}")
    expected = defaultdict(set)
    for tensor, name in weight_map.items():
        expected[str(name)].add(tensor)
    for name in sorted(expected):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelError(f"{index}: names {name!r}, a file outside the folder. Do not use this checkpoint")
        if not (folder / name).is_file():
            raise ModelError(f"{folder / name}: missing, though {INDEX_FILE} names it. {damage_remedy}")
        if missing := sorted(expected[name] - _tensor_names(folder / name, damage_remedy)):
            raise ModelError(
                f"{folder / name}: does not hold {missing[0]!r} ({len(missing)} tensors missing), though {INDEX_FILE} "
                f"says so. The parts are of different checkpoints. {damage_remedy}"
            )
    return tuple(folder / name for name in sorted(expected)), len(weight_map)


def _tensor_names(file: Path, damage_remedy: str) -> set[str]:
    """Read a safetensors header; the library also holds the length of the file against it."""
    from safetensors import SafetensorError, safe_open

    _check_regular(file, small=False)
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            start = opened.read(24)
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror}). {damage_remedy}") from None
    if start.startswith(b"version https://git-lfs"):
        raise ModelError(f"{file}: a Git LFS pointer, not the weights. Run `git lfs pull` in its folder")
    header_bytes = int.from_bytes(start[:8], "little")
    if MOST_HEADER_BYTES < header_bytes <= size:
        raise ModelError(
            f"{file}: its list of tensors takes {header_bytes:,} bytes, at most {MOST_HEADER_BYTES:,} were expected. "
            "Do not use this checkpoint"
        )
    try:
        with safe_open(file, framework="numpy") as tensors:
            return set(tensors.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{file}: cut short or not safetensors ({size:,} bytes; {error}). {damage_remedy}") from None


def _check_tokenizer(folder: Path, names: list[str]) -> None:
    settings = _read_mapping(folder / "tokenizer_config.json") if "tokenizer_config.json" in names else {}
    if others := settings.get("fast_tokenizer_files"):
        raise ModelError(
            f"{folder / 'tokenizer_config.json'}: fast_tokenizer_files chooses between {others!r} by the version of "
            "transformers. Load the tokenizer and save it with save_pretrained() to a new folder"
        )
    if any(matches(name, VOCABULARY_PATTERNS) for name in names):
        return
    if str(settings.get("tokenizer_class")) in BYTE_TOKENIZERS:
        return
    raise ModelError(
        f"{folder}: no tokenizer (tokenizer.json, vocab.txt, vocab.json or a sentencepiece model was expected). "
        "Save it beside the weights with tokenizer.save_pretrained(FOLDER)"
    )


def _read_mapping(file: Path) -> Mapping[str, Any]:
    _check_regular(file, small=True)
    try:
        value = parse_json(read_bytes(file, MOST_JSON_BYTES), finite=False)
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"{file}: not JSON that is taken ({problem}). Copy or download it again") from None
    if not isinstance(value, dict):
        raise ModelError(f"{file}: a mapping was expected, found a {type(value).__name__}. Copy or download it again")
    return value
