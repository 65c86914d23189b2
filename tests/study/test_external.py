"""External sets: scored by every finished classifier, never trained on, and two-way files by summing probabilities."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.observers import listener

import entailor.study.compare
import entailor.study.external
from entailor.config.experiment import Experiment
from entailor.data.example import Split
from entailor.errors import DataError, LabelError
from entailor.runs.files import write_text
from entailor.runs.record import RunRecord
from entailor.study.compare import compare
from entailor.study.external import external_rows, scoring_for

NLI = ("entailment", "neutral", "contradiction")


@pytest.fixture(autouse=True)
def plain_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page has tests of its own."""
    monkeypatch.setattr(entailor.study.compare, "write_report", lambda folder: write_text(folder.report_file, "page"))


@pytest.fixture
def quick(nli_experiment: Experiment, tmp_path: Path) -> Experiment:
    """Two rows without a model: a third of a second."""
    rows = {"majority": {}, "bag_of_words": {}}
    return nli_experiment.model_copy(update={"methods": rows, "out": str(tmp_path / "run")})


@pytest.fixture
def two_way(nli_split: Split, csv_of, tmp_path: Path) -> str:
    """The test pairs with two-way labels, as another data set writes them."""
    names = {"entailment": "entailment", "neutral": "non-entailment", "contradiction": "non-entailment"}
    return csv_of(tmp_path / "hans.csv", [replace(row, label=names[row.label]) for row in nli_split.test])


def challenged(experiment: Experiment, *sources: str) -> Experiment:
    return experiment.model_copy(update={"data": experiment.data.model_copy(update={"external": sources})})


def test_the_test_file_as_a_challenge_gives_the_figures_of_test(quick):
    summary = compare(challenged(quick, quick.data.test)).summary
    (challenge,) = summary["external"]
    assert (challenge["name"], challenge["num_examples"], challenge["error"]) == ("test", 18, None)
    assert challenge["scoring"] == "labels as trained"
    test = {row["method"]: row for row in summary["candidates"]}
    for row in challenge["candidates"]:
        same = test[row["method"]]
        for key in ("mean", "low", "high", "worst"):
            assert row["accuracy"][key] == pytest.approx(same["accuracy"][key])
        assert row["groups"] == same["groups"]
        assert row["per_label"] == same["per_label"]
        assert row["group"]


def test_a_two_way_set_is_scored_by_summing_neutral_and_contradiction(quick, two_way):
    run = compare(challenged(quick, two_way))
    (challenge,) = run.summary["external"]
    assert challenge["labels"] == ["entailment", "not_entailment"]
    assert "the probabilities of neutral and contradiction are summed" in challenge["scoring"]
    record = next(record for record in run.records if record.name == "bag_of_words")
    stored = json.loads(next(run.folder.trial(record.model, record.name, 0).glob("external/*.json")).read_text())
    for row, found in zip(record.predictions, stored["predictions"], strict=True):
        summed = row.probabilities["neutral"] + row.probabilities["contradiction"]
        assert found["probabilities"]["not_entailment"] == pytest.approx(summed)
        assert found["label"] == ("entailment" if row.label == "entailment" else "not_entailment")
    right = sum(
        (row["probabilities"]["entailment"] > 0.5) == (row["label"] == "entailment") for row in stored["predictions"]
    )
    scored = next(row for row in challenge["candidates"] if row["method"] == "bag_of_words")
    assert scored["accuracy"]["mean"] == pytest.approx(right / 18)


def test_a_finished_run_is_scored_and_not_trained_again(quick, two_way, monkeypatch):
    first = compare(quick)
    assert first.summary["external"] == []
    records = {path: path.stat().st_mtime_ns for path in first.folder.path.rglob("record.json")}
    monkeypatch.setattr(entailor.study.compare, "run_trial", lambda *_: pytest.fail("a trial was run again"))
    second = compare(challenged(quick, two_way))
    assert [row["method"] for row in second.summary["external"][0]["candidates"]]
    assert {path: path.stat().st_mtime_ns for path in records} == records
    assert second.summary["candidates"] == first.summary["candidates"]
    # and the same file is scored once; without the flag the run still holds it
    monkeypatch.setattr(entailor.study.external, "load_classifier", lambda *_: pytest.fail("scored again"))
    third = compare(quick)
    assert third.summary["external"] == second.summary["external"]
    assert json.loads(third.folder.comparison_file.read_text())["external"] == second.summary["external"]


def test_a_classifier_is_loaded_once_for_all_files(quick, two_way, monkeypatch):
    loads, load = [], entailor.study.external.load_classifier
    monkeypatch.setattr(
        entailor.study.external, "load_classifier", lambda place, **how: loads.append(place) or load(place, **how)
    )
    run = compare(challenged(quick, two_way, quick.data.test))
    assert [len(one["candidates"]) for one in run.summary["external"]] == [2, 2]
    assert len(loads) == len(set(loads)) == 2


def test_the_rows_are_counted_for_the_estimate(quick, two_way):
    assert external_rows(challenged(quick, two_way, quick.data.test).data) == 18 + 18


def test_a_changed_file_is_scored_again(quick, two_way, monkeypatch, nli_split, csv_of):
    compare(challenged(quick, two_way))
    labels = {"entailment": "entailment", "neutral": "not_entailment", "contradiction": "not_entailment"}
    csv_of(Path(two_way), [replace(row, label=labels[row.label]) for row in nli_split.test[:9]])
    (challenge,) = compare(challenged(quick, two_way)).summary["external"]
    assert challenge["num_examples"] == 9


def test_rows_are_read_after_everything_is_chosen(quick, two_way, monkeypatch):
    order: list[str] = []
    read, run = entailor.study.external.read_examples, entailor.study.compare.run_trial

    def reading(source: str, *rest: Any) -> Any:
        order.append("external")
        return read(source, *rest)

    def running(plan: Any, *rest: Any) -> RunRecord:
        order.append(plan.candidate)
        return run(plan, *rest)

    monkeypatch.setattr(entailor.study.external, "read_examples", reading)
    monkeypatch.setattr(entailor.study.compare, "run_trial", running)
    compare(challenged(quick, two_way))
    assert order == ["majority", "bag_of_words", "external"]


def test_a_file_that_is_not_there_is_told_before_anything_is_run(quick, monkeypatch):
    monkeypatch.setattr(entailor.study.compare, "run_trial", lambda *_: pytest.fail("a trial was run"))
    with pytest.raises(DataError, match=r"gone\.csv"):
        compare(challenged(quick, "gone.csv"))


def test_a_file_that_does_not_fit_stops_nothing(quick, nli_split, csv_of, tmp_path):
    odd = csv_of(tmp_path / "odd.csv", [replace(row, label="maybe") for row in nli_split.test])
    single = csv_of(tmp_path / "single.csv", [replace(row, text_pair=None) for row in nli_split.test])
    notes: list[str] = []
    summary = compare(challenged(quick, odd, single, quick.data.test), listener(warn=notes.append)).summary
    assert [one["name"] for one in summary["external"]] == ["odd", "single", "test"]
    assert "label 'maybe', expected 'entailment'" in summary["external"][0]["error"]
    assert "trained on pairs, these are single texts" in summary["external"][1]["error"]
    assert summary["external"][2]["candidates"]
    assert sum(note.startswith("external test set left out") for note in notes) == 2


def test_texts_that_are_cut_are_said(nli_experiment, nli_split, csv_of, tmp_path):
    long = [replace(row, text="w1 " * 400) for row in nli_split.test[:3]]
    source = csv_of(tmp_path / "long.csv", [*long, *nli_split.test[3:12]])
    asked = nli_experiment.model_copy(update={"methods": {"knn": {}, "majority": {}}, "out": str(tmp_path / "run")})
    said = []
    compare(challenged(asked, source), listener(note=said.append))
    about = "3 of 12 examples (25 %) are longer than what the classifier reads, and were cut"
    assert [one for one in said if "were cut" in one] == [f"{source}: knn, seed 0: {about}"]


def test_a_classifier_that_is_gone_is_left_out_with_a_note(quick, two_way):
    run = compare(quick)
    record = next(record for record in run.records if record.name == "majority")
    (run.folder.trial(record.model, "majority", 0) / "classifier.json").unlink()
    notes: list[str] = []
    summary = compare(challenged(quick, two_way), listener(warn=notes.append)).summary
    assert [row["method"] for row in summary["external"][0]["candidates"]] == ["bag_of_words"]
    assert any("majority, seed 0, could not be scored" in note for note in notes)


def test_every_seed_counts(nli_experiment, two_way, tmp_path):
    lora = {"lora": {"r": 2, "num_train_epochs": 1, "learning_rate": 0.03}}
    experiment = nli_experiment.model_copy(update={"methods": lora, "out": str(tmp_path / "run")})
    (row,) = compare(challenged(experiment, two_way)).summary["external"][0]["candidates"]
    assert row["num_seeds"] == 2
    assert len(row["accuracy"]["per_seed"]) == 2


@pytest.mark.parametrize("no", ["not_entailment", "non-entailment", "Not entailment", "NOT_ENTAILED", "non_entailed"])
def test_two_way_labels_are_known_in_their_usual_spellings(no):
    found = scoring_for(NLI, ["entailment", no], "f")
    assert found.of_file == {"entailment": "entailment", no: "not_entailment"}
    assert found.of_model["neutral"] == found.of_model["contradiction"] == "not_entailment"


def test_a_two_way_classifier_answers_other_spellings_and_three_way_files():
    labels = ("entailment", "not_entailment")
    assert scoring_for(labels, ["not-entailed", "entails"], "f").of_file == {
        "not-entailed": "not_entailment",
        "entails": "entailment",
    }
    three = scoring_for(labels, ["neutral", "entailment", "contradiction"], "f")
    assert three.of_file["neutral"] == three.of_file["contradiction"] == "not_entailment"
    assert "neutral and contradiction count as not entailed" in three.words


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (("yes", "no"), ["entailment", "not_entailment"]),
        (NLI, ["entailment", "unrelated"]),
        (("sport", "art"), ["film"]),
    ],
)
def test_labels_that_do_not_fit_are_named_with_the_file(labels, found):
    with pytest.raises(LabelError, match=r"f\.csv.*expected .* Map the labels with data\.label_names"):
        scoring_for(labels, found, "f.csv")


def test_columns_of_train_are_not_asked_of_a_file_that_has_others(quick, nli_split, csv_of, tmp_path):
    renamed = {}
    for name, rows in nli_split.parts():
        path = Path(csv_of(tmp_path / f"{name}.csv", rows))
        path.write_text(path.read_text().replace("premise", "first").replace("hypothesis", "second"))
        renamed[name] = str(path)
    columns = {"premise": "first", "hypothesis": "second"}
    data = quick.data.model_copy(update={**renamed, "columns": columns, "external": (quick.data.test,)})
    (challenge,) = compare(quick.model_copy(update={"data": data})).summary["external"]
    assert challenge["error"] is None
    assert challenge["num_examples"] == 18
