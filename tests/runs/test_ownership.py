"""Files of the user and of other runs: nothing of them is written over or deleted, whatever the folder looks like."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tests.hostile import running
from tests.kill import environment
from tests.observers import listener

import entailor.study.compare
import entailor.study.prepare
from entailor.data.readers import ReadOptions
from entailor.diagnostics.doctor import validate
from entailor.engine.checkpoint import CheckpointStore
from entailor.errors import DataError, EntailorError, OutputError, RunError
from entailor.evaluation.difference import diff_runs
from entailor.report.html import write_report
from entailor.runs.files import write_text
from entailor.runs.layout import RunFolder
from entailor.runs.lock import lock_run
from entailor.runs.outputs import check_output
from entailor.runs.ownership import MARKER_FILE, check_run_folder
from entailor.runs.trial_folder import clear_trial
from entailor.shipping.export import export
from entailor.shipping.inference import evaluate, label_words_of_run, predict
from entailor.study.compare import compare
from entailor.study.verification import verify


@pytest.fixture(autouse=True)
def plain_page(monkeypatch):
    monkeypatch.setattr(entailor.study.compare, "write_report", lambda folder: write_text(folder.report_file, "page"))


@pytest.fixture
def quick(nli_experiment, tmp_path):
    rows = {"majority": {}, "bag_of_words": {}}
    return nli_experiment.model_copy(update={"methods": rows, "doctor": False, "out": str(tmp_path / "run")})


@pytest.fixture
def mine(tmp_path):
    """A folder of the user's with files named as a trial's and a checkpoint's."""
    folder = tmp_path / "mine"
    for name in ("record.json", "adapter/weights.safetensors", "step-1.safetensors", "notes.txt", "study.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    return folder


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- the run folder


@pytest.mark.parametrize(
    "name",
    [
        *("experiment.yaml", "environment.json", "report.html", ".lock", ".entailor.json", "notes.txt", "trials/x"),
        ".notes.json.ab12cd34.tmp",
    ],
)
def test_a_folder_of_somebody_else_is_refused_and_left_as_it_was(quick, name):
    out = Path(quick.out)
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("mine")
    before = contents(out)
    with pytest.raises(RunError, match=r"not empty.*not the folder of a run\. Give a new or empty folder with --out"):
        compare(quick)
    assert contents(out) == before
    assert compare(quick.model_copy(update={"out": str(out.with_name("new"))})).records  # the remedy works


@pytest.mark.parametrize("held", [(), (".lock",)])
def test_an_empty_folder_and_a_lock_alone_are_taken(quick, held):
    Path(quick.out).mkdir()
    for name in held:
        (Path(quick.out) / name).touch()
    assert len(compare(quick).records) == 2
    assert (Path(quick.out) / MARKER_FILE).is_file()


def test_a_folder_from_before_the_marker_goes_on_and_gets_one(quick):
    before = compare(quick).summary
    marker = Path(quick.out) / MARKER_FILE
    marker.unlink()
    assert compare(quick).summary == before
    assert marker.is_file()


def test_one_copied_file_does_not_make_a_folder_ours(quick, tmp_path):
    compare(quick)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(Path(quick.out) / "experiment.yaml", other)
    (other / "report.html").write_text("mine")
    with pytest.raises(RunError, match="not the folder of a run"):
        compare(quick.model_copy(update={"out": str(other)}))
    shutil.copy(Path(quick.out) / "comparison.json", tmp_path)
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(RunError, match="Entailor did not write it"):
        write_report(RunFolder(tmp_path))
    assert (other / "report.html").read_text() == (tmp_path / "report.html").read_text() == "mine"


@pytest.mark.parametrize("name", ["..entailor.json.7idb3q_l.tmp", "..lock.json.ab12cd34.tmp"])
def test_a_run_killed_while_it_wrote_its_first_file_goes_on(quick, name):
    out = Path(quick.out)
    out.mkdir()
    (out / ".lock").touch()
    (out / name).write_text('{"vers')
    assert [record.status for record in compare(quick).records] == ["complete"] * 2
    assert not (out / name).exists()


def test_what_a_killed_run_was_writing_goes_and_nothing_else(tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    seed = "trials/none/majority/seed-0"
    ours = [
        ".experiment.yaml.7idb3q_l.tmp",
        ".comparison.json.7idb3q_l.tmp",
        f"{seed}/.predictions.jsonl.7idb3q_l.tmp",
        f"{seed}/external/.reviews-1a2b.json.7idb3q_l.tmp",
        "tuning/none/bag_of_words/.study.json.7idb3q_l.tmp",
        "data/.train.json.7idb3q_l.tmp",
    ]
    others = [".notes.txt.7idb3q_l.tmp", f"{seed}/.mine.json.7idb3q_l.tmp", "mine/.record.json.7idb3q_l.tmp", "a.tmp"]
    for name in (*ours, *others):
        write_text(run / name, "half")
    write_text(elsewhere / ".record.json.7idb3q_l.tmp", "mine")
    (run / "curve").symlink_to(elsewhere)
    RunFolder(run).mark()
    with lock_run(run):
        assert sorted(contents(run)) == sorted([*others, MARKER_FILE, ".lock", ".lock.json"])
    assert (elsewhere / ".record.json.7idb3q_l.tmp").exists()


@pytest.mark.parametrize("above", ["", "deep/deeper/"])
def test_wrong_data_leave_no_folder_and_no_lock(quick, tmp_path, above):
    out = tmp_path / f"{above}run"
    wrong = quick.model_copy(
        update={"out": str(out), "data": quick.data.model_copy(update={"test": str(tmp_path / "no.csv")})}
    )
    with pytest.raises(DataError):
        compare(wrong)
    assert list(tmp_path.iterdir()) == []
    out.mkdir(parents=True)
    with pytest.raises(DataError):
        compare(wrong)
    assert list(out.iterdir()) == []


def test_the_second_process_on_a_new_folder_is_refused_while_the_first_reads_its_data(quick, monkeypatch):
    read = entailor.study.prepare.load_data

    def reading(settings):
        with pytest.raises(RunError, match="in use by process"), lock_run(Path(quick.out)):
            pass
        return read(settings)

    monkeypatch.setattr(entailor.study.prepare, "load_data", reading)
    assert len(compare(quick).records) == 2


def test_an_input_where_the_run_writes_is_refused(quick):
    compare(quick)
    inside = RunFolder(quick.out).trial("none", "majority", 0) / "predictions.jsonl"
    wrong = quick.model_copy(update={"data": quick.data.model_copy(update={"test": str(inside)})})
    with pytest.raises(RunError, match="lies where it writes"):
        compare(wrong)


# --- links


@pytest.mark.parametrize("link", ["trials", "trials/none", "trials/none/majority", "trials/none/majority/seed-0"])
def test_nothing_is_deleted_or_written_through_a_link(quick, mine, link):
    compare(quick)
    target = Path(quick.out) / link
    depth = ["none", "majority", "seed-0"][link.count("/") :] if "seed" not in link else []
    inner = mine.joinpath(*depth)
    if inner != mine:
        shutil.copytree(mine, inner)
    shutil.rmtree(target)
    target.symlink_to(mine)
    before = contents(mine)
    with pytest.raises(RunError, match=r"a symbolic link inside a run folder.*or give another --out"):
        compare(quick)
    assert contents(mine) == before


@pytest.mark.parametrize("name", ["adapter", "checkpoint", "external", "last_good"])
def test_a_link_inside_a_trial_is_refused(tmp_path, mine, name):
    trial = tmp_path / "trial"
    trial.mkdir()
    (trial / name).symlink_to(mine)
    before = contents(mine)
    with pytest.raises(RunError, match="symbolic link"):
        clear_trial(trial)
    assert contents(mine) == before


def test_files_of_others_in_a_trial_stay(quick):
    run = compare(quick)
    trial = run.folder.trial("none", "bag_of_words", 0)
    kept = ["notes.txt", "adapter/notes.txt", "checkpoint/notes.txt", "checkpoint/step-1.safetensors", ".x.tmp"]
    for name in kept:
        (trial / name).parent.mkdir(exist_ok=True)
        (trial / name).write_text("mine")
    (trial / "predictions.jsonl").write_text("damaged")
    again = compare(quick)
    assert [record.status for record in again.records] == ["complete", "complete"]
    assert again.records[1].predictions == run.records[1].predictions
    found = [path.name for path in trial.rglob("*") if path.is_file() and path.read_bytes() == b"mine"]
    assert sorted(found) == sorted(Path(name).name for name in kept)
    assert "notes.txt" not in json.loads((trial / "record.json").read_text())["files"]


def test_checkpoints_of_others_are_not_ours(tmp_path, mine):
    (tmp_path / "checkpoint").symlink_to(mine)
    for folder in (mine, tmp_path / "checkpoint"):
        store = CheckpointStore(folder)
        assert store.files() == []
        store.clear()
    assert (mine / "step-1.safetensors").read_text() == "mine"


# --- outputs

SPELLINGS = ["same", "dotted", "link", "hard", "relative", "through a linked folder"]


def spelled(path: Path, how: str) -> Path:
    other = path.with_name("other.csv")
    if how == "link":
        other.symlink_to(path)
    elif how == "hard":
        other.hardlink_to(path)
    elif how == "through a linked folder":
        folder = path.parent / "folder"
        folder.symlink_to(path.parent)
        other = folder / path.name
    elif how == "relative":
        other = Path(os.path.relpath(path))
    else:
        other = path if how == "same" else path.parent / "." / ".." / path.parent.name / path.name
    return other


@pytest.mark.parametrize("how", SPELLINGS)
@pytest.mark.parametrize("overwrite", [True, False])
def test_an_output_is_never_the_input(finished_run, tmp_path, how, overwrite):
    source = tmp_path / "in.csv"
    source.write_text("premise,hypothesis\nw1,w2\n")
    trial = finished_run.folder.trial("none", "majority", 0)
    with pytest.raises(OutputError, match="the same file as the input"):
        predict(trial, str(source), spelled(source, how), overwrite=overwrite)
    assert source.read_text() == "premise,hypothesis\nw1,w2\n"


@pytest.mark.parametrize("source", ["{}/in*.csv", "{}/i?.csv", "{}/**/in.csv", "{}", "{}/in.zip/in.csv"])
def test_an_output_is_no_input_that_a_pattern_folder_or_archive_holds(finished_run, tmp_path, source):
    text = "premise,hypothesis\nw1,w2\n"
    (tmp_path / "in.csv").write_text(text)
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("in.csv", text)
    target = tmp_path / ("in.zip" if "zip" in source else "in.csv")
    before = contents(tmp_path)
    with pytest.raises(OutputError, match=r"the same file as the input|which is read"):
        check_output(target, [source.format(tmp_path)], overwrite=True)
    assert contents(tmp_path) == before
    check_output(tmp_path / "out.csv", [source.format(tmp_path)], overwrite=True)


@pytest.mark.parametrize("name", ["model/config.json", "external.csv", "prompt.txt", "table/tokenizer.json"])
def test_findings_are_not_written_over_what_the_experiment_names(tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    values = {
        "data": {"train": str(tmp_path / "train.csv"), "external": [str(tmp_path / "external.csv")]},
        "models": [str(tmp_path / "model")],
        "prompt": {"template": str(tmp_path / "prompt.txt")},
        "methods": {"static_embedding": {"table": str(tmp_path / "table")}},
    }
    (tmp_path / "train.csv").write_text("text,label\na,b\n")
    (tmp_path / "e.yaml").write_text(json.dumps(values))
    words = ["validate", "--config", str(tmp_path / "e.yaml"), "--output", str(file), "--overwrite"]
    assert running.command(words)[0] == 2
    assert file.read_text() == "mine"


def test_what_entailor_did_not_write_is_replaced_only_when_asked(finished_run, tmp_path):
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("premise,hypothesis\nw1,w2\n")
    trial = finished_run.folder.trial("none", "majority", 0)
    out.write_text("mine")
    with pytest.raises(OutputError, match="add --overwrite"):
        predict(trial, str(source), out)
    assert out.read_text() == "mine"
    predict(trial, str(source), out, overwrite=True)
    predict(trial, str(source), out)  # it is Entailor's own now
    out.write_text(out.read_text() + "corrected by hand\n")
    with pytest.raises(OutputError, match="changed since"):
        predict(trial, str(source), out)


def test_findings_are_not_written_over_a_file(nli_files, tmp_path):
    data = tmp_path / "train.csv"
    shutil.copy(nli_files.train, data)
    found = validate(nli_files.model_copy(update={"train": str(data)}))
    before = data.read_bytes()
    with pytest.raises(OutputError, match="the same file"):
        found.write(data, inputs=[data], overwrite=True)
    with pytest.raises(OutputError, match="--overwrite"):
        found.write(data)
    assert data.read_bytes() == before


@pytest.mark.parametrize("name", ["report.html", "trials/none/majority/seed-0/record.json", "trials/new.csv"])
def test_nothing_is_written_among_the_files_of_a_run(finished_run, name):
    with pytest.raises(OutputError, match="among the files of a run"):
        check_output(finished_run.folder.path / name, [], overwrite=True)


@pytest.mark.parametrize("name", ["/dev/null", "/dev/stdout", "/"])
def test_a_device_or_folder_is_no_output(name, tmp_path):
    with pytest.raises(OutputError):
        check_output(name, [], overwrite=Path(name).resolve().is_file() is False)


# --- paths given to commands


@pytest.mark.parametrize("path", ["/", ".", "..", "", "/nowhere", "nowhere/", "/dev/null", "file", "dangling"])
def test_any_path_given_as_a_run_is_an_error_in_words(path, nli_files, tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    Path("file").write_text("x")
    Path("dangling").symlink_to("gone")
    for command in (
        lambda: evaluate(path, nli_files.test),
        lambda: predict(path, nli_files.test, tmp_path / "out.csv"),
        lambda: export(path, ["sklearn"], tmp_path / "out"),
        lambda: verify(path),
        lambda: write_report(RunFolder(path)),
        lambda: diff_runs(path, path),
    ):
        with pytest.raises(EntailorError):
            command()
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["dangling", "file", "inner"]


def test_a_home_folder_in_a_setting_is_no_folder_of_that_name(quick, tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    shutil.copy(quick.data.train, tmp_path / "home" / "train.csv")
    words = ["compare", "--train", "~/train.csv", "--methods", "majority", "out=~/mine", "doctor=false"]
    assert running.command(words)[0] == 0
    assert (tmp_path / "home" / "mine" / "report.html").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_lock_that_is_a_link_is_refused(quick, tmp_path):
    compare(quick)
    (tmp_path / "mine.txt").write_text("mine")
    lock = Path(quick.out) / ".lock"
    lock.unlink(missing_ok=True)
    lock.symlink_to(tmp_path / "mine.txt")
    with pytest.raises(RunError, match="a symbolic link inside a run folder"):
        compare(quick)
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("place", ["/", "/a", "/a/b", "/a/b/c", "."])
def test_a_trial_on_a_shallow_path_has_no_run(place):
    assert label_words_of_run(Path(place)) == ({}, None)


def test_a_trial_by_link_and_relative_path(finished_run, nli_files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trial = finished_run.folder.trial("none", "majority", 0)
    Path("link").symlink_to(trial)
    shutil.copytree(trial, "copy")
    for run in ("link", "copy", "./copy/", os.path.relpath(trial)):
        assert len(evaluate(run, nli_files.test).predictions) == 18


# --- every line keeps its answer


@pytest.fixture
def single(nli_experiment, nli_split, csv_of, tmp_path_factory):
    from dataclasses import replace

    folder = tmp_path_factory.mktemp("single")
    files = {
        name: csv_of(folder / f"{name}.csv", [replace(row, text=row.text_pair, text_pair=None) for row in rows])
        for name, rows in nli_split.parts()
    }
    data = nli_experiment.data.model_copy(update=files)
    values = {"data": data, "methods": {"bag_of_words": {}}, "doctor": False, "out": str(folder / "run")}
    return compare(nli_experiment.model_copy(update=values)).winner


@pytest.mark.parametrize(
    ("name", "text", "lines", "blank"),
    [
        ("a.csv", "text\nw0\n\nw1\n", [2, 4], 1),
        ("a.csv", "\n\ntext\n\nw0\nw1\n\n\n", [5, 6], 3),
        ("a.csv", 'text\n"w0\nw1"\n\nw2', [2, 5], 1),
        ("a.tsv", "text\tn\nw0\t1\n\nw1\t2\n", [2, 4], 1),
        ("a.jsonl", '{"text": "w0"}\n\n \n{"text": "w1"}\n\n', [1, 4], 3),
        ("a.json", '[{"text": "w0"},\n\n{"text": "w1"}]', [1, 2], 0),
        ("a.csv", "text,label,label,tags,text_pair\nw0,x,y,z,\nw1,,,,\n", [2, 3], 0),
        (
            "a.jsonl",
            '{"text": "w0", "label": ["x"], "group": {}, "tags": []}\n{"text": "w1", "label": null}',
            [1, 2],
            0,
        ),
        ("a.jsonl", '{"text": "w0", "text_pair": null}\n{"text": "w1", "hypothesis": []}', [1, 2], 0),
    ],
)
def test_predictions_carry_the_line_of_the_input(single, tmp_path, name, text, lines, blank):
    (tmp_path / name).write_text(text)
    notes: list[str] = []
    assert predict(single, str(tmp_path / name), tmp_path / "out.jsonl", observer=listener(note=notes.append)) == 2
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["line"] for row in found] == lines
    lines_have = "line of the input has" if blank == 1 else "lines of the input have"
    assert notes == ([f"{blank} blank {lines_have} no prediction; go by the column `line`"] if blank else [])


def test_a_null_text_keeps_its_place_without_an_answer(single, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "w0"}\n{"text": null}\n{"text": "w1"}\n')
    notes: list[str] = []
    predict(single, str(tmp_path / "in.jsonl"), tmp_path / "out.csv", observer=listener(note=notes.append))
    rows = [line.split(",") for line in (tmp_path / "out.csv").read_text().splitlines()[1:]]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert [bool(row[2]) for row in rows] == [True, False, True]
    assert notes == ["1 row has no text (null), and so no label"]


def test_a_column_that_is_read_may_not_stand_twice(single, tmp_path):
    (tmp_path / "in.csv").write_text("text,text\nw0,w1\n")
    with pytest.raises(DataError, match="'text' stands twice"):
        predict(single, str(tmp_path / "in.csv"), tmp_path / "out.csv", ReadOptions())


def test_parquet_rows_are_numbered(single, tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"text": ["w0", "w1", "w2"], "tags": [["a"], [], None]}), tmp_path / "in.parquet")
    predict(single, str(tmp_path / "in.parquet"), tmp_path / "out.jsonl")
    assert [json.loads(line)["line"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [1, 2, 3]


def test_the_command_line_does_not_write_over_the_input(finished_run, tmp_path):
    source = tmp_path / "x.csv"
    source.write_text("premise,hypothesis\nw1,w2\n")
    words = ["predict", "--run", str(finished_run.folder.path), "--input", str(source), "--output", str(source)]
    done = subprocess.run(
        [sys.executable, "-m", "entailor", *words], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "the same file as the input" in done.stderr
    assert source.read_text() == "premise,hypothesis\nw1,w2\n"


def test_a_new_folder_is_anybodys(tmp_path):
    check_run_folder(tmp_path / "new")
    check_run_folder(tmp_path)
