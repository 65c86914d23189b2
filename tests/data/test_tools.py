"""Files as other tools write them: annotation tools, Spark, scripts that join files."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from entailor.config.parts import DataSettings
from entailor.data.in_memory import document
from entailor.data.readers import ReadOptions, ReadResult, read_examples
from entailor.data.splits import load_data
from entailor.errors import DataError, LabelError

PART = "part-0000{}-6f8f2e1c-1f3e-4c3c-8f0e-1d2c3b4a5f6e-c000"
ROWS = [{"text": f"text {n}", "label": "xy"[n % 2]} for n in range(6)]


def read(path: Path, **columns: str) -> ReadResult:
    return read_examples(str(path), ReadOptions(columns=columns))


def lines(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def labels_of(result: ReadResult) -> dict[str | None, int]:
    return dict(Counter(example.label for example in result.examples))


def spark(folder: Path, kind: str, parts: int = 3) -> Path:
    """Write a folder as Spark does, with its checksums and its mark of success."""
    folder.mkdir()
    for number in range(parts):
        path = folder / f"{PART.format(number)}.{kind}"
        if kind.endswith("parquet"):
            parquet.write_table(pa.Table.from_pylist(ROWS), path)
        elif kind == "json":
            lines(path, ROWS)
        else:
            path.write_text("text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in ROWS))
        (folder / f".{path.name}.crc").write_bytes(b"crc\0")
    for name in ("_SUCCESS", "._SUCCESS.crc"):
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("kind", ["csv", "json", "snappy.parquet"])
def test_a_folder_that_spark_wrote_is_one_table(tmp_path: Path, kind: str):
    folder = spark(tmp_path / "table", kind)
    assert [example.text for example in read(folder).examples] == [row["text"] for row in ROWS] * 3
    assert len(read(folder / "*").examples) == 18
    if kind != "snappy.parquet":  # a part without a row is an empty file
        (folder / f"{PART.format(3)}.{kind}").touch()
        assert len(read(folder).examples) == 18


def test_nulls_that_spark_leaves_out_of_json_make_no_other_table(tmp_path: Path):
    folder = spark(tmp_path / "table", "json")
    lines(folder / f"{PART.format(3)}.json", [{"text": "no label"}])
    assert read(folder).no_gold == {"": 1}


def test_a_folder_that_spark_wrote_otherwise_says_what_to_do(tmp_path: Path):
    unfinished = spark(tmp_path / "unfinished", "csv")
    (unfinished / "_temporary").mkdir()
    with pytest.raises(DataError, match="has not finished writing: it holds _temporary"):
        read(unfinished)
    divided = tmp_path / "divided"
    (divided / "label=x").mkdir(parents=True)
    with pytest.raises(DataError, match=r"values of a column \(label=x\). Write it without partitionBy"):
        read(divided)
    bare = spark(tmp_path / "bare", "csv")
    for number, path in enumerate(sorted(bare.glob("part-*"))):  # as Spark writes them unless header is true
        path.write_text(f"a text {number},x\n")
    with pytest.raises(DataError, match="If these are no names of columns, write each file with a header line"):
        read(bare)


def test_hidden_files_beside_shards_are_none(tmp_path: Path):
    for number in range(2):
        lines(tmp_path / f"train-{number}.jsonl", ROWS)
        (tmp_path / f"._train-{number}.jsonl").write_bytes(b"\0\5\26\7")  # as macOS leaves them on other disks
    assert len(read(tmp_path).examples) == len(read(tmp_path / "*.jsonl").examples) == 12


def label_studio(number: int, *labels: str) -> dict[str, object]:
    """Return an example as Label Studio exports it, with one annotation for each label."""
    results = [[{"value": {"choices": [label]}, "from_name": "kind", "type": "choices"}] for label in labels]
    annotations = [{"id": 7, "result": result, "was_cancelled": False} for result in results]
    return {"id": number, "annotations": annotations, "predictions": [], "data": {"text": f"text {number}"}}


def argilla(number: int, label: str) -> dict[str, object]:
    answers = [{"user_id": "u", "value": label, "status": "submitted"}]
    return {"fields": {"text": f"text {number}"}, "responses": {"label": answers}, "suggestions": {}}


def of_hub(number: int, label: str) -> dict[str, object]:
    return {"text": f"text {number}", "label": [{"user_id": "u", "value": label, "status": "submitted"}]}


def flat(number: int, label: str) -> dict[str, object]:
    return {"text": f"text {number}", "label.responses": [label], "label.responses.users": ["u"]}


def oldest(number: int, label: str) -> dict[str, object]:
    return {"text": f"text {number}", "prediction": [{"label": "guess", "score": 1.0}], "annotation": label}


def doccano(number: int, label: str) -> dict[str, object]:
    return {"id": number, "data": f"text {number}", "label": [label]}


def choice(number: int, label: str) -> dict[str, object]:
    options = [{"id": "x", "text": "X"}, {"id": "y", "text": "Y"}]
    return {"text": f"text {number}", "options": options, "accept": [label], "answer": "accept", "_task_hash": number}


@pytest.mark.parametrize("made", [label_studio, argilla, of_hub, flat, oldest, doccano, choice])
def test_what_the_error_for_an_export_proposes_reads_it(tmp_path: Path, made: Callable[[int, str], dict[str, object]]):
    path = lines(tmp_path / "export.jsonl", [made(number, "xy"[number % 2]) for number in range(6)])
    with pytest.raises(DataError) as caught:
        read(path)
    told = re.search(r"--columns (\S+)$", str(caught.value))
    assert told
    columns = dict(pair.split("=") for pair in told[1].split(","))
    found = [(example.text, example.label) for example in read(path, **columns).examples]
    assert found == [(row["text"], row["label"]) for row in ROWS]


def test_inner_labels_of_parquet_and_of_a_program(tmp_path: Path):
    parquet.write_table(pa.Table.from_pylist([of_hub(number, "xy"[number % 2]) for number in range(6)]),
                        tmp_path / "a.parquet")  # fmt: skip
    assert labels_of(read(tmp_path / "a.parquet", label="label.value")) == {"x": 3, "y": 3}
    columns = {"text": "data.text", "label": "annotations.result.value.choices"}
    given = [label_studio(number, "xy"[number % 2]) for number in range(6)]
    (tmp_path / "a.json").write_text(document(given, "train", DataSettings(columns=columns)))
    assert labels_of(read(tmp_path / "a.json", **columns)) == {"x": 3, "y": 3}


def test_annotators_who_agree_give_one_label(tmp_path: Path):
    columns = {"text": "data.text", "label": "annotations.result.value.choices"}
    rows = [label_studio(1, "x", "x"), label_studio(2, "y"), label_studio(3)]
    agreed = read(lines(tmp_path / "a.jsonl", rows), **columns)
    assert labels_of(agreed) == {"x": 1, "y": 1}
    assert agreed.no_gold == {"": 1}
    with pytest.raises(LabelError, match=r"row 4.* a list as a label.* Keep one label for each text"):
        read(lines(tmp_path / "a.jsonl", [*rows, label_studio(4, "x", "y")]), **columns)


def prodigy(number: int, label: str, answer: str) -> dict[str, object]:
    return {"text": f"text {number}", "label": label, "answer": answer, "_input_hash": number, "_task_hash": number}


def test_what_prodigy_rejects_or_ignores_is_no_gold(tmp_path: Path):
    answers = ["accept", "accept", "accept", "reject", "ignore"]
    rows = [prodigy(number, "xy"[number % 2], answers[number % 5]) for number in range(40)]
    for path in (lines(tmp_path / "a.jsonl", rows), tmp_path / "a.json"):
        if path.suffix == ".json":
            path.write_text(document(rows, "train"))
        loaded = load_data(DataSettings(train=str(path)), whole=True)
        assert len(loaded.split.train) == 24
        (finding,) = loaded.reading
        assert "16 of 40 examples (40 %) of train" in finding.message
        assert "dropped: Prodigy says ignore or reject" in finding.message
    mapped = load_data(DataSettings(train=str(tmp_path / "a.jsonl"), columns={"label": "answer"}), whole=True)
    assert mapped.labels == ("accept", "ignore", "reject")


def test_an_answer_of_others_is_a_column_like_any_other(tmp_path: Path):
    rows = [{"text": f"text {number}", "label": "xy"[number % 2], "answer": "reject"} for number in range(6)]
    assert labels_of(read(lines(tmp_path / "a.jsonl", rows))) == {"x": 3, "y": 3}


def test_where_one_label_is_left_it_is_said_what_was_left_out(tmp_path: Path):
    rows = [prodigy(number, "x", ["accept", "reject"][number % 2]) for number in range(6)]
    with pytest.raises(
        DataError, match=r"every example has the label 'x'.* Prodigy says reject.* --columns label=answer"
    ):
        load_data(DataSettings(train=str(lines(tmp_path / "a.jsonl", rows))), whole=True)
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"text {number},{[-1, 1][number % 2]}\n" for number in range(6)))
    with pytest.raises(LabelError, match=r'have the label .-1., which may be a class.*data.labels=\["-1", "1"\]'):
        load_data(DataSettings(train=str(path)), whole=True)


def test_lists_of_labels_as_json_and_as_text(tmp_path: Path):
    for name, rows in {
        "lists": [["x"], [], ["y"]],
        "json": ['["x"]', "[]", '["y"]'],
        "python": ["['x']", "[]", "['y']"],
        "objects": [{"choices": ["x"]}, {"choices": []}, {"choices": ["y"]}],
    }.items():
        path = lines(tmp_path / f"{name}.jsonl", [{"text": "a", "label": row} for row in rows])
        result = read(path, label="label.choices") if name == "objects" else read(path)
        assert (labels_of(result), result.no_gold.total()) == ({"x": 1, "y": 1}, 1), name
    for several in (["x", "y"], '["x", "y"]', "['x', 'y']", '{"choices": ["x", "y"]}'):
        path = lines(tmp_path / "several.jsonl", [{"text": "a", "label": several}])
        with pytest.raises(LabelError, match="Several labels for one text"):
            read(path)
    options = ReadOptions(labels=("[x]", "['x']"))
    path = lines(tmp_path / "named.jsonl", [{"text": "a", "label": "['x']"}, {"text": "b", "label": "[x]"}])
    assert labels_of(read_examples(str(path), options)) == {"['x']": 1, "[x]": 1}
