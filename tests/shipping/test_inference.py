"""A finished classifier on new files: the scores of its record, whatever the file, and no half-written output."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import reseal
from tests.observers import listener

import entailor.shipping.inference
from entailor.config.experiment import Experiment
from entailor.config.parts import DataSettings
from entailor.data.example import Example, Split
from entailor.data.readers import ReadOptions
from entailor.errors import ConfigError, DataError, LabelError, RunError
from entailor.evaluation.calibration import apply_temperature
from entailor.evaluation.metrics import evaluate_record
from entailor.runs.files import read_json, write_checked_json, write_json
from entailor.runs.layout import RunFolder
from entailor.runs.record import RunRecord
from entailor.shipping.inference import Confidence, evaluate, label_words_of_run, predict
from entailor.shipping.restoring import find_trial, load_classifier
from entailor.study.compare import Comparison, compare

LABELS = ("entailment", "neutral", "contradiction")


@pytest.fixture
def lora(finished_run: Comparison) -> Path:
    """The trial of lora with seed 0."""
    return trial_of(finished_run, "lora")


def trial_of(run: Comparison, row: str) -> Path:
    record = next(record for record in run.records if record.name == row)
    return run.folder.trial(record.model, row, record.seed)


@pytest.fixture
def copy_of(finished_run: Comparison, tmp_path: Path) -> Callable[[str], Path]:
    """Return what copies the run and gives a trial of the copy, to be damaged."""

    def copy(row: str) -> Path:
        shutil.copytree(finished_run.folder.path, tmp_path / "copy")
        return tmp_path / "copy" / trial_of(finished_run, row).relative_to(finished_run.folder.path)

    return copy


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


def read_predictions(path: Path) -> dict[str, tuple[str, dict[str, float]]]:
    """Id to label and probabilities, out of any of the three kinds of file."""
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return {row["id"]: (row["label"], row["probabilities"]) for row in rows}
    return {
        row["id"]: (row["label"], {label: float(row[f"probability_{label}"]) for label in LABELS})
        for row in read_table(path)
    }


def write_input(path: Path, rows: tuple[Example, ...]) -> str:
    """Write pairs without labels in the kind of file the name says."""
    columns = ("id", "premise", "hypothesis")
    values = [(row.id, row.text, row.text_pair) for row in rows]
    if ".jsonl" in path.name:
        text = "".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in values)
    else:
        mark = "\t" if ".tsv" in path.name else ","
        text = "".join(mark.join(map(str, row)) + "\n" for row in [columns, *values])
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


# --- predict


@pytest.mark.parametrize("row", ["majority", "bag_of_words", "linear_probe", "lora"])
def test_predictions_are_those_of_the_record(finished_run, nli_files, tmp_path, row):
    trial = trial_of(finished_run, row)
    count = predict(trial, nli_files.test, tmp_path / "out.jsonl")
    record = RunRecord.read(trial)
    assert count == len(record.predictions) == 18
    found = read_predictions(tmp_path / "out.jsonl")
    assert list(found) == [one.id for one in record.predictions]
    for one in record.predictions:
        assert found[one.id][0] == one.predicted
        assert found[one.id][1] == pytest.approx(one.probabilities, abs=1e-5)


@pytest.mark.parametrize("given", ["in.csv", "in.tsv", "in.jsonl", "in.csv.gz"])
@pytest.mark.parametrize("wanted", ["out.csv", "out.tsv", "out.jsonl"])
def test_every_kind_of_file_gives_the_same(finished_run, nli_split, tmp_path, given, wanted):
    trial = trial_of(finished_run, "bag_of_words")
    assert predict(trial, write_input(tmp_path / given, nli_split.test), tmp_path / wanted) == 18
    found = read_predictions(tmp_path / wanted)
    record = RunRecord.read(trial)
    assert list(found) == [one.id for one in record.predictions]
    for one in record.predictions:
        label, probabilities = found[one.id]
        assert label == one.predicted
        assert probabilities == pytest.approx(one.probabilities, abs=1e-6)
        assert list(probabilities) == list(LABELS)
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-6)


def test_the_label_is_empty_where_the_classifier_is_not_sure(lora, nli_files, tmp_path):
    sure, unsure = tmp_path / "sure.csv", tmp_path / "unsure.csv"
    predict(lora, nli_files.test, sure)
    before = read_predictions(sure)
    limit = sorted(max(said.values()) for _, said in before.values())[9]
    assert predict(lora, nli_files.test, unsure, confidence=Confidence(minimum=limit + 1e-6)) == 18
    after = read_predictions(unsure)
    for key, (label, said) in before.items():
        assert after[key] == (label if max(said.values()) >= limit + 1e-6 else "", said)
    assert [label for label, _ in after.values()].count("") == 10
    lines = tmp_path / "unsure.jsonl"
    predict(lora, nli_files.test, lines, confidence=Confidence(minimum=limit + 1e-6))
    assert [label for label, _ in read_predictions(lines).values()].count(None) == 10


def test_calibrated_probabilities_are_those_at_the_fitted_temperature(lora, nli_files, tmp_path):
    record = RunRecord.read(lora)
    predict(lora, nli_files.test, tmp_path / "scaled.jsonl", confidence=Confidence(calibrated=True))
    found = read_predictions(tmp_path / "scaled.jsonl")
    for row in record.predictions:
        raw = np.array([list(row.probabilities.values())])
        label, said = found[row.id]
        assert list(said.values()) == pytest.approx(apply_temperature(raw, record.temperature)[0], abs=1e-4)
        assert label == row.predicted


def test_a_trial_without_a_temperature_cannot_calibrate(copy_of, nli_files, tmp_path):
    trial = copy_of("lora")
    record = read_json(trial / "record.json")
    del record["temperature"]
    write_json(trial / "record.json", record)
    reseal(trial)
    with pytest.raises(RunError, match=r"no temperature was fitted in this trial.* Leave out --calibrated"):
        predict(trial, nli_files.test, tmp_path / "out.csv", confidence=Confidence(calibrated=True))
    assert RunRecord.read(trial).temperature is None  # an older record is still a record


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_confidence_that_is_no_probability(share):
    with pytest.raises(ConfigError, match="from 0 to 1 was expected, found"):
        Confidence(minimum=share)


def test_of_a_whole_run_the_winner_predicts(finished_run, nli_files, tmp_path):
    predict(finished_run.folder.path, nli_files.test, tmp_path / "run.csv")
    predict(finished_run.winner, nli_files.test, tmp_path / "trial.csv")
    assert (tmp_path / "run.csv").read_bytes() == (tmp_path / "trial.csv").read_bytes()


def test_rows_stream_through_in_chunks(lora, nli_files, tmp_path, monkeypatch):
    predict(lora, nli_files.test, tmp_path / "whole.jsonl")
    monkeypatch.setattr(entailor.shipping.inference, "CHUNK", 5)
    told: list[int] = []
    assert (
        predict(
            lora,
            nli_files.test,
            tmp_path / "chunks.jsonl",
            observer=listener(stage=lambda name, done, total, text: told.append(done)),
        )
        == 18
    )
    assert told == [5, 10, 15, 18]
    whole, chunks = (read_predictions(tmp_path / f"{name}.jsonl") for name in ("whole", "chunks"))
    assert list(whole) == list(chunks)
    for name, (label, probabilities) in whole.items():
        assert chunks[name][0] == label
        assert chunks[name][1] == pytest.approx(probabilities, abs=1e-5)


def test_no_more_than_a_chunk_is_held(finished_run, monkeypatch, tmp_path, nli_split):
    monkeypatch.setattr(entailor.shipping.inference, "CHUNK", 3)
    read: list[int] = []

    def rows() -> Iterator[Example]:
        for number, row in enumerate(nli_split.test):
            read.append(number)
            yield row

    class Rows:
        def __init__(self, source: str, options: ReadOptions, *, is_pair: bool) -> None:
            assert is_pair

        def __iter__(self) -> Iterator[tuple[int, Example, bool]]:
            return ((number, row, True) for number, row in enumerate(rows()))

        def notes(self) -> Iterator[str]:
            return iter(())

    monkeypatch.setattr(entailor.shipping.inference, "NumberedRows", Rows)
    ahead: list[int] = []
    predict(
        trial_of(finished_run, "majority"),
        "x",
        tmp_path / "out.csv",
        observer=listener(stage=lambda name, done, total, text: ahead.append(len(read) - done)),
    )
    assert ahead == [0] * 6


@pytest.mark.parametrize("name", ["out.xlsx", "out", "out.csv.gz", "out.parquet"])
def test_an_output_of_another_kind_is_refused_before_anything_is_read(lora, tmp_path, name):
    with pytest.raises(DataError, match=r"no format to write.*\.csv, \.tsv or \.jsonl"):
        predict(lora, str(tmp_path / "missing.csv"), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("existing", [True, False])
def test_an_input_that_fails_leaves_the_output_as_it_was(lora, tmp_path, monkeypatch, nli_split, existing):
    monkeypatch.setattr(entailor.shipping.inference, "CHUNK", 4)
    source = tmp_path / "in.csv"
    write_input(source, nli_split.test)
    source.write_text(source.read_text() + "one cell too few\n")
    out = tmp_path / "folder" / "out.csv"
    out.parent.mkdir()
    if existing:
        out.write_text("old")
    with pytest.raises(DataError, match=r"in\.csv, row 20"):
        predict(lora, str(source), out, overwrite=existing)
    assert [path.name for path in out.parent.iterdir()] == (["out.csv"] if existing else [])
    assert not existing or out.read_text() == "old"


def test_odd_ids_and_texts_come_through(finished_run, tmp_path):
    """Ids are written as they were given, but that a spreadsheet takes none for a formula."""
    ids = ['=1+1 "x"', "a,b", "tab\there", "two\nlines", "\u202ertl", "日本", "-", "@SUM(A1)"]
    source = tmp_path / "in.jsonl"
    source.write_text(
        "".join(json.dumps({"id": one, "premise": "w1", "hypothesis": "w0 \u2028"}) + "\n" for one in ids)
    )
    for name in ("out.csv", "out.tsv", "out.jsonl"):
        predict(trial_of(finished_run, "bag_of_words"), str(source), tmp_path / name)
        with (tmp_path / name).open(encoding="utf-8", newline="") as file:
            if name == "out.jsonl":
                assert [json.loads(line)["id"] for line in file] == ids
            else:
                found = [row["id"] for row in csv.DictReader(file, delimiter="\t" if "tsv" in name else ",")]
                assert found == [f"'{one}" if one[0] in "=-@" else one for one in ids]


def test_rows_without_ids_get_stable_ones(lora, tmp_path):
    (tmp_path / "in.csv").write_text("premise,hypothesis\nw1,w2\nw3,w4\nw1,w2\n")
    predict(lora, str(tmp_path / "in.csv"), tmp_path / "out.jsonl")
    first, second, third = read_predictions(tmp_path / "out.jsonl")
    assert third == f"{first}-2"
    assert second != first


def test_columns_are_mapped(finished_run, tmp_path, nli_split):
    source = tmp_path / "in.csv"
    write_input(source, nli_split.test)
    source.write_text(source.read_text().replace("premise,hypothesis", "eins,zwei", 1))
    trial = trial_of(finished_run, "bag_of_words")
    with pytest.raises(DataError, match=r"'eins', 'zwei'.*--columns"):
        predict(trial, str(source), tmp_path / "out.csv")
    options = ReadOptions(columns={"premise": "eins", "hypothesis": "zwei"}, require_labels=False)
    assert predict(trial, str(source), tmp_path / "out.csv", options) == 18


def test_labels_in_the_input_do_not_matter(lora, tmp_path):
    (tmp_path / "in.csv").write_text("premise,hypothesis,label\nw1,w2,\nw3,w4,whatever\n")
    assert predict(lora, str(tmp_path / "in.csv"), tmp_path / "out.csv") == 2


def test_an_empty_input_is_an_error(lora, tmp_path):
    (tmp_path / "in.csv").write_text("premise,hypothesis\n")
    with pytest.raises(DataError, match="not one row"):
        predict(lora, str(tmp_path / "in.csv"), tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


# --- evaluate


@pytest.mark.parametrize("row", ["majority", "hypothesis_only", "linear_probe"])
def test_evaluation_agrees_with_the_comparison(finished_run, nli_files, row):
    record = evaluate(trial_of(finished_run, row), nli_files.test)
    shown = next(one for one in finished_run.summary["candidates"] if one["method"] == row)
    metrics = evaluate_record(record)
    assert metrics.accuracy.value == shown["accuracy"]["mean"]
    assert metrics.accuracy.low == pytest.approx(shown["accuracy"]["low"])
    assert metrics.macro_f1 == pytest.approx(shown["macro_f1"])
    assert [list(line) for line in metrics.confusion] == shown["confusion"]
    assert set(metrics.groups) == set(shown["groups"]) == {"g0", "g1"}
    assert (record.name, record.labels, record.seed) == (row, LABELS, 0)


def test_evaluation_tells_how_far_it_is(lora, nli_files):
    told: list[int] = []
    evaluate(lora, nli_files.test, observer=listener(stage=lambda name, done, total, text: told.append(done)))
    assert told == sorted(told)
    assert told[-1] == 18


def test_texts_that_are_cut_are_said(lora, tmp_path, nli_split, csv_of):
    long = [replace(row, text="w1 " * 400) for row in nli_split.test[:3]]
    source = csv_of(tmp_path / "a.csv", [*long, *nli_split.test[3:12]])
    said = []
    predict(lora, source, tmp_path / "b.csv", observer=listener(note=said.append))
    evaluate(lora, source, observer=listener(note=said.append))
    predict(lora, source, tmp_path / "b.csv", observer=listener(note=said.append))  # counts its own texts alone
    assert said == ["3 of 12 examples (25 %) are longer than what the classifier reads, and were cut"] * 3


def test_a_part_of_the_labels_is_enough(finished_run, nli_split, csv_of, tmp_path):
    rows = [row for row in nli_split.test if row.label == "neutral"]
    record = evaluate(trial_of(finished_run, "bag_of_words"), csv_of(tmp_path / "neutral.csv", rows))
    assert len(record.predictions) == 6
    assert record.labels == LABELS


def test_a_label_the_classifier_does_not_know(lora, nli_split, csv_of, tmp_path):
    rows = [*nli_split.test[:3], Example("x", "w1", "w2", "entailed")]
    with pytest.raises(LabelError, match=r"row 5, column 'label': label 'entailed', expected one of 'entailment'"):
        evaluate(lora, csv_of(tmp_path / "odd.csv", rows))


def test_a_file_without_labels(lora, nli_split, tmp_path):
    with pytest.raises(DataError, match="no column of labels"):
        evaluate(lora, write_input(tmp_path / "in.csv", nli_split.test))


def test_the_label_names_of_the_run_are_known(nli_split: Split, nli_experiment: Experiment, tmp_path: Path):
    """Who trained on codes evaluates the same file without saying again what the codes mean."""
    codes = {label: str(code) for code, label in enumerate(LABELS)}
    files: dict[str, Any] = {}
    for name, rows in nli_split.parts():
        files[name] = str(tmp_path / f"{name}.csv")
        lines = [f"{row.text},{row.text_pair},{codes[row.label]}" for row in rows]
        Path(files[name]).write_text("\n".join(["premise,hypothesis,label", *lines]) + "\n")
    data = DataSettings(**files, label_names={code: label for label, code in codes.items()})
    values = {"data": data, "methods": {"bag_of_words": {}}, "out": str(tmp_path / "run")}
    run = compare(nli_experiment.model_copy(update=values))
    metrics = evaluate_record(evaluate(run.winner, files["test"]))
    assert metrics.accuracy.value == run.summary["candidates"][0]["accuracy"]["mean"]
    shutil.move(tmp_path / "run" / run.winner.relative_to(tmp_path / "run"), tmp_path / "shipped")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(LabelError, match="label '0'"):
        evaluate(tmp_path / "shipped", files["test"])
    named = ReadOptions(label_names=data.label_names)
    assert evaluate_record(evaluate(tmp_path / "shipped", files["test"], named)).accuracy == metrics.accuracy


@pytest.mark.parametrize("place", ["/", "/a", "/a/b", "/a/b/c", "/trials/a", "/trials/a/b/c"])
def test_a_trial_near_the_root_has_no_label_names_of_a_run(place):
    assert label_words_of_run(Path(place)) == ({}, None)


# --- the shape of the input


@pytest.mark.parametrize("verb", [predict, evaluate])
def test_single_texts_for_a_classifier_of_pairs(lora, nli_split, csv_of, tmp_path, verb):
    rows = [Example(row.id, row.text, None, row.label) for row in nli_split.test]
    source = csv_of(tmp_path / "single.csv", rows)
    with pytest.raises(DataError, match=r"single\.csv: the classifier was trained on pairs, these are single texts"):
        verb(lora, source, *([tmp_path / "out.csv"] if verb is predict else []))
    assert not (tmp_path / "out.csv").exists()


def test_pairs_for_a_classifier_of_single_texts(nli_split, nli_experiment, nli_files, csv_of, tmp_path):
    files = {
        name: csv_of(tmp_path / f"{name}.csv", [Example(row.id, row.text_pair, None, row.label) for row in rows])
        for name, rows in nli_split.parts()
    }
    values = {"data": DataSettings(**files), "methods": {"bag_of_words": {}}, "out": str(tmp_path / "run")}
    run = compare(nli_experiment.model_copy(update=values))
    with pytest.raises(DataError, match=r"trained on single texts, these are pairs.*text=COLUMN"):
        predict(run.winner, nli_files.test, tmp_path / "out.csv")
    options = ReadOptions(columns={"text": "hypothesis"}, require_labels=False)
    assert predict(run.winner, nli_files.test, tmp_path / "out.csv", options) == 18
    with pytest.raises(ConfigError, match="'txt' is no field"):
        predict(run.winner, nli_files.test, tmp_path / "out.csv", ReadOptions(columns={"txt": "hypothesis"}))


# --- what a run folder may lack


def test_a_folder_that_is_no_run(tmp_path, nli_files):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RunError, match=r"neither a trial.*nor a run.*entailor compare") as caught:
            predict(folder, nli_files.test, tmp_path / "out.csv")
        assert str(folder) in str(caught.value)


def test_a_run_without_a_complete_trial(tmp_path):
    write_checked_json(RunFolder(tmp_path).comparison_file, {"candidates": [], "winner": None})
    with pytest.raises(RunError, match="no trial of this run is complete"):
        find_trial(tmp_path)


def test_a_run_none_of_whose_rows_is_within_the_limits(copy_of, finished_run):
    folder = RunFolder(copy_of("lora").parents[3])
    none = {"model": None, "method": None}
    write_checked_json(folder.comparison_file, {**finished_run.summary, "recommendation": none})
    with pytest.raises(RunError, match=r"no candidate keeps within the limits of `recommend`.* Give a trial's folder"):
        find_trial(folder.path)


def test_the_first_seed_that_is_complete_stands_for_the_row(copy_of, finished_run):
    """Seed 0 failed after its classifier was saved, so the winner's classifier is that of seed 1."""
    trial = copy_of("lora")
    folder = RunFolder(trial.parents[3])
    record = read_json(trial / "record.json")
    reseal(trial, status="failed", error="TrainingError: other scores")
    lora = {"model": record["model"], "method": "lora", "best": True, "seeds": [1]}
    picked = {"model": record["model"], "method": "lora"}
    write_checked_json(folder.comparison_file, {**finished_run.summary, "candidates": [lora], "recommendation": picked})
    assert find_trial(folder.path) == trial.parent / "seed-1"
    with pytest.raises(RunError, match="was not finished, or failed"):
        find_trial(trial)


def test_a_trial_that_was_broken_off(copy_of):
    trial = copy_of("lora")
    (trial / "record.json").unlink()
    with pytest.raises(RunError, match=r"not finished.*command that made it again"):
        find_trial(trial)


def test_a_trial_whose_classifier_is_gone(copy_of):
    trial = copy_of("lora")
    folder = RunFolder(trial.parents[3])
    shutil.rmtree(folder.winner(read_json(folder.comparison_file)))
    with pytest.raises(RunError, match="saved classifier is gone"):
        find_trial(folder.path)


@pytest.mark.parametrize(
    ("row", "file"),
    [("lora", "adapter_model.safetensors"), ("linear_probe", "linear.safetensors"), ("majority", "frequencies.json")],
)
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_weights_are_named(copy_of, row, file, damage):
    trial = copy_of(row)
    path = trial / "adapter" / file
    if damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.unlink()
    with pytest.raises(RunError) as caught:
        load_classifier(trial)
    assert str(trial / "adapter") in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 1}, "written by Entailor 0.1"),
        ({"labels": None}, "labels"),
        ({"hyperparameters": 3}, "hyperparameters"),
    ],
)
def test_a_description_that_cannot_be_used(copy_of, change, said):
    trial = copy_of("majority")
    write_json(trial / "classifier.json", {**read_json(trial / "classifier.json"), **change})
    reseal(trial)
    with pytest.raises(RunError, match=said) as caught:
        load_classifier(trial)
    assert str(trial / "classifier.json") in str(caught.value)


def test_other_weights_under_the_same_name_are_refused(copy_of):
    trial = copy_of("lora")
    described = read_json(trial / "classifier.json")
    write_json(trial / "classifier.json", {**described, "weights_sha256": "0" * 64})
    reseal(trial)
    with pytest.raises(RunError, match=r"trained on .* with weights 000000000000.*train again"):
        load_classifier(trial)
