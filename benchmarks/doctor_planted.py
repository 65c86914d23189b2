"""How well the data doctor finds mistakes planted in a labelled file: wrong labels, a leak, a marker word.

    python benchmarks/doctor_planted.py --data pairs.jsonl.gz --data questions.jsonl.gz --rows 4000

Prints what is warned of in each file as it is, and whether each planted mistake is found. With --detail (files of pairs
alone) also shares of wrong labels among the first candidates over three draws, leaked rows found by kind of edit, and
the word that tells most; --model reads the examples with an encoder. Seeded.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from entailor.config.parts import ModelSettings
from entailor.data.example import Example, Split
from entailor.data.readers import read_examples
from entailor.diagnostics.base import CheckInput, DoctorFinding, registered_checks
from entailor.diagnostics.doctor import encoder_features
from entailor.models.load import load_backbone, open_model
from entailor.models.precision import PrecisionChoice
from entailor.tasks import Task

FILLERS = ("really", "just", "quite", "also", "then")
OTHERS = ("thing", "person", "place", "maybe", "other")


def main() -> None:
    """Read, plant, look, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, action="append", help="a labelled file; may be given several times")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--leaked", type=int, default=50)
    parser.add_argument("--model")
    parser.add_argument("--detail", action="store_true", help="also how well leaks, markers and wrong labels are found")
    asked = parser.parse_args()
    for source in asked.data:
        rows = tuple(row for row in read_examples(source).examples if row.label)
        held = min(1000, len(rows) // 5)
        split = Split(rows[held:][: asked.rows], (), rows[:held])
        labels = tuple(sorted({row.label or "" for row in rows}))
        table(source, split, labels)
        if asked.detail:
            wrong_labels(split.train, labels, asked.model)
            leak(split.train, split.test, labels, asked.leaked)
            marker(split.train, labels)


def table(source: str, split: Split, labels: tuple[str, ...]) -> None:
    """Print what is warned of in the data as they are, and whether each planted mistake is."""
    pair = split.train[0].text_pair is not None
    last = "text_pair" if pair else "text"

    def warnings(planted: Split, names: tuple[str, ...]) -> set[str]:
        evidence = CheckInput(planted, labels, is_pair=pair)
        return {one.kind for name in names for one in findings(name, evidence) if one.severity != "info"}

    def changed(rows: tuple[Example, ...], **texts: Callable[[Example], str]) -> tuple[Example, ...]:
        return tuple(replace(row, **{field: make(row) for field, make in texts.items()}) for row in rows)

    test, some = split.test, split.test[: len(split.test) // 20]
    rest = test[len(some) :]
    opposite = tuple(
        replace(row, id=f"again-{row.id}", label=labels[(labels.index(row.label or "") + 1) % len(labels)])
        for row in some
    )
    plants: dict[str, tuple[Split, str, str]] = {
        "wrong labels, 1 %": (noisy(split, labels, 0.01), "label_noise", "label_noise"),
        "wrong labels, 5 %": (noisy(split, labels, 0.05), "label_noise", "label_noise"),
        "wrong labels, 10 %": (noisy(split, labels, 0.1), "label_noise", "label_noise"),
        "5 % of test in train": (Split(split.train + some, (), test), "repeated_rows", "exact_duplicates"),
        "5 % of test five times": (Split(split.train, (), some * 5 + rest), "repeated_rows", "repeated_rows"),
        "5 % of test contradicted": (Split(split.train, (), test + opposite), "repeated_rows", "conflicting_labels"),
        "1 % of texts 'nan'": (
            Split(changed(split.train[::100], **{last: lambda row: "nan"}) + split.train, (), test),
            "placeholders",
            "placeholder_text",
        ),
        "texts cut": (
            Split(
                changed(split.train, text=lambda row: row.text[:80]), (), changed(test, text=lambda row: row.text[:80])
            ),
            "lengths",
            "cut_texts",
        ),
    }
    if pair:
        swapped = changed(test, text=lambda row: row.text_pair or "", text_pair=lambda row: row.text)
        plants["columns of test exchanged"] = (
            Split(split.train, (), swapped),
            "exchanged_columns",
            "exchanged_columns",
        )
    clean = ", ".join(sorted(warnings(split, tuple(registered_checks())))) or "nothing"
    print(f"{source}: {len(split.train):,} to train, {len(test):,} to test; warned of as it is: {clean}")
    for name, (planted, check, kind) in plants.items():
        print(f"  {name}: {'found' if kind in warnings(planted, (check,)) else 'not found'}", flush=True)


def noisy(split: Split, labels: tuple[str, ...], part: float) -> Split:
    """Make a share of the labels of train wrong."""
    rng = np.random.default_rng(1)
    wrong = set(rng.choice(len(split.train), round(part * len(split.train)), replace=False).tolist())
    shifted = [
        labels[(labels.index(row.label or "") + int(rng.integers(1, len(labels)))) % len(labels)] for row in split.train
    ]
    train = tuple(
        replace(row, label=shifted[place]) if place in wrong else row for place, row in enumerate(split.train)
    )
    return Split(train, (), split.test)


def findings(name: str, evidence: CheckInput) -> list[DoctorFinding]:
    """Run one check."""
    return list(registered_checks()[name][1](evidence).findings)


def wrong_labels(train: tuple[Example, ...], labels: tuple[str, ...], model: str | None) -> None:
    """Make 5 % of the labels wrong, three times."""
    evidence = CheckInput(Split(train, (), ()), labels, is_pair=True)
    if model:
        settings, task = ModelSettings(head="new"), Task(labels, is_pair=True)
        backbone = load_backbone(open_model(model, settings), task, settings, PrecisionChoice("fp32", ""), 0)
        evidence = replace(evidence, encoder=encoder_features(backbone, model, task, evidence))
    for draw in range(3):
        rng = np.random.default_rng(100 + draw)
        wrong = set(rng.choice(len(train), len(train) // 20, replace=False).tolist())
        noisy = [
            replace(
                row, label=labels[(labels.index(row.label or "") + int(rng.integers(1, len(labels)))) % len(labels)]
            )
            if place in wrong
            else row
            for place, row in enumerate(train)
        ]
        (found,) = findings("label_noise", replace(evidence, split=Split(tuple(noisy), (), ())))
        bad = {train[place].id for place in wrong}
        hits = np.array([one in bad for one in found.ids])
        first = len(wrong)
        print(
            f"wrong labels, draw {draw}: held-out accuracy {found.figures['accuracy']:.3f}; wrong among the first 50 "
            f"{hits[:50].mean():.2f}, the first {first} {hits[:first].sum() / first:.3f}, all {len(hits)} "
            f"{hits.mean():.3f}; found {hits.sum() / first:.3f}; severity {found.severity}, its own estimate "
            f"{found.figures['precision']:.3f}"
        )


def leak(train: tuple[Example, ...], test: tuple[Example, ...], labels: tuple[str, ...], count: int) -> None:
    """Put test rows into train, word for word and edited."""
    rng = random.Random(0)
    leaked = rng.sample(test, count)
    edits: dict[str, tuple[Callable[[str], str], Callable[[str], str]]] = {
        "word for word": (str, str),
        "one edit in each text": (lambda text: edited(text, rng), lambda text: edited(text, rng)),
        "one edit in the second text": (str, lambda text: edited(text, rng)),
        "two edits in each text": (
            lambda text: edited(edited(text, rng), rng),
            lambda text: edited(edited(text, rng), rng),
        ),
    }
    for how, (first, second) in edits.items():
        made = tuple(
            replace(row, id=f"leak-{row.id}", text=first(row.text), text_pair=second(row.text_pair or ""))
            for row in leaked
        )
        evidence = CheckInput(Split(train + made, (), test), labels, is_pair=True)
        near = {
            one
            for found in findings("near_duplicates", evidence)
            if found.kind.startswith("near_duplicates_train_test")
            for one in found.ids
        }
        exact = [found.message for found in findings("repeated_rows", evidence) if found.kind.endswith("duplicates")]
        true = {row.id for row in leaked}
        others = len(near - true)
        print(f"leak, {how}: {len(near & true)} of {count} by likeness, {others} others; {exact or 'none equal'}")


def edited(text: str, rng: random.Random) -> str:
    """Change one word: swap two letters, leave it out, swap it with the next, put one before it, or put another."""
    words = text.split()
    place = rng.randrange(len(words))
    kind = rng.choice(("group", "out", "next", "before", "other"))
    if kind == "group" and len(words[place]) > 2:
        at = rng.randrange(len(words[place]) - 1)
        word = words[place]
        words[place] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    elif kind == "out" and len(words) > 3:
        words.pop(place)
    elif kind == "next" and len(words) > 3:
        place = rng.randrange(len(words) - 1)
        words[place], words[place + 1] = words[place + 1], words[place]
    elif kind == "before":
        words.insert(place, rng.choice(FILLERS))
    else:
        words[place] = rng.choice(OTHERS)
    return " ".join(words)


def marker(train: tuple[Example, ...], labels: tuple[str, ...]) -> None:
    """Put a word into 60 % of the second texts of one label."""
    rng = random.Random(0)
    marked = tuple(
        replace(row, text_pair=f"{row.text_pair} zyx") if row.label == labels[0] and rng.random() < 0.6 else row
        for row in train
    )
    for found in findings("artefacts", CheckInput(Split(marked, (), ()), labels, is_pair=True)):
        print(f"marker: {found.severity} {found.kind}: {found.message}")


if __name__ == "__main__":
    main()
