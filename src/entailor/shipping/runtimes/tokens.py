"""Texts to token ids as they were made in training, with the `tokenizers` library alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

MARKS = ("\x00text\x00", "\x00pair\x00")
MOST_ROUNDS = 8
MOST_PADDED = 1.15
"""Most tokens of a batch for each that is not padding. Measured on two cores: MiniLM answers 1,000 pairs of MultiNLI,
batches of 32 made of what arrived together, in half the time that whole padded batches take; 1.05 to 1.2 are alike."""


def even_batches(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Return indices in batches of inputs that are about as long, the shortest first.

    Args:
        lengths: tokens of each input.
        most: most inputs of a batch.
    """
    batches: list[list[int]] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = max(1, lengths[index])
        tokens += length
        if not batches or len(batches[-1]) == most or (len(batches[-1]) + 1) * length > MOST_PADDED * tokens:
            batches.append([])
            tokens = length
        batches[-1].append(index)
    return batches


class Frames(TypedDict, total=False):
    """What stands around the texts of a prompt: token ids and pieces of text."""

    frame: list[int | str]
    """Up to the label slot."""
    answers: list[list[int | str]]
    """The same with each label's word."""


class InputSettings(Frames, total=False):
    """The part `input` of a manifest: how texts become input. Of a decoder also its frames and how words count."""

    max_length: int
    control: list[int]
    """Ids that steer the model."""
    types: bool
    """Whether there are token types."""
    pad: int
    views: list[str]
    """Of a probe on pairs: what is read by itself."""
    head: str
    """Of a decoder with a head: its name."""
    bare_end: bool
    shots: list[Frames]
    """With demonstrations in front, the most of them first."""
    context: int
    """Most tokens with these."""
    bias: list[float]
    scale: float
    by_length: bool


class BaseModel(TypedDict):
    """The model an adapter was made for."""

    name: str
    revision: str | None


class ExportManifest(TypedDict):
    """What a runtime reads of manifest.json."""

    format: str
    labels: list[str]
    temperature: float | None
    input: InputSettings
    base_model: BaseModel


def read_manifest(folder: Path) -> ExportManifest:
    """Return the manifest of an exported folder."""
    found: ExportManifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return found


def whole(text: str) -> str:
    """Return a text with U+FFFD in the place of halves of surrogate pairs, which no tokenizer takes."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class TextTokens:
    """A tokenizer.json, and the part `input` of a manifest.

    Text that looks like a control token ("[SEP]", "</s>") is text. Longest text truncated first.

    Args:
        folder: holds tokenizer.json.
        settings: how texts become input.
    """

    def __init__(self, folder: Path, settings: InputSettings) -> None:
        from tokenizers import Tokenizer

        self.tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.tokenizer.encode_special_tokens = True
        self.settings, self.control = settings, frozenset(settings["control"])
        self.limit: int = settings["max_length"]
        asked = (settings, *settings.get("shots", ())) if settings.get("bare_end") else ()
        self._bare = [one["frame"] for one in asked]  # end in front of the slot, without the space of its word

    def __call__(self, text: str, pair: str | None = None) -> tuple[list[int], list[int]]:
        """Return token ids and token types of an input; types are empty where the model has none."""
        text, pair = whole(text), None if pair is None else whole(pair)
        if self.settings.get("frame"):
            return self._prompt(text, pair), []
        texts = self._without_control([text] if pair is None else [text, pair], special=True)
        found = self.tokenizer.encode(*texts)
        if len(found.ids) > self.limit:
            self.tokenizer.enable_truncation(self.limit, strategy="longest_first")
            found = self.tokenizer.encode(*texts)
            self.tokenizer.no_truncation()
        return found.ids, found.type_ids if self.settings["types"] else []

    def cuts(self, text: str, pair: str | None = None) -> bool:
        """Tell whether an input is longer than what is read of it."""
        text, pair = whole(text), None if pair is None else whole(pair)
        if self.settings.get("frame"):
            return len(self._filled(self.settings["frame"], text, pair)) > self.limit
        texts = self._without_control([text] if pair is None else [text, pair], special=True)
        return len(self.tokenizer.encode(*texts).ids) > self.limit

    def words(self, text: str, pair: str | None = None) -> list[tuple[list[int], int]]:
        """Return a prompt with each label's word behind it, and where its own tokens begin."""
        text, pair = self._cut(whole(text), None if pair is None else whole(pair))
        for asked in (*self.settings.get("shots", ()), self.settings):
            prompt = self._filled(asked["frame"], text, pair)
            wholes = [self._filled(frame, text, pair) for frame in asked["answers"]]
            if max(map(len, [prompt, *wholes])) <= self.settings.get("context", self.limit):
                break
        shared = min([len(prompt), *(_common(prompt, one) for one in wholes)])
        if shared < len(prompt):  # a word melts into the prompt's last token
            shared = min(shared, min(map(len, wholes)) - 1)
        return [(one, shared) for one in wholes]

    def _prompt(self, text: str, pair: str | None) -> list[int]:
        if self.settings["answers"]:
            ids, start = self.words(text, pair)[0]
            return ids[:start]
        return self._filled(self.settings["frame"], *self._cut(text, pair))

    def _filled(self, frame: Sequence[int | str], text: str, pair: str | None) -> list[int]:
        """Return the ids of a frame with the texts in their places; the text in front of the label slot ends bare."""
        ids: list[int] = []
        for number, part in enumerate(frame):
            if isinstance(part, int):
                ids.append(part)
                continue
            filled = part.replace(MARKS[1], pair or "") if MARKS[0] not in part else _put(part, text, pair or "")
            if number == len(frame) - 1 and frame in self._bare:
                filled = filled.rstrip()
            (bare,) = self._without_control([filled], special=False)
            ids += self.tokenizer.encode(bare, add_special_tokens=False).ids
        return ids or [self.settings["pad"]]

    def _cut(self, text: str, pair: str | None) -> tuple[str, str | None]:
        """Return the texts, the longest one shortened until the prompt fits."""
        over = len(self._filled(self.settings["frame"], text, pair)) - self.limit
        if over <= 0:
            return text, pair
        texts = [text] if pair is None else [text, pair]
        ends = [[end for _, end in self.tokenizer.encode(one, add_special_tokens=False).offsets] for one in texts]
        kept = list(map(len, ends))
        while over > 0 and any(kept):
            for _ in range(over):
                longest = kept.index(max(kept))
                kept[longest] = max(0, kept[longest] - 1)
            short = [one[: spans[n - 1] if n else 0] for one, spans, n in zip(texts, ends, kept, strict=True)]
            text, pair = short[0], short[1] if len(short) > 1 else None
            over = len(self._filled(self.settings["frame"], text, pair)) - self.limit
        return text, pair

    def _without_control(self, texts: list[str], *, special: bool) -> list[str]:
        """Return the texts with a space inside whatever would become a control token."""
        for _ in range(MOST_ROUNDS):
            found = self.tokenizer.encode(*texts, add_special_tokens=special)
            spans = [
                (part, *found.offsets[place])
                for place, (token, part) in enumerate(zip(found.ids, found.sequence_ids, strict=True))
                if token in self.control and not found.special_tokens_mask[place] and part is not None
            ]
            if not spans:
                break
            texts = [_apart(one, sorted(span[1:] for span in spans if span[0] == n)) for n, one in enumerate(texts)]
        return texts


def _put(part: str, text: str, pair: str) -> str:
    """Put both texts into a piece of a frame; a mark inside a text stays text."""
    return MARKS[0].join(one.replace(MARKS[1], pair) for one in part.split(MARKS[0])).replace(MARKS[0], text)


def _apart(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """Put a space behind the first character of every span; one of a single character becomes a space."""
    pieces, done = [], 0
    for start, end in spans:
        middle = start + 1 if end - start > 1 else start
        pieces.append(text[done:middle])
        done = middle if middle > start else end
    return " ".join([*pieces, text[done:]])


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(first), len(second)))
