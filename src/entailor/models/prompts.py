"""Prompts to token ids: special tokens added once, prompt and label word tokenised together, the slot never cut.

The same face as `TextEncoder`, for decoders. Text of an example is text, also where it looks like a control token.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from entailor.data.example import Example
from entailor.errors import ConfigError, ModelError
from entailor.models.chat import MARK, ChatFrame, Segment
from entailor.models.control_tokens import control_ids, text_ids
from entailor.models.tokenizer import MIN_ROOM, call_tokenizer, position_limit
from entailor.tasks.templates import Template

MOST_NAMED = 12  # labels in a message

Shots = Callable[[int], Sequence[Example]]


@dataclass(frozen=True, slots=True)
class PromptIds:
    """One prompt, up to the label slot, and what may stand in the slot.

    Attributes:
        example_index: of the example it belongs to.
        input_ids: token ids of the prompt, no padding.
        continuations: token ids of each label's word behind this prompt; empty where no word is scored.
        truncated: whether text was cut off.
        shots: demonstrations in it.
        behind: tokens of a shared prefix that were taken off its front.
        token_type_ids: None; decoders have none.
    """

    example_index: int
    input_ids: list[int]
    continuations: tuple[tuple[int, ...], ...]
    truncated: bool
    shots: int = 0
    behind: int = 0
    token_type_ids: None = None

    def __len__(self) -> int:
        return len(self.input_ids) + max((len(ids) for ids in self.continuations), default=1) - 1


class PromptEncoder:
    """A decoder's tokenizer and a task's template.

    Args:
        tokenizer: a fast `transformers` tokenizer; without a pad token it gets its end-of-text token as one, which is
            harmless since positions come from lengths.
        config: the model's configuration; gives the position limit.
        max_length: most tokens of one rendered example, demonstrations not counted.
        template: what is rendered.
        with_labels: whether label words are scored, or a head reads the prompt; then the template's own instruction is
            left out where it would take more room than the texts.
    """

    windows = False

    def __init__(
        self, tokenizer: Any, config: Any, max_length: int, template: Template, *, with_labels: bool = False
    ) -> None:
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        self.tokenizer, self.template, self.with_labels = tokenizer, template, with_labels
        self.control = control_ids(tokenizer)
        self.context = position_limit(config, tokenizer)
        self.max_length = min(max_length, self.context)
        self.first_ids = _ids_in_front(tokenizer)
        if template.chat:
            self.frame = ChatFrame(tokenizer, template.date)
        if not with_labels and not template.own_instruction and 2 * self._surroundings() > self.max_length:
            # a head knows the labels; the list of very many would leave no room for the texts
            self.template = replace(template, instruction="")
        self._check_words()

    def _surroundings(self) -> int:
        """Return how many tokens a prompt takes without any text."""
        return len(self._ids([self._segments(Example("", "", ""), (), "")])[0])

    def room_beside(self, reserve: int) -> int:
        """Return how many tokens one example may have beside virtual tokens, what surrounds its texts included.

        Raises:
            ModelError: what surrounds the texts leaves fewer than eight tokens for them.
        """
        limit = min(self.max_length, self.context - reserve)
        empty = self._surroundings()
        longest = max((len(ids) for ids in self.label_ids()), default=0)
        if empty + longest + MIN_ROOM > limit:
            more = f"Raise model.max_length (now {self.max_length}; the model itself takes {self.context}), or choose"
            way = more if self.context > self.max_length else "Choose"
            raise ModelError(
                f"the prompt takes {empty + longest} tokens without any text, and {limit} is all there is room "
                f"for beside {reserve} virtual tokens. {way} a shorter prompt.instruction or "
                "prompt.template"
            )
        return limit - longest

    def encode(self, examples: Sequence[Example], reserve: int = 0, shots: Shots = lambda row: ()) -> list[PromptIds]:
        """Render and tokenise examples in order, one entry an example.

        Where the context is too short for all demonstrations the first ones are left out; where it is too short for
        the example itself its longest text is cut, never what stands around the label slot.

        Args:
            examples: all pairs, or all single texts.
            reserve: positions to leave free for virtual tokens.
            shots: row to the demonstrations that stand in front of it.
        """
        if not examples:
            return []
        room, context = self.room_beside(reserve), self.context - reserve
        bare = self._ids([self._segments(example, (), "") for example in examples])
        encoded = []
        rows = [(row, example, list(shots(row))) for row, example in enumerate(examples)]
        cut = [self._cut(example, room) if len(bare[row]) > room else example for row, example, _ in rows]
        prompts = self._ids([self._segments(cut[row], demos, "") for row, _, demos in rows])
        wholes = self._continued(cut, [demos for _, _, demos in rows])
        for row, example, demos in rows:
            kept, prompt, whole = demos, prompts[row], wholes[row]
            while kept and max(map(len, [prompt, *whole])) > context:
                kept = kept[1:]
                prompt = self._ids([self._segments(cut[row], kept, "")])[0]
                whole = self._continued([cut[row]], [kept])[0]
            ids, continuations = _divide(prompt, whole)
            encoded.append(PromptIds(row, ids, continuations, cut[row] is not example, len(kept)))
        return encoded

    def plain(self, text: str) -> PromptIds:
        """Return a text alone, without any template, in front of each label word."""
        wholes = self._ids([[*self.first_ids, text + word] for word in self.template.words])
        ids, continuations = _divide(self._ids([[*self.first_ids, text.rstrip()]])[0], wholes)
        return PromptIds(0, ids, continuations, truncated=False)

    def label_ids(self) -> tuple[tuple[int, ...], ...]:
        """Return the tokens of each label's word behind an empty example; none where no word is scored."""
        if not self.with_labels:
            return ()
        empty = Example("", "", "")
        prompt = self._ids([self._segments(empty, (), "")])[0]
        return _divide(prompt, self._continued([empty], [()])[0])[1]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return tokens as text, one by one."""
        return [self.tokenizer.decode([index]) for index in ids]

    def shown(self, item: PromptIds, label: int) -> tuple[list[str], list[str]]:
        """Return a prompt as the model reads it, token by token, and what stands in the label slot for a label."""
        slot = item.continuations[label] if item.continuations else ()
        return self.pieces(item.input_ids), self.pieces(slot)

    def _check_words(self) -> None:
        """Refuse label words of which one begins as another ends: the shorter would always be the more probable.

        Raises:
            ConfigError: two words have the same tokens, or one's are the beginning of another's.
        """
        named = list(zip(self.template.labels, self.template.words, self.label_ids(), strict=False))
        begun: dict[str, str] = {}  # label to what is said of its word
        for label, word, ids in named:
            if not ids:
                raise ConfigError(f"prompt.verbalizer: the word for {label!r} ({word!r}) has no token of its own")
            for other, other_word, other_ids in named:
                if other != label and other_ids[: len(ids)] == ids:
                    begun.setdefault(
                        label, f"of {word!r} ({label}) are the beginning of those of {other_word!r} ({other})"
                    )
        if begun:
            (_, first), *more = begun.items()
            also = f"; likewise of {', '.join(name for name, _ in more[:MOST_NAMED])}" if more else ""
            others = f" and {len(more) - MOST_NAMED:,} others" if len(more) > MOST_NAMED else ""
            raise ConfigError(
                f"prompt.verbalizer: the tokens {first}, so the first can never be less probable{also}{others}. Give "
                f"other words for {'them' if more else 'the first'}"
            )

    def _continued(self, examples: Sequence[Example], shots: Sequence[Sequence[Example]]) -> list[list[list[int]]]:
        """Return, for each example, the ids of prompt and word together, one list a label."""
        if not self.with_labels:
            return [[] for _ in examples]
        words = self.template.words
        flat = [
            self._segments(example, demos, word)
            for example, demos in zip(examples, shots, strict=True)
            for word in words
        ]
        ids = self._ids(flat)
        return [ids[start : start + len(words)] for start in range(0, len(ids), len(words))]

    def _segments(self, example: Example, shots: Sequence[Example], word: str) -> list[Segment]:
        """Return control tokens and text of a prompt; with an empty word the prompt ends in front of the slot."""
        template = self.template
        if template.is_pair and example.text_pair is None:  # one text of a pair, read apart
            return [*self.first_ids, example.text]
        if template.chat:
            return self._chat_segments(example, shots, word)
        text = template.prompt(example, shots)
        # space in front of the slot belongs to the word, as tokenizers have it
        return [*self.first_ids, text + word if word else text.rstrip()]

    def _chat_segments(self, example: Example, shots: Sequence[Example], word: str) -> list[Segment]:
        """Put the texts in their places in the model's chat template.

        Only what the chat template itself writes may become control tokens; a text that spells one stays text.
        """
        contents = self.template.turns(example, shots)
        segments: list[Segment] = [
            MARK.sub(lambda found: contents[int(found[1])], piece) if isinstance(piece, str) else piece
            for piece in self.frame.around(len(contents))
        ]
        if word:
            last = segments.pop() if isinstance(segments[-1], str) else ""
            segments.append(f"{last}{word}")
        return segments

    def _ids(self, prompts: Sequence[Sequence[Segment]]) -> list[list[int]]:
        """Tokenise the text of all prompts in one call, and put control tokens between."""
        texts = [segment for prompt in prompts for segment in prompt if isinstance(segment, str)]
        encoded: Iterator[list[int]] = iter(text_ids(self.tokenizer, self.control, texts, self._call) if texts else [])
        ids = [
            [index for part in prompt for index in (next(encoded) if isinstance(part, str) else [part])]
            for prompt in prompts
        ]
        return [row or [self.tokenizer.pad_token_id] for row in ids]  # no model takes an input of no tokens

    def _call(self, texts: Sequence[str], **settings: Any) -> Any:
        return call_tokenizer(
            self.tokenizer,
            list(texts),
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
            split_special_tokens=True,
            **settings,
        )

    def _cut(self, example: Example, room: int) -> Example:
        """Return the example with its longest text cut until prompt and text fit."""
        texts = [example.text] if example.text_pair is None else [example.text, example.text_pair]
        ends = [[end for _, end in spans] for spans in self._call(texts, return_offsets_mapping=True)["offset_mapping"]]
        kept = [len(spans) for spans in ends]
        while True:
            short = [
                text[: spans[count - 1] if count else 0] for text, spans, count in zip(texts, ends, kept, strict=True)
            ]
            cut = Example(example.id, short[0], short[1] if len(short) > 1 else None, example.label, example.group)
            over = len(self._ids([self._segments(cut, (), "")])[0]) - room
            if over <= 0 or not any(kept):
                return cut
            for _ in range(over):
                longest = kept.index(max(kept))
                kept[longest] = max(0, kept[longest] - 1)


def _divide(prompt: Sequence[int], wholes: Sequence[Sequence[int]]) -> tuple[list[int], tuple[tuple[int, ...], ...]]:
    """Return where prompt and label words part.

    Usually behind the last token of the prompt. Where a word melts into the prompt's last token, behind what all have
    in common: what is the same for every label decides nothing between them.
    """
    shared = len(prompt)
    for whole in wholes:
        shared = min(shared, common_length(prompt, whole))
    if wholes and shared < len(prompt):
        shared = min(shared, min(map(len, wholes)) - 1)
    return list(prompt[:shared]), tuple(tuple(whole[shared:]) for whole in wholes)


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many numbers two lists begin with alike."""
    for index, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return index
    return min(len(first), len(second))


def common_prefix(rows: Sequence[list[int]]) -> list[int]:
    """Return what all rows begin with."""
    if not rows:
        return []
    low, high = min(rows), max(rows)  # in lexical order, whatever these two share all share
    return low[: common_length(low, high)]


def _ids_in_front(tokenizer: Any) -> list[int]:
    """Return the special tokens a tokenizer puts in front of a text (BOS), without those it puts behind it."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    framed = tokenizer("a", add_special_tokens=True)["input_ids"]
    for start in range(len(framed) - len(plain) + 1):
        if framed[start : start + len(plain)] == plain:
            return list(framed[:start])
    return []
