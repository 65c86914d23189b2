"""Label names that get in each other's way, or stand in the texts they label.

Tokens of names are for `entailor.diagnostics.tokens`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import takewhile

from entailor.config.plain import share
from entailor.data.example import Example
from entailor.data.words import words_of
from entailor.diagnostics.base import MOST_SHOWN, CheckInput, CheckOutcome, DoctorFinding, check, listed, of_rows

NAME = "label_names"
FEWEST_ROWS, MOSTLY = 10, 0.9


@check(NAME, "label names that begin alike, or stand in the texts they label")
def label_names(evidence: CheckInput) -> CheckOutcome:
    """Look at the names themselves, and for them in the texts."""
    return CheckOutcome((*_prefixes(evidence.labels), *_in_texts(evidence)))


def _prefixes(labels: tuple[str, ...]) -> Iterator[DoctorFinding]:
    plain = {label: label.strip().casefold() for label in labels}
    ordered = sorted(labels, key=plain.__getitem__)  # what begins alike stands side by side
    pairs = [
        (one, other)
        for place, one in enumerate(ordered)
        for other in takewhile(lambda label: plain[label].startswith(plain[one]), ordered[place + 1 :])  # noqa: B023
    ]
    if pairs:
        names = listed([f"{one} / {other}" for one, other in pairs])
        message = f"one label's name is the beginning of another's: {names}"
        remedy = (
            "Give the answers other words where a language model writes or scores them; other methods are not concerned"
        )
        yield DoctorFinding(
            NAME, "prefix_names", "info", message, remedy, figures={"pairs": [list(pair) for pair in pairs]}
        )


def _in_texts(evidence: CheckInput) -> Iterator[DoctorFinding]:
    """Find labels whose own name stands in their examples and in hardly any other: the answer is in the question."""
    rows, holds = evidence.split.train, _holders(evidence)
    telling = []
    for label, has in holds.items():
        own = sum(row.label == label for row in has)
        if len(has) >= FEWEST_ROWS and own / len(has) >= MOSTLY and len(holds) > 1:
            telling.append((own, label, has))
    telling.sort(key=lambda one: -one[0])
    more = len(telling) - MOST_SHOWN
    for place, (own, label, has) in enumerate(telling[:MOST_SHOWN], start=1):
        message = f"the word {label!r} stands in {share(len(has), len(rows))} of train, {own:,} of them labelled so"
        if place == MOST_SHOWN and more:
            message += f"; {more:,} more labels stand in their texts"
        remedy = "Look whether the label was written into the texts; if so, take it out"
        yield DoctorFinding(NAME, "label_in_text", "warning", message, remedy, *of_rows("train", has))


def _holders(evidence: CheckInput) -> dict[str, list[Example]]:
    """Return the examples of train that hold each label's name, in one pass whatever the number of labels."""
    names = defaultdict(list)
    for label in evidence.labels:
        names[tuple(words_of(label))].append(label)
    sizes = sorted({len(name) for name in names})
    holds: dict[str, list[Example]] = {label: [] for label in evidence.labels}
    for row in evidence.split.train:
        words = words_of(f"{row.text} {row.text_pair or ''}")
        spans = {span for size in sizes for span in zip(*(words[start:] for start in range(size)), strict=False)}
        for name in names.keys() & spans:
            for label in names[name]:
                holds[label].append(row)
    return holds
