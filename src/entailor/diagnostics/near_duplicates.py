"""Examples that nearly repeat another one: a word changed, a typo, a word more. Within train and across parts.

What is equal but for case, punctuation and spaces is for `split_checks`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from entailor.config.plain import share
from entailor.data.checks import FEW_SHARED_PREMISES, Severity
from entailor.data.example import Example
from entailor.data.text_keys import Keys, normalised, text_keys
from entailor.data.words import Floats, Integers
from entailor.diagnostics.base import MOST_SHOWN, CheckInput, CheckOutcome, DoctorFinding, ShownExample, check, shown
from entailor.diagnostics.min_hash import candidate_pairs, likeness, signatures

NAME = "near_duplicates"
MOST_ROWS = 50_000  # of all parts together; more take longer than they are worth
ALIKE = 0.55  # of the 5-grams of each text; one word changed in ten leaves about 0.7


@dataclass(frozen=True)
class _Rows:
    """All examples one behind the other."""

    rows: tuple[Example, ...]
    parts: npt.NDArray[np.int64]  # 0 train, 1 validation, 2 test
    names: tuple[str, ...]
    row_keys: Keys
    premise_keys: Keys


@check(NAME, "examples and premises that nearly repeat another, within train and across parts")
def near_duplicates(evidence: CheckInput) -> CheckOutcome:
    """Find pairs of examples whose texts are alike, each with its counterpart."""
    parts, sampled = _looked_at(evidence)
    rows = tuple(row for _, some in parts for row in some)
    part_of = np.repeat(np.arange(len(parts)), [len(some) for _, some in parts])
    keys = text_keys(rows)
    every = _Rows(rows, part_of, tuple(name for name, _ in parts), keys.row, keys.premise)
    firsts = [normalised(row.text) for row in rows]
    first_signatures = signatures(firsts, evidence.seed)
    premise_pairs = candidate_pairs(first_signatures)
    premise_alike = likeness(firsts, premise_pairs)
    if not evidence.is_pair:
        findings = tuple(_row_findings(every, premise_pairs, premise_alike))
    else:
        seconds = [normalised(row.text_pair or "") for row in rows]
        # the smallest hash of both sets together, drawn with two sets of functions
        pairs = candidate_pairs(np.minimum(first_signatures, signatures(seconds, evidence.seed + 1)))
        alike = np.minimum(likeness(firsts, pairs), likeness(seconds, pairs))
        findings = (*_row_findings(every, pairs, alike), *_premise_findings(every, premise_pairs, premise_alike))
    if sampled:
        findings = tuple(
            replace(one, message=f"{one.message} (in a sample of {len(rows):,} examples)") for one in findings
        )
    return CheckOutcome(findings)


def _looked_at(evidence: CheckInput) -> tuple[list[tuple[str, Sequence[Example]]], bool]:
    """Return the parts, or samples of them where all examples together are too many; and whether these are samples."""
    parts = list(evidence.split.parts())
    if sum(len(rows) for _, rows in parts) <= MOST_ROWS:
        return parts, False
    rng = np.random.default_rng((evidence.seed, 5))
    sampled: list[tuple[str, Sequence[Example]]] = []
    room = MOST_ROWS
    for name, rows in reversed(parts):  # test and validation first: what of them stands in train matters most
        count = min(len(rows), room if name == "train" else MOST_ROWS // 5)
        places = np.sort(rng.choice(len(rows), count, replace=False)).tolist()
        sampled.append((name, [rows[place] for place in places]))
        room -= count
    return sampled[::-1], True


def _row_findings(every: _Rows, pairs: Integers, alike: Floats) -> Iterator[DoctorFinding]:
    one, other = pairs.T
    near = (alike >= ALIKE) & (every.row_keys[one] != every.row_keys[other])
    same_label = np.array([every.rows[a].label == every.rows[b].label for a, b in pairs.tolist()], bool)
    for first, second in ((0, 2), (0, 1), (1, 2), (0, 0)):
        here = near & (every.parts[one] == first) & (every.parts[other] == second)
        for chosen, agrees in ((here & same_label, True), (here & ~same_label, False)):
            if chosen.any():
                yield _row_finding(every, pairs[chosen], alike[chosen], (first, second), agrees=agrees)


def _row_finding(
    every: _Rows, pairs: Integers, alike: Floats, parts: tuple[int, int], *, agrees: bool
) -> DoctorFinding:
    first, second = (every.names[part] for part in parts)
    others = _best_first(pairs[:, 1], alike)
    counted = share(len(others), int((every.parts == parts[1]).sum()))
    rows = _shown_pairs(every, pairs, alike)
    ids = tuple(every.rows[place].id for place in others)
    label = "the same label" if agrees else "another label"
    if first == second:
        message = f"{counted} of {first} nearly repeat an earlier example, under {label}"
        remedy = (
            "They count nearly twice; leave them out if unwanted"
            if agrees
            else "Fine where pairs were written to differ in one word; else read them: one label may be wrong"
        )
        kind = "near_duplicates_within" if agrees else "near_duplicates_other_label"
        return DoctorFinding(NAME, kind, "info", message, remedy, rows, ids, {"pairs": len(pairs)})
    message = f"{counted} of {second} nearly repeat an example of {first}, under {label}"
    if agrees:
        message += f": scores on {second} come out too high"
    trained = tuple(dict.fromkeys(every.rows[place].id for place in pairs[:, 0].tolist()))
    remedy = (
        f"Leave their counterparts out of {first}; data.drop_leaks takes out equal texts only"
        if agrees
        else "Read them: they are pairs that were written to differ in one word, or one of the labels is wrong"
    )
    figures = {"pairs": len(pairs), f"{first}_ids": list(trained)}
    kind = f"near_duplicates_{first}_{second}" + ("" if agrees else "_other_label")
    return DoctorFinding(NAME, kind, "warning" if agrees else "info", message, remedy, rows, ids, figures)


def _premise_findings(every: _Rows, pairs: Integers, alike: Floats) -> Iterator[DoctorFinding]:
    one, other = pairs.T
    near = (alike >= ALIKE) & (every.premise_keys[one] != every.premise_keys[other])
    for first, second in ((0, 2), (0, 1), (1, 2)):
        here = near & (every.parts[one] == first) & (every.parts[other] == second)
        if not here.any():
            continue
        others = _best_first(other[here], alike[here])
        total = int((every.parts == second).sum())
        names = every.names[first], every.names[second]
        message = f"{share(len(others), total)} of {names[1]} have a premise that nearly repeats one of {names[0]}"
        remedy = f"Keep in mind that {names[1]} is easier than new premises would be, or keep such premises in one part"
        severity: Severity = "warning" if len(others) / total > FEW_SHARED_PREMISES else "info"
        rows = _shown_pairs(every, pairs[here], alike[here])
        ids = tuple(every.rows[place].id for place in others)
        yield DoctorFinding(NAME, f"near_premises_{names[0]}_{names[1]}", severity, message, remedy, rows, ids)


def _best_first(places: Integers, alike: Floats) -> list[int]:
    """Return different examples, the most alike first."""
    return list(dict.fromkeys(places[np.argsort(-alike, kind="stable")].tolist()))


def _shown_pairs(every: _Rows, pairs: Integers, alike: Floats) -> tuple[ShownExample, ...]:
    rows: list[ShownExample] = []
    for place in np.argsort(-alike, kind="stable")[: (MOST_SHOWN + 1) // 2].tolist():
        one, other = pairs[place].tolist()
        note = f"{100 * alike[place]:.0f} % alike"
        for at, counterpart in ((other, one), (one, other)):
            row = every.rows[at]
            rows.append(shown(every.names[every.parts[at]], row, f"{note} with {every.rows[counterpart].id}"))
    return tuple(rows)
