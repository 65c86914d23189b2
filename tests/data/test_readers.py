"""Reading: the same rows out of every kind of file, columns and labels found as people write them."""

import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entailor.data.example import Example, content_id
from entailor.data.readers import MAX_FIELD_CHARACTERS, ReadOptions, iter_examples, read_examples
from entailor.errors import ConfigError, DataError, LabelError

ROWS = [
    {
        "premise": "A man sleeps.",
        "hypothesis": 'He is "awake", they say.',
        "label": "contradiction",
        "genre": "fiction",
    },
    {"premise": "Zwei Wörter\nauf zwei Zeilen", "hypothesis": "Two lines, 𝔘𝔫𝔦", "label": "neutral", "genre": "travel"},
    {"premise": "  kept as it is  ", "hypothesis": "می‌روم", "label": "entailment", "genre": "travel"},
]


def write(folder: Path, name: str, rows=ROWS) -> str:
    """Write rows as the kind of file the name asks for."""
    path = folder / name
    if name.endswith(".parquet"):
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(rows), path)
        return str(path)
    opened = gzip.open if name.endswith(".gz") else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        if ".csv" in name or ".tsv" in name:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if ".tsv" in name else ",")
            writer.writeheader()
            writer.writerows(rows)
        elif name.endswith(".json"):
            json.dump(rows, file, indent=1)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return str(path)


def text_file(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_bytes(text.encode("utf-8"))
    return str(path)


KINDS = ["a.csv", "a.CSV", "a.csv.gz", "a.tsv", "a.tsv.gz", "a.jsonl", "a.jsonl.gz", "a.ndjson", "a.json", "a.parquet"]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_gives_the_same_examples(tmp_path, name):
    kind = name if name != "a.CSV" else "a.csv"
    source = write(tmp_path, kind)
    if kind != name:
        source = str((tmp_path / kind).rename(tmp_path / name))
    result = read_examples(source)
    assert [(row.text, row.text_pair, row.label, row.group) for row in result.examples] == [
        tuple(row.values()) for row in ROWS
    ]
    assert [row.id for row in result.examples] == [content_id(row["premise"], row["hypothesis"]) for row in ROWS]
    assert result.columns == {"text": "premise", "text_pair": "hypothesis", "label": "label", "group": "genre"}
    assert (result.rows_read, result.dropped_without_gold, result.notes) == (3, 0, ())


@settings(deadline=None)
@given(
    st.lists(st.tuples(*[st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))] * 2), min_size=1)
)
def test_any_text_comes_back_unchanged(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("any")
    rows = [{"premise": text, "hypothesis": pair, "label": "x"} for text, pair in texts]
    for name in ("a.csv", "a.tsv", "a.jsonl", "a.parquet"):
        examples = read_examples(write(folder, name, rows)).examples
        assert [(row.text, row.text_pair) for row in examples] == texts
        assert len({row.id for row in examples}) == len(texts)


def test_more_rows_than_a_batch_keep_their_order(tmp_path):
    rows = [{"text": f"row {number}", "label": "ab"[number % 2]} for number in range(5000)]
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        source = write(tmp_path, name, rows)
        assert [row.text for row in read_examples(source).examples] == [row["text"] for row in rows]


def test_byte_order_mark_crlf_and_blank_lines(tmp_path):
    source = text_file(tmp_path, "a.csv", "\ufefftext,label\r\n\r\none,a\r\n\r\ntwo,b\r\n")
    assert [(row.text, row.label) for row in read_examples(source).examples] == [("one", "a"), ("two", "b")]
    source = text_file(tmp_path, "a.jsonl", '\ufeff{"text": "one", "label": "a"}\r\n\r\n{"text": "two", "label": "b"}')
    assert [row.text for row in read_examples(source).examples] == ["one", "two"]


def test_tsv_without_quoting_keeps_its_quotes(tmp_path):
    lines = ["sentence1\tsentence2\tlabel", '"He left\tHe "left"\ta', 'It is 6" long\t"Quoted."\tb', ""]
    result = read_examples(text_file(tmp_path, "a.tsv", "\n".join(lines)))
    assert [(row.text, row.text_pair) for row in result.examples] == [
        ('"He left', 'He "left"'),
        ('It is 6" long', '"Quoted."'),
    ]
    assert "plain characters" in result.notes[0]


def test_a_file_is_streamed_and_its_columns_come_first(tmp_path):
    source = text_file(tmp_path, "a.csv", "premise,hypothesis\none,two\n")
    assert list(iter_examples(source, ReadOptions(require_labels=False))) == [
        Example(content_id("one", "two"), "one", "two")
    ]
    with pytest.raises(DataError, match="no column of labels"):
        iter_examples(source)  # before a single row is asked for


# --- columns ---


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("premise,hypothesis,label", ("premise", "hypothesis", "label")),
        ("Sentence1,SENTENCE2,Gold_Label", ("Sentence1", "SENTENCE2", "Gold_Label")),
        ("text 1,text-2,class", ("text 1", "text-2", "class")),
        ("text1,text2,class", ("text1", "text2", "class")),
        ("sentence1,sentence2,premise,hypothesis,label", ("premise", "hypothesis", "label")),
        ("text,sentence1,sentence2,label", ("sentence1", "sentence2", "label")),
        ("question1,question2,label", ("question1", "question2", "label")),
        ("question,sentence,label", ("question", "sentence", "label")),
        ("label,gold_label,text", ("text", None, "gold_label")),
        ("review,sentiment", ("review", None, "sentiment")),
        ("content,target", ("content", None, "target")),
        ("premise,text,label", ("text", None, "label")),
        ("text,class,label", ("text", None, "label")),
    ],
)
def test_columns_are_found_by_name(tmp_path, header, expected):
    source = text_file(tmp_path, "a.csv", header + "\n" + ",".join(["x"] * (header.count(",") + 1)) + "\n")
    columns = read_examples(source).columns
    assert (columns["text"], columns.get("text_pair"), columns["label"]) == expected


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ({"premise": "ctx", "hypothesis": "claim", "label": "verdict"}, ("ctx", "claim", "verdict")),
        ({"text": "ctx", "text_pair": "claim", "label": "verdict"}, ("ctx", "claim", "verdict")),
        ({"text": "ctx", "label": "Verdict"}, ("ctx", None, "verdict")),
        ({"premise": "ctx", "label": "verdict"}, ("ctx", "hypothesis", "verdict")),
        ({"hypothesis": "claim", "label": "verdict"}, ("text", "claim", "verdict")),
    ],
)
def test_columns_can_be_mapped(tmp_path, mapping, expected):
    source = text_file(tmp_path, "a.csv", "ctx,claim,verdict,hypothesis,text\na,b,c,d,e\n")
    columns = read_examples(source, ReadOptions(columns=mapping)).columns
    assert (columns["text"], columns.get("text_pair"), columns["label"]) == expected


@pytest.mark.parametrize(
    ("mapping", "kind", "said"),
    [
        ({"label": "verdikt"}, DataError, "no column 'verdikt'.*Did you mean 'verdict'"),
        ({"premis": "ctx"}, ConfigError, "'premis' is no field.*Did you mean 'premise'"),
        ({"premise": "ctx", "text": "other"}, ConfigError, "a second time"),
        ({"text": "ctx", "label": "ctx"}, ConfigError, "one column"),
        ({"premise": "ctx", "label": "verdict"}, DataError, "no column of hypotheses"),
        ({"hypothesis": "ctx", "label": "verdict"}, DataError, "no column of premises"),
    ],
)
def test_a_mapping_that_cannot_be_used(tmp_path, mapping, kind, said):
    source = text_file(tmp_path, "a.csv", "ctx,other,verdict\na,b,c\n")
    with pytest.raises(kind, match=said):
        read_examples(source, ReadOptions(columns=mapping))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("a,b,label", "columns found: 'a', 'b', 'label'.*--columns premise=COL,hypothesis=COL,label=COL"),
        ("first;second;third,fourth is long", "no column of texts"),
        ("A man is sleeping in the long grass behind a house,He is awake,x", "add a header line"),
        (",".join(f"c{number}" for number in range(30)), "and 10 more"),
    ],
)
def test_missing_columns_say_what_to_do(tmp_path, header, said):
    source = text_file(tmp_path, "a.csv", f"{header}\n{header}\n")
    with pytest.raises(DataError, match=said):
        read_examples(source)


# --- labels ---


def test_labels_are_names_or_codes(tmp_path):
    rows = [{"text": str(n), "label": label} for n, label in enumerate(["yes ", 0, 1.0, True, False, "2.0"])]
    source = text_file(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert [row.label for row in read_examples(source).examples] == ["yes", "0", "1", "true", "false", "2"]
    names = {"0": "zero", "yes": "one", "1": "one", "-1": "minus"}
    renamed = read_examples(source, ReadOptions(label_names=names)).examples
    assert [row.label for row in renamed] == ["one", "zero", "one", "true", "false", "2"]
    as_written = read_examples(source, ReadOptions(label_names={"2.0": "two"})).examples
    assert as_written[-1].label == "two"


def test_rows_without_gold_are_dropped_and_counted(tmp_path):
    labels = ["a", "", "-", -1, "-1", None, float("nan"), "NaN", "b", " "]
    rows = [{"text": str(number), "label": label} for number, label in enumerate(labels)]
    rows.append({"text": "no label at all"})
    source = text_file(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    result = read_examples(source)
    assert [(row.text, row.label) for row in result.examples] == [("0", "a"), ("8", "b")]
    assert (result.rows_read, result.dropped_without_gold) == (11, 9)
    kept = list(iter_examples(source, ReadOptions(require_labels=False)))
    assert [row.label for row in kept] == ["a", *[None] * 7, "b", None, None]


def test_a_null_text_in_a_row_without_gold_does_no_harm(tmp_path):
    source = text_file(tmp_path, "a.jsonl", '{"text": null, "label": -1}\n{"text": "x", "label": "a"}\n')
    assert len(read_examples(source).examples) == 1


@pytest.mark.parametrize(
    "options", [{"labels": ("-1", "0", "1")}, {"label_names": {"-1": "bad", "0": "so", "1": "good"}}]
)
def test_minus_one_is_a_label_where_the_user_says_so(tmp_path, options):
    source = text_file(tmp_path, "a.csv", "text,label\na,-1\nb,0\nc,1\n")
    result = read_examples(source, ReadOptions(**options))
    assert (len(result.examples), result.dropped_without_gold) == (3, 0)


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("nuetral", "'nuetral', expected one of 'entailment', 'neutral'. Did you mean 'neutral'"),
        ("Neutral", "looks like 'neutral' but for case"),
        ("other", "add the label to data.labels"),
    ],
)
def test_an_unknown_label_names_its_row(tmp_path, label, said):
    source = text_file(tmp_path, "a.csv", f"text,label\na,entailment\n\nb,neutral\nc,{label}\n")
    with pytest.raises(LabelError, match=said) as caught:
        read_examples(source, ReadOptions(labels=("entailment", "neutral")))
    assert (caught.value.row, caught.value.column) == (5, "label")


# --- ids, groups, texts ---


def test_ids_come_from_their_column_and_are_made_unique(tmp_path):
    rows = [("7", "a"), ("7", "b"), ("7-2", "c"), ("", "d"), ("7", "e")]
    source = text_file(tmp_path, "a.csv", "pairID,text,label\n" + "".join(f"{i},{t},x\n" for i, t in rows))
    result = read_examples(source)
    assert [row.id for row in result.examples] == ["7", "7-2", "7-2-2", content_id("d", None), "7-3"]
    assert "3 repeated values in the id column 'pairID'" in result.notes[0]


def test_equal_rows_get_different_ids(tmp_path):
    source = text_file(tmp_path, "a.csv", "text,label\n" + "same,x\n" * 3)
    first = content_id("same", None)
    result = read_examples(source)
    assert [row.id for row in result.examples] == [first, f"{first}-2", f"{first}-3"]
    assert result.notes == ()


def test_ids_differ_over_a_long_file(tmp_path):
    rows = [{"text": f"row {number % 2000}", "label": "a"} for number in range(5000)]
    ids = [row.id for row in read_examples(write(tmp_path, "a.csv", rows)).examples]
    assert len(set(ids)) == 5000
    assert ids[2000] == f"{ids[0]}-2"


def test_groups_and_numbers_become_text(tmp_path):
    rows = [{"text": 12, "label": "a", "domain": 3}, {"text": 1.5, "label": "a", "domain": None}]
    rows.append({"text": "x", "label": "a", "domain": ["p", "q"]})
    source = text_file(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    examples = read_examples(source).examples
    assert [(row.text, row.group) for row in examples] == [("12", "3"), ("1.5", None), ("x", "['p', 'q']")]


def test_long_and_empty_texts_pass(tmp_path):
    long = "x" * MAX_FIELD_CHARACTERS
    source = text_file(tmp_path, "a.csv", f"premise,hypothesis,label\n{long},,a\n")
    (row,) = read_examples(source).examples
    assert (len(row.text), row.text_pair) == (MAX_FIELD_CHARACTERS, "")


# --- data sets ---


def test_a_data_set_is_loaded_with_its_label_names(monkeypatch):
    import datasets

    features = datasets.Features(
        premise=datasets.Value("string"),
        hypothesis=datasets.Value("string"),
        label=datasets.ClassLabel(names=["entailment", "neutral", "contradiction"]),
    )
    columns = {"premise": ["a", "b", "c"], "hypothesis": ["x", "y", "z"], "label": [2, 0, -1]}
    asked = {}

    def load_dataset(path, **options):
        asked.update(path=path, **options)
        return datasets.Dataset.from_dict(columns, features=features)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    options = ReadOptions(config_name="plain", split="train", label_names={"contradiction": "no"})
    result = read_examples("owner/pairs", options)
    assert [(row.text, row.label) for row in result.examples] == [("a", "no"), ("b", "entailment")]
    assert result.dropped_without_gold == 1
    assert asked == {"path": "owner/pairs", "name": "plain", "split": "train", "streaming": False}


def test_label_names_are_kept_in_a_parquet_file_of_a_data_set(tmp_path):
    import datasets

    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["neg", "pos"]))
    path = tmp_path / "a.parquet"
    datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features).to_parquet(path)
    assert [row.label for row in read_examples(str(path)).examples] == ["pos", "neg"]


def test_nothing_heavy_is_imported_to_read_a_csv_file(tmp_path):
    source = text_file(tmp_path, "a.csv", "text,label\na,b\n")
    code = (
        "import sys; from entailor.data.readers import read_examples; read_examples(sys.argv[1]); "
        "heavy = {'torch', 'transformers', 'datasets', 'pandas', 'pyarrow', 'sklearn'}; "
        "print(heavy & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code, source], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
