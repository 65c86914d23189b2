"""From a model's hidden states to label logits: the architecture's own head, or a decoder's read at the right places.

Positions come from lengths. Heads and output layers are reached by hooks on their modules, so that every architecture
and every wrapper of `peft` is read in the same way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from entailor.accel.token_tree import PromptTree
from entailor.models.device import send
from entailor.models.heads import head_modules
from entailor.models.load import Backbone
from entailor.models.mapped import MappedLinear
from entailor.models.prompts import PromptIds


@dataclass(frozen=True)
class LabelReads:
    """Which logits of which token, at which place, make the log-probability of which label.

    K reads of B x L label words; several words share a place.

    Attributes:
        row_U: rows of the distinct places that are read.
        position_U: their positions.
        place_K: index of each read's place.
        token_K: the token whose log-probability is read there.
        slot_K: the label word it belongs to, b * L + l.
        shape: (B, L).
        words_L: the tokens of the labels, where every word is one token and the same for all rows: then the rows of
            the output layer for these tokens are all that is needed. Else None.
    """

    row_U: Tensor
    position_U: Tensor
    place_K: Tensor
    token_K: Tensor
    slot_K: Tensor
    shape: tuple[int, int]
    words_L: Tensor | None

    def counts_BL(self) -> Tensor:
        """Return how many tokens each label word has."""
        ones_K = torch.ones_like(self.slot_K)
        counts_S = ones_K.new_zeros(self.shape[0] * self.shape[1])
        return counts_S.index_add(0, self.slot_K, ones_K).view(self.shape)

    def on(self, device: torch.device) -> LabelReads:
        """Return the same on a device."""
        moved: dict[str, Any] = {
            key: send(value, device) for key, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


def plan_reads(inputs: Sequence[PromptIds]) -> tuple[list[list[int]], LabelReads]:
    """Return the rows that must be run to score every label word of every prompt, and where to read them.

    A prompt stands in as many rows as its words have beginnings none of which continues another: words of one token
    need the prompt alone, and words that share a beginning share a row.
    """
    rows: list[list[int]] = []
    places: dict[tuple[int, int], int] = {}
    reads: list[tuple[int, int, int]] = []
    labels = len(inputs[0].continuations)
    for number, item in enumerate(inputs):
        starts = {word[:-1] for word in item.continuations}
        paths = [one for one in sorted(starts) if all(one == more or one != more[: len(one)] for more in starts)]
        for label, word in enumerate(item.continuations):
            for index, token in enumerate(word):
                path = next(i for i, one in enumerate(paths) if one[:index] == word[:index])
                place = (len(rows) + path, len(item.input_ids) - 1 + index)
                reads.append((places.setdefault(place, len(places)), token, number * labels + label))
        rows.extend([*item.input_ids, *path] for path in paths)
    return rows, _label_reads(places, reads, [item.continuations for item in inputs])


def plan_tree_reads(trees: Sequence[PromptTree]) -> LabelReads:
    """Return where to read the label words of trees of prompts: a row is a tree, B counts the prompts."""
    places: dict[tuple[int, int], int] = {}
    reads: list[tuple[int, int, int]] = []
    slot = 0
    for row, tree in enumerate(trees):
        for words, paths in zip(tree.words, tree.places, strict=True):
            for word, path in zip(words, paths, strict=True):
                reads.extend(
                    (places.setdefault((row, place), len(places)), token, slot)
                    for token, place in zip(word, path, strict=True)
                )
                slot += 1
    return _label_reads(places, reads, [words for tree in trees for words in tree.words])


def _label_reads(
    places: Mapping[tuple[int, int], int],
    reads: Sequence[tuple[int, int, int]],
    words: Sequence[tuple[tuple[int, ...], ...]],
) -> LabelReads:
    place_K, token_K, slot_K = (torch.tensor(column) for column in zip(*reads, strict=True))
    row_U, position_U = (torch.tensor(column) for column in zip(*places, strict=True))
    first = words[0]
    single = all(len(word) == 1 for word in first) and all(other == first for other in words)
    words_L = torch.tensor([word[0] for word in first]) if single else None
    return LabelReads(row_U, position_U, place_K, token_K, slot_K, (len(words), len(first)), words_L)


class Readout(ABC):
    """How one forward pass becomes logits_BL."""

    @abstractmethod
    def logits(self, model: Any, inputs: Mapping[str, Any], batch: Any, offset: int) -> Tensor:
        """Run the model and return logits_BL.

        Args:
            model: a `transformers` model, or `peft`'s wrapper of one.
            inputs: its keyword arguments.
            batch: the batch they were made of; gives lengths and reads.
            offset: virtual tokens in front of or among the real ones.
        """


class OwnHead(Readout):
    """An encoder's head: the architecture knows which position it reads."""

    def logits(self, model: Any, inputs: Mapping[str, Any], batch: Any, offset: int) -> Tensor:
        """Return what the model returns."""
        logits_BL: Tensor = model(**inputs).logits
        return logits_BL


class LastToken(Readout):
    """A decoder's classification head (`score`), read at the last real token.

    `transformers` looks for the last id that is not the pad id, and for the very last position where it is given
    embeddings; both are wrong where padding is, or where pad and end of text are one (pitfalls 3 and 4).
    """

    def __init__(self, head: str) -> None:
        self.head = head

    def logits(self, model: Any, inputs: Mapping[str, Any], batch: Any, offset: int) -> Tensor:
        """Return the head's output at the last real token."""
        seen: list[Tensor] = []
        handle = getattr(_base(model), self.head).register_forward_hook(lambda module, args, out: seen.append(out))
        try:
            model(**inputs)
        finally:
            handle.remove()
        (scores_BTL,) = seen
        last_B = send(batch.lengths_B, scores_BTL.device) - 1 + offset
        logits_BL: Tensor = scores_BTL[torch.arange(last_B.shape[0], device=last_B.device), last_B]
        return logits_BL


class LastState(Readout):
    """A decoder's classification head of several parts (xlnet): at every position it sees the last real token's state.

    Such a head chooses a position itself: the very last one, which may be padding, or that of the last id that is no
    pad, which may be another where pad and end of text are one.
    """

    def logits(self, model: Any, inputs: Mapping[str, Any], batch: Any, offset: int) -> Tensor:
        """Return what the model returns."""

        def last_everywhere(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            hidden_BTH = args[0]
            if hidden_BTH.ndim != 3:  # a part of the head behind the choice
                return args
            last_B = send(batch.lengths_B, hidden_BTH.device) - 1 + offset
            rows_B = torch.arange(last_B.shape[0], device=last_B.device)
            return (hidden_BTH[rows_B, last_B].unsqueeze(1).expand_as(hidden_BTH), *args[1:])

        handles = [part.register_forward_pre_hook(last_everywhere) for part in head_modules(_base(model)).values()]
        try:
            logits_BL: Tensor = model(**inputs).logits
        finally:
            for handle in handles:
                handle.remove()
        return logits_BL


class LabelWords(Readout):
    """Log-probabilities of the label words through a decoder's output layer.

    The output layer is computed at the places that are read, and for the label words alone where each is one token;
    what it gives is then short of the same normalising term for every label, which no comparison of labels sees.
    """

    def __init__(self, *, whole_vocabulary: bool = False) -> None:
        self.whole_vocabulary = whole_vocabulary

    def logits(self, model: Any, inputs: Mapping[str, Any], batch: Any, offset: int) -> Tensor:
        """Return the sum of the log-probabilities of each word's tokens."""
        reads: LabelReads = batch.reads
        layer = _base(model).get_output_embeddings()
        plain = type(layer) in (nn.Linear, MappedLinear) and "forward" not in vars(
            layer
        )  # neither adapted, quantised nor offloaded
        words_L = reads.words_L if plain and not self.whole_vocabulary else None
        position_U = reads.position_U + offset
        with _read_at(layer, reads.row_U, position_U, words_L):
            logits_UV: Tensor = model(**inputs).logits[0].float()
        if words_L is not None:
            place_B = reads.place_K.view(reads.shape)[:, 0]  # prompts that are equal share a place
            return logits_UV[place_B.to(logits_UV.device)]
        place_K, token_K = reads.place_K.to(logits_UV.device), reads.token_K.to(logits_UV.device)
        logprobs_K = torch.log_softmax(logits_UV, dim=-1)[place_K, token_K]
        flat_S = logprobs_K.new_zeros(reads.shape[0] * reads.shape[1])
        return flat_S.index_add(0, reads.slot_K.to(flat_S.device), logprobs_K).view(reads.shape)


def build_readout(backbone: Backbone) -> Readout:
    """Return how a loaded checkpoint is read."""
    if backbone.kind == "encoder":
        return OwnHead()
    if backbone.kind == "language_model":
        return LabelWords()
    heads = head_modules(backbone.model)
    return LastToken(*heads) if len(heads) == 1 else LastState()


def _base(model: Any) -> Any:
    """Return the model inside `peft`'s wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextmanager
def _read_at(layer: nn.Module, row_U: Tensor, position_U: Tensor, words_L: Tensor | None) -> Iterator[None]:
    """Let an output layer see the states of the places that are read, as (1, U, H), and give the words' rows alone."""

    def gather(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden_BTH = args[0]
        device = hidden_BTH.device
        return (hidden_BTH[row_U.to(device), position_U.to(device)].unsqueeze(0), *args[1:])

    handle = layer.register_forward_pre_hook(gather)
    if words_L is not None:
        linear: Any = layer
        rows_L = words_L.to(linear.weight.device)
        bias = linear.bias
        linear.forward = lambda hidden: nn.functional.linear(
            hidden, linear.weight[rows_L].to(hidden.dtype), None if bias is None else bias[rows_L].to(hidden.dtype)
        )
    try:
        yield
    finally:
        handle.remove()
        if words_L is not None:
            del linear.forward
