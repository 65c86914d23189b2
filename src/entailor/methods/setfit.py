"""SetFit: pairs of training texts pull an encoder's vectors of one label together, then a regression reads them.

Tunstall et al. 2022, "Efficient Few-Shot Learning Without Prompts", section 3. Pairs and training are the setfit
library's; the regression is that of the linear probe.
"""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from entailor.classifiers.base import FitData, FittedClassifier, count_parameters
from entailor.classifiers.linear_model import LinearModel, LinearOutput
from entailor.classifiers.transformer import TokenBatch, TransformerClassifier
from entailor.data.example import Example
from entailor.errors import MethodError
from entailor.methods.base import LearningRate, LinearMethod
from entailor.models.load import Backbone, Family, quiet_libraries
from entailor.models.tokenizer import TokenIds
from entailor.tasks import Task

BODY_FILE = "encoder.safetensors"
MISSING = "setfit: {} is not installed. pip install 'entailor[setfit]'"
BATCH = 32  # texts whose vectors are computed at a time for the regression


class SetFit(LinearMethod, name="setfit"):
    """Contrastive fine-tuning of a sentence encoder on pairs of training texts, and a logistic regression."""

    summary: ClassVar[str] = "a sentence encoder by pairs of texts, then a logistic regression"
    reads_windows: ClassVar[bool] = False
    train_passes: ClassVar[float] = 40.0  # 200 steps of 16 pairs on a few hundred texts, three passes each
    families: ClassVar[frozenset[Family]] = frozenset({"encoder"})

    num_iterations: int = Field(default=20, ge=1)
    """Pairs of one label, and as many of two labels, for each training text."""
    max_steps: int = Field(default=200, ge=1)
    """Most steps of the contrastive training, whatever the number of texts."""
    max_examples: int = Field(default=2_000, ge=2)
    """Most training texts that pairs are made of, drawn by the seed; the regression is fitted on all of them."""
    body_learning_rate: LearningRate = 2e-5
    batch_size: int = Field(default=16, ge=1)
    """Pairs of a step."""
    warmup_proportion: float = Field(default=0.1, ge=0, le=1)
    """Share of the steps over which the learning rate rises from zero."""

    def check(self, task: Task) -> None:
        """Raise MethodError where the package is not installed."""
        if find_spec("setfit") is None:
            raise MethodError(MISSING.format("setfit"))

    def adapt(self, backbone: Backbone | None, task: Task, seed: int) -> SetFitClassifier:
        """Return the classifier, still as the encoder came.

        Raises:
            MethodError: no model.
        """
        return SetFitClassifier(self, self.needed(backbone), task, seed)


@dataclass(frozen=True, slots=True)
class TextInput:
    """A text, and its tokens."""

    example_index: int
    text: str
    tokens: TokenIds
    truncated: bool

    def __len__(self) -> int:
        return len(self.tokens)


class SetFitClassifier(LinearOutput, FittedClassifier):
    """An encoder that is trained in one go, and a linear model on its mean-pooled vectors.

    Args:
        method: the settings.
        backbone: the encoder.
        task: labels and input shape; the texts of a pair are read one behind the other.
        seed: of pairs, their order and dropout.
    """

    def __init__(self, method: SetFit, backbone: Backbone, task: Task, seed: int) -> None:
        self.method, self.task, self.seed = method, task, seed
        backbone.leave_own_head("setfit reads the encoder below it")
        self.folder, self.max_length = backbone.folder.path, backbone.text_encoder.max_length
        self.reader = TransformerClassifier(backbone, Task(task.labels, is_pair=False))
        self.body: nn.Module = getattr(backbone.model, backbone.model.base_model_prefix)
        self.linear = LinearModel(len(task.labels))

    def encode(self, examples: Sequence[Example]) -> list[TextInput]:
        """Tokenise.

        Raises:
            MethodError: long texts are cut into windows.
        """
        texts = ["\n".join(filter(None, (one.text, one.text_pair))) for one in examples]
        tokens: Any = self.reader.encode([Example(str(row), text) for row, text in enumerate(texts)])
        if len(tokens) != len(texts):
            raise MethodError("setfit reads whole texts. Set model.long_texts=truncate")
        return [
            TextInput(row, text, one, one.truncated) for row, (text, one) in enumerate(zip(texts, tokens, strict=True))
        ]

    def collate(self, inputs: Sequence[TextInput]) -> Sequence[TextInput]:
        """Return the inputs."""
        return inputs

    def features(self, batch: Sequence[TextInput]) -> list[TextInput]:
        """Return the inputs; the vectors are those of the trained encoder."""
        return list(batch)

    def fit(self, train: FitData, validation: FitData) -> tuple[str, ...]:
        """Train the encoder on pairs of texts, then the regression on the vectors it gives.

        Raises:
            MethodError: the library is not installed, or train has one label only.
        """
        if len(np.unique(train.targets)) < 2:
            raise MethodError("all training examples have the same label, so there are no pairs of two labels")
        rng = np.random.default_rng(self.seed)
        order = rng.permutation(len(train.targets))[: self.method.max_examples]
        steps = self._contrast([train.features[row].text for row in order], train.targets[order])
        vectors = [FitData(self._vectors(part.features), part.targets) for part in (train, validation)]
        said = self.method.fit_standardized(self.linear, *vectors)
        return (f"{steps:,} steps on pairs of {len(order):,} texts", *said)

    def _contrast(self, texts: Sequence[str], targets_E: NDArray[np.int64]) -> int:
        """Train the encoder in place; return the number of steps."""
        method = self.method
        steps = min(method.max_steps, math.ceil(2 * method.num_iterations * len(texts) / method.batch_size))
        try:
            import setfit
            from sentence_transformers import SentenceTransformer
            from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
        except ImportError as error:
            raise MethodError(MISSING.format(error.name)) from None
        setfit.logging.set_verbosity_error()
        with tempfile.TemporaryDirectory() as scratch, quiet_libraries():
            warnings.filterwarnings("ignore", "'pin_memory'", UserWarning)  # asked for without an accelerator too
            reads = Transformer(str(self.folder), max_seq_length=self.max_length)
            pools = Pooling(reads.get_embedding_dimension())
            encoder = SentenceTransformer(modules=[reads, pools], device=str(next(self.body.parameters()).device))
            arguments = setfit.TrainingArguments(
                output_dir=scratch,
                batch_size=method.batch_size,
                num_iterations=method.num_iterations,
                max_steps=steps,
                body_learning_rate=method.body_learning_rate,
                warmup_proportion=method.warmup_proportion,
                seed=self.seed,
                show_progress_bar=False,
                report_to="none",
                logging_strategy="no",
                save_strategy="no",
            )
            trainer = setfit.Trainer(model=setfit.SetFitModel(model_body=encoder), args=arguments)
            trainer.train_embeddings(list(texts), [int(target) for target in targets_E])
            trained = reads.auto_model.state_dict()
        self.body.load_state_dict({name: trained[name] for name in self.body.state_dict()})
        return steps

    def _vectors(self, inputs: Sequence[TextInput]) -> NDArray[np.float32]:
        parts = [self._states(inputs[start : start + BATCH]) for start in range(0, len(inputs), BATCH)]
        return np.concatenate([part.cpu().numpy() for part in parts])

    def _states(self, inputs: Sequence[TextInput]) -> Tensor:
        batch: TokenBatch = self.reader.collate([one.tokens for one in inputs])
        return self.reader.mean_states(batch)

    def logits(self, batch: Sequence[TextInput]) -> Tensor:
        """Return logits_BL."""
        return torch.from_numpy(self.linear.logits(self._states(batch).cpu().numpy())).float()

    def save(self, folder: Path) -> None:
        """Write the whole encoder and the linear model."""
        super().save(folder)
        save_file({name: one.contiguous().cpu() for name, one in self.body.state_dict().items()}, folder / BODY_FILE)

    def load(self, folder: Path) -> None:
        """Read them back."""
        super().load(folder)
        self.body.load_state_dict(load_file(folder / BODY_FILE))

    def parameter_counts(self) -> tuple[int, int, int]:
        """Return encoder and linear model, all of which are trained and stored."""
        whole = count_parameters(self.body.parameters()) + self.linear.size
        return whole, whole, whole
