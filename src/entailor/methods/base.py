"""The contract every way of adapting keeps: a method makes a classifier, a classifier gives one logit per label.

Shape letters used from here on: B examples of a batch, T tokens, L labels, H hidden size, N virtual tokens.
A method is one file in this folder; its fields are its hyperparameters, its config keys and its docs table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveFloat

from entailor.classifiers.base import Classifier
from entailor.classifiers.thresholds import ThresholdCosts, Thresholds
from entailor.config.costs import Costs
from entailor.config.parts import Settings
from entailor.errors import MethodError
from entailor.tasks import Task

if TYPE_CHECKING:  # baselines on words do without torch
    from torch import Tensor, nn

    from entailor.classifiers.base import FitData
    from entailor.classifiers.linear_model import LinearModel
    from entailor.models.load import Backbone, Family, Objective


@dataclass(frozen=True)
class ParameterGroup:
    """Tensors that share a learning rate and a weight decay."""

    parameters: tuple[nn.Parameter, ...]
    learning_rate: float
    weight_decay: float


@dataclass(frozen=True)
class Range:
    """Where a hyperparameter is searched.

    Attributes:
        low: the least value, or 0.
        high: the greatest, or the last place in `choices`.
        log: whether it is drawn on a logarithmic scale.
        choices: what is chosen from, in words, where it is no number; the value is a place in this list.
    """

    low: float
    high: float
    log: bool = True
    choices: tuple[str, ...] = ()


class Method(Settings, ABC):
    """A way of adapting. Subclasses are frozen settings; naming one registers it.

    Class attributes:
        name: as written in experiments (``class Lora(TrainedMethod, name="lora")``).
        summary: one line for tables.
        needs_backbone: False for baselines that read text alone.
        needs_pair: True where a single text makes no sense.
        deterministic: True where the seed changes nothing, so one trial is enough.
        training_free: True where nothing is fitted to the training labels, so that more of them teach it nothing.
        learns_from_others: True where a finished candidate of the same run teaches it, so that it runs last.
        families: the kinds of models it works on.
        train_passes: what training on an example takes, in forward passes through the model; 0 without training.
        changes_no_answer: settings that may be others when a run goes on.
        reads_windows: False where a long text cannot be read in windows.
        stores_whole_model: True where the saved folder is a checkpoint of its own.
    """

    name: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    needs_backbone: ClassVar[bool] = True
    needs_pair: ClassVar[bool] = False
    deterministic: ClassVar[bool] = False
    train_passes: ClassVar[float] = 1.0
    training_free: ClassVar[bool] = False
    learns_from_others: ClassVar[bool] = False
    reads_windows: ClassVar[bool] = True
    changes_no_answer: ClassVar[frozenset[str]] = frozenset()
    stores_whole_model: ClassVar[bool] = False
    families: ClassVar[frozenset[Family]] = frozenset({"encoder", "decoder"})

    def __init_subclass__(cls, name: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = name

    @abstractmethod
    def adapt(self, backbone: Backbone | None, task: Task, seed: int) -> Classifier:
        """Return an untrained classifier; what is random in it comes from the seed."""

    def needed(self, backbone: Backbone | None) -> Backbone:
        """Return the backbone of a method that cannot do without.

        Raises:
            MethodError: there is none.
        """
        if backbone is None:
            raise MethodError(f"{self.name} needs a model. Give one with --model")
        return backbone

    def parameter_groups(self, classifier: Any) -> list[ParameterGroup]:
        """Return what the training loop moves; an empty list means training-free."""
        return []

    def check(self, task: Task) -> None:
        """Hold the settings against each other and the task, as far as nothing need be loaded for it.

        Raises:
            EntailorError: they do not fit.
        """

    def misfit(self, architecture: Any) -> str | None:
        """Return why it cannot work on an architecture, where that shows without weights.

        Args:
            architecture: a classifier of `transformers`, without memory for its weights.
        """
        return None

    def search_space(self) -> dict[str, Range]:
        """Return where the hyperparameters are searched under a tuning budget."""
        return {}

    @property
    def calibrates_on_validation(self) -> bool:
        """Whether a method without training scores validation once."""
        return False

    @property
    def objective(self) -> Objective:
        """Whether the checkpoint is loaded with a classification head, or as the language model it is."""
        return "classify"

    @property
    def reads_prompt(self) -> bool:
        """Whether a language model is asked, so that the wording of the prompt counts."""
        return self.objective == "language_model"

    @property
    def is_seeded(self) -> bool:
        """Whether another seed gives another result; the class's `deterministic`, where settings change nothing."""
        return not self.deterministic


# Methods give these three defaults of their own; a type keeps bounds and description with them.
LearningRate = Annotated[float, Field(gt=0, description="Peak learning rate of AdamW.")]
HeadLearningRate = Annotated[
    float | None,
    Field(gt=0, description="Learning rate of the classification head and whatever else is new; None: the same."),
]
Epochs = Annotated[float, Field(gt=0, description="Passes over the training split.")]


ClassWeight = Annotated[
    Literal["none", "balanced"],
    Field(
        description="balanced: an example counts by the inverse frequency of its label in train, one on average. none: "
        "all examples count alike."
    ),
]


class LinearMethod(Method):
    """A logistic regression on features that a subclass makes of the texts."""

    C: tuple[PositiveFloat, ...] = Field(default=(0.001, 0.01, 0.1, 1.0), min_length=1)
    """Inverse regularisation strengths on standardised features; the best on validation is kept."""
    max_iter: int = Field(default=300, ge=1)
    """Most iterations of L-BFGS."""
    class_weight: ClassWeight = "none"
    thresholds: Thresholds = "none"
    costs: ThresholdCosts = Field(default_factory=dict)

    def fit_standardized(self, linear: LinearModel, train: FitData, validation: FitData) -> tuple[str, ...]:
        """Fit on features of mean zero and deviation one over train; the model then takes them as they are.

        Args:
            linear: what is fitted, in place.
            train: features of shape (examples, F) and targets.
            validation: the same.
        """
        mean_F, scale_F = train.features.mean(0), train.features.std(0) + 1e-6
        events = linear.fit(
            ((train.features - mean_F) / scale_F, train.targets),
            ((validation.features - mean_F) / scale_F, validation.targets),
            self.C,
            self.max_iter,
            self.class_weight,
        )
        linear.weight_FL = linear.weight_FL / scale_F[:, None]
        linear.bias_L = linear.bias_L - mean_F @ linear.weight_FL
        return events


class TrainedMethod(Method):
    """Settings of the one training loop; `transformers.TrainingArguments` has the same names."""

    train_passes: ClassVar[float] = 2.0
    learning_rate: LearningRate = 5e-5
    head_learning_rate: HeadLearningRate = None
    num_train_epochs: Epochs = 3.0
    per_device_train_batch_size: int = Field(default=16, ge=1)
    """Examples of a batch, unless max_batch_tokens is set; a CPU takes a large one in parts, with the same gradient."""
    max_batch_tokens: int | None = Field(default=None, ge=16)
    """Token budget of a batch, padding included, instead of a fixed number of examples."""
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    """Batches whose gradients are averaged, example by example, before one step."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay; never on biases and norms."""
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    """Share of the steps over which the learning rate rises from zero."""
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after warm-up."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    label_smoothing_factor: float = Field(default=0.0, ge=0, lt=1)
    """Share of each target spread over all labels."""
    eval_strategy: Literal["epoch", "steps"] = "epoch"
    """When the validation split is scored."""
    eval_steps: int = Field(default=100, ge=1)
    """Steps between two evaluations under eval_strategy=steps."""
    logging_steps: int = Field(default=10, ge=1)
    """Steps between two points of the loss curve."""
    class_weight: ClassWeight = "none"
    metric_for_best_model: Literal["accuracy", "macro_f1", "mcc", "weighted_kappa", "cost", "loss"] = "accuracy"
    """What chooses, on validation, the weights that are kept and the settings of a search; the loss breaks ties.
    macro_f1: mean F1 of the labels that occur in validation. mcc: Matthews correlation. Both suit rare labels.
    weighted_kappa: quadratic weighted kappa, under data.ordinal. cost: the mean of `costs`."""
    thresholds: Thresholds = "none"
    costs: Costs = Field(default_factory=dict)
    """What answers cost where metric_for_best_model or thresholds is cost; empty: those of recommend.costs."""
    early_stopping_patience: int | None = Field(default=None, ge=1)
    """Evaluations without improvement before training stops; None: never."""
    group_by_length: bool = True
    """Batches of similar lengths."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""

    def parameter_groups(self, classifier: Any) -> list[ParameterGroup]:
        """Return decayed and undecayed tensors, the head apart where it has a learning rate of its own."""
        head_rate = self.head_learning_rate or self.learning_rate
        buckets: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in classifier.named_parameters():
            if parameter.requires_grad:
                rate = head_rate if classifier.is_head(name) else self.learning_rate
                decay = 0.0 if is_undecayed(name, parameter) else self.weight_decay
                buckets.setdefault((rate, decay), []).append(parameter)
        return [ParameterGroup(tuple(tensors), rate, decay) for (rate, decay), tensors in buckets.items()]


class AdapterMethod(TrainedMethod):
    """A trained method that leaves the checkpoint's own weights alone, so that a decoder keeps its output layer."""

    head: Literal["classifier", "verbalizer"] = "classifier"
    """classifier: a classification head is trained. verbalizer: decoders only; the label words of the task's template
    are scored through the model's own output layer, and there is no new head."""

    @property
    def objective(self) -> Objective:
        """Whether the checkpoint is loaded with a classification head, or as the language model it is."""
        return "language_model" if self.head == "verbalizer" else "classify"


class SoftPromptMethod(AdapterMethod):
    """A method that trains virtual tokens, and the head that reads what the model makes of them."""

    head_learning_rate: HeadLearningRate = 1e-3
    num_virtual_tokens: int = Field(default=20, ge=1, le=65_536)
    """Virtual tokens; the same number of positions is lost to text."""
    pooling: Literal["auto", "pair", "mean", "head"] = "auto"
    """pair: a head of one hidden layer on the means of both texts, of each, and how they compare. mean: the same on the
    mean of all real tokens. head: the architecture's own. auto: pair on encoders (mean for single texts, and
    without a token between the texts), head on decoders."""

    def misfit(self, architecture: Any) -> str | None:
        """Return why virtual tokens cannot be put in front of an architecture."""
        from entailor.classifiers.soft_prompt import no_room_for_prompt

        return no_room_for_prompt(architecture)

    def search_space(self) -> dict[str, Range]:
        """Return learning rates a thousand times those of full fine-tuning: at 2e-5 a prompt stays where it began."""
        return {"learning_rate": Range(1e-3, 1e-1), "head_learning_rate": Range(3e-4, 3e-3)}


def is_undecayed(name: str, parameter: Tensor) -> bool:
    """Tell biases and the gains of norms, which weight decay leaves alone, by their shape and name."""
    return parameter.ndim < 2 or name.endswith("bias")
