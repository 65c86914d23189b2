"""The parts of an experiment: data, model, prompt, budget, priorities; typed, documented, frozen."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from entailor.config.complaints import config_error
from entailor.config.costs import Costs, labels_as_text
from entailor.config.plain import as_written, number_as_text, shown

ItemT = TypeVar("ItemT")

MOST_SPLITS = 1_000
Seed = Annotated[int, Field(ge=0, lt=1 << 32)]  # the range that NumPy and PyTorch both take


class Settings(BaseModel):
    """Base of every settings object: frozen; an unknown key or an unusable value is a ConfigError."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=(), use_attribute_docstrings=True
    )

    if not TYPE_CHECKING:  # a checker knows the fields, which these arguments would hide

        def __init__(self, **values: Any) -> None:
            """Check the values.

            Raises:
                ConfigError: an unknown key, or a value of the wrong type or range; one line a key.
            """
            try:
                super().__init__(**{key: as_written(value) for key, value in values.items()})
            except ValidationError as error:
                raise config_error(type(self), error) from None

        __init__.__pydantic_base_init__ = True  # a section within others tells them its keys, and they tell all


def all_different(values: tuple[ItemT, ...]) -> tuple[ItemT, ...]:
    """Return the values; raise ValueError where one stands twice."""
    counts = Counter(values)
    twice = next((value for value in values if counts[value] > 1), None)
    if twice is not None:
        raise ValueError(f"{shown(twice)} stands twice")
    return values


def between_commas(value: object) -> object:
    """Return the names of a text with commas; anything else as it is."""
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


WithCommas = BeforeValidator(between_commas, json_schema_input_type=str | tuple[str, ...])


class DataSettings(Settings):
    """Where the labelled text comes from and how it is split."""

    train: str | None = None
    """File, folder or glob of shards, a Hugging Face data set id, or bundled:film, bundled:amazon, bundled:nyt or
    bundled:tweets. None: bundled:film, 500 of it to train on, 1,000 to test on; the others are external test sets."""
    validation: str | None = None
    """File or data set for choosing settings and stopping. None: taken from train."""
    test: str | None = None
    """File or data set read once at the end. None: taken from train."""
    config_name: str | None = None
    """Configuration of a Hugging Face data set."""
    train_split: str = "train"
    """Split of a Hugging Face data set used for training."""
    validation_split: str | None = None
    """Split of a Hugging Face data set used for tuning."""
    test_split: str | None = None
    """Split of a Hugging Face data set used for testing."""
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    """Character between the cells of text files. None: found in the first line."""
    encoding: str | None = None
    """Encoding of text files without a byte order mark, e.g. cp1252. None: UTF-8."""
    max_bytes: int = Field(default=1 << 30, ge=1)
    """Most bytes that a compressed file may unpack to."""
    max_rows: int = Field(default=10_000_000, ge=1)
    """Most examples of one file or data set."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Field to column: text, text_pair, label, id, group. What is not named is found by its usual names."""
    label_names: dict[str, str] = Field(default_factory=dict)
    """Label as written in the file (an integer or a short form) to label name."""
    labels: tuple[str, ...] | None = None
    """The label set. None: what stands in train; a label outside it is an error."""
    ordinal: bool = False
    """The labels are steps of a scale, in the order of `labels`, or of their size where they are numbers. Adds the
    quadratic weighted kappa, for which an answer two steps off is four times as wrong as one that is one off."""
    max_labels: int | None = Field(default=None, ge=2)
    """Most different labels. None: 1,000, or 300 where they are numbers, or 20 where these have decimals."""
    no_gold: tuple[str, ...] | None = None
    """Labels that mean that an example has none. None: empty, -, -1 and nan, where they are at most 5 % of a file."""
    validation_size: float = Field(default=0.1, gt=0)
    """Share (below 1) or number of examples taken from train when there is no validation file."""
    test_size: float = Field(default=0.2, gt=0)
    """Share (below 1) or number of examples taken from train when there is no test file."""
    split_seed: Seed = 0
    """Seed of the split and of the samples below; trials never change it."""
    cv: int | None = Field(default=None, ge=2, le=MOST_SPLITS)
    """Folds of a cross-validation of train in place of one test split: every candidate is trained on every fold, and
    every example is tested once."""
    cv_repeats: int = Field(default=1, ge=1, le=MOST_SPLITS)
    """How often the cross-validation is repeated, with other folds."""
    splits: int = Field(default=1, ge=1, le=MOST_SPLITS)
    """Cuts of train into train, validation and test (or train and validation, where test is a file) on which everything
    is repeated."""
    max_train_examples: int | None = Field(default=None, ge=1)
    """Train on a stratified sample of this size."""
    max_validation_examples: int | None = Field(default=None, ge=1)
    """Tune on a stratified sample of this size."""
    max_test_examples: int | None = Field(default=None, ge=1)
    """Test on a stratified sample of this size."""
    external: Annotated[tuple[str, ...], WithCommas, AfterValidator(all_different)] = ()
    """Labelled files scored by every finished classifier once everything is chosen; nothing is trained for them."""
    drop_leaks: bool = False
    """Drop training examples whose text also stands in validation or test, instead of only reporting them."""

    @field_validator("train", "validation", "test")
    @classmethod
    def _some_file(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("an empty path; give a file or a data set, or leave it out")
        return value

    @field_validator("label_names", mode="before")
    @classmethod
    def _names_as_text(cls, value: object) -> object:
        value = labels_as_text(value)
        return {key: number_as_text(name) for key, name in value.items()} if isinstance(value, Mapping) else value

    @field_validator("labels", "no_gold", mode="before", json_schema_input_type=tuple[str | int | float, ...] | None)
    @classmethod
    def _labels_as_text(cls, value: object) -> object:
        return [number_as_text(name) for name in value] if isinstance(value, (list, tuple)) else value

    @field_validator("labels")
    @classmethod
    def _different_labels(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return value if value is None else all_different(value)

    @property
    def resampled(self) -> bool:
        """Whether everything is repeated on several splits."""
        return self.cv is not None or self.splits > 1

    @model_validator(mode="after")
    def _one_way_to_split(self) -> DataSettings:
        """Refuse what excludes itself, and what would be without effect."""
        if self.cv is None and self.cv_repeats > 1:
            raise ValueError("cv_repeats does nothing without cv. Set data.cv=5, or leave it out")
        if not self.resampled:
            return self
        if self.external:
            raise ValueError(
                f"external sets are scored by the classifiers of one split. Leave {self._way} out to score them, or "
                "score them afterwards with `entailor evaluate`"
            )
        if self.cv is None:
            if self.validation or self.validation_split:
                raise ValueError("with splits the validation part is cut from train. Leave data.validation out")
            return self
        if self.splits > 1:
            raise ValueError("cv and splits exclude each other. Set one of them")
        # by value and not by what was written: settings are also read back with every default written out
        idle = ("test", "test_split", "test_size", "max_test_examples", "validation", "validation_split")
        for key in (*idle, "max_validation_examples"):
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(
                    f"with cv every example of train is tested once, and validation is cut from the other folds: "
                    f"{key} does nothing. Leave it out; or leave cv out, and take splits=5 to repeat other cuts"
                )
        return self

    @property
    def _way(self) -> str:
        return "data.splits" if self.cv is None else "data.cv"


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
    load_in_4bit: bool = False
    """Keep the linear layers of the body in 4 bits (QLoRA, Dettmers et al. 2023); heads and norms stay as they are."""
    load_in_8bit: bool = False
    """Keep the linear layers of the body in 8 bits (LLM.int8(), Dettmers et al. 2022)."""
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    """The 16 levels of 4 bits: nf4 suits weights that are normally distributed, fp4 is a tiny float."""
    bnb_4bit_use_double_quant: bool = True
    """Store the scale of each block in 8 bits as well; saves 0.37 bits a weight."""
    bnb_4bit_compute_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic of the 4-bit layers. auto: fp32 when scoring, what `precision` gave when training."""
    device_map: str | None = None
    """null: the GPU if there is one, else the CPU. auto: GPU, then CPU, then disk. Or cpu, or a kind of device of
    PyTorch, with its number where there are several: cuda, cuda:N, mps, xpu."""
    max_memory: dict[str, int | str] | None = None
    """Most bytes of each place under device_map=auto, e.g. {"0": "10GiB", "cpu": "20GiB"}."""
    stream: bool = False
    """Score layer by layer on a CPU, under load_in_4bit: a layer is read from the cache, runs on all examples that fit,
    and is dropped. Takes the memory of one layer and what the examples need; nothing can be trained this way."""

    @property
    def quantized(self) -> bool:
        """Whether the linear layers of the body are kept in 4 or 8 bits."""
        return self.load_in_4bit or self.load_in_8bit

    @field_validator("device_map")
    @classmethod
    def _known_place(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"auto|cpu|(cuda|mps|xpu)(:\d+)?", value):
            raise ValueError("null, auto, cpu, cuda, cuda:N, mps or xpu is expected")
        return value

    @field_validator("max_memory", mode="before")
    @classmethod
    def _places_as_text(cls, value: object) -> object:
        return {str(place): size for place, size in value.items()} if isinstance(value, Mapping) else value

    @field_validator("max_memory")
    @classmethod
    def _sizes(cls, value: dict[str, int | str] | None) -> dict[str, int | str] | None:
        for place, size in (value or {}).items():
            if not re.fullmatch(r"\d+|cpu|disk", place):
                raise ValueError(f"a place is the number of a GPU, cpu or disk, found {shown(place)}")
            if not re.fullmatch(r"\d+(\.\d+)? ?([KMGT]i?B)?", str(size)):
                raise ValueError(f"a size is a number of bytes or like 10GiB, found {shown(size)}")
        return value

    @model_validator(mode="after")
    def _no_contradiction(self) -> ModelSettings:
        """Refuse what excludes itself, and what would be without effect."""
        if self.load_in_4bit and self.load_in_8bit:
            raise ValueError("load_in_4bit and load_in_8bit exclude each other. Set one of them to false")
        if not self.load_in_4bit:
            # by value and not by what was written: settings are also read back with every default written out
            four_bit = [key for key in type(self).model_fields if key.startswith("bnb_4bit_")]
            odd = [key for key in four_bit if getattr(self, key) != type(self).model_fields[key].default]
            if odd:
                raise ValueError(f"{odd[0]} does nothing without load_in_4bit. Set load_in_4bit=true or leave it out")
        if self.stream and not self.load_in_4bit:
            raise ValueError("stream reads layers in 4 bits. Set load_in_4bit=true, or leave stream out")
        if self.stream and self.device_map not in (None, "cpu"):
            raise ValueError("stream is for the CPU. Set device_map=cpu, or leave stream out")
        if self.max_memory is not None and self.device_map != "auto":
            raise ValueError("max_memory does nothing without device_map=auto. Set it, or leave max_memory out")
        return self


CostName = Literal["latency", "stored", "memory", "train_time"]
COST_NAMES: tuple[CostName, ...] = get_args(CostName)


MetricName = Literal["accuracy", "macro_f1", "mcc", "log_loss", "brier", "auroc", "average_precision", "cost"]


class Priorities(Settings):
    """What counts when one candidate is recommended. Limits, then the metric, then costs among equals."""

    metric: MetricName = "accuracy"
    """What candidates are ordered, tested and recommended by. What training chooses weights and settings by is each
    method's metric_for_best_model. cost: the mean of `costs`, less is better."""
    costs: Costs = Field(default_factory=dict)
    """Gold label to predicted label to what that answer costs, 0 or more, for every two labels; what is right costs
    nothing unless it stands here. Shown beside the other metrics, whichever counts."""
    max_latency_ms: float | None = Field(default=None, gt=0)
    """Most milliseconds for one answer (median)."""
    max_stored_bytes: int | None = Field(default=None, gt=0)
    """Most bytes of what is saved."""
    max_memory_bytes: int | None = Field(default=None, gt=0)
    """Most memory at the peak of the trial, training included: of the GPU where there is one, else of the process."""
    max_train_seconds: float | None = Field(default=None, gt=0)
    """Most seconds of training."""
    margin: float = Field(default=0.02, ge=0, lt=1)
    """How much of the metric may be given away for a lower cost: 0.02 is two points of accuracy."""
    level: float = Field(default=0.8, gt=0.5, lt=1)
    """Confidence of the one-sided bound that must lie within the margin."""
    ties: Literal["cheapest", "most_accurate"] = "cheapest"
    """cheapest: costs decide among candidates shown to be within the margin of the best one. most_accurate:
    the best by the metric, at any cost."""
    cheapest: Annotated[tuple[CostName, ...], WithCommas] = COST_NAMES
    """Costs in the order they decide; one decides where it is at least 20 % higher. What is left out comes last."""

    @field_validator("cheapest")
    @classmethod
    def _every_cost(cls, value: tuple[CostName, ...]) -> tuple[CostName, ...]:
        return (*all_different(value), *(name for name in COST_NAMES if name not in value))

    @model_validator(mode="after")
    def _cost_has_costs(self) -> Priorities:
        if self.metric == "cost" and not self.costs:
            raise ValueError("metric=cost needs costs. Give recommend.costs, gold label to predicted label to cost")
        return self


class BudgetSettings(Settings):
    """How much every method with a search space may spend on choosing its settings; at most one of the first three."""

    trials: int | None = Field(default=None, ge=1)
    """Settings each candidate tries."""
    minutes: float | None = Field(default=None, gt=0)
    """Minutes each candidate tries settings for; the last trial is cut at an evaluation."""
    examples: int | None = Field(default=None, ge=1)
    """Training examples, repetitions counted, each candidate may spend on trying settings."""
    sampler: Literal["tpe", "random"] = "tpe"
    """How settings are drawn after the candidate's own: by a tree of Parzen estimators, or evenly."""
    pruner: Literal["successive_halving", "hyperband", "none"] = "successive_halving"
    """What stops trials that fall behind on validation."""
    reduction_factor: int = Field(default=3, ge=2)
    """Of the trials that reach a rung of the pruner, one in so many goes on."""
    search_seed: Seed = 7_919
    """Of the draws and of every tuning trial: none of the seeds that are tested, so that no lucky one is tuned for."""
    repeats: int = Field(default=1, ge=1, le=100)
    """Searches of each candidate, the whole budget for each: the first one chooses, the others, which draw and train
    with other seeds, show how much of the choice is chance."""

    @model_validator(mode="after")
    def _one_measure(self) -> BudgetSettings:
        given = [name for name in ("trials", "minutes", "examples") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"a budget is one of trials, minutes and examples, found {' and '.join(given)}")
        return self

    @property
    def is_set(self) -> bool:
        """Whether anything is tuned at all."""
        return not (self.trials is None and self.minutes is None and self.examples is None)


class PromptSearch(Settings):
    """Prompts that are tried on validation under the budget, beside the candidate's own; each with each."""

    templates: tuple[str, ...] = ()
    """As `prompt.template`."""
    instructions: tuple[str, ...] = ()
    """As `prompt.instruction`; an empty one is none."""
    verbalizers: tuple[dict[str, str], ...] = ()
    """As `prompt.verbalizer`."""


class PromptSettings(Settings):
    """How a decoder is asked: the text around an example, and the words that stand for the labels."""

    template: str = "auto"
    """gpt3 or instruction (for NLI), label (for any task), a .jinja file, or Jinja itself; auto: what fits the task."""
    instruction: str | None = None
    """Text in front of everything; None: the template's own, which may be none."""
    verbalizer: dict[str, str] = Field(default_factory=dict)
    """Label name to the word that stands for it; empty: the template's own, else the label names."""
    separator: str = "\n\n"
    """Text between instruction, demonstrations and the example."""
    chat: bool = False
    """Put the prompt through the model's own chat template."""
    search: PromptSearch = PromptSearch()
    """Templates, instructions and verbalizers to choose from on validation."""


class TrackingSettings(Settings):
    """Where trials are kept besides the run folder. Nothing unless it is asked for; changes no result."""

    tensorboard: bool = False
    """Event files in tracking/tensorboard of the run folder."""
    mlflow: str | None = None
    """Store of MLflow: sqlite:///FILE.db, or the address of a server."""
    wandb: str | None = None
    """Project of Weights & Biases. Written offline to tracking/wandb of the run folder; `wandb sync` sends it."""
    trackio: str | None = None
    """Project of trackio, kept in tracking/trackio of the run folder."""
