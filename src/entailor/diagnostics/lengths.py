"""How long texts are, in words, and whether the parts are of one kind. Tokens are for `entailor.diagnostics.tokens`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from entailor.config.plain import share
from entailor.data.checks import Severity
from entailor.data.example import Example
from entailor.data.words import Integers, words_of
from entailor.diagnostics.base import MOST_SHOWN, CheckInput, CheckOutcome, DoctorFinding, check, of_rows, shown

NAME = "lengths"
FIELDS = {"text": "first text", "text_pair": "second text"}
FAR = 10.0  # times the 95th percentile
FEWEST_WORDS_FAR = 200  # nothing shorter is called long
CUT = {"characters": (60, 5), "words": (12, 10)}  # the shortest limit, and the fewest texts at it
MANY_CUT, SPIKE, BELOW = 0.005, 2, 3  # their share, and times those of each of the next lengths below
LONG_WORD, MANY_RUN_ON = 30, 0.01  # characters without a space that are several words, and a share of a part
SHIFT = 1.5  # ratio of two parts' median lengths


@check(NAME, "texts of unusual length, and parts of different length")
def lengths(evidence: CheckInput) -> CheckOutcome:
    """Count words; find texts far longer than the rest and parts whose texts are longer or shorter than train's."""
    findings: list[DoctorFinding] = []
    facts: dict[str, dict[str, dict[str, int]]] = {}
    for field in FIELDS if evidence.is_pair else ("text",):
        counts = {part: _word_counts(rows, field) for part, rows in evidence.split.parts() if rows}
        facts[field] = {part: _quantiles(some) for part, some in counts.items()}
        findings += _outliers(evidence, field, counts["train"])
        findings += _cut(evidence, field)
        findings += _without_spaces(evidence, field)
        findings += _shifts(field, counts)
    return CheckOutcome(tuple(findings), facts)


def _word_counts(rows: Sequence[Example], field: str) -> Integers:
    return np.array([len(words_of(getattr(row, field) or "")) for row in rows], np.int64)


def _quantiles(counts: Integers) -> dict[str, int]:
    low, middle, high = np.quantile(counts, [0.05, 0.5, 0.95])
    return {"p5": int(low), "median": int(middle), "p95": int(high), "longest": int(counts.max())}


def _outliers(evidence: CheckInput, field: str, counts: Integers) -> Iterator[DoctorFinding]:
    limit = max(FAR * float(np.quantile(counts, 0.95)), FEWEST_WORDS_FAR)
    far = np.flatnonzero(counts > limit)
    if len(far):
        far = far[np.argsort(-counts[far], kind="stable")]
        rows = evidence.split.train
        message = f"the {FIELDS[field]} of {share(len(far), len(rows))} of train is longer than {limit:,.0f} words"
        remedy = "Look whether several examples ran into one (a quote that is never closed), and cut what is not needed"
        some = tuple(shown("train", rows[at], f"{counts[at]:,} words") for at in far[:MOST_SHOWN].tolist())
        ids = tuple(rows[at].id for at in far.tolist())
        yield DoctorFinding(NAME, "long_texts", "info", message, remedy, some, ids)


def _cut(evidence: CheckInput, field: str) -> Iterator[DoctorFinding]:
    """Find a part in which many texts are of exactly the same greatest length, as a limit on a field leaves them."""
    for part, rows in evidence.split.parts():
        texts = [getattr(row, field) or "" for row in rows]
        found = (one for unit in CUT if (one := _at_limit(texts, unit)))
        unit, limit, at_limit = next(found, ("", 0, np.array([], np.int64)))
        if not unit:
            continue
        message = f"the {FIELDS[field]} of {share(len(at_limit), len(rows))} of {part} is exactly {limit:,} {unit} long"
        message += ", and none is longer: they were cut"
        remedy = "Get the whole texts: what the label depends on may stand behind the cut"
        cut = [rows[at] for at in at_limit.tolist()]
        yield DoctorFinding(NAME, "cut_texts", "warning", message, remedy, *of_rows(part, cut))


def _at_limit(texts: Sequence[str], unit: str) -> tuple[str, int, Integers] | None:
    """Return unit, greatest length, and which texts have it, where they are too many for chance."""
    sizes = np.array([len(text if unit == "characters" else text.split()) for text in texts], np.int64)
    limit = int(sizes.max(initial=0))
    at_limit = np.flatnonzero(sizes == limit)
    below = max(int(np.count_nonzero(sizes == limit - less)) for less in range(1, 1 + BELOW))
    shortest, fewest = CUT[unit]
    if limit < shortest or len(at_limit) < max(fewest, MANY_CUT * len(sizes), SPIKE * below):
        return None
    return unit, limit, at_limit


def _without_spaces(evidence: CheckInput, field: str) -> Iterator[DoctorFinding]:
    """Find texts of many characters and no space where most of that length have some."""
    for part, rows in evidence.split.parts():
        texts = [getattr(row, field) or "" for row in rows]
        long = [at for at, text in enumerate(texts) if len(text) >= LONG_WORD]
        run_on = [at for at in long if len(texts[at].split()) == 1]
        if not run_on or 2 * len(run_on) > len(long):  # a script without spaces
            continue
        severity: Severity = "warning" if len(run_on) > MANY_RUN_ON * len(rows) else "info"
        message = f"the {FIELDS[field]} of {share(len(run_on), len(rows))} of {part} has {LONG_WORD} characters or more"
        message += " and no space"
        remedy = "Read the source again: its words ran into one"
        found = of_rows(part, [rows[at] for at in run_on])
        yield DoctorFinding(NAME, "no_spaces", severity, message, remedy, *found)


def _shifts(field: str, counts: dict[str, Integers]) -> Iterator[DoctorFinding]:
    usual = max(1.0, float(np.median(counts["train"])))
    for part in ("validation", "test"):
        if part not in counts:
            continue
        there = max(1.0, float(np.median(counts[part])))
        if max(there / usual, usual / there) >= SHIFT:
            message = f"half of the {FIELDS[field]}s of {part} have at most {there:.0f} words, of train {usual:.0f}"
            remedy = f"Expect {part} to differ in kind from train; draw both from one source where you can"
            yield DoctorFinding(NAME, "length_shift", "info", message, remedy, figures={"train": usual, part: there})
