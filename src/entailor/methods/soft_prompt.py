"""Virtual tokens behind the first real token, and a head that reads real tokens only.

Shared by P-tuning (trained at the input) and prefix tuning (trained in every layer). Behind the first token, because
in front of it the head would read a virtual token (THUDM/P-tuning-v2#9).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from entailor.errors import MethodError
from entailor.methods.transformer import TokenBatch, TransformerClassifier
from entailor.models.load import Backbone
from entailor.tasks import Task

# Vocabularies are ordered by frequency, more or less; rare tokens make poor starting points.
FREQUENT_TOKENS = 10_000


class MeanHead(nn.Module):
    """Mean of the last hidden states over real tokens, one hidden layer, logits.

    Args:
        hidden_size: H.
        num_labels: L.
    """

    def __init__(self, hidden_size: int, num_labels: int) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, num_labels)

    def forward(self, hidden_BTH: Tensor, real_BT: Tensor) -> Tensor:
        """Return logits_BL."""
        weight_BT1 = real_BT.unsqueeze(-1).to(hidden_BTH.dtype)
        mean_BH = (hidden_BTH * weight_BT1).sum(1) / weight_BT1.sum(1)
        logits_BL: Tensor = self.out(torch.tanh(self.dense(mean_BH)))
        return logits_BL


class SoftPromptClassifier(TransformerClassifier):
    """A frozen model with N virtual tokens behind its first token.

    Args:
        backbone: the loaded checkpoint.
        task: labels and input shape.
        num_virtual_tokens: N; as many positions are reserved before truncation.
        pooling: "mean" for :class:`MeanHead`, "head" for the architecture's own head (on an encoder's first token or a
            decoder's last), "auto" for the first on encoders and the second on decoders.
        seed: of the head.
    """

    def __init__(self, backbone: Backbone, task: Task, num_virtual_tokens: int, pooling: str, seed: int) -> None:
        super().__init__(backbone, task, reserve=num_virtual_tokens)
        if pooling == "auto":
            pooling = "mean" if backbone.kind == "encoder" else "head"
        if backbone.kind == "language_model" and pooling != "head":
            raise MethodError("head=verbalizer reads the output layer. Leave out pooling, or set head=classifier")
        self.num_virtual_tokens = self.virtual_tokens = num_virtual_tokens
        self.pooling = pooling
        self.body: nn.Module = getattr(self.model, self.model.base_model_prefix)
        self.train_only_head()
        if pooling == "mean":
            backbone.leave_own_head("pooling=mean reads with a new head. Set pooling=head to keep the old one")
            for parameter in self.model.parameters():
                parameter.requires_grad_(False)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.head = MeanHead(self.model.config.hidden_size, len(task.labels)).to(backbone.device)

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
        prompt_BNE = self.prompt().to(embed_BTE.dtype).expand(len(embed_BTE), -1, -1)
        virtual_BN = batch.mask_BT.new_ones(prompt_BNE.shape[:2])
        inputs = {
            "inputs_embeds": _behind_first(embed_BTE, prompt_BNE),
            "attention_mask": _behind_first(batch.mask_BT, virtual_BN),
        }
        if batch.types_BT is not None:
            inputs["token_type_ids"] = _behind_first(batch.types_BT, 0 * virtual_BN)
        if self.pooling == "head":
            logits_BL = self.readout.logits(self.model, inputs, batch, self.virtual_tokens)
        else:
            hidden_BTH = self.body(**inputs).last_hidden_state
            logits_BL = self.head(hidden_BTH, _behind_first(batch.mask_BT, 0 * virtual_BN))
        return logits_BL.float()


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
