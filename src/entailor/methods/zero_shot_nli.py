"""Zero-shot by inference: a checkpoint trained on NLI says how far a text entails "This text is about LABEL".

Yin et al. 2019, "Benchmarking Zero-shot Text Classification: Datasets, Evaluation and Entailment Approach", section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from entailor.classifiers.base import count_parameters
from entailor.classifiers.thresholds import ThresholdCosts, Thresholds
from entailor.classifiers.transformer import TokenBatch, TransformerClassifier
from entailor.classifiers.zero_shot import Calibration, ZeroShotClassifier, described
from entailor.data.example import Example
from entailor.errors import MethodError
from entailor.methods.base import Method
from entailor.methods.zero_shot_embedding import check_descriptions
from entailor.models.heads import normal_label
from entailor.models.load import Backbone, Family, Objective
from entailor.models.prompts import PromptIds
from entailor.models.tokenizer import TokenIds
from entailor.tasks import Task

ENTAILMENT, NOT_ENTAILMENT = "entailment", "not_entailment"


class ZeroShotNli(Method, name="zero_shot_nli"):
    """Ask an NLI checkpoint whether the text entails each label's hypothesis; its head stays as it is."""

    summary: ClassVar[str] = "nothing: an NLI checkpoint judges a hypothesis for each label"
    reads_windows: ClassVar[bool] = False
    deterministic: ClassVar[bool] = True
    training_free: ClassVar[bool] = True
    families: ClassVar[frozenset[Family]] = frozenset({"encoder"})

    hypothesis: str = Field(default="This text is about {}.", pattern=r"\{\}")
    """What the text is asked to entail; {} stands for the label's name, underscores as blanks."""
    descriptions: dict[str, str] = Field(default_factory=dict)
    """Label to a whole hypothesis, instead of the template."""
    calibration: Calibration = "none"
    """Label bias that is subtracted. batch: the mean over the validation split, whose labels are not looked at."""
    thresholds: Thresholds = "none"
    costs: ThresholdCosts = Field(default_factory=dict)

    def check(self, task: Task) -> None:
        """Raise MethodError where a description is of no label."""
        check_descriptions(self.name, self.descriptions, task)

    def adapt(self, backbone: Backbone | None, task: Task, seed: int) -> ZeroShotNliClassifier:
        """Return the classifier.

        Raises:
            MethodError: no model, windows, or a description of a label that is not the task's.
        """
        self.check(task)
        return ZeroShotNliClassifier(self, self.needed(backbone), task)

    @property
    def objective(self) -> Objective:
        """The checkpoint's own head answers, with its own labels."""
        return "entailment"


@dataclass(frozen=True, slots=True)
class Hypotheses:
    """One text with each hypothesis, or the pair alone where the labels are those of inference."""

    example_index: int
    parts: tuple[TokenIds | PromptIds, ...]
    truncated: bool

    def __len__(self) -> int:
        return max(map(len, self.parts)) * len(self.parts)


class ZeroShotNliClassifier(ZeroShotClassifier):
    """An NLI checkpoint with its head.

    Where the task itself is inference (pairs whose labels are the head's, or entailment and not_entailment), the pair
    is read as premise and hypothesis; else the texts are the premise, and each label has a hypothesis.
    """

    def __init__(self, method: ZeroShotNli, backbone: Backbone, task: Task) -> None:
        super().__init__(task, method.calibration)
        names = [normal_label(str(backbone.model.config.id2label[row])) for row in range(backbone.model.num_labels)]
        self.entails = names.index(ENTAILMENT)
        self.own_rows = self._rows_of_inference(names)
        self.hypotheses = described(task.labels, method.hypothesis, method.descriptions)
        self.reader = TransformerClassifier(backbone, Task(tuple(names), is_pair=True))

    def _rows_of_inference(self, names: list[str]) -> list[list[int]] | None:
        """Return, for each label of a task of inference, the rows of the head that stand for it."""
        other = [row for row in range(len(names)) if row != self.entails]
        known = {**{name: [row] for row, name in enumerate(names)}, NOT_ENTAILMENT: other}
        ours = [normal_label(label) for label in self.task.labels]
        rows = [known.get(label, []) for label in ours]
        whole = sorted(row for one in rows for row in one) == list(range(len(names)))
        return rows if self.task.is_pair and whole else None

    def encode(self, examples: Sequence[Example]) -> list[Hypotheses]:
        """Tokenise each text with each hypothesis.

        Raises:
            MethodError: long texts are cut into windows.
        """
        pairs = [pair for example in examples for pair in self._pairs(example)]
        encoded = self.reader.encode(pairs)
        if len(encoded) != len(pairs):
            raise MethodError("zero_shot_nli reads whole texts. Set model.long_texts=truncate")
        count = len(pairs) // max(1, len(examples))
        chunks = [tuple(encoded[start : start + count]) for start in range(0, len(encoded), count or 1)]
        return [Hypotheses(row, parts, any(one.truncated for one in parts)) for row, parts in enumerate(chunks)]

    def _pairs(self, example: Example) -> list[Example]:
        if self.own_rows is not None:
            return [example]
        premise = " ".join(filter(None, (example.text, example.text_pair)))
        return [Example(f"{example.id}-{number}", premise, text) for number, text in enumerate(self.hypotheses)]

    def collate(self, inputs: Sequence[Hypotheses]) -> TokenBatch:
        """Return the pairs of all examples, one after the other."""
        return self.reader.collate([part for item in inputs for part in item.parts])

    def logits(self, batch: TokenBatch) -> Tensor:
        """Return logits_BL: log-probabilities that each hypothesis is entailed, or those of the head's labels."""
        with torch.no_grad():
            logprobs_BR = torch.log_softmax(self.reader.logits(batch), dim=1)
        if self.own_rows is None:
            return self.unbiased(logprobs_BR[:, self.entails].view(-1, len(self.task.labels)))
        return self.unbiased(torch.stack([_sum(logprobs_BR, rows) for rows in self.own_rows], dim=1))

    def parameter_counts(self) -> tuple[int, int, int]:
        """Return that nothing is trained or stored, and the checkpoint's size."""
        return 0, 0, count_parameters(self.reader.parameters())


def _sum(logprobs_BR: Tensor, rows: Sequence[int]) -> Tensor:
    """Return the log of the summed probabilities of some rows, (B,); an index made of them would wait for a GPU."""
    return torch.stack([logprobs_BR[:, row] for row in rows]).logsumexp(0)
