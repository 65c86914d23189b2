"""Trains the rows of a word embedding that occur, and keeps gradient, moments and best weights for these alone.

AdamW leaves a row whose gradient has always been zero as it is, but for weight decay: its moments are zero, and it adds
nothing to the norm that clips. So the rows that occur in the training inputs are a tensor of their own, and weight
decay of all others is one common factor, which is applied where one is read: when texts with other tokens are scored,
and in the end. With 250,000 tokens, as in multilingual models, that is most of a step and of its memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from entailor.accel.gate import evaluating, prove

MOST_SHARE = 0.5
"""Of the rows that may occur; above it little is left to win."""


class EmbeddingRows:
    """The rows of an embedding that occur, in the embedding's place while it is trained.

    Args:
        embedding: its weight_VH gets no gradient from now on, and is not written before :meth:`finish`.
        occurring: indices of the rows that training reads.

    Attributes:
        rows_UH: these rows, to be trained.
        decay: what weight decay has left of each other row.
    """

    def __init__(self, embedding: nn.Embedding, occurring: Iterable[int]) -> None:
        self.embedding = embedding
        weight_VH = embedding.weight
        self.index_U = torch.tensor(sorted(set(occurring)), device=weight_VH.device)
        self.place_V = torch.full((len(weight_VH),), -1, device=weight_VH.device)
        self.place_V[self.index_U] = torch.arange(len(self.index_U), device=weight_VH.device)
        self.rows_UH = nn.Parameter(weight_VH.detach()[self.index_U])
        padding = embedding.padding_idx
        self.padding = None if padding is None or self.place_V[padding] < 0 else int(self.place_V[padding])
        self.decay = 1.0
        weight_VH.requires_grad_(False)
        embedding.forward = self.forward  # type: ignore[assignment,method-assign]  # on the instance; the class keeps its own

    def forward(self, ids: Tensor) -> Tensor:
        """Return the vectors of token ids, of any shape; in training only of those that occur.

        Raises:
            IndexError: in training, of another token; on an accelerator its own error.
        """
        place = self.place_V[ids]
        if self.embedding.training:
            return nn.functional.embedding(place, self.rows_UH, self.padding)
        trained = nn.functional.embedding(place.clamp_min(0), self.rows_UH)
        other = nn.functional.embedding(ids, self.embedding.weight) * self.decay
        return torch.where((place >= 0).unsqueeze(-1), trained, other)

    def finish(self) -> None:
        """Write the trained rows, and the decay of all others, into the embedding, and leave it as it was."""
        if "forward" not in vars(self.embedding):
            return
        self.withdraw()
        with torch.no_grad():
            if self.decay != 1.0:
                self.embedding.weight.mul_(self.decay)
            self.embedding.weight[self.index_U] = self.rows_UH

    def withdraw(self) -> None:
        """Leave the embedding as it was, its weights too."""
        del self.embedding.forward
        self.embedding.weight.requires_grad_(True)


def rows_that_occur(
    model: nn.Module, embedding: object, occurring: Sequence[int], logits: Callable[[], Tensor]
) -> tuple[EmbeddingRows | None, str | None]:
    """Put the rows that occur in an embedding's place, where that pays and is proven.

    Proven is that logits of training inputs are the same while there is no weight in the embedding at all: so nothing
    else reads it, as an output layer that shares it would.

    Args:
        model: what the embedding is part of.
        embedding: of its words.
        occurring: indices of the rows that training reads.
        logits: runs training inputs, and gives logits_BL.

    Returns:
        The rows, or None; and why it could not be tried, or None.
    """
    if type(embedding) is not nn.Embedding or not embedding.weight.requires_grad:
        return None, None
    owners = [
        module for module in model.modules() if any(one is embedding.weight for one in module._parameters.values())
    ]
    plain = embedding.max_norm is None and not embedding.scale_grad_by_freq and not embedding.sparse
    if owners != [embedding] or not plain or len(occurring) > MOST_SHARE * embedding.num_embeddings:
        return None, None
    rows = EmbeddingRows(embedding, occurring)
    weight_VH = embedding.weight.data

    def short() -> Tensor:
        embedding.weight.data = weight_VH[:0]
        embedding.training = True
        try:
            return logits()
        finally:
            embedding.weight.data = weight_VH
            embedding.training = False

    def full() -> Tensor:
        del embedding.forward
        try:
            return logits()
        finally:
            embedding.forward = rows.forward  # type: ignore[assignment,method-assign]

    with evaluating(model):
        verdict = prove("embedding rows that occur", full, short)
    if not verdict.proven:
        rows.withdraw()
        return None, verdict.trouble
    return rows, None
