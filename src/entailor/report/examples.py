"""What the page shows of single test examples: the hardest, the errors of each candidate, and prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from entailor.evaluation.alignment import CandidateAnswer, HardExample, hardest_examples
from entailor.evaluation.recommendation import CandidateKey, key_of
from entailor.runs.record import Prediction, RunRecord

NUM_HARDEST = 20
MOST_CHARACTERS = 600  # of one text; a document's first lines say enough here
NO_ANSWER = "no answer"
MOST_TOKENS = 1500  # of one prompt
MOST_ERRORS = 2000  # examples of the errors browser
MOST_ERROR_BYTES = 700_000  # of their texts: a page of 30 candidates stays below 3 MB

Candidate = Mapping[str, Any]


def shortened(text: str) -> str:
    """Return the first 600 characters of a text."""
    return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS].rstrip() + " …"


@dataclass(frozen=True, slots=True)
class ShownExample:
    """A hard example, and the candidates that said each label: their titles with how sure they were."""

    example: HardExample
    answers: Sequence[tuple[str, Sequence[tuple[str, float]]]]

    @property
    def num_wrong(self) -> int:
        """How many candidates got it wrong."""
        return sum(not one.right for one in self.example.answers)


def hardest(records: Sequence[RunRecord], candidates: Sequence[Candidate]) -> list[ShownExample]:
    """Return the hardest examples, with the candidates that said each label gathered under it."""
    titles: dict[CandidateKey, str] = {key_of(candidate): candidate["title"] for candidate in candidates}
    shown = [record for record in records if (record.model, record.name) in titles]
    return [ShownExample(one, _by_label(one.answers, titles)) for one in hardest_examples(shown, NUM_HARDEST)]


def _by_label(
    said: Sequence[CandidateAnswer], titles: Mapping[CandidateKey, str]
) -> list[tuple[str, list[tuple[str, float]]]]:
    """Gather answers under their label, the label most candidates said first, the surest candidate of each first."""
    found: dict[str, list[tuple[str, float]]] = {}
    for one in sorted(said, key=lambda one: -one.probability):
        found.setdefault(one.label, []).append((titles[one.model, one.method], one.probability))
    return sorted(found.items(), key=lambda item: -len(item[1]))


def errors(
    records: Sequence[RunRecord], candidates: Sequence[Candidate], labels: Sequence[str], pick: int
) -> Mapping[str, Any] | None:
    """Return what the errors browser of the page needs, or None where there is no error to show.

    Only the first complete seed of a candidate counts, since that is the classifier that ships. Examples stand in the
    order in which they are kept where they are too many: the errors of the picked candidate, then the examples most
    candidates get wrong.

    Args:
        records: the trials; those of other candidates are skipped.
        candidates: as the page shows them.
        labels: of the task; examples and answers point into them.
        pick: the position of the candidate to begin with.

    Returns:
        `labels` (with NO_ANSWER behind them where it occurs), `groups`, `candidates` (titles), `examples` (text, second
        text, position of gold and of the group),
        for each candidate `predicted` (positions of labels) and `confidence` (percent), `pick`, `num_test` and
        `left_out`, the number of examples with an error that are not here.
    """
    firsts = [_first_seed(records, candidate) for candidate in candidates]
    if not firsts or not all(firsts):
        return None
    answers = [{one.id: one for one in record.predictions} for record in firsts if record is not None]
    test = list(answers[0].values())
    wrong = {one.id: [by_id[one.id].predicted != one.label for by_id in answers] for one in test}
    missed = [one for one in test if any(wrong[one.id])]
    ranked = sorted(missed, key=lambda one: (not wrong[one.id][pick], -sum(wrong[one.id])))
    shown = _within(ranked)
    if not shown:
        return None
    groups = list(dict.fromkeys(one.group for one in test if one.group is not None))
    silent = any(not by_id[one.id].predicted for one in shown for by_id in answers)
    place = {**{label: i for i, label in enumerate(labels)}, "": len(labels)}
    return {
        "labels": [*labels, NO_ANSWER] if silent else list(labels),
        "groups": groups,
        "candidates": [candidate["title"] for candidate in candidates],
        "pick": pick,
        "num_test": len(test),
        "left_out": len(ranked) - len(shown),
        "examples": [
            [
                shortened(one.text or ""),
                None if one.text_pair is None else shortened(one.text_pair),
                place[one.label],
                None if one.group is None else groups.index(one.group),
            ]
            for one in shown
        ],
        "predicted": [[place[by_id[one.id].predicted] for one in shown] for by_id in answers],
        "confidence": [[round(100 * max(by_id[one.id].probabilities.values())) for one in shown] for by_id in answers],
    }


def as_script_data(value: object) -> str:
    """Return JSON that may stand inside a script element: no text in it can end the element."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


@dataclass(frozen=True, slots=True)
class CandidatePrompts:
    """The prompts of a candidate, under its title."""

    title: str
    examples: Sequence[Mapping[str, Any]]


def prompts(records: Sequence[RunRecord], candidates: Sequence[Candidate]) -> list[CandidatePrompts]:
    """Return the prompts of every candidate that has some, of its first seed, in the order of the candidates."""
    found: dict[CandidateKey, list[Any]] = {}
    for record in records:
        if record.provenance.get("prompts"):
            found.setdefault((record.model, record.name), record.provenance["prompts"])
    return [
        CandidatePrompts(candidate["title"], [_shown_prompt(one) for one in found[key_of(candidate)]])
        for candidate in candidates
        if key_of(candidate) in found
    ]


def _first_seed(records: Sequence[RunRecord], candidate: Candidate) -> RunRecord | None:
    own = [one for one in records if (one.model, one.name) == key_of(candidate) and one.status == "complete"]
    return min(own, key=lambda one: one.seed, default=None)


def _within(ranked: Sequence[Prediction]) -> list[Prediction]:
    """Return the first examples that fit into the page."""
    room, shown = MOST_ERROR_BYTES, []
    for one in ranked[:MOST_ERRORS]:
        texts = shortened(one.text or "") + shortened(one.text_pair or "")
        room -= len(texts.encode("utf-8", "replace"))
        if room < 0:
            break
        shown.append(one)
    return shown


def _shown_prompt(prompt: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a prompt with its middle left out where it is long."""
    tokens, left_out = list(prompt["tokens"]), 0
    if len(tokens) > MOST_TOKENS:
        left_out = len(tokens) - MOST_TOKENS
        tokens = [*tokens[: MOST_TOKENS // 2], None, *tokens[-MOST_TOKENS // 2 :]]
    return {**prompt, "tokens": tokens, "left_out": left_out, "count": len(prompt["tokens"])}
