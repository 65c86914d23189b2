"""Splits: sizes, proportions and whole premises; the same for the same seed in every process."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entailor.config.parts import DataSettings
from entailor.data.example import Example, Split
from entailor.data.labels import joined_labels
from entailor.data.splits import load_data, split_document
from entailor.data.stratify import sample, split_off
from entailor.data.text_keys import normalised
from entailor.errors import ConfigError, DataError, LabelError

LABELS = ("entailment", "neutral", "contradiction")


def pair_rows(premises: int, labels=LABELS, start: int = 0) -> list[dict]:
    """Every premise with one hypothesis a label."""
    return [
        {"premise": f"Premise number {n}.", "hypothesis": f"{label} of {n}", "label": label}
        for n in range(start, start + premises)
        for label in labels
    ]


def write(folder: Path, name: str, rows: list[dict]) -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def premises(rows) -> set[str]:
    return {normalised(row.text) for row in rows}


def test_parts_are_taken_from_train_by_label_and_premise(tmp_path):
    source = write(tmp_path, "train.jsonl", pair_rows(200))
    data = load_data(DataSettings(train=source, validation_size=0.1, test_size=120))
    assert [len(rows) for _, rows in data.split.parts()] == [420, 60, 120]
    for _, rows in data.split.parts():
        assert len(set(Counter(row.label for row in rows).values())) == 1
    assert not premises(data.split.train) & premises(data.split.test)
    assert not premises(data.split.train) & premises(data.split.validation)
    assert not premises(data.split.validation) & premises(data.split.test)
    assert (data.labels, data.is_pair, data.findings) == (LABELS, True, ())
    assert data.fingerprint == data.split.fingerprint()
    assert any("600 examples" in note for note in data.notes)
    assert any("test (120 examples) and validation (60 examples) taken from train" in note for note in data.notes)


def test_parts_keep_the_order_of_the_file(tmp_path):
    rows = [{"text": f"text {n}", "label": "ab"[n % 2]} for n in range(300)]
    data = load_data(DataSettings(train=write(tmp_path, "a.jsonl", rows), max_train_examples=50))
    for _, part in data.split.parts():
        numbers = [int(row.text.split()[1]) for row in part]
        assert numbers == sorted(numbers)


def test_another_seed_gives_another_split_and_the_same_seed_the_same(tmp_path):
    source = write(tmp_path, "a.jsonl", pair_rows(60))
    one, again, other = (load_data(DataSettings(train=source, split_seed=seed)) for seed in (0, 0, 1))
    assert one == again
    assert one.fingerprint != other.fingerprint


def test_the_split_does_not_hang_on_the_hash_seed_of_the_process(tmp_path):
    source = write(tmp_path, "a.jsonl", pair_rows(40))
    code = (
        "import sys; from entailor.config.experiment import DataSettings; from entailor.data.splits import load_data; "
        "print(load_data(DataSettings(train=sys.argv[1], max_train_examples=30)).fingerprint)"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code, source],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


def test_given_test_file_leaves_validation_to_be_taken_from_train(tmp_path):
    train, test = write(tmp_path, "a.jsonl", pair_rows(50)), write(tmp_path, "b.jsonl", pair_rows(10, start=90))
    data = load_data(DataSettings(train=train, test=test, validation_size=30))
    assert [len(rows) for _, rows in data.split.parts()] == [120, 30, 30]
    assert any(note.startswith("validation (30 examples) taken from train") for note in data.notes)
    all_given = load_data(DataSettings(train=train, test=test, validation=test))
    assert all_given.split.validation == all_given.split.test
    assert "exact_duplicates" in {finding.kind for finding in all_given.findings}


def test_samples_are_in_proportion_and_noted(tmp_path):
    rows = [{"text": f"text {n}", "label": "b" if n % 4 else "a"} for n in range(400)]
    settings = DataSettings(
        train=write(tmp_path, "a.jsonl", rows),
        max_train_examples=40,
        max_validation_examples=20,
        max_test_examples=10_000,
    )
    data = load_data(settings)
    assert Counter(row.label for row in data.split.train) == {"a": 10, "b": 30}
    assert Counter(row.label for row in data.split.validation) == {"a": 5, "b": 15}
    assert len(data.split.test) == 80
    assert [note for note in data.notes if "a sample of" in note] == [
        "train: a sample of 40 of 280 examples, in the labels' proportions",
        "validation: a sample of 20 of 40 examples, in the labels' proportions",
    ]


@pytest.mark.parametrize(
    ("found", "settings", "labels"),
    [
        (("neutral", "contradiction", "entailment"), {}, LABELS),
        (("contradiction", "entailment"), {}, ("entailment", "contradiction")),
        (("not_entailment", "entailment"), {}, ("entailment", "not_entailment")),
        (("spam", "ham"), {}, ("ham", "spam")),
        (("spam", "ham"), {"labels": ("spam", "ham")}, ("spam", "ham")),
        (("1", "0"), {"label_names": {0: "no", 1: "yes"}}, ("no", "yes")),
    ],
)
def test_the_order_of_labels(tmp_path, found, settings, labels):
    data = load_data(DataSettings(train=write(tmp_path, "a.jsonl", pair_rows(20, found)), **settings))
    assert data.labels == labels


def test_leaks_are_dropped_when_asked_for(tmp_path):
    train, validation = write(tmp_path, "a.jsonl", pair_rows(50)), write(tmp_path, "b.jsonl", pair_rows(5, start=80))
    settings = DataSettings(train=train, validation=validation, test=write(tmp_path, "c.jsonl", pair_rows(5)))
    kept = load_data(settings)
    assert (len(kept.split.train), {finding.kind for finding in kept.findings}) == (
        150,
        {"exact_duplicates", "shared_premises"},
    )
    data = load_data(settings.model_copy(update={"drop_leaks": True}))
    assert (len(data.split.train), data.findings) == (135, ())
    assert "train: 15 examples dropped because their text also stands in validation or test" in data.notes


def test_rows_without_gold_are_noted(tmp_path):
    rows = [*pair_rows(20), {"premise": "p", "hypothesis": "h", "label": "-"}]
    (finding, *_) = load_data(DataSettings(train=write(tmp_path, "a.jsonl", rows))).findings
    assert (finding.kind, finding.severity) == ("no_gold_label", "warning")
    assert "1 of 61 examples (1.6 %) of train" in finding.message


def test_the_document_of_a_split():
    split = Split((Example("a", "x", None, "l"),), (), (Example("b", "y", None, "l"),))
    expected = {"fingerprint": split.fingerprint(), "train": ["a"], "validation": [], "test": ["b"]}
    assert split_document(split) == expected


def test_splits_of_a_data_set(monkeypatch, tmp_path):
    import datasets

    asked = []

    def load_dataset(path, name, split, streaming):
        asked.append((path, name, split))
        start = {"train": 0, "validation_matched": 100, "test": 200}[split]
        return datasets.Dataset.from_list(pair_rows(30, start=start))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = load_data(
        DataSettings(train="owner/nli", config_name="c", validation_split="validation_matched", test="owner/other")
    )
    assert asked == [
        ("owner/nli", "c", "train"),
        ("owner/nli", "c", "validation_matched"),
        ("owner/other", "c", "test"),
    ]
    assert [len(rows) for _, rows in data.split.parts()] == [90, 90, 90]
    source = write(tmp_path, "a.jsonl", pair_rows(30))
    with pytest.raises(ConfigError, match=r"data\.validation_split: .* is a file"):
        load_data(DataSettings(train=source, validation_split="validation"))


# --- what cannot be split ---


def test_one_class_only(tmp_path):
    source = write(tmp_path, "a.jsonl", pair_rows(20, ("neutral",)))
    with pytest.raises(DataError, match=r"a\.jsonl: every example has the label 'neutral', expected at least two"):
        load_data(DataSettings(train=source))


@pytest.mark.parametrize("settings", [{}, {"labels": LABELS}])
def test_a_label_that_train_does_not_have(tmp_path, settings):
    train = write(tmp_path, "a.jsonl", pair_rows(20, LABELS[:2]))
    test = write(tmp_path, "b.jsonl", pair_rows(2))
    with pytest.raises(LabelError, match=r"b\.jsonl, row 3.*'contradiction', expected one of 'entailment', 'neutral'"):
        load_data(DataSettings(train=train, test=test, **settings))
    with pytest.raises(LabelError, match="no example of train has the label 'contradiction'"):
        load_data(DataSettings(train=train, labels=LABELS))


def test_pairs_here_and_single_texts_there(tmp_path):
    train = write(tmp_path, "a.jsonl", pair_rows(20))
    test = write(tmp_path, "b.jsonl", [{"text": "x", "label": "neutral"}])
    with pytest.raises(
        DataError, match=r"b\.jsonl: test holds single texts \(text=text, label=label\), but train holds pairs"
    ):
        load_data(DataSettings(train=train, test=test))


@pytest.mark.parametrize(
    ("rows", "settings", "kind", "said"),
    [
        (pair_rows(20), {"validation_size": 0.5, "test_size": 0.5}, DataError, "nothing is left to train on"),
        (
            pair_rows(20),
            {"validation_size": 1, "test_size": 59},
            DataError,
            "60 examples, of which test 59 and validation 1",
        ),
        (pair_rows(20), {"validation_size": 2.5}, ConfigError, r"data\.validation_size: 2\.5 is neither"),
        (
            pair_rows(20),
            {"max_validation_examples": 2},
            ConfigError,
            r"data\.max_validation_examples: 2 is less than the labels",
        ),
        (
            [{"premise": "One premise.", "hypothesis": f"h {n}", "label": "ab"[n % 2]} for n in range(40)],
            {},
            DataError,
            "too few different texts: ",
        ),
    ],
)
def test_too_little_to_split(tmp_path, rows, settings, kind, said):
    with pytest.raises(kind, match=said):
        load_data(DataSettings(train=write(tmp_path, "a.jsonl", rows), **settings))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("with_test", [False, True])
def test_rare_labels_do_not_stop_the_split(tmp_path, count, with_test):
    rare = [{"premise": f"p {n}", "hypothesis": "h", "label": "rare"} for n in range(count)]
    source = write(tmp_path, "a.jsonl", [*pair_rows(20), *rare])
    given = {"test": write(tmp_path, "b.jsonl", pair_rows(5, start=50))} if with_test else {}
    data = load_data(DataSettings(train=source, **given))
    have = {name: sum(row.label == "rare" for row in rows) for name, rows in data.split.parts()}
    assert (have["train"], sum(have.values())) == (1, count) if count < 3 or not with_test else have["train"] >= 1
    absent = [found for found in data.findings if found.kind == "absent_labels"]
    assert len(absent) == (have["validation"] == 0) + (have["test"] == 0)


def test_labels_of_one_text_stay_in_train(tmp_path):
    same = [{"premise": "always this", "hypothesis": f"h {n}", "label": "rare"} for n in range(6)]
    for seed in range(5):
        data = load_data(DataSettings(train=write(tmp_path, "a.jsonl", [*pair_rows(20), *same]), split_seed=seed))
        assert sum(row.label == "rare" for row in data.split.train) == 6


def test_leaks_that_are_all_of_train(tmp_path):
    source = write(tmp_path, "a.jsonl", pair_rows(20))
    with pytest.raises(DataError, match=r"every example with the label .* Set data\.drop_leaks=false"):
        load_data(DataSettings(train=source, validation=source, test=source, drop_leaks=True))


def test_leaks_that_are_all_of_a_rare_class(tmp_path):
    rows = [{"text": f"text {n}", "label": "xy"[n % 2]} for n in range(40)]
    rare = {"text": "a leak", "label": "rare"}
    train = write(tmp_path, "a.jsonl", [*rows, rare])
    test = write(tmp_path, "b.jsonl", [*({**row, "text": f"other {row['text']}"} for row in rows), rare])
    with pytest.raises(DataError, match="every example with the label 'rare' also stands in validation or test"):
        load_data(DataSettings(train=train, test=test, drop_leaks=True))


def test_a_sample_needs_the_labels_of_its_own_part_alone(tmp_path):
    rows = [{"text": f"text {n}", "label": "xy"[n % 2]} for n in range(40)]
    train = write(tmp_path, "a.jsonl", [*rows, {"text": "alone", "label": "rare"}])
    test = write(tmp_path, "b.jsonl", [{**row, "text": f"other {row['text']}"} for row in rows])
    small = DataSettings(train=train, test=test, max_validation_examples=2, max_test_examples=2)
    assert [len(part) for _, part in load_data(small).split.parts()] == [37, 2, 2]
    with pytest.raises(ConfigError, match=r"2 is less than the labels of train\. Give at least 3"):
        load_data(DataSettings(train=train, test=test, max_train_examples=2))


# --- properties ---


@settings(deadline=None)
@given(st.data())
def test_split_off_keeps_groups_whole_and_every_label_in_train(data):
    groups = data.draw(st.lists(st.integers(0, 30), min_size=60, max_size=120))
    labels = data.draw(st.lists(st.sampled_from("ab"), min_size=len(groups), max_size=len(groups)))
    rows = tuple(
        Example(str(n), f"Group {group}" + "!" * (n % 3), str(n), label)
        for n, (group, label) in enumerate(zip(groups, labels, strict=True))
    )
    sizes = {"test": data.draw(st.integers(2, 20)), "validation": data.draw(st.integers(2, 20))}
    try:
        parts = split_off(rows, sizes, seed=0, source="examples")
    except DataError as error:
        assert "too few" in str(error)  # noqa: PT017
        return
    assert sorted((row for part in parts.values() for row in part), key=lambda row: int(row.id)) == list(rows)
    largest = max(Counter(groups).values())
    for name, part in parts.items():
        assert {row.label for row in part} == set(labels) if name == "train" else part
        others = [row for other, kept in parts.items() if other != name for row in kept]
        assert not premises(part) & premises(others)
        if name != "train":
            assert len(part) <= sizes[name] + largest


@settings(deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=3, max_size=60), st.integers(3, 60), st.integers(0, 3))
def test_a_sample_has_its_size_and_the_labels_proportions(labels, size, seed):
    rows = tuple(Example(str(n), "text", None, label) for n, label in enumerate(labels))
    drawn = sample(rows, size, (seed,))
    assert len(drawn) == min(size, len(rows))
    assert list(drawn) == [row for row in rows if row in set(drawn)]
    counts = Counter(labels)
    for label, count in Counter(row.label for row in drawn).items():
        assert count == 1 or abs(count - len(drawn) * counts[label] / len(rows)) < len(counts)
    assert {row.label for row in drawn} == set(labels)


def test_single_rows_are_split_exactly_in_proportion():
    rng = np.random.default_rng(0)
    labels = rng.choice(["a", "b", "c"], 1000, p=[0.7, 0.2, 0.1])
    rows = tuple(Example(str(n), f"text {n}", None, str(label)) for n, label in enumerate(labels))
    parts = split_off(rows, {"test": 200, "validation": 100}, seed=0, source="examples")
    whole = Counter(labels.tolist())
    for name, size in (("test", 200), ("validation", 100)):
        assert len(parts[name]) == size
        for label, count in Counter(row.label for row in parts[name]).items():
            assert abs(count - size * whole[label] / 1000) <= 1


def test_few_large_groups_still_make_parts():
    rows = tuple(Example(str(n), f"group {n % 10}", str(n), "ab"[n // 10 % 2]) for n in range(1000))
    parts = split_off(rows, {"test": 50, "validation": 50}, seed=0, source="examples")
    assert [len(parts[name]) for name in ("train", "test", "validation")] == [800, 100, 100]


def test_several_labels_in_one_are_refused_unless_they_are_named_as_classes(tmp_path):
    labels = ["sport", "politics", "sport;politics", "politics; art", "art"]
    rows = [{"text": f"text {n}", "label": labels[n % 5]} for n in range(100)]
    source = write(tmp_path, "train.jsonl", rows)
    settings = DataSettings(train=source, validation_size=10, test_size=10)
    with pytest.raises(LabelError, match=r"'sport;politics', 'politics; art' look like.*multi-label.*Keep one"):
        load_data(settings)
    assert load_data(settings.model_copy(update={"labels": tuple(labels)})).labels == tuple(labels)


@pytest.mark.parametrize(
    "labels",
    [
        ("food, drink", "music, film", "sport"),  # names with commas
        ("red", "blue", "red;blue"),  # "both", once
        ("1,5", "2,5", "3"),
    ],
)
def test_names_with_separators_are_classes(labels):
    assert joined_labels(labels) == []


def test_a_saved_dataset_dict_gives_the_splits_that_are_asked_for(tmp_path):
    import datasets

    def part(name, count):
        return datasets.Dataset.from_dict(
            {"text": [f"{name} {n}" for n in range(count)], "label": ["x", "y"] * (count // 2)}
        )

    saved = str(tmp_path / "saved")
    datasets.DatasetDict(train=part("train", 20), held=part("held", 6)).save_to_disk(saved)
    split = load_data(DataSettings(train=saved, test_split="held", validation_size=4)).split
    assert [len(rows) for _, rows in split.parts()] == [16, 4, 6]
    assert split.test[0].text == "held 0"
    with pytest.raises(DataError, match=r"several splits \(train, held\), but no split 'test'"):
        load_data(DataSettings(train=saved, test=saved))
