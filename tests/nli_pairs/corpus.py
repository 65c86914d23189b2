"""The bundled data: English premise-hypothesis pairs whose labels follow from their construction.

This is the public face: drawing balanced lists and splits. Vocabulary, designs and phenomena stand in
`corpus_lexicon`, `corpus_grid`, and `corpus_events` with `corpus_relations`.

Reading conventions:

- "All the", "none of the", "not all the" speak of a group that has members. "Some" allows "all"; "or" allows both;
  "at least" and "more than" set no upper limit, "at most" and "fewer than" no lower one.
- A conditional says nothing about what happens when its antecedent is false, or why its consequent is true.
- An indefinite ("a kite") need not be the one spoken of elsewhere; a definite ("the kite") is the same throughout.
- Clauses in the past tense speak of one occasion, the same in premise and hypothesis.
- A thing is in one place only, and is sold or given to one person only.
- "Not as tall as" means shorter. Opposites such as hot and cold exclude each other and leave room between them.
- What a premise does not settle is neutral, however likely it may seem.

Test pairs use content words that training pairs never use. In training and validation pairs the words are shared, the
premises are not: no premise stands twice in one list or split.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal

from tests.nli_pairs import corpus_events, corpus_relations  # noqa: F401  importing them registers the phenomena
from tests.nli_pairs.corpus_grid import LABELS, Draw, Label, phenomena, sentence
from tests.nli_pairs.corpus_lexicon import TEST, TRAIN

from entailor.data.example import Example, Split, content_id
from entailor.errors import ConfigError

Part = Literal["train", "test"]

LEXICONS: Final = {"train": TRAIN, "test": TEST}
SCENE_SHARE = 0.35  # premises with an unrelated sentence before or after
PATIENCE = 200  # draws without a new premise before a phenomenon counts as used up


def generate_pairs(size: int, seed: int = 0, part: Part = "train") -> list[Example]:
    """Return distinct labelled pairs, balanced over labels and phenomena within one.

    The same arguments give the same list on every machine and Python version.

    Args:
        size: number of pairs.
        seed: of every choice made here.
        part: the vocabulary to draw content words from.

    Returns:
        Examples in random order; `group` is the phenomenon.

    Raises:
        ConfigError: the size is not positive or more than the vocabulary can give, or the part is unknown.
    """
    if part not in LEXICONS:
        raise ConfigError(f"corpus part: {part!r} found, 'train' or 'test' expected")
    if size < 1:
        raise ConfigError(f"corpus size: {size} found, at least 1 expected")
    return _shuffled(list(_pairs(size, seed, part)), seed, part)


def generate_split(size: int, seed: int, validation_share: float, test_share: float) -> Split:
    """Return train, validation and test parts that share no premise; test shares no content word with the other two.

    Args:
        size: number of pairs in all three parts together.
        seed: of every choice made here.
        validation_share: share of `size` below 1, or a number of pairs.
        test_share: the same for test.

    Raises:
        ConfigError: a share is not positive, nothing is left for training, or the vocabulary is used up.
    """
    num_validation, num_test = _count("validation_size", validation_share, size), _count("test_size", test_share, size)
    if num_validation + num_test >= size:
        raise ConfigError(
            f"bundled_size: {size} pairs, {num_validation} for validation and {num_test} for test, leave none "
            f"for training. "
            "Raise bundled_size or lower validation_size and test_size"
        )
    pool = list(_pairs(size - num_test, seed, "train"))
    return Split(
        train=tuple(_shuffled(pool[num_validation:], seed, "train")),
        validation=tuple(_shuffled(pool[:num_validation], seed, "validation")),
        test=tuple(generate_pairs(num_test, seed, "test")),
    )


def _count(key: str, share: float, size: int) -> int:
    if share <= 0 or (share > 1 and share != int(share)):
        raise ConfigError(f"{key}: {share} found, a share below 1 or a whole number of pairs expected")
    return int(share) if share >= 1 else max(1, round(share * size))


def _pairs(size: int, seed: int, part: Part) -> Iterator[Example]:
    """Yield pairs with the labels in turn, in rounds over the phenomena: any stretch of it is balanced by label."""
    draws = {name: Draw(f"{part}/{seed}/{name}") for name in phenomena()}
    names = list(draws)
    in_step = len(names) % len(LABELS) == 0
    seen: set[str] = set()
    for index in range(size):
        # Where the counts divide, each round starts one phenomenon later, or each would meet one label only.
        turn = index // len(names) if in_step else 0
        name = names[(index + turn) % len(names)]
        yield _fresh_pair(name, draws[name], LABELS[index % len(LABELS)], part, seen)


def _fresh_pair(name: str, draw: Draw, label: Label, part: Part, seen: set[str]) -> Example:
    """Draw until the premise is a new one, and note it in `seen`."""
    lexicon = LEXICONS[part]
    for _ in range(PATIENCE):
        premise, hypothesis = draw.one(phenomena()[name](draw, lexicon).cells(label))
        text, text_pair = sentence(premise), sentence(hypothesis)
        if draw.chance(SCENE_SHARE):
            scene = sentence(f"{draw.one(lexicon.sights)} {draw.one(lexicon.moods)}")
            text = f"{scene} {text}" if draw.chance(0.6) else f"{text} {scene}"
        key = normalised(text)
        if key not in seen:
            seen.add(key)
            return Example(content_id(text, text_pair), text, text_pair, label, name)
    raise ConfigError(
        f"bundled_size: the {part} vocabulary gives no more new pairs of {name!r} after {len(seen)} pairs in all. "
        "Ask for fewer pairs"
    )


def _shuffled(rows: list[Example], seed: int, part: str) -> list[Example]:
    return Draw(f"order/{part}/{seed}").several(rows, len(rows))


def normalised(text: str) -> str:
    """Return the text in lower case, words only: what must differ for two premises to count as distinct."""
    return " ".join(re.findall(r"[\w-]+", text.lower()))
