"""Bad input: each is one clear error that names the file, the row and the column, and what to do."""

import csv
import gzip
import json
import re
import subprocess
from pathlib import Path

import pytest

from entailor.data import tables
from entailor.data.readers import ReadOptions, read_examples
from entailor.errors import DataError, LabelError

HEADER = b"premise,hypothesis,label\n"
GOOD = b"one,two,a\n"


def error_of(folder: Path, name: str, content: bytes, options: ReadOptions | None = None) -> DataError:
    (folder / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_examples(str(folder / name), options)
    assert str(folder / name) in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("name", "content", "row", "said"),
    [
        ("a.csv", b"", None, "the file is empty"),
        ("a.csv", b"\n\n", None, "the file is empty"),
        ("a.jsonl", b"", None, "the file is empty"),
        ("a.json", b"[]", None, "the file is empty"),
        ("a.csv", HEADER, None, "not one row"),
        ("a.csv", HEADER + GOOD + b"one,two\n", 3, "2 cells, expected 3"),
        ("a.csv", HEADER + b"\n" + GOOD + b"one,two,a,b\n", 4, "4 cells, expected 3"),
        ("a.csv", HEADER + b'"two\nlines",two,a\n' + b"one\n", 4, "1 cells, expected 3"),
        ("a.csv", HEADER + GOOD + b'"one,two,a\n' + GOOD, 3, "never closed"),
        ("a.csv", HEADER + GOOD + b'"one" more,two,a\n' + GOOD, 3, "followed by more text"),
        ("a.csv", b"text,label,text\na,b,c\n", 1, "column 'text' stands twice"),
        ("a.csv", HEADER + GOOD + b"caf\xe9,two,a\n", 3, "byte 0xE9 at offset 38.*save the file as UTF-8"),
        ("a.jsonl", b'{"text": "a", "label": "b"}\n{"text": "\xff"}\n', 2, "byte 0xFF at offset 38"),
        ("a.csv", "text,label\na,b\n".encode("utf-16-le"), 1, "give --encoding utf-16-le"),
        ("a.csv", HEADER + GOOD + b"o\0ne,two,a\n", 3, "column 'premise': NUL byte"),
        ("a.csv", HEADER + GOOD + b"one,tw\0o,a\n", 3, "column 'hypothesis': NUL byte"),
        ("a.csv", HEADER + b"one,two,a\0\n", 2, "column 'label': NUL byte"),
        ("a.jsonl", b'{"text": "a", "label": "b"}\n\n{"text": \n', 3, "broken JSON: .* at character"),
        ("a.jsonl", b'{"text": "a", "label": "b"}\n[1, 2]\n', 2, "a list, expected a JSON object"),
        ("a.jsonl", b"null\n", 1, "null, expected a JSON object"),
        ("a.jsonl", b"[" * 100_000, None, "JSON that cannot be taken"),
        ("a.json", b'[{"text": "a"},\n {"text"]', None, "broken JSON: .* at line 2"),
        ("a.json", b'[{"text": "a", "label": "b"}, 3]', 2, "a number, expected a JSON object"),
        ("a.jsonl", b'{"text": null, "label": "b"}\n', 1, "column 'text': no value, expected text"),
        ("a.jsonl", b'{"text": "a", "label": "b"}\n{"label": "b"}\n', 2, "column 'text': no value, expected text"),
        ("a.jsonl", b'{"text": {"a": 1}, "label": "b"}\n', 1, "an object, expected text"),
        ("a.jsonl", b'{"text": true, "label": "b"}\n', 1, "a boolean, expected text"),
        ("a.jsonl", b'{"text": NaN, "label": "b"}\n', 1, "not a finite number, expected text"),
        (
            "a.jsonl",
            b'{"text": "a", "label": "b"}\n{"text": "a \\ud800", "label": "b"}\n',
            2,
            "half of a surrogate .*character 3",
        ),
        ("a.jsonl", b'{"text": "a", "label": ["b", "c"]}\n', 1, "column 'label': a list as a label.*multi-label"),
        ("a.csv", HEADER + b"one,two,-\none,two,\n", None, "column 'label': none of the 2 rows has a gold label"),
        ("a.parquet", b"this is no Parquet", None, "not a Parquet file"),
        ("a.parquet", b"", None, "not a Parquet file"),
        ("a.csv.gz", b"text,label\na,b\n", None, "not a gzip file"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a", "label": "b"}\n' * 9, mtime=0)[:-12], None, "ends too early"),
        ("a.csv.gz", gzip.compress(HEADER + b"caf\xe9,two,a\n", mtime=0), 2, "byte 0xE9 at offset 28"),
        ("a.docx", b"PK", None, "files of kind '.docx' are not read, expected .csv"),
        ("a.html.gz", b"PK", None, "are not read"),
        ("a.xlsx", b"PK", None, "not a zip file, or a damaged one"),
        ("a.zip", b"PK", None, "not a zip file, or a damaged one"),
        ("a.csv", gzip.compress(HEADER, mtime=0), None, r"its content is gzip, whatever its name\. Give it a name"),
        ("a.csv.gz", gzip.compress(gzip.compress(HEADER, mtime=0), mtime=0), None, "its content is gzip"),
        ("a.tsv", b"PAR1\x15", None, r"is Parquet.*\.parquet"),
        ("a.csv", b"PK\x03\x04", None, "a zip archive or a workbook"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", None, "git lfs pull"),
        ("a.csv", b"<!DOCTYPE html>\n<p>404", None, "a web page.*Download the file itself"),
        ("a.arrow", b"ARROW1 and no more", None, "not an Arrow file, or a damaged one"),
        ("a.feather", b"", None, "not an Arrow file, or a damaged one"),
        ("a.json", b'{"a": [{"text": "x"}], "b": [{"text": "y"}]}', None, r"2 arrays of objects \(a, b\)"),
        ("a.jsonl", b'{"text": 1e999, "label": "a"}\n', 1, "column 'text'"),
        ("a.jsonl", b'{"text": ' + b"9" * 5000 + b', "label": "a"}\n', 1, "cannot be taken"),
    ],
)
def test_bad_content(tmp_path, name, content, row, said):
    error = error_of(tmp_path, name, content)
    assert error.row == row
    assert re.search(said, str(error))


def test_a_row_far_down_is_named(tmp_path):
    error = error_of(tmp_path, "a.csv", HEADER + b'"a\nb",x,a\n' + GOOD * 3000 + b"one,tw\0o,a\n" + GOOD * 3000)
    assert (error.row, error.column) == (3004, "hypothesis")
    lines = [json.dumps({"text": "a", "label": "b"})] * 3000
    lines[2500] = json.dumps({"text": ["a"], "label": "b"})
    assert error_of(tmp_path, "a.jsonl", "\n".join(lines).encode()).row == 2501


def test_rows_without_gold_are_counted_when_a_row_is_named(tmp_path):
    error = error_of(tmp_path, "a.csv", HEADER + GOOD + b"x,y,-\nx,y,\n" + b"one,tw\0o,a\n")
    assert error.row == 5


def test_a_field_of_ten_megabytes(tmp_path):
    good, bad = (
        {"premise": "one", "hypothesis": "two", "label": "a"},
        {"premise": "one", "hypothesis": "x" * 10_000_000},
    )
    said = "10,000,000 characters, expected at most 2,000,000"
    error = error_of(tmp_path, "a.csv", HEADER + GOOD + f"one,{bad['hypothesis']},a\n".encode())
    assert (error.row, error.column, said in str(error)) == (3, "hypothesis", True)
    error = error_of(tmp_path, "a.jsonl", f"{json.dumps(good)}\n{json.dumps({**good, **bad})}\n".encode())
    assert (error.row, error.column, said in str(error)) == (2, "hypothesis", True)


@pytest.mark.parametrize("lines", [b'"one,two,a\n' + GOOD * 20_000, b"x" * 200_000 + b",two,a\n"])
def test_a_quote_that_swallows_the_file_or_an_endless_cell_is_found_at_its_beginning(tmp_path, monkeypatch, lines):
    limit = csv.field_size_limit(1000)
    monkeypatch.setattr(tables, "CSV_CELL_LIMIT", 100_000)
    try:
        error = error_of(tmp_path, "a.csv", HEADER + GOOD + lines)
    finally:
        csv.field_size_limit(limit)
    assert (error.row, "Cut the text; or, if a double quote opens the cell" in str(error)) == (3, True)


def test_parquet_rows_and_columns_are_named(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": ["a", None], "label": ["x", "y"]}), path)
    with pytest.raises(DataError, match="row 2, column 'text': no value, expected text"):
        read_examples(str(path))
    parquet.write_table(pa.table({"text": pa.array([b"\xe9"]).cast(pa.string(), safe=False), "label": ["x"]}), path)
    with pytest.raises(DataError, match="not UTF-8"):
        read_examples(str(path))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="not a Parquet file, or a damaged one"):
        read_examples(str(path))


def test_a_missing_file_names_its_neighbour(tmp_path):
    (tmp_path / "train.csv").write_bytes(HEADER + GOOD)
    with pytest.raises(DataError, match=r"trian\.csv: no such file. Did you mean 'train\.csv'\?"):
        read_examples(str(tmp_path / "trian.csv"))
    with pytest.raises(DataError, match="its folder does not exist"):
        read_examples(str(tmp_path / "nowhere" / "train.csv"))


def test_a_folder_lists_its_files(tmp_path):
    (tmp_path / "train.csv").write_bytes(HEADER + GOOD)
    (tmp_path / "test.csv").write_bytes(HEADER + GOOD)
    with pytest.raises(DataError, match=r"several tables \(test\.csv, train\.csv\)"):
        read_examples(str(tmp_path))
    texts = tmp_path / "texts"
    texts.mkdir()
    for name in ("a", "b"):
        (texts / f"{name}.txt").write_text("a text without a label\n")
    with pytest.raises(DataError, match="into one table, such as a CSV with the columns text and label"):
        read_examples(str(texts))
    (texts / "pairs.csv").write_bytes(HEADER + GOOD)
    with pytest.raises(DataError, match=r"Give one of them: .*pairs\.csv"):
        read_examples(str(texts))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="a folder without a file that can be read"):
        read_examples(str(tmp_path / "folder.csv"))


def test_nul_bytes_at_the_end_are_named(tmp_path):
    path = tmp_path / "a b.csv"
    path.write_bytes(HEADER + GOOD + b"\0" * 100)
    with pytest.raises(DataError, match=r"row 3: NUL bytes, as .* leaves them\. Remove them") as found:
        read_examples(str(path))
    command = str(found.value).partition("e.g. ")[2].replace("NEW_FILE", str(tmp_path / "new.csv"))
    subprocess.run(command, shell=True, check=True)
    assert (tmp_path / "new.csv").read_bytes() == HEADER + GOOD
    assert len(read_examples(str(tmp_path / "new.csv")).examples) == 1


def test_no_permission(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_bytes(HEADER + GOOD)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # the tests may run as root, whom no mode keeps out
    with pytest.raises(DataError, match=r"a\.csv: no permission to read it"):
        read_examples(str(tmp_path / "a.csv"))


@pytest.fixture
def hub(monkeypatch):
    """Stand in for the Hub: `answer` is what loading does, and `asked` tells whether it was tried."""
    import datasets

    class Hub:
        asked = False

        def answer(self):
            raise ConnectionError("Couldn't reach the Hub\n(no network)")

    def load_dataset(*_, **__):
        Hub.asked = True
        return Hub.answer(None)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return Hub


@pytest.mark.parametrize(
    "source", ["data/train.csv", "./pairs", "/nowhere/pairs", "~/pairs", "train.txt", "x/train.jsonl.gz"]
)
def test_what_looks_like_a_file_is_not_asked_for_on_the_hub(hub, source):
    with pytest.raises(DataError, match="no such file"):
        read_examples(source)
    assert not hub.asked


def test_a_data_set_that_cannot_be_loaded(hub):
    with pytest.raises(
        DataError, match=r"owner/pairs: no such file, and .*split 'train'.*Couldn't reach the Hub \(no network\)"
    ):
        read_examples("owner/pairs", ReadOptions(split="train"))
    hub.answer = lambda _: (_ for _ in ()).throw(ValueError("Unknown split \"trian\". Should be one of ['train']."))
    with pytest.raises(DataError, match="Should be one of"):
        read_examples("owner/pairs", ReadOptions(split="trian"))
    hub.answer = lambda _: {"train": 1, "test": 2}
    with pytest.raises(DataError, match=r"several splits \(train, test\)"):
        read_examples("owner/pairs")
    with pytest.raises(DataError, match="neither a file nor a data set id"):
        read_examples("not an id")


def test_a_code_beyond_the_label_names(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    features = {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}
    table = pa.table({"text": ["a", "b"], "label": [0, 2]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(LabelError, match=r"row 2, column 'label': label 2, expected a code from 0 to 1 \(neg, pos\)"):
        read_examples(str(tmp_path / "a.parquet"))
