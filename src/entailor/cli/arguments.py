"""From the words of a command line to an experiment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entailor.errors import RENAMED, ConfigError
from entailor.runs.launcher import be_silent, launched_rank

if TYPE_CHECKING:
    from entailor.config.experiment import Experiment

GONE = {
    "bench": "Run python benchmarks/machine.py in a checkout",
    "merge": "Run entailor export --format transformers --run RUN --out FOLDER; --external FILE scores a file as well",
}
"""Commands of the first release, and what does their work now."""


def read_experiment(config: Path | None, flags: Mapping[str, Any], words: list[str]) -> Experiment:
    """Lay file, flags and key=value over each other, in this order."""
    from entailor.config.experiment import Experiment, parse_settings
    from entailor.config.overrides import apply_overrides, read_yaml, set_key
    from entailor.methods.registry import known_keys

    values = read_yaml(config) if config else {}
    _refuse_code_by_file(values, config, words)
    for key, value in flags.items():
        if value is not None:
            set_key(values, key.split("."), value)
    return parse_settings(Experiment, apply_overrides(values, words, known_keys))


def data_flags(
    train: str | None,
    validation: str | None,
    test: str | None,
    columns: str | None,
    delimiter: str | None,
    encoding: str | None,
) -> dict[str, str | dict[str, str] | None]:
    """Return the keys of the experiment that the flags of labelled files stand for."""
    said = {"train": train, "validation": validation, "test": test, "delimiter": delimiter, "encoding": encoding}
    return {f"data.{name}": value for name, value in said.items()} | {"data.columns": mapping(columns, "--columns")}


def _refuse_code_by_file(values: Mapping[str, Any], config: Path | None, words: list[str]) -> None:
    """A file may come from a stranger: the code of a checkpoint is run only where the command line says so."""
    methods = values.get("methods")
    settings = list(methods.values()) if isinstance(methods, dict) else methods if isinstance(methods, list) else []
    settings = [
        *settings,
        *(inner for one in settings if isinstance(one, dict) for inner in one.values()),
    ]  # `- name: settings`
    asked = any(
        isinstance(one, dict) and isinstance(one.get("model"), dict) and one["model"].get("trust_remote_code")
        for one in (values, *settings)
    )
    said = [word.partition("=")[2] for word in words if word.startswith("model.trust_remote_code=")]
    if asked and said[-1:] != ["true"]:
        raise ConfigError(
            f"{config}: model.trust_remote_code would run code that comes with the checkpoint. If you trust it, say so "
            "on the command line as well: model.trust_remote_code=true"
        )


def label_settings(label_names: str | None, no_gold: str | None) -> tuple[dict[str, str], tuple[str, ...] | None]:
    """Read ``a=b,c=d`` and ``a,b``, or the same as YAML, which can hold every label: ``{"a,b": c}`` and ``["a,b"]``."""
    words = []
    if label_names is not None:
        names = label_names if label_names.startswith("{") else json.dumps(mapping(label_names, "--label-names"))
        words.append(f"data.label_names={names}")
    if no_gold is not None:
        words.append(f"data.no_gold={no_gold if no_gold.startswith('[') else json.dumps(no_gold.split(','))}")
    data = read_experiment(None, {}, words).data
    return data.label_names, data.no_gold


def count_or_seeds(text: str | None) -> int | list[int] | None:
    """Return a number of seeds, or seeds where there are commas.

    Raises:
        ConfigError: neither.
    """
    if text is None:
        return None
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"--seeds: {text!r} is neither a number of trials nor seeds with commas, as in 1,2,3"
        ) from None
    return numbers if "," in text else numbers[0]


def mapping(text: str | None, flag: str) -> dict[str, str] | None:
    """Read ``a=b,c=d``."""
    if text is None:
        return None
    read: dict[str, str] = {}
    for item in (item for item in text.split(",") if item.strip()):
        name, _, column = (part.strip() for part in item.partition("="))
        if not (name and column):
            raise ConfigError(f"{flag}: expected field=COLUMN,field=COLUMN, found {text!r}")
        if name in read:
            raise ConfigError(f"{flag}: {name} stands twice. Keep one")
        read[name] = column
    return read


def silence_followers(arguments: list[str]) -> None:
    """Keep a process quiet that a launcher started and that is not the first; refuse commands that run in one alone.

    Raises:
        ConfigError: the command is none that several processes share.
    """
    rank = launched_rank()
    if rank:
        be_silent()
    command = next((word for word in arguments if not word.startswith("-")), "")
    if rank is not None and command not in ("compare", "train"):
        raise ConfigError(f"{command or 'entailor'}: runs in one process. Leave torchrun or accelerate launch out")


def refuse_old_flags(arguments: list[str]) -> None:
    """Name the new flag for one of the first release, and where its commands went.

    Raises:
        ConfigError: a flag was renamed, or the command moved.
    """
    if arguments and arguments[0] in GONE:
        raise ConfigError(f"{arguments[0]}: no command any more. {GONE[arguments[0]]}")
    for word in arguments:
        flag = word.partition("=")[0]
        if flag.startswith("--") and (renamed := RENAMED.get(flag[2:].replace("-", "_"))):
            raise ConfigError(f"{flag}: renamed. Write --{renamed.replace('_', '-')} instead")
