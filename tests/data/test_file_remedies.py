"""What an error about a file or a split tells the user to do is done, to the letter, and then the data are read."""

from __future__ import annotations

import gzip
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from entailor.cli.app import app
from entailor.config.parts import DataSettings
from entailor.data.readers import ReadOptions
from entailor.data.splits import LoadedData, load_data
from entailor.errors import ConfigError, DataError

ROWS = [(f"text number {n}", "xy"[n % 2]) for n in range(40)]
Given = dict[str, object]


def load(given: Given, *, whole: bool = True) -> LoadedData:
    return load_data(DataSettings.model_validate(given), whole=whole)


def csv_of(path: Path, header: str = "text,label", mark: str = ",", rows: list[tuple[str, str]] = ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *(mark.join(row) for row in rows), ""]))
    return path


def words_of(message: str) -> Given:
    """Return the settings a message names: the encoding, or what to give in place of the path."""
    found: Given = dict(re.findall(r"--(encoding) ([\w-]+)", message))
    paths = re.search(
        r"(?:Name one: |Give all of them: |such as (?!--)|Give one of them: )(.+?)(?:, or a glob)?$", message
    )
    return found | ({"train": paths[1]} if paths else {})


def western(path: Path) -> Given:
    (path / "a.csv").write_bytes("text,label\nA café – 5 €,x\nI don’t,y\n".encode("cp1252"))
    return {"train": path / "a.csv"}


def utf16(path: Path) -> Given:
    (path / "a.csv").write_bytes("text,label\none,x\ntwo,y\n".encode("utf-16-le"))
    return {"train": path / "a.csv"}


def archive(path: Path) -> Given:
    with zipfile.ZipFile(path / "a.zip", "w") as opened:
        for name in ("train.csv", "test.csv"):
            opened.writestr(f"in/{name}", csv_of(path / name).read_text())
    return {"train": path / "a.zip"}


def sheets(path: Path) -> Given:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for name in ("One", "Two"):
        for row in (("text", "label"), *ROWS):
            (book[name] if name in book.sheetnames else book.create_sheet(name)).append(row)
    book.remove(book["Sheet"])
    book.save(path / "a.xlsx")
    return {"train": path / "a.xlsx" / "Three"}


def splits(path: Path) -> Given:
    import datasets

    part = datasets.Dataset.from_dict({"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]})
    datasets.DatasetDict(learn=part).save_to_disk(str(path / "saved"))
    return {"train": path / "saved"}


def shard(name: str) -> Callable[[Path], Given]:
    def make(path: Path) -> Given:
        for number in range(2):
            csv_of(path / name.replace("0", str(number), 1))
        if name.endswith(".gz"):
            for file in path.glob("*.gz"):
                file.write_bytes(gzip.compress(file.read_bytes()))
        return {"train": path / name}

    return make


def tables(path: Path) -> Given:
    csv_of(path / "in" / "train.csv")
    csv_of(path / "in" / "other.csv")
    return {"train": path / "in"}


@pytest.mark.parametrize(
    "make",
    [western, utf16, archive, sheets, splits, tables, *map(shard, ("a0-of-2.csv", "a.0-of-2.csv.gz", "0-of-2.csv"))],
)
def test_another_file_or_encoding(tmp_path: Path, make: Callable[[Path], Given]):
    given = {key: str(value) for key, value in make(tmp_path).items()}
    with pytest.raises(DataError) as caught:
        load(given)
    told = words_of(str(caught.value))
    assert told
    assert len(load({**given, **told}).split.train) in (2, 40, 80)


@pytest.mark.parametrize(
    ("name", "content", "remedy", "mended"),
    [
        ("a.csv", "text,label\na, b,x\nc,y\n", "between double quotes", 'text,label\n"a, b",x\nc,y\n'),
        ("a.csv", 'text,label\n"a,x\nc,y\n', "Close it", 'text,label\n"a",x\nc,y\n'),
        ("a.csv", 'text,label\n"a",x\n"b"c,y\n', 'inside a quoted cell as ""', 'text,label\n"a",x\n"b""c",y\n'),
        ("a.csv", "one of a kind,x\nc,y\n", "add a header line", "text,label\none of a kind,x\nc,y\n"),
        ("a.csv", "Survey\ntext,label\na,x\nc,y\n", "delete what stands above it", "text,label\na,x\nc,y\n"),
        ("a.csv", "text,text,label\na,b,x\nc,d,y\n", "Rename one of the two", "text,other,label\na,b,x\nc,d,y\n"),
        ("a.csv", "text,label\n", "Give a file with rows", "text,label\na,x\nb,y\n"),
        ("a.csv", "", "Give a file with a header", "text,label\na,x\nb,y\n"),
        ("a.txt", "__label__x a\n__label__y b\n", "Write a CSV file", "text,label\na,x\nb,y\n"),
        ("a.json", '{"text": ["a", "b"], "label": ["x", "y"]}', 'to_json(orient="records")', None),
        ("a.json", '[["a", "x"], ["b", "y"]]', 'Write {"text": ..., "label": ...}', None),
        ("a.json", '{"a": [{"text": 1}], "b": [{"text": 2}]}', "as one array, or one object a line", None),
        ("a.jsonl", '{"text": "a", "label": "x"} {"text": "b", "label": "y"}', "One whole JSON object a line", None),
        ("a.jsonl", '{"text": null, "label": "x"}', "Fill it in or leave the row out", None),
        ("a.jsonl", '{"text": "a", "text": "b", "label": "x"}', "several values under one key, expected text. Keep one",
         None),
        ("a.jsonl", '{"text": "a", "label": "b", "label": "x"}', "several values under one key as a label", None),
        ("a.jsonl", '{"text": "a", "label": "x\\udfff"}', "Write the whole character, or leave it out", None),
        ("a.jsonl", '{"text": "a", "label": 1e999}', "not a finite number as a label", None),
        ("a.json", '[{"text": "a", "label": "x"}][{"text": "b", "label": "y"}]', "more text behind the end",
         None),
        ("a.json", '{"a": [{"text": "a", "label": "x"}],\n "b": 1}\n{"c": 2}', "the end at line 3", None),
        ("a.jsonl", '{"text": "a\\ud800", "label": "x"}', "Write the whole character, or leave it out", None),
    ],
)  # fmt: skip
def test_another_content(tmp_path: Path, name: str, content: str, remedy: str, mended: str | None):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=re.escape(remedy)):
        load({"train": str(path)})
    path.write_text(mended or '{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n')
    assert len(load({"train": str(path)}).split.train) == 2


@pytest.mark.parametrize(
    ("header", "mark", "remedy", "told"),
    [
        ("text~label", "~", "add a header line", {"delimiter": "~"}),
        ("body of it,opinion", ",", "--columns premise=COL,hypothesis=COL,label=COL (or text=COL,label=COL)",
         {"columns": {"text": "body of it", "label": "opinion"}}),
        ("text,opinion", ",", "(or text=COL,label=COL)", {"columns": {"label": "opinion"}}),
    ],
)  # fmt: skip
def test_flags_that_need_a_value_of_the_user(tmp_path: Path, header: str, mark: str, remedy: str, told: Given):
    given = {"train": str(csv_of(tmp_path / "a.csv", header, mark))}
    with pytest.raises(DataError) as caught:
        load(given)
    assert remedy in str(caught.value)
    assert len(load({**given, **told}).split.train) == 40


def test_a_text_that_lies_inside_an_object(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"text": {{"n": 1, "body": "{text}"}}, "label": "{label}"}}\n' for text, label in ROWS))
    with pytest.raises(DataError, match="row 1, column 'text': an object, expected text") as caught:
        load({"train": str(path)})
    (column,) = re.findall(r"--columns text=(\S+)", str(caught.value))
    given = {"train": str(path), "columns": {"text": column}}
    path.write_text(path.read_text().replace('"label": "', '"unread": 1, "unread": 2, "label": "'))
    assert load(given).split.train[0].text in dict(ROWS)
    path.write_text("".join(f'{{"text": "{text}", "label": {{"name": "{label}"}}}}\n' for text, label in ROWS))
    with pytest.raises(DataError, match="an object as a label") as caught:
        load({"train": str(path)})
    (column,) = re.findall(r"--columns label=(\S+)", str(caught.value))
    assert load({"train": str(path), "columns": {"label": column}}).labels == ("x", "y")


def test_a_cell_beyond_the_limit_is_cut(tmp_path: Path):
    path = csv_of(tmp_path / "a.csv", rows=[*ROWS, ("x" * 2_000_001, "x")])
    with pytest.raises(
        DataError, match=r"row 42, .*a text of 2,000,001 characters.* Cut the text, or look for a quote"
    ):
        load({"train": str(path)})
    csv_of(path, rows=[*ROWS, ("x" * 9_000, "x")])
    assert load({"train": str(path)}).split.train


def test_names_that_nearly_fit(tmp_path: Path):
    given = {"train": str(csv_of(tmp_path / "reviews.csv", "text,gold opinion")), "columns": {"label": "gold opinoin"}}
    with pytest.raises(DataError) as caught:
        load({**given, "train": str(tmp_path / "reviewss.csv")})
    assert re.findall(r"Did you mean '(.*)'\?", str(caught.value)) == ["reviews.csv"]
    with pytest.raises(DataError) as caught:
        load(given)
    (column,) = re.findall(r"Did you mean '(.*)'\?", str(caught.value))
    assert len(load({**given, "columns": {"label": column}}).split.train) == 40


@pytest.mark.parametrize(
    ("given", "remedy", "told"),
    [
        ({"validation_size": 20, "test_size": 20}, "Make data.validation_size and data.test_size smaller",
         {"test_size": 5, "validation_size": 5}),
        ({"validation_size": 20, "test_size": 20}, "or give files for them", {"validation": "own", "test": "own"}),
        ({"validation_size": 2.5}, "a whole number of examples", {"validation_size": 2}),
        ({"max_train_examples": 1}, "Give at least 2", {"max_train_examples": 2}),
        ({"max_rows": 39}, "raise data.max_rows", {"max_rows": 40}),
        ({"test": "own", "test_split": "test"}, "Give data.test alone", {"test_split": None}),
        ({"test": "same", "drop_leaks": True}, "Set data.drop_leaks=false", {"drop_leaks": False}),
        ({"test": "same", "drop_leaks": True}, "or give other files for validation and test", {"test": "own"}),
        ({"test": "pairs"}, "Name the columns with --columns", {"columns": {"text": "text", "label": "label"}}),
    ],
)  # fmt: skip
def test_settings_of_the_split(tmp_path: Path, given: Given, remedy: str, told: Given):
    files = {
        "own": csv_of(tmp_path / "own.csv", rows=[(f"another {text}", label) for text, label in ROWS[:8]]),
        "same": csv_of(tmp_path / "same.csv"),
        "pairs": csv_of(
            tmp_path / "pairs.csv", "text,hypothesis,label", rows=[(f"p {a}", "h", b) for a, b in ROWS[:8]]
        ),
    }

    def with_files(some: Given) -> Given:
        return {
            key: str(files.get(str(value), value)) if key in ("validation", "test") else value
            for key, value in some.items()
        }

    train = {"train": str(csv_of(tmp_path / "train.csv"))}
    with pytest.raises((ConfigError, DataError)) as caught:
        load({**train, **with_files(given)}, whole=False)
    assert remedy in str(caught.value)
    again = {key: value for key, value in {**train, **with_files({**given, **told})}.items() if value is not None}
    assert load(again, whole=False).split.train


def test_a_file_that_unpacks_to_much_is_read_where_the_limit_is_raised(tmp_path: Path):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(csv_of(tmp_path / "a.csv").read_bytes()))
    with pytest.raises(DataError, match=r"raise data\.max_bytes \(predict and evaluate: --max-bytes\)"):
        load({"train": str(path), "max_bytes": 100})
    assert len(load({"train": str(path), "max_bytes": 10_000}).split.train) == 40
    with pytest.raises(DataError, match=r"take \.gz off its name"):
        load({"train": str(csv_of(tmp_path / "b.csv.gz"))})
    assert len(load({"train": str((tmp_path / "b.csv.gz").rename(tmp_path / "b.csv"))}).split.train) == 40


def test_a_validation_file_without_train(tmp_path: Path):
    own = {"validation": str(csv_of(tmp_path / "a.csv"))}
    with pytest.raises(ConfigError, match="Give a train file too"):
        load(own)
    assert load(
        {**own, "train": str(csv_of(tmp_path / "b.csv", rows=[(f"b {t}", y) for t, y in ROWS]))}
    ).split.validation


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_commands_without_keys_have_flags_for_the_limits(monkeypatch: pytest.MonkeyPatch, command: str):
    def taken(run: object, source: object, *others: object, **more: object) -> None:
        options = next(one for one in others if isinstance(one, ReadOptions))
        raise DataError(f"{options.max_bytes} and {options.max_rows}")

    monkeypatch.setattr(f"entailor.shipping.inference.{command}", taken)
    files = ["--input", "a.csv", "--output", "b.csv"] if command == "predict" else ["--test", "a.csv"]
    done = CliRunner().invoke(app, [command, "--run", "x", *files, "--max-bytes", "5", "--max-rows", "7"])
    assert str(done.exception) == "5 and 7"
