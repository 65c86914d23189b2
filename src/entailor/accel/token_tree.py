"""Prompts that begin alike as one row of a batch: what they share stands in it once, and is run once.

A premise with several hypotheses, or a prompt with label words of several tokens, is a tree of tokens. It is run in one
pass where every token sees its own beginning alone (tree attention; Miao et al. 2023, SpecInfer, section 4.2). One row
for each prompt is the reference; tests hold the two together.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entailor.accel.masks import IMPLEMENTATION
from entailor.accel.prefix_cache import can_share
from entailor.models.prompts import PromptIds, common_length

LEAST_SHARED = 8
"""Tokens that prompts must share to be put into one tree."""
MOST_TOKENS = 256
"""Tokens of a tree of several prompts: attention looks at all pairs of them."""


@dataclass
class PromptTree:
    """Prompts and the beginnings of their label words, each distinct beginning once.

    Attributes:
        behind: tokens of a shared prefix that were taken off the front of all of them.
        rows: index of each prompt's example.
        token_ids: T token ids; each comes after the one it follows.
        parents: the token that each follows, -1 where it is none.
        depths: how many tokens come before each in its prompt.
        words: for each prompt the tokens of its label words.
        places: for each prompt, label and token of the word the token of the tree behind which it is read.
    """

    behind: int
    rows: list[int] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    words: list[tuple[tuple[int, ...], ...]] = field(default_factory=list)
    places: list[list[list[int]]] = field(default_factory=list)
    _followers: dict[tuple[int, int], int] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.token_ids)

    def add(self, prompt: PromptIds) -> None:
        """Put in a prompt, and what comes before the last token of each of its label words."""
        end = self._walk(-1, prompt.input_ids)[-1]
        self.rows.append(prompt.example_index)
        self.words.append(prompt.continuations)
        self.places.append([[end, *self._walk(end, word[:-1])] for word in prompt.continuations])

    def seen(self) -> NDArray[np.bool_]:
        """Return which tokens each token sees, (T, T): those that lead to it, and itself."""
        seen_TT = np.eye(len(self), dtype=bool)
        for token, parent in enumerate(self.parents):
            if parent >= 0:
                seen_TT[token] |= seen_TT[parent]
        return seen_TT

    def _walk(self, start: int, ids: Sequence[int]) -> list[int]:
        """Return the tokens of the tree that a path from a token leads over; what is not there yet is put in."""
        at, path = start, []
        for token_id in ids:
            known = self._followers.get((at, token_id))
            if known is None:
                known = self._followers[at, token_id] = len(self)
                self.token_ids.append(token_id)
                self.parents.append(at)
                self.depths.append(self.depths[at] + 1 if at >= 0 else 0)
            at = known
            path.append(at)
        return path


def grow_trees(prompts: Sequence[PromptIds]) -> list[PromptTree]:
    """Return the prompts as trees, those with a long common beginning in one.

    Args:
        prompts: in any order; those of one prefix (`behind`) have the same one in front of them.
    """
    trees: list[PromptTree] = []
    last: PromptIds | None = None
    for prompt in sorted(prompts, key=lambda prompt: (prompt.behind, prompt.input_ids)):
        shared = 0
        if last is not None and last.behind == prompt.behind:
            shared = common_length(last.input_ids, prompt.input_ids)
        if shared < LEAST_SHARED or len(trees[-1]) + len(prompt) - shared > MOST_TOKENS:
            trees.append(PromptTree(prompt.behind))
        trees[-1].add(prompt)
        last = prompt
    return trees


def can_branch(model: Any, longest: int) -> bool:
    """Tell whether a model can be told each token's position and what it sees, and looks as far as the longest prompt.

    Args:
        model: a causal language model of `transformers`.
        longest: tokens of the longest whole prompt.
    """
    takes_masks = model.config._attn_implementation in ("sdpa", IMPLEMENTATION, "eager")
    return (
        takes_masks
        and "position_ids" in inspect.signature(model.forward).parameters
        and can_share(model.config, longest)
    )
