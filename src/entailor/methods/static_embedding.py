"""A logistic regression on the mean of static token vectors: no transformer runs, so it is quick on any machine.

Arora et al. 2017, section 1 (averaged word vectors as a baseline that is hard to beat); for pairs u, v, |u - v| and
u * v (Conneau et al. 2017, section 3). The usual table is WordLlama's: 32,000 tokens of 256 numbers.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load as read_tensors
from torch import Tensor

from entailor.classifiers.base import FitData, FittedClassifier
from entailor.classifiers.linear_model import LinearModel, LinearOutput
from entailor.data.example import Example
from entailor.errors import ModelError
from entailor.methods.base import LinearMethod
from entailor.models.control_tokens import whole_characters
from entailor.models.load import Backbone
from entailor.models.tokenizer import check_tokenizer
from entailor.runs.cache_place import cache_folder
from entailor.runs.documents import read_bytes
from entailor.runs.files import read_json, write_json
from entailor.runs.package_index import ReleaseFile, fetch_release_file
from entailor.runs.paths import user_path
from entailor.tasks import Task

WORDLLAMA: Final = ReleaseFile(  # any machine reads this one: of a wheel only numbers and a vocabulary are taken
    project="wordllama",
    name="wordllama-0.4.0.post1-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
    sha256="42c2c88907ace0b0681ac6f9092d6a300a6409a5d2d61071a3fb5e7159370c97",
    size=19_155_170,
)
MOST_TABLE_BYTES = 4 << 30
WEIGHTS, TOKENIZER = (
    "wordllama/weights/l2_supercat_256.safetensors",
    "wordllama/tokenizers/l2_supercat_tokenizer_config.json",
)
TABLE_FILE = "table.json"


class StaticEmbedding(LinearMethod, name="static_embedding"):
    """Mean of static token vectors, with a logistic regression on top."""

    summary: ClassVar[str] = "logistic regression on averaged static token vectors"
    needs_backbone: ClassVar[bool] = False
    deterministic: ClassVar[bool] = True

    table: str = "wordllama"
    """wordllama, fetched from the package index (19 MB, MIT licence), or a folder as model2vec saves it:
    model.safetensors with the tensor `embeddings`, and tokenizer.json."""

    def adapt(self, backbone: Backbone | None, task: Task, seed: int) -> StaticEmbeddingClassifier:
        """Return the unfitted classifier.

        Raises:
            ModelError: there is no such table, or it is damaged.
            DownloadError: the usual table cannot be fetched.
        """
        return StaticEmbeddingClassifier(self, task, open_table(self.table))


@dataclass(frozen=True, eq=False)
class TokenTable:
    """A vector for each token.

    Attributes:
        vectors_VH: one row a token.
        tokenizer_json: as the tokenizers library saves it.
    """

    vectors_VH: NDArray[np.float32]
    tokenizer_json: bytes

    @cached_property
    def tokenizer(self) -> Any:
        """Text to token ids, without special tokens, truncation or padding."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(self.tokenizer_json.decode("utf-8"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def sha256(self) -> str:
        """Of vectors and tokenizer."""
        return hashlib.sha256(self.vectors_VH.tobytes() + self.tokenizer_json).hexdigest()


@lru_cache(maxsize=2)
def _wordllama(file: ReleaseFile) -> TokenTable:
    with zipfile.ZipFile(fetch_release_file(file, cache_folder())) as wheel:
        return _table(wheel.read(WEIGHTS), wheel.read(TOKENIZER), "wordllama")


def open_table(name: str) -> TokenTable:
    """Return a table by the name a user gives it.

    Raises:
        ModelError: it is no folder with a table, or what it holds does not fit together.
        DownloadError: the usual one cannot be fetched.
    """
    if name == "wordllama":
        return _wordllama(WORDLLAMA)
    folder = user_path(name)
    try:
        weights, tokenizer = (
            read_bytes(folder / file, MOST_TABLE_BYTES) for file in ("model.safetensors", "tokenizer.json")
        )
    except OSError as error:
        raise ModelError(
            f"static_embedding: table={name!r}: {error.strerror} ({error.filename}). Give wordllama, or a folder with "
            "model.safetensors and tokenizer.json"
        ) from None
    check_tokenizer(folder)
    return _table(weights, tokenizer, name)


def _table(weights: bytes, tokenizer: bytes, name: str) -> TokenTable:
    try:
        tensors = read_tensors(weights)
    except Exception as error:  # safetensors' own error type is not exported everywhere
        raise ModelError(f"static_embedding: table={name!r}: weights cannot be read ({error})") from None
    matrices = [tensor for tensor in tensors.values() if tensor.ndim == 2]
    if len(matrices) != 1:
        raise ModelError(f"static_embedding: table={name!r}: {len(matrices)} matrices in its weights, one was expected")
    table = TokenTable(matrices[0].astype(np.float32), tokenizer)
    if (size := table.tokenizer.get_vocab_size()) > len(table.vectors_VH):
        raise ModelError(
            f"static_embedding: table={name!r}: {size:,} tokens and {len(table.vectors_VH):,} vectors; tokenizer and "
            "weights are of different tables"
        )
    return table


@dataclass(frozen=True, slots=True)
class TextIds:
    """Token ids of each text of one example."""

    example_index: int
    texts: tuple[list[int], ...]
    truncated: bool = False

    def __len__(self) -> int:
        return max(1, *map(len, self.texts), 1)


class StaticEmbeddingClassifier(LinearOutput, FittedClassifier):
    """Averaged vectors through a linear model."""

    def __init__(self, method: StaticEmbedding, task: Task, table: TokenTable) -> None:
        self.method, self.task, self.table = method, task, table
        self.linear = LinearModel(len(task.labels))

    def encode(self, examples: Sequence[Example]) -> list[TextIds]:
        """Tokenise; nothing is cut off."""
        views = [[row.text for row in examples]]
        if self.task.is_pair:
            views.append([row.text_pair or "" for row in examples])
        views = [list(map(whole_characters, view)) for view in views]
        ids = [[one.ids for one in self.table.tokenizer.encode_batch(view, add_special_tokens=False)] for view in views]
        return [TextIds(row, texts) for row, texts in enumerate(zip(*ids, strict=True))]

    def collate(self, inputs: Sequence[TextIds]) -> list[tuple[list[int], ...]]:
        """Return the ids of a batch."""
        return [item.texts for item in inputs]

    def features(self, batch: list[tuple[list[int], ...]]) -> NDArray[np.float32]:
        """Return features_BF: the mean vector of a single text; u, v, |u - v|, u * v for pairs."""
        means = [np.stack([self._mean(ids) for ids in view]) for view in zip(*batch, strict=True)]
        if len(means) == 2:
            u_BH, v_BH = means
            means += [np.abs(u_BH - v_BH), u_BH * v_BH]
        return np.concatenate(means, axis=1)

    def _mean(self, ids: list[int]) -> NDArray[np.float32]:
        vectors_TH = self.table.vectors_VH[ids]
        mean_H: NDArray[np.float32] = vectors_TH.mean(0) if ids else np.zeros(vectors_TH.shape[1], np.float32)
        return mean_H

    def fit(self, train: FitData, validation: FitData) -> tuple[str, ...]:
        """Fit on standardised features, then fold the standardisation into the weights."""
        return self.method.fit_standardized(self.linear, train, validation)

    def logits(self, batch: list[tuple[list[int], ...]]) -> Tensor:
        """Return logits_BL."""
        return torch.from_numpy(self.linear.logits(self.features(batch))).float()

    def save(self, folder: Path) -> None:
        """Write the linear model, and which table it reads."""
        super().save(folder)
        write_json(folder / TABLE_FILE, {"table": self.method.table, "sha256": self.table.sha256})

    def load(self, folder: Path) -> None:
        """Read it back.

        Raises:
            ModelError: the table is no longer the one it was fitted on.
        """
        if read_json(folder / TABLE_FILE)["sha256"] != self.table.sha256:
            raise ModelError(f"{folder}: fitted on another table than {self.method.table} is now. Train again")
        super().load(folder)

    def parameter_counts(self) -> tuple[int, int, int]:
        """Return the linear model's size, and the table's with it."""
        return self.linear.size, self.linear.size, self.linear.size + self.table.vectors_VH.size
