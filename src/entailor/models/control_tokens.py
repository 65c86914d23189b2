"""Text that a tokenizer would take for a control token, taken apart so that it is read as text.

`split_special_tokens` keeps the matcher of special tokens away from texts. That is not enough where the vocabulary
itself holds them as pieces: every Unigram tokenizer (XLM-R, T5, ALBERT, DeBERTa-v2 and v3) gives the text ``</s>``,
and whatever Unicode normalisation makes of it, the id of the real one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

MOST_ROUNDS = 8


def control_ids(tokenizer: Any) -> frozenset[int]:
    """Return the ids that steer a model: special tokens, but for that of unknown words."""
    added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset({*tokenizer.all_special_ids, *added} - {tokenizer.unk_token_id})


def whole_characters(text: str) -> str:
    """Return a text with U+FFFD in the place of halves of surrogate pairs, which no tokenizer takes."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def suspects(rows: Sequence[Sequence[int]], control: frozenset[int], added: int) -> list[int]:
    """Return the rows that hold more control tokens than the tokenizer's template puts there.

    Args:
        rows: token ids.
        control: ids that steer the model.
        added: tokens of the template.
    """
    return [place for place, ids in enumerate(rows) if sum(map(control.__contains__, ids)) > added]


def without_control_tokens(
    tokenizer: Any, control: frozenset[int], text: str, pair: str | None
) -> tuple[str, str | None]:
    """Return both texts with a space inside whatever would become a control token."""
    texts = [text, pair or ""]
    for _ in range(MOST_ROUNDS):
        encoding = tokenizer(
            [texts[0]],
            [texts[1]] if pair is not None else None,
            add_special_tokens=True,
            split_special_tokens=True,
            truncation=False,
            return_special_tokens_mask=True,
            return_offsets_mapping=True,
            verbose=False,
        )
        found = _found(encoding, control)
        if not found:
            break
        texts = [_apart(old, sorted(span[1:] for span in found if span[0] == part)) for part, old in enumerate(texts)]
    return texts[0], texts[1] if pair is not None else None


def text_ids(
    tokenizer: Any, control: frozenset[int], texts: Sequence[str], call: Callable[[Sequence[str]], Any]
) -> list[list[int]]:
    """Return token ids of texts without any control token, and without special tokens around them.

    Args:
        tokenizer: a fast one.
        control: ids that steer the model.
        texts: what is tokenised.
        call: tokenises them without special tokens.
    """
    try:
        ids: list[list[int]] = call(texts)["input_ids"]
    except (TypeError, UnicodeEncodeError):  # half of a surrogate pair
        texts = list(map(whole_characters, texts))
        ids = call(texts)["input_ids"]
    for row in suspects(ids, control, 0):
        text, _ = without_control_tokens(tokenizer, control, texts[row], None)
        ids[row] = call([text])["input_ids"][0]
    return ids


def _apart(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """Put a space behind the first character of every span; one of a single character becomes a space."""
    pieces, done = [], 0
    for start, end in spans:
        middle = start + 1 if end - start > 1 else start
        pieces.append(text[done:middle])
        done = middle if middle > start else end
    return " ".join([*pieces, text[done:]])


def _found(encoding: Any, control: frozenset[int]) -> list[tuple[int, int, int]]:
    """Return which text, from which character to which, became a control token."""
    ids, mask, spans = encoding["input_ids"][0], encoding["special_tokens_mask"][0], encoding["offset_mapping"][0]
    parts = encoding.sequence_ids(0)
    return [
        (parts[place], *spans[place])
        for place, token in enumerate(ids)
        if token in control and not mask[place] and parts[place] is not None
    ]
