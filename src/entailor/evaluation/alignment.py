"""Records brought into one order of examples and labels, and the examples that most of them get wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from entailor.errors import RunError
from entailor.evaluation.metrics import outcome
from entailor.runs.record import RunRecord, by_candidate


@dataclass(frozen=True, slots=True)
class CandidateAnswer:
    """What a candidate said of an example: the label of the highest mean probability over its seeds."""

    model: str
    method: str
    label: str
    probability: float
    right: bool


@dataclass(frozen=True, slots=True)
class HardExample:
    """An example that candidates got wrong.

    Attributes:
        id: the example's id.
        text: the text or premise.
        text_pair: the hypothesis, or None.
        group: genre, phenomenon, or None.
        gold: its label.
        wrong: sum over candidates of the share of their seeds that were wrong.
        answers: one a candidate.
    """

    id: str
    text: str
    text_pair: str | None
    group: str | None
    gold: str
    wrong: float
    answers: tuple[CandidateAnswer, ...]


def hardest_examples(records: Sequence[RunRecord], n: int = 20) -> list[HardExample]:
    """Return the examples most candidates got wrong, hardest first; examples no candidate got wrong are left out.

    Between examples equally often wrong, the one with the less probable gold label is harder.

    Args:
        records: as for :func:`compare_records`; failed ones are skipped.
        n: at most so many.
    """
    complete = aligned([record for record in records if record.status == "complete"])
    if not complete:
        return []
    seeds = {key: [outcome(record) for record in own] for key, own in by_candidate(complete).items()}
    gold_N = seeds[complete[0].model, complete[0].name][0].gold_N
    means = {
        key: np.mean([result.probabilities_NL for result in candidate], axis=0) for key, candidate in seeds.items()
    }
    wrong_N = np.sum(
        [1 - np.mean([result.correct_N for result in candidate], axis=0) for candidate in seeds.values()], axis=0
    )
    gold_probability_N = np.mean([mean_NL[np.arange(len(gold_N)), gold_N] for mean_NL in means.values()], axis=0)
    order = [int(i) for i in np.lexsort((gold_probability_N, -np.round(wrong_N, 9)))[:n] if wrong_N[i] > 0]
    labels, examples = complete[0].labels, complete[0].predictions
    return [
        HardExample(
            examples[i].id,
            examples[i].text,
            examples[i].text_pair,
            examples[i].group,
            examples[i].label,
            float(wrong_N[i]),
            tuple(
                CandidateAnswer(
                    *key,
                    labels[int(mean_NL[i].argmax())],
                    float(mean_NL[i].max()),
                    right=bool(mean_NL[i].argmax() == gold_N[i]),
                )
                for key, mean_NL in means.items()
            ),
        )
        for i in order
    ]


def aligned(complete: Sequence[RunRecord]) -> list[RunRecord]:
    """Bring labels and examples of all records into the order of the first, or say what does not match."""
    if not complete:
        return []
    first = complete[0]
    gold = _gold(first)
    aligned = []
    for record in complete:
        where = f"{_place(record)} and {_place(first)}"
        if set(record.labels) != set(first.labels):
            raise RunError(
                f"{where} have different labels ({', '.join(record.labels)}; {', '.join(first.labels)}). "
                "Only trials of one task can be compared"
            )
        own = _gold(record)
        if own.keys() != gold.keys():
            odd = min(own.keys() ^ gold.keys())
            raise RunError(
                f"{where} were tested on different examples ({len(own)} and {len(gold)}; {odd!r} stands in one only). "
                "Run both on the same test split"
            )
        differing = next((id_ for id_, label in own.items() if gold[id_] != label), None)
        if differing is not None:
            raise RunError(
                f"{where} have different gold labels for example {differing!r} "
                f"({own[differing]}; {gold[differing]}). Run both on the same test split"
            )
        by_id = {one.id: one for one in record.predictions}
        aligned.append(replace(record, labels=first.labels, predictions=tuple(by_id[id_] for id_ in gold)))
    return aligned


def _gold(record: RunRecord) -> dict[str, str]:
    gold = {one.id: one.label for one in record.predictions}
    if len(gold) != len(record.predictions):
        raise RunError(f"{_place(record)}: two test examples share an id. Give every example an id of its own")
    return gold


def _place(record: RunRecord) -> str:
    return f"{record.name} on {record.model}, seed {record.seed}"
