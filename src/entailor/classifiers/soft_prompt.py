"""Virtual tokens behind the first real token, and a head that reads real tokens only.

Shared by P-tuning (trained at the input) and prefix tuning (trained in every layer). Behind the first token, because
in front of it the head would read a virtual token (THUDM/P-tuning-v2#9).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from entailor.accel.masks import known_padding
from entailor.classifiers.transformer import TokenBatch, TransformerClassifier
from entailor.errors import MethodError
from entailor.models.load import Backbone
from entailor.models.sizes import required_size
from entailor.tasks import Task

# Vocabularies are ordered by frequency, more or less; rare tokens make poor starting points.
FREQUENT_TOKENS = 10_000


def no_room_for_prompt(architecture: Any) -> str | None:
    """Return why virtual tokens cannot be put among the input embeddings of an architecture, or None."""
    kind = architecture.config.model_type
    if architecture.config.is_encoder_decoder:
        return f"{kind} is an encoder-decoder, whose classifier takes token ids alone and no virtual tokens"
    if "inputs_embeds" not in inspect.signature(architecture.forward).parameters:
        return f"a classifier of {kind} takes token ids alone and no virtual tokens"
    return None


class MeanHead(nn.Module):
    """Mean of the last hidden states over real tokens, one hidden layer, logits.

    For pairs it may read more: beside the mean over both texts those of each, u and v, and how they compare, |u - v|
    and u * v (Conneau et al. 2017, section 3.1; Reimers & Gurevych 2019, section 3).

    Args:
        hidden_size: H.
        num_labels: L.
        pairs: read each text as well.
    """

    def __init__(self, hidden_size: int, num_labels: int, *, pairs: bool) -> None:
        super().__init__()
        self.pairs = pairs
        self.dense = nn.Linear(hidden_size * (5 if pairs else 1), hidden_size)
        self.out = nn.Linear(hidden_size, num_labels)

    def forward(self, hidden_BTH: Tensor, real_BT: Tensor, second_BT: Tensor) -> Tensor:
        """Return logits_BL.

        Args:
            hidden_BTH: last hidden states.
            real_BT: 1 at real tokens.
            second_BT: 1 at those of the second text.
        """
        features_BF = _mean(hidden_BTH, real_BT)
        if self.pairs:
            u_BH, v_BH = _mean(hidden_BTH, real_BT - second_BT), _mean(hidden_BTH, second_BT)
            features_BF = torch.cat([features_BF, u_BH, v_BH, (u_BH - v_BH).abs(), u_BH * v_BH], dim=1)
        logits_BL: Tensor = self.out(torch.tanh(self.dense(features_BF)))
        return logits_BL


def _mean(hidden_BTH: Tensor, of_BT: Tensor) -> Tensor:
    """Return the mean over the positions where `of_BT` is 1, (B, H); zeros where there are none."""
    weight_BT1 = of_BT.unsqueeze(-1).to(hidden_BTH.dtype)
    mean_BH: Tensor = (hidden_BTH * weight_BT1).sum(1) / weight_BT1.sum(1).clamp(min=1)
    return mean_BH


class SoftPromptClassifier(TransformerClassifier):
    """A frozen model with N virtual tokens behind its first token.

    Args:
        backbone: the loaded checkpoint.
        task: labels and input shape.
        num_virtual_tokens: N; as many positions are reserved before truncation.
        pooling: "pair" or "mean" for :class:`MeanHead`, "head" for the architecture's own head (on an encoder's first
            token or a decoder's last), "auto" for "pair" or, with single texts, "mean" on encoders, "head" on decoders.
        seed: of the head.
    """

    def __init__(self, backbone: Backbone, task: Task, num_virtual_tokens: int, pooling: str, seed: int) -> None:
        super().__init__(backbone, task, reserve=num_virtual_tokens)
        self.separator: int | None = backbone.text_encoder.tokenizer.sep_token_id
        if pooling == "auto":
            pooling = self._usual_pooling(backbone)
            backbone.events += (f"pooling=auto became {pooling}",)
        self._check_pooling(pooling, backbone)
        self.num_virtual_tokens = self.virtual_tokens = num_virtual_tokens
        self.pooling = pooling
        self.body: nn.Module = getattr(self.model, self.model.base_model_prefix)
        self.train_only_head()
        if pooling != "head":
            backbone.leave_own_head(f"pooling={pooling} reads with a new head. Set pooling=head to keep the old one")
            for parameter in self.model.parameters():
                parameter.requires_grad_(False)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                head = MeanHead(
                    required_size(self.model.config, "hidden_size"), len(task.labels), pairs=pooling == "pair"
                )
            self.head = head.to(backbone.device)

    def _usual_pooling(self, backbone: Backbone) -> str:
        if backbone.kind != "encoder":
            return "head"
        return "pair" if self.task.is_pair and self.separator is not None else "mean"

    def _check_pooling(self, pooling: str, backbone: Backbone) -> None:
        if backbone.kind == "language_model" and pooling != "head":
            raise MethodError("head=verbalizer reads the output layer. Leave out pooling, or set head=classifier")
        if pooling == "pair" and not self.task.is_pair:
            raise MethodError("pooling=pair compares two texts, and the data have single texts. Set pooling=mean")
        if pooling == "pair" and (self.separator is None or backbone.kind != "encoder"):
            raise MethodError(
                f"pooling=pair needs a token between the texts, and {backbone.folder.name} has none. Set pooling=mean"
            )

    def is_head(self, name: str) -> bool:
        """Count the encoder's own pooler as part of the head; ours is called ``head``."""
        inside = f"model.{self.model.base_model_prefix}.pooler."
        return name.startswith(("head.", inside)) or super().is_head(name)

    def prompt(self) -> Tensor:
        """Return the virtual tokens' input embeddings, prompt_NE (E: the size of word embeddings)."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> SoftPromptClassifier:
        """Keep dropout off in the frozen encoder: it would only blur the gradient that reaches the prompt."""
        super().train(mode)
        self.model.eval()
        for module in self.model.modules():
            # such a module recomputes in training mode only; the dropout is its children's
            if getattr(module, "gradient_checkpointing", False):
                module.training = mode
        return self

    def short_forward(self, batch: TokenBatch) -> Tensor:
        """Return logits_BL by the shortcut: of the last layer only real tokens are read, or the first alone."""
        virtual = range(1, 1 + self.num_virtual_tokens)
        lengths = [length + self.num_virtual_tokens for length in batch.lengths_B.tolist()]
        with self.shortcut.taken(lengths, unread=None if self.pooling == "head" else virtual):
            return self.plain_forward(batch)

    def plain_forward(self, batch: TokenBatch) -> Tensor:
        """Return logits_BL as `transformers` computes them."""
        embed_BTE = self.model.get_input_embeddings()(batch.ids_BT)
        prompt_BNE = self.prompt().to(embed_BTE.dtype).expand(embed_BTE.shape[0], -1, -1)
        virtual_BN = batch.mask_BT.new_ones(prompt_BNE.shape[:2])
        inputs = {
            "inputs_embeds": _behind_first(embed_BTE, prompt_BNE),
            "attention_mask": _behind_first(batch.mask_BT, virtual_BN),
        }
        if batch.types_BT is not None:
            inputs["token_type_ids"] = _behind_first(batch.types_BT, 0 * virtual_BN)
        if self.pooling == "head":
            with known_padding(batch.padded):
                logits_BL = self.readout.logits(self.model, inputs, batch, self.virtual_tokens)
        else:
            with known_padding(batch.padded):
                hidden_BTH = self.body(**inputs).last_hidden_state
            if hidden_BTH.shape[1] != inputs["attention_mask"].shape[1]:
                raise MethodError(
                    f"pooling={self.pooling} reads a state for each token, and {self.model.config.model_type} gives "
                    f"{hidden_BTH.shape[1]} for {inputs['attention_mask'].shape[1]}. Set pooling=head"
                )
            real_BT, second_BT = (
                _behind_first(rows_BT, 0 * virtual_BN) for rows_BT in (batch.mask_BT, self._second_text(batch))
            )
            logits_BL = self.head(hidden_BTH, real_BT, second_BT)
        return logits_BL.float()

    def _second_text(self, batch: TokenBatch) -> Tensor:
        """Return 1 behind the first separator of each row, (B, T); texts themselves hold none."""
        if self.separator is None:
            return torch.zeros_like(batch.mask_BT)
        found_BT = (batch.ids_BT == self.separator).long() * batch.mask_BT
        return ((found_BT.cumsum(1) - found_BT) > 0).long() * batch.mask_BT


def _behind_first(rows: Tensor, inserted: Tensor) -> Tensor:
    """Return (B, T + N, ...): the first position, what is inserted, the rest."""
    return torch.cat([rows[:, :1], inserted, rows[:, 1:]], dim=1)


def vocabulary_words(tokenizer: Any, count: int, seed: int) -> list[int]:
    """Return ids of `count` ordinary words, drawn from the frequent part of the vocabulary.

    Args:
        tokenizer: gives vocabulary and special tokens.
        count: how many; drawn again where the vocabulary is smaller.
        seed: of the draw.
    """
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    ordered = sorted((index, token) for token, index in tokenizer.get_vocab().items() if index not in special)
    words = [index for index, token in ordered if _is_word(token)]
    candidates = (words or [index for index, _ in ordered])[:FREQUENT_TOKENS]
    generator = torch.Generator().manual_seed(seed)
    order: Sequence[int] = torch.randperm(len(candidates), generator=generator).tolist()
    return [candidates[order[index % len(order)]] for index in range(count)]


def _is_word(token: str) -> bool:
    """Tell whole words from pieces and punctuation, past the mark some vocabularies put in front of a word."""
    word = token.lstrip("ĠĊ▁")
    return word.isalpha() and len(word) > 2
