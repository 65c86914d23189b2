"""Data that a program holds in memory: every shape gives the same file, and what is no table is refused by name."""

from __future__ import annotations

import json
from decimal import Decimal

import datasets
import numpy as np
import pandas as pd
import pytest

from entailor.config.experiment import Experiment
from entailor.config.parts import DataSettings
from entailor.data.example import Example
from entailor.data.in_memory import document, with_files
from entailor.data.readers import read_examples
from entailor.errors import DataError

TEXTS = ["a good film", 'dull, "very" dull', "good\nagain"]
LABELS = ["pos", "neg", "pos"]


def rows(data, settings=None):
    return json.loads(document(data, "train", settings))["examples"]


def test_every_shape_gives_the_same_file():
    polars = pytest.importorskip("polars")
    expected = document({"text": TEXTS, "label": LABELS}, "train")
    columns = {"n": [[1], [2], [3]], "text": TEXTS, "label": LABELS}
    for data in (
        list(zip(TEXTS, LABELS, strict=True)),
        [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)],
        columns,
        pd.DataFrame(columns),
        pd.DataFrame(columns).astype({"label": "category"}),
        polars.DataFrame(columns),
        datasets.Dataset.from_dict(columns),
        datasets.Dataset.from_dict(columns).data.table,
        {"text": np.array(TEXTS), "label": (label for label in LABELS)},
        {"text": [text.encode() for text in TEXTS], "label": np.array(LABELS, dtype="S")},
        np.array(list(zip(LABELS, TEXTS, strict=True)), dtype=[("label", "U9"), ("text", "U99")]),  # by name
        pd.DataFrame(columns).assign(m=0).rename(columns={"m": "n"}),  # two of one name, which nobody reads
        datasets.Dataset.from_dict(columns).cast_column("label", datasets.ClassLabel(names=["neg", "pos"])),
    ):
        assert document(data, "train") == expected, type(data)


def test_pairs_and_examples_keep_their_fields():
    pairs = [("It rains.", "It is wet.", "entailment")]
    assert rows(pairs) == [{"premise": "It rains.", "hypothesis": "It is wet.", "label": "entailment"}]
    example = Example("7", "It rains.", "It is wet.", "entailment", "weather")
    assert rows([example]) == [
        {"id": "7", "premise": "It rains.", "hypothesis": "It is wet.", "label": "entailment", "group": "weather"}
    ]


def test_arrays_and_named_tuples_are_tables_as_well():
    frame = pd.DataFrame({"text": ["a", "b"], "label": ["x", "y"]})
    same = {document(data, "train") for data in (frame, frame.to_numpy(), frame.to_numpy().astype(str))}
    assert same == {document(frame.itertuples(index=False), "train")}
    assert rows(list(frame.itertuples())) == [  # with the index in front
        {"text": "a", "label": "x", "Index": 0},
        {"text": "b", "label": "y", "Index": 1},
    ]


def test_what_is_missing_is_null_and_numbers_stay_numbers():
    frame = pd.DataFrame({"text": ["a", "b", "c", "d"], "label": [1.0, 2.0, np.nan, 1.0]})
    assert [row["label"] for row in rows(frame)] == [1.0, 2.0, None, 1.0]
    nullable = frame.astype({"label": "Int64"})
    assert [row["label"] for row in rows(nullable)] == [1, 2, None, 1]
    masked = np.ma.array([7, 2, 3, 1], mask=[True, False, False, False])
    assert [row["label"] for row in rows({"text": list("abcd"), "label": masked})] == [None, 2, 3, 1]
    odd = [np.float32("nan"), Decimal("NaN"), pd.NaT, Decimal("1.50"), np.array([5]), np.bool_(True)]
    assert [row["label"] for row in rows(list(zip("abcdef", odd, strict=True)))] == [None, None, None, "1.50", 5, True]
    coded = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [-1, 0]})
    coded = coded.cast_column("label", datasets.ClassLabel(names=["no"]))
    assert [row["label"] for row in rows(coded)] == [None, "no"]
    assert rows([("a", np.int64(3)), ("b", True)]) == [{"text": "a", "label": 3}, {"text": "b", "label": True}]


def test_the_file_reads_back_as_it_was(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(document(list(zip(TEXTS, LABELS, strict=True)), "train"), encoding="utf-8")
    found = read_examples(str(path)).examples
    assert [(one.text, one.label) for one in found] == list(zip(TEXTS, LABELS, strict=True))


def test_columns_are_mapped_by_name_and_others_stay_out():
    frame = pd.DataFrame({0: ["x"], "message": ["hello"], "queue": ["billing"], "secret": ["no"]})
    settings = DataSettings(columns={"text": "message", "label": "queue"})
    assert rows(frame, settings) == [{"message": "hello", "queue": "billing"}]


def test_a_dataset_dict_gives_its_splits(tmp_path):
    whole = datasets.Dataset.from_dict({"text": TEXTS, "label": LABELS})
    splits = datasets.DatasetDict(train=whole, test=whole.select([0]), unsupervised=whole)
    experiment, files = with_files(Experiment(out=str(tmp_path / "run")), {"train": splits, "test": "other.csv"})
    assert experiment.data.train == str(tmp_path / "run" / "data" / "train.json")
    assert experiment.data.validation is None
    assert experiment.data.test == "other.csv"
    assert [path.name for path in files] == ["train.json"]
    assert not (tmp_path / "run").exists()
    _, files = with_files(experiment, {"train": splits, "test": splits})
    assert [len(json.loads(content)["examples"]) for content in files.values()] == [len(TEXTS), 1]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (3, "train: int found, expected a path, a DataFrame"),
        (["a", "b"], "train, row 1: str found.*list\\(zip\\(texts, labels\\)\\)"),
        ((["a", "b"], ["x", "y"]), "two lists found, expected one.*zip"),
        ((["a", "b", "c"], ["x", "y", "z"]), "two lists found, expected one.*zip"),
        ([("a", "x"), ("b",)], "train, row 2: another shape than the first, which has 2 parts"),
        ([{"text": "a", "label": "x"}, ("b", "y")], "row 2: tuple found, expected Mapping as before"),
        ([Example("1", "a", None, "x"), Example("2", "a", "b", "x")], "row 2: pairs and single texts"),
        ([("a", object())], "train, row 1, column 'label': object found, expected text or a number"),
        ({"text": ["a"], "label": ["x", "y"]}, r"columns of different lengths \(text 1, label 2\)"),
        ({"words": ["a"], "label": ["x"]}, "train: no column of texts; columns found: 'words', 'label'"),
        (
            pd.DataFrame([["a", "b", "x"]], columns=["text", "text", "label"]),
            "column 'text': two columns have one name",
        ),
        (pd.DataFrame({"text": [], "label": []}), "no examples"),
        ([], "no examples"),
        ({"text": "ab", "label": "xy"}, "train, column 'text': one text found, expected a list"),
        (type("LazyFrame", (), {"collect": None})(), "LazyFrame found, expected a DataFrame. Call its collect"),
        (np.array("a"), "str found, expected a path"),
        ([("a", float("inf"))], "inf found, expected text or a number"),
        ([("a", np.array([0, 1]))], "row 1, column 'label': list found, expected text or a number"),
        ([("a", b"\xff")], "bytes found, expected text or a number"),
        ([("a", 10**5000)], "int found, expected text or a number. Make it text"),
        ({("a", "x"), ("b", "y")}, r"set found, which has no order, expected a path.* Give a list"),
        (datasets.DatasetDict(), "columns found: none"),
    ],
)
def test_what_is_no_table_is_refused_by_name(data, words):
    with pytest.raises(DataError, match=words):
        document(data, "train")


def test_splits_without_train_are_refused():
    splits = datasets.DatasetDict(test=datasets.Dataset.from_dict({"text": ["a"], "label": ["b"]}))
    with pytest.raises(DataError, match="splits test, expected one called train"):
        with_files(Experiment(), {"train": splits})
    with pytest.raises(DataError, match=r"validation: splits test, expected .*Give one .*validation=splits\['test'\]"):
        with_files(Experiment(), {"train": splits["test"], "validation": splits})
