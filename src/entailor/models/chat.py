"""A model's chat template, rendered around marks once, and shown to keep every text exactly once and as it is."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

from entailor.errors import ModelError
from entailor.tasks.foreign import BEYOND_BOUNDS, ForeignError, run_bounded

Segment = int | str  # a control token's id, or text
MARK = re.compile("\x00Aa<&'\"(\\d+)>\x00")  # changed by whatever changes case, escapes, or quotes
MOST_FRAME = 100_000
"""Characters that a chat template writes around the texts."""
_ADDRESS = " at 0x"  # of something in memory, printed: another text in every process
_REMEDY = "Set prompt.chat=false, or fix the chat template of the model"


class ChatFrame:
    """What a chat template writes around the texts of a conversation.

    Args:
        tokenizer: a fast one, with a chat template.
        day: what templates that print a date print.

    Raises:
        ModelError: it has no chat template, or one that does not keep the text of a message exactly once.
    """

    def __init__(self, tokenizer: Any, day: date) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError("prompt.chat: this model has no chat template. Set prompt.chat=false")
        try:
            self.source: str = tokenizer.get_chat_template()
        except (ValueError, TypeError) as error:
            raise ModelError(f"prompt.chat: {str(error).strip()[:200]}. {_REMEDY}") from None
        if not isinstance(self.source, str):
            raise ModelError(f"prompt.chat: chat_template is {type(self.source).__name__}, not text. {_REMEDY}")
        self.day = day
        self.names = {key: str(token) for key, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
        self.control = _control_tokens(tokenizer)
        self._known: dict[int, list[Segment]] = {}
        self.around(1)

    def around(self, messages: int) -> list[Segment]:
        """Return control tokens and text, with a mark in the place of each message.

        Args:
            messages: of the user and, in turn, the assistant; the user's is the last.
        """
        if messages not in self._known:
            self._known[messages] = self._divided(self._skeleton(messages))
        return self._known[messages]

    def _skeleton(self, messages: int) -> str:
        """Render messages of text or, for templates made so, messages of a list of parts."""
        problem = ""
        for in_parts in (False, True):
            marks = [mark(number) for number in range(messages)]
            contents = [[{"type": "text", "text": one}] if in_parts else one for one in marks]
            roles = [("user", "assistant")[number % 2] for number in range(messages)]
            conversation = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
            values: dict[str, object] = {**self.names, "messages": conversation, "tools": None, "documents": None}
            values["add_generation_prompt"] = True
            try:
                skeleton = run_bounded(
                    "render", source=self.source, values=values, strict=False, date=self.day.isoformat()
                )
            except ForeignError as error:
                problem = problem or f"it cannot be rendered: {error}"
                if error.kind in BEYOND_BOUNDS:
                    break
                continue
            found = self._problem(skeleton, messages)
            if found is None:
                return skeleton
            problem = problem or found
        raise ModelError(f"prompt.chat: the chat template of this model cannot be used: {problem}. {_REMEDY}")

    def _problem(self, skeleton: str, messages: int) -> str | None:
        places = [int(number) for number in MARK.findall(skeleton)]
        for number in range(messages):
            if (times := places.count(number)) != 1:
                whose = ("user", "assistant")[number % 2]
                how = "leaves out or changes" if times == 0 else f"writes {times} times"
                return f"it {how} the text of message {number + 1} ({whose}); each is expected once, as it is"
        if places != list(range(messages)):
            return "it writes the messages in another order"
        if len(skeleton) > MOST_FRAME + messages * len(mark(messages)):
            return f"it writes {len(skeleton):,} characters around the texts, at most {MOST_FRAME:,} are taken"
        if _ADDRESS in skeleton and _ADDRESS not in self.source:
            return "it prints an address in memory, which is another each time"
        return None

    def _divided(self, skeleton: str) -> list[Segment]:
        """Take control tokens out; never out of a mark, whatever a special token looks like."""
        pattern = "|".join([re.sub(r"\(|\)", "", MARK.pattern), *map(re.escape, self.control)])
        segments: list[Segment] = []
        text = ""
        for piece in re.split(f"({pattern})", skeleton):
            if piece in self.control and not MARK.fullmatch(piece):
                segments += [text, self.control[piece]] if text else [self.control[piece]]
                text = ""
            else:
                text += piece
        return [*segments, text] if text else segments


def mark(number: int) -> str:
    """Return what stands for a message while a chat template is rendered."""
    return f"\x00Aa<&'\"{number}>\x00"


def _control_tokens(tokenizer: Any) -> dict[str, int]:
    """Return special tokens with their ids, the longest first; one that the vocabulary lacks is text."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    names = sorted({*added, *tokenizer.all_special_tokens} - {""}, key=len, reverse=True)
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in names}
    return {name: index for name, index in ids.items() if isinstance(index, int)}
