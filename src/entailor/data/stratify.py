"""Which examples go to which part: in the labels' proportions, whole premises together, the same for the same seed.

Works on examples in memory; where they come from and what the user asked for is `splits`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import compress

import numpy as np
import numpy.typing as npt

from entailor.data.example import Example
from entailor.data.text_keys import normalised_keys
from entailor.errors import DataError

# Premises carry different numbers of rows. A part that misses its rows by more than this share is filled up with
# premises that do not fit exactly.
SIZE_TOLERANCE = 0.01

Integers = npt.NDArray[np.int64]
Rows = tuple[Example, ...]


def sample(rows: Rows, size: int, seed: Sequence[int]) -> Rows:
    """Draw `size` examples in the labels' proportions, at least one of each label; they keep their order.

    Args:
        rows: labelled examples.
        size: number of examples, at least the number of labels; more than there are means all.
        seed: what the draw depends on.
    """
    if size >= len(rows):
        return rows
    _, labels = _label_codes(rows)
    counts = np.bincount(labels)
    rng = np.random.default_rng(seed)
    drawn = [
        rng.choice(np.flatnonzero(labels == label), count, replace=False)
        for label, count in enumerate(_shares(counts, size, at_most=counts).tolist())
    ]
    return tuple(rows[place] for place in np.sort(np.concatenate(drawn)).tolist())


def nested_samples(rows: Rows, sizes: Sequence[int], seed: int) -> dict[int, Rows]:
    """Draw samples of which each holds all smaller ones, in the labels' proportions, at least one of each label.

    Args:
        rows: labelled examples.
        sizes: numbers of examples, at least the number of labels; more than there are means all.
        seed: what the draw depends on.

    Returns:
        Size to examples, which keep their order.
    """
    _, labels = _label_codes(rows)
    rng = np.random.default_rng((seed, 1))
    # where a row stands among those of its label, as a share: rows taken by this share keep the proportions throughout
    place = np.empty(len(rows))
    for label in range(labels.max() + 1):
        members = rng.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
        place[members[0]] = -1.0  # one of each label before everything else
    order = np.argsort(place, kind="stable")
    return {size: tuple(rows[index] for index in np.sort(order[:size]).tolist()) for size in sizes}


def split_off(rows: Rows, sizes: Mapping[str, int], seed: int, source: str) -> dict[str, Rows]:
    """Take parts from training examples, in the labels' proportions, so that no premise stands in two parts.

    Premises (or single texts) that differ in case, punctuation or spaces only count as one.

    Args:
        rows: labelled examples.
        sizes: part to number of examples; met within `SIZE_TOLERANCE` unless premises carry many examples each.
        seed: what the draw depends on.
        source: the file, for errors.

    Returns:
        The parts, and under ``train`` what is left, with every label; each in the order of the file. A rare label
        may be missing from the others.

    Raises:
        DataError: too few examples or different premises.
    """
    if sum(sizes.values()) >= len(rows):
        wanted = " and ".join(f"{name} {size:,}" for name, size in sizes.items())
        raise DataError(
            f"{len(rows):,} examples, of which {wanted} would be taken: nothing is left to train on",
            path=source,
            remedy="Make data.validation_size and data.test_size smaller, or give files for them",
        )
    names, labels = _label_codes(rows)
    counts = np.bincount(labels, minlength=len(names))
    rooms, left = [], counts
    for done, size in enumerate(sizes.values()):
        spare = left - (len(sizes) - done)  # one a label for train and for each part to come
        # of a rare label the parts to come get nothing, so that train and this one have it
        rooms.append(_shares(counts, size, at_most=np.where(spare > 0, spare, np.minimum(1, left - 1))))
        left = left - rooms[-1]
    groups = _groups(normalised_keys([row.text for row in rows]))
    part = _assign(groups, labels, rooms, np.random.default_rng((seed, 0)))
    _give_back(part, groups, labels)
    parts: dict[str, Rows] = {}
    for place, name in enumerate(("train", *sizes)):
        inside = part == place
        if not inside.any():
            raise DataError(
                f"too few different texts: {name} gets no example, since examples with the same text (or "
                f"premise) stay in one "
                "part",
                path=source,
                remedy="Give files for validation and test, or add examples with other texts",
            )
        parts[name] = tuple(compress(rows, inside.tolist()))
    return parts


def folds(rows: Rows, number: int, seed: Sequence[int], source: str) -> list[tuple[Rows, Rows]]:
    """Cut examples into folds of one size, in the labels' proportions, so that no premise stands in two of them.

    Args:
        rows: labelled examples.
        number: of folds.
        seed: what the draw depends on.
        source: the file, for errors.

    Returns:
        Of each fold the examples outside it and those in it, each in the order of the file. Every example is in one.

    Raises:
        DataError: a label has fewer examples than there are folds, or too few different premises.
    """
    names, labels = _label_codes(rows)
    left = np.bincount(labels, minlength=len(names))
    if (left < number).any():
        rare, count = names[int(left.argmin())], int(left.min())
        fewer = f"data.cv={count}, or add" if count > 1 else "Add"
        raise DataError(
            f"{number} folds, and {count} {'example' if count == 1 else 'examples'} with the label {rare!r}: every "
            "fold needs one",
            path=source,
            remedy=f"{f'Set {fewer}' if count > 1 else fewer} examples of this label",
        )
    rooms = []
    for done in range(number - 1):
        rooms.append(_shares(left, round(left.sum() / (number - done)), at_most=left))
        left = left - rooms[-1]
    groups = _groups(normalised_keys([row.text for row in rows]))
    part = _assign(groups, labels, rooms, np.random.default_rng(seed))
    for place in range(number):
        inside = part == place
        if not inside.any() or len(np.unique(labels[~inside])) < len(names):
            raise DataError(
                f"too few different texts for {number} folds, since examples with the same text (or premise) stay "
                "in one fold",
                path=source,
                remedy="Set data.cv lower, or add examples with other texts",
            )
    return [(tuple(compress(rows, part != place)), tuple(compress(rows, part == place))) for place in range(number)]


def _give_back(part: Integers, groups: Integers, labels: Integers) -> None:
    """Move groups back to train where it would lack a label, so that every label can be learned."""
    for label in np.setdiff1d(labels, labels[part == 0]).tolist():
        part[groups == groups[labels == label][0]] = 0


def _label_codes(rows: Sequence[Example]) -> tuple[list[str], Integers]:
    names = list(dict.fromkeys(row.label for row in rows if row.label is not None))
    codes: dict[str | None, int] = {name: code for code, name in enumerate(names)}
    return names, np.array([codes[row.label] for row in rows], np.int64)


def _groups(keys: Integers) -> Integers:
    """Number examples by key in order of first appearance: keys are hashes and differ from process to process."""
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    numbers: Integers = np.argsort(np.argsort(first))[group]
    return numbers


def _shares(counts: Integers, size: int, at_most: Integers) -> Integers:
    """Divide `size` among labels in proportion to `counts` (largest remainders), one each where there is one.

    Args:
        counts: examples of each label. Shape (L,).
        size: examples wanted in all; where it is below L, the result sums to L.
        at_most: examples that may be taken of each label. Shape (L,).

    Returns:
        Examples to take of each label. Shape (L,).
    """
    exact = size * counts / counts.sum()
    least = np.minimum(1, at_most)
    taken: Integers = np.clip(np.floor(exact).astype(np.int64), least, at_most)
    while taken.sum() != size:
        step = 1 if taken.sum() < size else -1
        open_ = taken < at_most if step > 0 else taken > least
        if not open_.any():
            break
        need = np.where(open_, step * (exact - taken), -np.inf)
        taken[int(np.argmax(need))] += step
    return taken


def _assign(group: Integers, labels: Integers, rooms: Sequence[Integers], rng: np.random.Generator) -> Integers:
    """Give whole groups to parts until each label's room there is full.

    Args:
        group: group of each example, from 0. Shape (N,).
        labels: label code of each example. Shape (N,).
        rooms: for each part, examples wanted of each label. Shape (L,) each.
        rng: decides the order in which groups are looked at.

    Returns:
        Part of each example: 0 stays in train, 1 is the first of `rooms`, and so on. Shape (N,).
    """
    members = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[members], np.arange(group.max() + 2)).tolist()
    codes = labels[members].tolist()
    part_of = [0] * (len(bounds) - 1)
    room = [wanted.tolist() for wanted in rooms]
    left = [sum(wanted) for wanted in room]
    order = rng.permutation(len(part_of)).tolist()
    for exactly in (True, False):
        for one in order:
            if part_of[one]:
                continue
            inside = codes[bounds[one] : bounds[one + 1]]
            for place, wanted in enumerate(room):
                if left[place] > 0 and _fits(inside, wanted, exactly=exactly):
                    part_of[one] = place + 1
                    left[place] -= len(inside)
                    for code in inside:
                        wanted[code] -= 1
                    break
            if max(left) <= 0:
                break
        if all(map(_is_full, room, rooms)):
            break
    part: Integers = np.asarray(part_of, np.int64)[group]
    return part


def _fits(codes: Sequence[int], room: Sequence[int], *, exactly: bool) -> bool:
    """Tell whether a group fits into the room its labels have left, or at least fills as much as it overfills."""
    if len(codes) == 1:
        return room[codes[0]] > 0
    counts = [(codes.count(code), room[code]) for code in set(codes)]
    if exactly:
        return all(count <= free for count, free in counts)
    return sum(2 * min(count, max(free, 0)) - count for count, free in counts) >= 0


def _is_full(room: Sequence[int], wanted: Integers) -> bool:
    """Tell whether a part has nearly all its examples, and some of each label."""
    return sum(room) <= SIZE_TOLERANCE * wanted.sum() and all(
        free < size or not size for free, size in zip(room, wanted, strict=True)
    )
