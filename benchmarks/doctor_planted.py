"""How well the data doctor finds faults planted in labelled files, what it warns of wrongly, and how long it takes.

    python benchmarks/doctor_planted.py --data train.jsonl.gz dev.jsonl.gz --data bundled:film --rows 2000
    python benchmarks/doctor_planted.py --time

Plants six kinds of faults in each data set (wrong labels, leaks, a word that gives a label away, exchanged columns, cut
texts, another script or language), runs every check, and prints what is warned of in the data as they are, whether each
fault is found, how many of the planted examples are named, and for each warning how often it was right. What is warned
of in the data as they are counts neither way: it is printed first, to be read. --detail makes labels wrong three times
more and counts the first candidates; --model reads the examples with an encoder for it. Seeded.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from entailor.config.parts import DataSettings, ModelSettings
from entailor.data.example import Example, Split
from entailor.data.splits import load_data
from entailor.diagnostics.base import CheckInput, DoctorFinding, examine, registered_checks
from entailor.diagnostics.doctor import encoder_features
from entailor.models.load import load_backbone, open_model
from entailor.models.precision import PrecisionChoice
from entailor.tasks import Task

FILLERS = ("really", "just", "quite", "also", "then")
OTHERS = ("thing", "person", "place", "maybe", "other")
DUTCH = (  # a sentence is one of each
    ("De hond", "Het kind", "De buurman", "Een vrouw", "De leraar", "Het meisje", "Een oude man", "De bakker"),
    ("loopt", "zit", "slaapt", "werkt", "wacht", "leest", "zingt", "staat"),
    ("in het huis", "bij de rivier", "op het plein", "voor de school", "naast een boom", "aan de tafel"),
    ("en ziet niet wat er gebeurt.", "maar heeft geen tijd.", "met een boek dat niet van hem is.", "van de stad.", "."),
)
LATIN, CYRILLIC = "abcdefghijklmnopqrstuvwxyz", "абцдефгхийклмнопярстувжчызюэ"
OTHER_SCRIPT = str.maketrans(
    LATIN + LATIN.upper() + "".join(map(chr, range(0x0621, 0x064B))),
    CYRILLIC[:26] + CYRILLIC[:26].upper() + "".join(CYRILLIC[k % 26] for k in range(0x064B - 0x0621)),
)
REPEATED = (
    "exact_duplicates",
    "near_duplicates",
    "reworded",
    "shared_premises",
    "near_premises",
    "repeated_rows",
    "conflicting",
)
GIVEN_AWAY = ("giveaway_word", "hypothesis_only", "premise_only", "text_only", "word_overlap", "lengths_only")


@dataclass(frozen=True)
class Plant:
    """A data set with a fault in it.

    Attributes:
        name: of the fault.
        split: the data set with it.
        kinds: beginnings of the kinds of warnings that are right to come.
        ids: the examples it is in, those that a finding should name.
    """

    name: str
    split: Split
    kinds: tuple[str, ...]
    ids: frozenset[str] = frozenset()

    def expects(self, kind: str) -> bool:
        """Return whether a warning of this kind is right."""
        return kind.startswith(self.kinds)


def main() -> None:
    """Read, plant, look, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", nargs="+", default=[], help="a labelled file, and its test file")
    parser.add_argument("--rows", type=int, default=2000, help="most examples to train on, and half as many of test")
    parser.add_argument("--model", help="for --detail")
    parser.add_argument("--detail", action="store_true", help="also how well wrong labels are found, of pairs")
    parser.add_argument("--time", action="store_true", help="processor time of made-up texts, 10,000 and 100,000")
    asked = parser.parse_args()
    found: Counter[tuple[str, bool]] = Counter()
    for files in asked.data:
        data = read(files, asked.rows)
        table(files[0], *data, found)
        if asked.detail:
            wrong_labels(data[0].train, data[1], asked.model)
    if found:
        print("\nwarning: right of those given where something was planted, the data's own left out")
        for kind in sorted({kind for kind, _ in found}):
            print(f"  {kind}: {found[kind, True]} of {found[kind, True] + found[kind, False]}")
    if asked.time:
        times()


def read(files: list[str], rows: int) -> tuple[Split, tuple[str, ...], bool]:
    """Return train and test, the labels, and whether these are pairs."""
    sizes = {"max_train_examples": rows, "max_test_examples": rows // 2}
    given = dict(zip(("train", "test"), files, strict=False))
    loaded = load_data(DataSettings(**given, **sizes), whole=len(files) > 1)
    return Split(loaded.split.train, (), loaded.split.test), loaded.labels, loaded.is_pair


def warnings(split: Split, labels: tuple[str, ...], *, is_pair: bool) -> list[DoctorFinding]:
    """Return what every check warns of."""
    outcomes = [one.outcome for one in examine(CheckInput(split, labels, is_pair))]
    return [found for outcome in outcomes for found in outcome.findings if found.severity != "info"]


def table(source: str, split: Split, labels: tuple[str, ...], is_pair: bool, found: Counter[tuple[str, bool]]) -> None:
    """Print what is warned of in the data as they are, and whether each planted fault is; count who was right."""
    clean = warnings(split, labels, is_pair=is_pair)
    print(f"\n{source}: {len(split.train):,} to train, {len(split.test):,} to test; as it is:", flush=True)
    for one in clean:
        print(f"    {one.kind}: {one.message}")
    own = {one.kind for one in clean}
    for plant in plants(split, labels, is_pair=is_pair):
        given = warnings(plant.split, labels, is_pair=is_pair)
        found.update((one.kind, plant.expects(one.kind)) for one in given if one.kind not in own)
        # a warning that the data give anyway counts where it names what was planted
        right = [one for one in given if plant.expects(one.kind) and (one.kind not in own or plant.ids & {*one.ids})]
        named = {name for one in right for name in one.ids}
        count = f"; {len(named & plant.ids)} of {len(plant.ids)} named, {len(named - plant.ids)} others"
        said = ", ".join(dict.fromkeys(one.kind for one in right)) or "not found"
        wrong = {one.kind for one in given if not plant.expects(one.kind)} - own
        print(f"  {plant.name}: {said}{count if plant.ids else ''}{f'; FALSE: {wrong}' if wrong else ''}", flush=True)


def plants(split: Split, labels: tuple[str, ...], *, is_pair: bool) -> list[Plant]:
    """Return the data set with each fault."""
    train, test, rng = split.train, split.test, random.Random(0)
    second = "text_pair" if is_pair else "text"

    def changed(rows: tuple[Example, ...], make: Callable[[str], str], fields: tuple[str, ...]) -> tuple[Example, ...]:
        return tuple(replace(row, **{name: make(getattr(row, name)) for name in fields}) for row in rows)

    both = ("text", "text_pair") if is_pair else ("text",)
    made = [Plant(f"wrong labels, {part:.0%}", *noisy(split, labels, part)) for part in (0.01, 0.05, 0.1)]
    leaks: dict[str, Callable[[str], str]] = {
        "word for word": str,
        "in capitals": str.upper,
        "one word edited in each text": lambda text: edited(text, rng),
        "rewritten": lambda text: rewritten(text, rng),
    }
    some = rng.sample(test, max(5, len(test) // 20))
    for how, edit in leaks.items():
        leaked = changed(tuple(replace(row, id=f"leak-{row.id}") for row in some), edit, both)
        ids = frozenset(row.id for row in some)
        made.append(Plant(f"5 % of test in train, {how}", Split(train + leaked, (), test), REPEATED, ids))
    often = Counter(row.label for row in train).most_common(1)[0][0]
    marked = tuple(
        replace(row, **{second: f"{getattr(row, second)} zyx"}) if row.label == often and rng.random() < 0.6 else row
        for row in train
    )
    made.append(Plant("a word in 60 % of one label", Split(marked, (), test), GIVEN_AWAY))
    if is_pair:
        swapped = tuple(replace(row, text=row.text_pair or "", text_pair=row.text) for row in test)
        made.append(Plant("columns of test exchanged", Split(train, (), swapped), ("exchanged_columns",)))
    most = max(80, int(np.quantile([len(row.text) for row in train], 0.7)))  # no field of a table is shorter
    cut = [changed(rows, lambda text: text[:most], ("text",)) for rows in (train, test)]
    made.append(Plant(f"texts cut at {most}", Split(cut[0], (), cut[1]), ("cut_texts", *REPEATED)))
    made.append(shortened(split))
    places = set(rng.sample(range(len(train)), len(train) // 20))
    mixed = tuple(
        changed((row,), lambda text: text.translate(OTHER_SCRIPT), both)[0] if place in places else row
        for place, row in enumerate(train)
    )
    ids = frozenset(train[place].id for place in places)
    made.append(Plant("5 % in another script", Split(mixed, (), test), ("other_script", "pair_scripts"), ids))
    dutch = tuple(
        changed((row,), lambda _: " ".join(map(rng.choice, DUTCH)), both)[0] if place in places else row
        for place, row in enumerate(train)
    )
    made.append(Plant("5 % in Dutch", Split(dutch, (), test), ("other_language", "pair_scripts", *REPEATED), ids))
    return made


def shortened(split: Split) -> Plant:
    """Return the data set with first texts cut behind a number of words that 30 % reach, 12 at least."""
    most = max(12, int(np.quantile([len(row.text.split()) for row in split.train], 0.7)))
    train, test = (
        tuple(replace(row, text=" ".join(row.text.split()[:most])) for row in rows)
        for rows in (split.train, split.test)
    )
    return Plant(f"texts cut at {most} words", Split(train, (), test), ("cut_texts", *REPEATED))


def noisy(split: Split, labels: tuple[str, ...], part: float) -> tuple[Split, tuple[str, ...], frozenset[str]]:
    """Make a share of the labels of train wrong; return what a plant has behind its name."""
    rng = np.random.default_rng(1)
    wrong = set(rng.choice(len(split.train), round(part * len(split.train)), replace=False).tolist())
    train = tuple(
        replace(row, label=another(row.label, labels, rng)) if place in wrong else row
        for place, row in enumerate(split.train)
    )
    return (
        Split(train, (), split.test),
        ("label_noise", "conflicting"),
        frozenset(split.train[place].id for place in wrong),
    )


def another(label: str | None, labels: tuple[str, ...], rng: np.random.Generator) -> str:
    """Return another label."""
    return labels[(labels.index(label or "") + int(rng.integers(1, len(labels)))) % len(labels)]


def edited(text: str, rng: random.Random) -> str:
    """Change one word: swap two letters, leave it out, swap it with the next, put one before it, or put another."""
    words = text.split()
    if not words:
        return text
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


def rewritten(text: str, rng: random.Random) -> str:
    """Put another word for every third one, and the second half first: as far from the text as a paraphrase."""
    words = [rng.choice(OTHERS) if place % 3 == 2 else word for place, word in enumerate(text.split())]
    return " ".join(words[len(words) // 2 :] + words[: len(words) // 2])


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
        rows = tuple(
            replace(row, label=another(row.label, labels, rng)) if place in wrong else row
            for place, row in enumerate(train)
        )
        planted = replace(evidence, split=Split(rows, (), ()))
        (found,) = registered_checks()["label_noise"][1](planted).findings
        bad = {train[place].id for place in wrong}
        hits = np.array([one in bad for one in found.ids])
        first = len(wrong)
        print(
            f"wrong labels, draw {draw}: held-out accuracy {found.figures['accuracy']:.3f}; wrong among the first 50 "
            f"{hits[:50].mean():.2f}, the first {first} {hits[:first].sum() / first:.3f}, all {len(hits)} "
            f"{hits.mean():.3f}; found {hits.sum() / first:.3f}; severity {found.severity}, its own estimate "
            f"{found.figures['precision']:.3f}"
        )


def times() -> None:
    """Print the processor time of every check over made-up texts: 20 words by Zipf's law, of 20,000."""
    words = np.array([f"{LATIN[k % 26]}{LATIN[k // 26 % 26]}{k:x}" for k in range(20_000)])
    share = 1 / np.arange(1, len(words) + 1)
    for count in (10_000, 100_000):
        for is_pair, num_labels in ((False, 3), (True, 3), (True, 200)):
            rng = np.random.default_rng(count)
            texts = [" ".join(row) for row in rng.choice(words, (2 * count, 20), p=share / share.sum())]
            labels = tuple(f"label {k}" for k in range(num_labels))
            gold = rng.integers(num_labels, size=count)
            rows = tuple(
                Example(str(place), texts[place], texts[count + place] if is_pair else None, labels[gold[place]])
                for place in range(count)
            )
            held = count // 10
            evidence = CheckInput(Split(rows[held:], (), rows[:held]), labels, is_pair)
            spent = {}
            for name, (_, function) in registered_checks().items():
                begin = time.process_time()
                function(evidence)
                spent[name] = time.process_time() - begin
            most = ", ".join(f"{name} {spent[name]:.1f}" for name in sorted(spent, key=lambda k: -spent[k])[:4])
            kind = "pairs" if is_pair else "texts"
            print(f"{count:,} {kind}, {num_labels} labels: {sum(spent.values()):.1f} s ({most})", flush=True)


if __name__ == "__main__":
    main()
