"""Zero-shot by similarity: the label whose description lies nearest to the text in a sentence encoder's space.

Chang et al. 2008, "Importance of Semantic Representation: Dataless Classification", section 3, with today's encoders.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from entailor.classifiers.base import count_parameters
from entailor.classifiers.thresholds import ThresholdCosts, Thresholds
from entailor.classifiers.transformer import TokenBatch, TransformerClassifier
from entailor.classifiers.zero_shot import Calibration, ZeroShotClassifier, described
from entailor.data.example import Example
from entailor.errors import MethodError
from entailor.methods.base import Method
from entailor.models.load import Backbone, Family
from entailor.models.prompts import PromptIds
from entailor.models.tokenizer import TokenIds
from entailor.tasks import Task


class ZeroShotEmbedding(Method, name="zero_shot_embedding"):
    """Cosine of a text and each label's description, by a frozen encoder's mean-pooled vectors."""

    summary: ClassVar[str] = "nothing: similarity of text and label description"
    deterministic: ClassVar[bool] = True
    training_free: ClassVar[bool] = True
    families: ClassVar[frozenset[Family]] = frozenset({"encoder"})

    template: str = Field(default="{}", pattern=r"\{\}")
    """What is embedded for a label; {} stands for its name, underscores as blanks."""
    descriptions: dict[str, str] = Field(default_factory=dict)
    """Label to a description in words, instead of the template."""
    temperature: float = Field(default=0.05, gt=0)
    """Cosines are divided by it; changes probabilities, never the answer."""
    calibration: Calibration = "none"
    """Label bias that is subtracted. batch: the mean over the validation split, whose labels are not looked at."""
    thresholds: Thresholds = "none"
    costs: ThresholdCosts = Field(default_factory=dict)

    def check(self, task: Task) -> None:
        """Raise MethodError where a description is of no label."""
        check_descriptions(self.name, self.descriptions, task)

    def adapt(self, backbone: Backbone | None, task: Task, seed: int) -> ZeroShotEmbeddingClassifier:
        """Return the classifier.

        Raises:
            MethodError: no model, or a description of a label that is not the task's.
        """
        self.check(task)
        return ZeroShotEmbeddingClassifier(self, self.needed(backbone), task)


class ZeroShotEmbeddingClassifier(ZeroShotClassifier):
    """A frozen encoder, and one vector a label."""

    def __init__(self, method: ZeroShotEmbedding, backbone: Backbone, task: Task) -> None:
        super().__init__(task, method.calibration)
        self.method = method
        backbone.leave_own_head("zero_shot_embedding reads the encoder below it")
        self.reader = TransformerClassifier(backbone, task)
        self.body: nn.Module = getattr(backbone.model, backbone.model.base_model_prefix)

    def encode(self, examples: Sequence[Example]) -> Sequence[TokenIds | PromptIds]:
        """Tokenise; both texts of a pair are read together."""
        return self.reader.encode(examples)

    def collate(self, inputs: Sequence[TokenIds | PromptIds]) -> TokenBatch:
        """Pad to the longest."""
        return self.reader.collate(inputs)

    @cached_property
    def labels_LH(self) -> Tensor:
        """Unit vectors of the descriptions."""
        words = described(self.task.labels, self.method.template, self.method.descriptions)
        texts = [Example(f"label-{number}", text) for number, text in enumerate(words)]
        return nn.functional.normalize(self.reader.mean_states(self.reader.collate(self.reader.encode(texts))), dim=1)

    def logits(self, batch: TokenBatch) -> Tensor:
        """Return logits_BL: cosines over the temperature."""
        unit_BH = nn.functional.normalize(self.reader.mean_states(batch), dim=1)
        return self.unbiased(unit_BH @ self.labels_LH.T / self.method.temperature)

    def parameter_counts(self) -> tuple[int, int, int]:
        """Return that nothing is trained or stored, and the encoder's size."""
        return 0, 0, count_parameters(self.body.parameters())


def check_descriptions(method: str, descriptions: dict[str, str], task: Task) -> None:
    """Hold descriptions against the task's labels.

    Raises:
        MethodError: one is for a label that is not among them.
    """
    if unknown := sorted(descriptions.keys() - set(task.labels)):
        raise MethodError(
            f"{method}: descriptions names {', '.join(unknown)}; the data has {', '.join(task.labels)}. Use the "
            "data's label names"
        )
