"""Files as other tools write them: annotation tools, Spark, scripts that join files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from entailor.data.readers import ReadOptions, ReadResult, read_examples
from entailor.errors import DataError

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
