"""Files as people have them: any encoding, delimiter and container, refused clearly when too large or broken."""

import gzip
import io
import json
import os
import random
import zipfile
from collections import Counter

import pytest

from entailor.data import files
from entailor.data.files import likely_encodings
from entailor.data.readers import NumberedRows, ReadOptions, read_examples
from entailor.errors import ConfigError, DataError


def texts(source, **options):
    return [row.text for row in read_examples(str(source), ReadOptions(**options)).examples]


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


WESTERN = "text,label\nA dash – a café – costs 5 €,a\nI don’t say “no”,b\n"


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Café déjà vu – € 5 naïve"),
        ("cp1252", "He said “hello” – it’s € 5, really."),
        ("cp1252", "Não há opções – € 5"),
        ("cp1252", "Müller – straße für € 20 groß"),
        ("cp1250", "Příliš žluťoučký kůň úpěl ďábelské ódy, dobrý den, jak se máte"),
        ("cp1250", "Árvíztűrő tükörfúrógép, jó napot kívánok"),
        ("cp1250", "Zażółć gęślą jaźń, dzień dobry – jak się masz"),
        ("cp1251", "Привет, как дела хорошо"),
        ("mac_roman", "He said “hello” – it’s café"),
        ("mac_roman", "Müller – straße für Übung groß"),
        ("mac_roman", "a — b"),
        ("cp850", "Não há opções"),
        ("cp850", "café"),
    ],
)
def test_the_likeliest_encoding_reads_a_few_words_of_a_language(encoding, text):
    for times in (1, 40):
        assert likely_encodings((text + "\n").encode(encoding) * times)[0] == encoding


@pytest.mark.parametrize(("encoding", "text"), [("koi8_r", "Мне не понравилось"), ("cp1253", "πολύ κακό")])
def test_several_encodings_that_may_be_are_shown_with_what_they_read(tmp_path, encoding, text):
    path = written(tmp_path / "a.csv", f"text,label\n{text},a\n".encode(encoding) * 40)
    with pytest.raises(DataError, match=rf"{encoding} \('{text.split()[0]}'\).*Give the one that reads right"):
        read_examples(str(path))
    assert texts(path, encoding=encoding)[0] == text


def test_the_advice_for_windows_1252_gives_the_right_characters(tmp_path):
    path = written(tmp_path / "a.csv", WESTERN.encode("cp1252"))
    with pytest.raises(DataError, match="--encoding cp1252"):
        read_examples(str(path))
    assert texts(path, encoding="cp1252") == ["A dash – a café – costs 5 €", "I don’t say “no”"]
    wrong = read_examples(str(path), ReadOptions(encoding="latin-1"))
    assert "2 texts hold control characters" in wrong.notes[0]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1251", "Съешь же ещё этих мягких французских булок, да выпей чаю. Это обычный русский текст."),
        ("cp932", "これは日本語の文章です。今日は天気がとても良いので、公園に行きました。"),
    ],
)
def test_other_encodings_are_recognised(tmp_path, encoding, text):
    path = written(tmp_path / "a.jsonl", json.dumps({"text": text, "label": "a"}, ensure_ascii=False).encode(encoding))
    with pytest.raises(DataError, match=r"it looks like"):
        read_examples(str(path))
    assert texts(path, encoding=encoding) == [text]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_a_byte_order_mark_decides_whatever_was_asked_for(tmp_path, encoding):
    path = written(tmp_path / "a.csv", WESTERN.encode(encoding))
    assert texts(path, encoding="cp1252") == texts(path) == ["A dash – a café – costs 5 €", "I don’t say “no”"]


def test_utf_16_without_mark_and_mixed_encodings(tmp_path):
    path = written(tmp_path / "a.csv", WESTERN.encode("utf-16-be"))
    with pytest.raises(DataError, match=r"(?i:give) --encoding utf-16-be"):
        read_examples(str(path))
    assert len(texts(path, encoding="utf-16-be")) == 2
    path = written(tmp_path / "b.csv", "text,label\nüber,a\n".encode() + "über,b\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"row 3: .*while row 2 is UTF-8"):
        read_examples(str(path))


@pytest.mark.parametrize("options", [{"encoding": "rot13"}, {"encoding": "no-such"}, {"delimiter": "ab"}])
def test_a_format_that_cannot_be(tmp_path, options):
    with pytest.raises(ConfigError):
        texts(written(tmp_path / "a.csv", "text,label\na,b\n"), **options)


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt"])
def test_the_delimiter_is_found(tmp_path, mark, name):
    body = f'text{mark}label\n"a, b; c"{mark}x\n007{mark}NA\nnull{mark}y\n'
    rows = read_examples(str(written(tmp_path / name, body))).examples
    assert [(row.text, row.label) for row in rows] == [("a, b; c", "x"), ("007", "NA"), ("null", "y")]


def test_a_delimiter_that_is_said(tmp_path):
    path = written(tmp_path / "a.csv", "sep=~\r\ntext~label\r\na~b\r\nc~d\r\n")
    assert texts(path) == ["a", "c"]
    path = written(tmp_path / "a.csv", "text~label\rone~b\rtwo~d\r")
    assert texts(path, delimiter="~") == ["one", "two"]
    bad = written(tmp_path / "a.csv", "sep=;\ntext;label\na;b\nc\n")
    with pytest.raises(DataError, match="row 4: 1 cells"):
        texts(bad)


def test_plain_lines(tmp_path):
    path = written(tmp_path / "a.txt", 'He said "yes, I do\nSecond line; here\n\n')
    assert texts(path, require_labels=False) == ['He said "yes, I do', "Second line; here"]


ROWS = [{"text": "one", "label": "a"}, {"text": "two", "label": "b"}]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson", "a.json.gz"])
@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        json.dumps({"data": ROWS}),
        json.dumps({"version": {"major": 1}, "data": ROWS}, indent=1),
        "\n".join(map(json.dumps, ROWS)),
    ],
)
def test_json_of_any_form(tmp_path, name, content):
    data = gzip.compress(content.encode()) if name.endswith(".gz") else content
    assert texts(written(tmp_path / name, data)) == ["one", "two"]


def test_inner_keys_lists_of_one_and_columns_nobody_reads(tmp_path):
    rows = [{"a": {"b": text}, "label": [label], "tags": [1, 2]} for text, label in (("x", "p"), ("y", "q"))]
    path = written(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    result = read_examples(str(path), ReadOptions(columns={"text": "a.b"}))
    assert [(row.text, row.label) for row in result.examples] == [("x", "p"), ("y", "q")]
    path = written(tmp_path / "a.csv", "text,x,x,label\none,1,2,a\n")
    assert texts(path) == ["one"]
    path = written(tmp_path / "b.jsonl", '{"text": "one", "label": {"a": [1, 2]}}')
    assert texts(path, require_labels=False) == ["one"]


def test_archives(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("in/a.csv", "text;label\na;b\nc;d\n")
    assert texts(path) == ["a", "c"]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("b.csv", "text,label\n")
    with pytest.raises(DataError, match="2 files in it"):
        texts(path)


def test_excel(tmp_path, monkeypatch):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["text", "label", None], ["one", 1], [None, None], ["two", 0], ["three", "#N/A"]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    rows = read_examples(str(tmp_path / "a.xlsx")).examples
    assert [(row.text, row.label) for row in rows] == [("one", "1"), ("two", "0")]  # a failed formula is no label
    with pytest.raises(DataError, match=r"data\.max_bytes"):
        texts(tmp_path / "a.xlsx", max_bytes=100)
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with pytest.raises(DataError, match=r'pip install "entailor\[excel\]"'):
        texts(tmp_path / "a.xlsx")


def test_arrow_feather_and_saved_data_sets(tmp_path):
    import datasets
    import pyarrow as pa
    from pyarrow import feather

    table = pa.table({"in": [{"text": "one"}, {"text": "two"}], "label": pa.array(["a", "b"]).dictionary_encode()})
    feather.write_feather(table, str(tmp_path / "a.feather"))
    assert texts(tmp_path / "a.feather", columns={"text": "in.text"}) == ["one", "two"]
    with pa.ipc.new_stream(str(tmp_path / "a.arrow"), table.schema) as out:
        out.write_table(table)
    assert texts(tmp_path / "a.arrow", columns={"text": "in.text"}) == ["one", "two"]
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["neg", "pos"]))
    data = datasets.Dataset.from_dict({"text": ["x", "y", "z"], "label": [0, 1, 1]}, features=features)
    data.save_to_disk(tmp_path / "saved", num_shards=2)
    rows = read_examples(str(tmp_path / "saved")).examples
    assert [(row.text, row.label) for row in rows] == [("x", "neg"), ("y", "pos"), ("z", "pos")]
    datasets.DatasetDict(train=data, test=data).save_to_disk(tmp_path / "both")
    with pytest.raises(DataError, match=r"several splits \(train, test\).*both/train"):
        texts(tmp_path / "both")
    assert len(texts(tmp_path / "both" / "train")) == len(texts(tmp_path / "both", split="test")) == 3


def test_bytes_and_decimals_of_databases_are_text(tmp_path):
    from decimal import Decimal

    import pyarrow as pa
    from pyarrow import parquet

    columns = {"text": [b"caf\xc3\xa9", b"two"], "label": [Decimal("1.00"), Decimal("2.50")]}
    for kind in (pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.binary())):
        table = pa.table({**columns, "text": pa.array(columns["text"]).cast(kind)})
        parquet.write_table(table, tmp_path / "a.parquet")
        rows = read_examples(str(tmp_path / "a.parquet")).examples
        assert [(row.text, row.label) for row in rows] == [("café", "1"), ("two", "2.50")]
    parquet.write_table(pa.table({**columns, "text": [b"one", b"caf\xe9"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"column 'text': a text that is not UTF-8\. Write it as UTF-8"):
        read_examples(str(tmp_path / "a.parquet"))


def test_shards_are_read_whole_or_not_at_all(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    for number in range(2):
        table = pa.table({"text": [f"{number}a", f"{number}b"], "label": ["x", "y"]})
        parquet.write_table(table, tmp_path / f"train-0000{number}-of-00002.parquet")
    expected = ["0a", "0b", "1a", "1b"]
    assert texts(tmp_path) == texts(tmp_path / "train-*.parquet") == texts(tmp_path / "train-*") == expected
    with pytest.raises(DataError, match=r"one of 2 parts .*train-\*-of-00002\.parquet"):
        texts(tmp_path / "train-00000-of-00002.parquet")
    broken = pa.table({"text": ["x", None], "label": ["x", "y"]})
    parquet.write_table(broken, tmp_path / "train-00001-of-00002.parquet")
    with pytest.raises(DataError, match=r"00001-of-00002\.parquet, row 2"):
        texts(tmp_path)
    (tmp_path / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(DataError, match="1 of 2 parts"):
        texts(tmp_path)


def _zipped(content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", content)
    return out.getvalue()


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz", "a.json.gz", "a.zip"])
def test_a_small_file_that_unpacks_to_a_large_one(tmp_path, name):
    content = b'[{"text": "' + b"x" * 300_000 if "json" in name else b"text,label\n" + b"x,y\n" * 100_000
    path = written(tmp_path / name, _zipped(content) if name == "a.zip" else gzip.compress(content))
    with pytest.raises(DataError, match=r"more than 100,000 bytes.*data\.max_bytes"):
        texts(path, max_bytes=100_000)


@pytest.mark.parametrize("name", ["a.csv.gz", "a.zip"])
def test_a_file_that_unpacks_to_hundreds_of_times_its_size_is_refused_before_it_is_read(tmp_path, name, monkeypatch):
    monkeypatch.setattr(files, "SMALL_BYTES", 10_000)
    content = b"text,label\n" + b"x,y\n" * 5_000
    path = written(tmp_path / name, _zipped(content) if name == "a.zip" else gzip.compress(content))
    with pytest.raises(DataError, match=r"more than 1.,000 bytes.*raise data\.max_bytes"):
        texts(path)
    assert len(texts(path, max_bytes=10**9)) == 5_000  # as advised


def test_parquet_that_unpacks_from_its_dictionary(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table({"text": ["x" * 10_000] * 5000, "label": ["a"] * 5000})
    parquet.write_table(table, tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 20_000
    with pytest.raises(DataError, match="more than 20,000,000 bytes"):
        texts(tmp_path / "a.parquet", max_bytes=20_000_000)
    with pytest.raises(DataError, match="more than 1,000 rows"):
        texts(tmp_path / "a.parquet", max_rows=1000)


def test_arrow_that_unpacks_to_much_is_refused_before_it_does(tmp_path, monkeypatch):
    import pyarrow as pa
    from pyarrow import feather

    unread = ["x" * 1_000_000] * 4
    table = pa.table({"text": ["one", "two"] * 2, "label": ["a", "b"] * 2, "more": pa.array(unread)})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    for name, new in (("a.arrow", pa.ipc.new_file), ("b.arrow", pa.ipc.new_stream)):
        with new(str(tmp_path / name), table.schema, options=options) as out:
            out.write_table(table)
    feather.write_feather(table, str(tmp_path / "c.feather"), compression="lz4")
    words = table.set_column(2, "more", pa.array(unread).dictionary_encode())
    feather.write_feather(words, str(tmp_path / "d.feather"), compression="zstd")
    for path in sorted(tmp_path.iterdir()):
        assert path.stat().st_size < 50_000
        assert texts(path, max_bytes=5_000_000) == ["one", "two"] * 2
    monkeypatch.setattr(pa.ipc, "open_file", None)
    monkeypatch.setattr(pa.ipc, "open_stream", None)
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(DataError, match="more than 900,000 bytes"):
            texts(path, max_bytes=900_000)


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_damaged_arrow_is_an_error_and_no_crash(tmp_path, compression):
    import pyarrow as pa

    table = pa.table({"text": [f"text {n}" for n in range(50)], "label": ["a", "b"] * 25})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), table.schema, options=options) as out:
        out.write_table(table)
    sound = (tmp_path / "a.arrow").read_bytes()
    rng, outcomes = random.Random(0), Counter()
    for _ in range(150):
        broken = bytearray(sound)
        for _ in range(rng.randint(1, 3)):
            broken[rng.randrange(len(broken))] = rng.choice([0, 1, 127, 128, 255])
        try:
            outcomes[len(texts(written(tmp_path / "b.arrow", bytes(broken))))] += 1
        except (DataError, ConfigError) as error:
            outcomes[type(error)] += 1
    assert outcomes[DataError] > 50


def test_what_would_hang_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    for source in (tmp_path / "a.csv", "/dev/zero"):
        with pytest.raises(DataError, match=r"a pipe or a device|are not read"):
            texts(source)
    with pytest.raises(DataError, match="NUL byte in a path"):
        texts("a\0.csv")


def _book(path, **sheets):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_of_several_sheets_the_one_that_fits_is_read_and_said(tmp_path):
    path = _book(
        tmp_path / "a.xlsx",
        About=[["written in May"]],
        Data=[["text", "label"], ["one", "a"], ["two", "b"]],
        More=[["text", "label"], ["three", "a"]],
    )
    result = read_examples(str(path))
    assert [row.text for row in result.examples] == ["one", "two"]
    assert result.notes == (f"{path}: of 3 sheets 'Data' is read; name another as {path}/More",)
    assert texts(f"{path}/More") == ["three"]
    assert read_examples(f"{path}/More").notes == ()
    with pytest.raises(DataError, match=r"a\.xlsx/About: no column of texts"):
        texts(f"{path}/About")
    with pytest.raises(DataError, match=r"no sheet 'Moar', but 'About', 'Data', 'More'.*a\.xlsx/About"):
        texts(f"{path}/Moar")


def test_a_sheet_that_does_not_fit_is_not_offered(tmp_path):
    path = _book(tmp_path / "a.xlsx", About=[["written in May"]], Data=[["text", "label"], ["one", "a"], ["two", "b"]])
    assert read_examples(str(path)).notes == (
        f"{path}: of 2 sheets 'Data' is read; no other has columns of usual names",
    )


def test_cells_merged_over_several_rows_have_their_value_in_each(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    path = tmp_path / "a.xlsx"
    book = openpyxl.Workbook()
    rows = ["text", "label", "more"], *[[f"text {n}", "ab"[n // 3 % 2]] for n in range(9)], ["last"], ["a note"]
    for row in rows:
        book.active.append(row)
    for cells in ("B2:B4", "B5:B7", "B8:C10", "A12:C12"):
        book.active.merge_cells(cells)
    book.save(path)
    result = read_examples(str(path))
    assert [row.label for row in result.examples] == list("aaabbbaaa")
    assert [row.text for row in result.examples] == [f"text {n}" for n in range(9)]
    assert result.no_gold == {"": 2}  # a cell that is empty stays so, and a title over all columns is no example
    assert result.notes == (f"{path}: 3 cells are merged over several rows; each of these rows has the value",)


def test_a_sheet_whose_written_size_is_wrong_is_read_whole(tmp_path):
    whole = _book(tmp_path / "a.xlsx", Data=[["text", "label"], ["one", "a"], ["two", "b"]])
    path = tmp_path / "b.xlsx"
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name).replace(b'<dimension ref="A1:B3"', b'<dimension ref="A1:A2"')
            new.writestr(name, content)
    assert texts(path) == ["one", "two"]


def test_a_file_of_an_archive_is_named_by_its_path(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("in/train.csv", "text,label\none,a\n")
        archive.writestr("in/test.tsv", "text\tlabel\ntwo\tb\n")
        for extra in ("__MACOSX/in/._train.csv", "in/.hidden.csv", "LICENSE", "README.md"):
            archive.writestr(extra, "nothing")
    with pytest.raises(
        DataError, match=r"2 files in it .*in/train\.csv, in/test\.tsv.*Name one: .*a\.zip/in/train\.csv$"
    ):
        texts(path)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("README.txt", "nothing")
        archive.writestr("train.csv", "text,label\none,a\n")
    with pytest.raises(DataError, match=r"Name one: .*b\.zip/train\.csv$"):
        texts(tmp_path / "b.zip")
    assert texts(f"{path}/in/train.csv") == ["one"]
    assert texts(f"{path}/in/test.tsv") == ["two"]
    with pytest.raises(DataError, match=r"no file 'in/tset\.tsv' in it, but in/train\.csv, in/test\.tsv"):
        texts(f"{path}/in/tset.tsv")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.pdf", "nothing")
    with pytest.raises(DataError, match="0 files in it that can be read"):
        texts(path)


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.tsv"])
@pytest.mark.parametrize("content", [json.dumps(ROWS, indent=1), "\n".join(map(json.dumps, ROWS))])
def test_json_is_known_by_its_content(tmp_path, name, content):
    assert texts(written(tmp_path / name, content), require_labels=False) == ["one", "two"]


@pytest.mark.parametrize(
    "content",
    [
        "text,label\na,x\n,\nb,y\n,\n\n",
        "text;label;;\na;x;;\nb;y;;\n;;;\n",
        "text,label\na,x,\nb,y,,\n",
        "text,label,\na,x\nb,y\n",
        ",,\ntext,label,\na,x,\nb,y,\n",
    ],
)
def test_empty_cells_that_spreadsheets_leave_are_no_rows_and_no_columns(tmp_path, content):
    path = str(written(tmp_path / "a.csv", content))
    assert [(row.text, row.label) for row in read_examples(path).examples] == [("a", "x"), ("b", "y")]
    rows = NumberedRows(path, ReadOptions(), is_pair=False)
    assert [row.text for _, row, _ in rows] == ["a", "b"]
    lines = content.splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("text")) + 1
    blank = [line for line in lines[first:] if not line.strip(",;")]
    assert [note.split()[0] for note in rows.notes()] == [str(len(blank))] * bool(blank)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "text,label\na,x,more\n", "row 2: 3 cells, expected 2"),
        ("a.csv", "text,label\na\n", "row 2: 1 cells, expected 2"),
        ("a.csv", "Survey of May\n\ntext,label\na,x\n", "delete what stands above it"),
        ("a.txt", "__label__a one\n__label__b two\n", "lines of fastText"),
        ("a.json", '{"text": ["a", "b"], "label": ["x", "y"]}', "one object that holds columns"),
        ("a.json", '{"text": {"0": "a", "1": "b"}, "label": {"0": "x", "1": "y"}}', r'orient="records"'),
    ],
)
def test_files_of_another_form_say_what_they_are(tmp_path, name, content, said):
    with pytest.raises(DataError, match=said):
        texts(written(tmp_path / name, content), require_labels=False)


def test_an_address_is_no_file(tmp_path):
    with pytest.raises(DataError, match=r"an address, expected a file\. Download it"):
        texts("https://example.org/train.csv")
