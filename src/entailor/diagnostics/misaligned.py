"""Labels under each other's names, and columns that slipped by one row.

A classifier of words learns from some of train. Where it knows the rest of train well and yet another part better with
two labels exchanged, or with the label of the row before, the labels of that part are wrong. Second texts that share
more words with the first text of the row before or after are in the wrong row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from entailor.data.example import Example
from entailor.data.words import Floats, Integers, TextFeatures, words_of
from entailor.diagnostics.base import MOST_SHOWN, CheckInput, CheckOutcome, DoctorFinding, check, listed, shown
from entailor.diagnostics.cross_validation import expected_labels, held_out_accuracy, word_features

NAME = "misaligned"
MOST_FITTED, MOST_ASKED = 3_000, 2_000  # rows of train; of each other part
KNOWS = 0.05  # above the majority
SURE = 1e-6  # chance that so many more agree by accident
UNLIKELY = 1e-3  # the same, of the third of train that is not learned from
MORE = 1.5  # times as many shared words
FEWEST = 50
FROM = (0.0, 0.25, 0.5, 0.75)  # of a part: where a row was lost, all behind it have slipped
SHIFTS = {1: "after", -1: "before"}


@check(NAME, "labels exchanged, or columns that slipped by a row, in one part")
def misaligned(evidence: CheckInput) -> CheckOutcome:
    """Compare each part's labels with those expected from words, and each second text with its neighbours' first."""
    if reason := evidence.too_few():
        return CheckOutcome(skipped=reason)
    slipped = [one for part, rows in evidence.split.parts() for one in _slipped_texts(part, rows)]
    return CheckOutcome((*slipped, *_labels(evidence)))


def _slipped_texts(part: str, rows: Sequence[Example]) -> Iterator[DoctorFinding]:
    rows = rows[:MOST_ASKED]
    if len(rows) < FEWEST or rows[0].text_pair is None:
        return
    firsts = [{*words_of(row.text)} for row in rows]
    seconds = [{*words_of(row.text_pair or "")} for row in rows]

    def shared(shift: int) -> Floats:
        """Return the share of each second text's words that the first text some rows on has too."""
        return np.array(
            [len(firsts[at + shift] & seconds[at]) / max(1, len(seconds[at])) for at in range(1, len(rows) - 1)]
        )

    own = shared(0)
    for shift, where in SHIFTS.items():
        there = shared(shift)
        if there.mean() > MORE * own.mean() and _surely_more(there > own, own > there):
            message = (
                f"second texts of {part} share {100 * there.mean():.0f} % of their words with the first text of the "
                f"row {where}, with that of their own row {100 * own.mean():.0f} %"
            )
            yield _finding("slipped_texts", message, part, rows, {"own": own.mean(), where: there.mean()})


def _labels(evidence: CheckInput) -> Iterator[DoctorFinding]:
    rng = np.random.default_rng((evidence.seed, 6))
    codes: dict[str | None, int] = {label: code for code, label in enumerate(evidence.labels)}
    places = {
        part: rng.permutation(len(rows))[: MOST_FITTED if part == "train" else MOST_ASKED]
        for part, rows in evidence.split.parts()
        if len(rows) >= FEWEST
    }
    rows = {part: some for part, some in evidence.split.parts() if part in places}
    labels = {part: np.array([codes[row.label] for row in some]) for part, some in rows.items()}
    texts = TextFeatures([rows[part][at] for part, some in places.items() for at in some.tolist()])
    features = word_features(texts, len(evidence.labels))
    learned, asked = 2 * len(places["train"]) // 3, len(places["train"])
    known, rest = slice(0, learned), slice(learned, asked)

    def held_out(shift: int) -> tuple[Integers, NDArray[np.bool_], bool]:
        """Return what labels some rows on lead to expect of each row, where that is right in the rest, and if often."""
        targets = np.roll(labels["train"], -shift)[places["train"]]
        expected = expected_labels(features[known], targets[known], len(evidence.labels), features, evidence.seed)
        held = held_out_accuracy(np.eye(len(evidence.labels))[expected[rest]], targets[rest])
        return expected, expected[rest] == targets[rest], held.low > held.majority + KNOWS

    expected, right, knows = held_out(0)
    if not knows:
        for shift, where in SHIFTS.items():
            _, right_so, knows_so = held_out(shift)
            # where rows are sorted by label, their neighbours have the same one and are known as well, or as badly
            if knows_so and _chance_of_more(right_so & ~right, right & ~right_so) < UNLIKELY:
                message = f"words of train tell the label of the row {where}, and not that of their own row"
                yield _finding("slipped_labels", message, "train", rows["train"], {"shift": shift})
        return
    start = asked
    for part in list(places)[1:]:
        here = expected[start : start + len(places[part])]
        start += len(here)
        yield from _of_part(evidence, part, rows[part], labels[part], places[part], here)


def _of_part(
    evidence: CheckInput, part: str, rows: Sequence[Example], labels: Integers, places: Integers, expected: Integers
) -> Iterator[DoctorFinding]:
    """Find labels that agree with what words lead to expect once they are exchanged, or taken from the next row."""
    from scipy.optimize import linear_sum_assignment

    places, expected = np.sort(places), expected[np.argsort(places)]
    own = labels[places]
    table = np.zeros((len(evidence.labels), len(evidence.labels)), np.int64)
    np.add.at(table, (own, expected), 1)
    renamed = linear_sum_assignment(table, maximize=True)[1]
    slipped = {where: np.roll(labels, -k)[places] for k, where in SHIFTS.items()}
    ways = [("exchanged_labels", renamed[own], 0.0)]
    ways += [(where, other, share) for share in FROM for where, other in slipped.items()]
    for way, other, share in ways:
        here = slice(int(share * len(own)), None)
        better_N, worse_N = (expected == other) & (expected != own), (expected == own) & (expected != other)
        if not _surely_more(better_N[here], worse_N[here]):
            continue
        right, better = float(np.mean((expected == own)[here])), float(np.mean((expected == other)[here]))
        which = f"{part} from example {places[here][0] + 1:,} on" if share else part
        told = f"({100 * right:.0f} % of {which} as it is, {100 * better:.0f} % so)"
        if way == "exchanged_labels":
            moved = [
                f"{name} is {evidence.labels[to]}"
                for name, to in zip(evidence.labels, renamed, strict=True)
                if name != evidence.labels[to]
            ]
            message = (
                f"labels of {part} agree more with what words of train lead to expect where {listed(moved)} {told}"
            )
            yield _finding(way, message, part, rows, {"as_it_is": right, "exchanged": better})
        else:
            message = (
                f"labels of {which} agree more with the texts of their neighbours: the label of the row {way} {told}"
            )
            yield _finding("slipped_labels", message, part, rows, {"as_it_is": right, "slipped": better})
        return


def _surely_more(better: NDArray[np.bool_], worse: NDArray[np.bool_]) -> bool:
    """Tell whether one is true more often than the other beyond chance."""
    return _chance_of_more(better, worse) < SURE


def _chance_of_more(better: NDArray[np.bool_], worse: NDArray[np.bool_]) -> float:
    """Return how likely one is true so much more often than the other by accident (sign test)."""
    from scipy.stats import binomtest

    won, lost = int(better.sum()), int(worse.sum())
    return float(binomtest(won, won + lost, alternative="greater").pvalue) if won > lost else 1.0


def _finding(
    kind: str, message: str, part: str, rows: Sequence[Example], figures: dict[str, float | int]
) -> DoctorFinding:
    remedy = "Look at the first rows, and at how the file was made: a label or a text may stand in a row of another"
    if kind == "exchanged_labels":
        remedy = (
            f"Read some examples of {part}; if labels are exchanged, put them right with data.label_names of that file"
        )
    some = tuple(shown(part, row) for row in rows[:MOST_SHOWN])
    return DoctorFinding(NAME, kind, "warning", message, remedy, some, figures=figures)
