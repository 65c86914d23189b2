"""Cross-validation and several cuts: what is trained and tested on what, what ships, and what a kill leaves."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import make_examples, write_csv
from tests.observers import listener

import entailor.study.compare
from entailor.config.experiment import Experiment, parse_settings
from entailor.config.parts import DataSettings
from entailor.data.splits import load_data
from entailor.errors import ConfigError, DataError, RunError
from entailor.evaluation.difference import diff_runs
from entailor.evaluation.metrics import clusters
from entailor.evaluation.statistics import accuracy_interval
from entailor.evaluation.variance import Scored
from entailor.report.tables import plain_table
from entailor.runs.layout import RunFolder
from entailor.runs.record import RunRecord
from entailor.shipping.export import export
from entailor.shipping.predictor import Predictor
from entailor.shipping.verification import ask_here
from entailor.study.compare import Comparison, compare
from entailor.study.trial import run_trial
from entailor.study.verification import verify

METHODS = {"majority": {}, "bag_of_words": {}}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Sixty pairs, of which every third premise stands with three hypotheses."""
    rows = make_examples(60, seed=5)
    shared = [
        row if index % 3 == 0 else type(row)(row.id, rows[index - index % 3].text, row.text_pair, row.label)
        for index, row in enumerate(rows)
    ]
    shared = [*shared[:30], *rows[30:]]
    return write_csv(tmp_path_factory.mktemp("labelled") / "train.csv", shared)


def experiment(train: str, out: Path, data: dict[str, Any], **values: Any) -> Experiment:
    settings = {"estimate": False, "doctor": False, "methods": METHODS, "out": str(out), **values}
    return parse_settings(Experiment, {"data": {"train": train, **data}, **settings})


@pytest.fixture(scope="module")
def crossed(labelled: str, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Three folds, twice; not to be changed by a test."""
    out = tmp_path_factory.mktemp("runs") / "crossed"
    return compare(experiment(labelled, out, {"cv": 3, "cv_repeats": 2}))


# --- the splits


def test_every_example_is_tested_once_a_repeat_and_no_premise_stands_in_two_parts(labelled):
    data = load_data(DataSettings(train=labelled, cv=3, cv_repeats=2))
    assert sorted(data.tested) == list(range(1, 7))
    for repeat in (data.further[:3], data.further[3:]):
        assert set(Counter(row.id for split in repeat for row in split.test).values()) == {1}
        assert sum(len(split.test) for split in repeat) == 60
    assert {row.id for row in data.further[0].test} != {row.id for row in data.further[3].test}
    for split in data.further:
        premises = [{row.text for row in part} for _, part in split.parts()]
        assert not premises[0] & premises[2]
        assert not premises[1] & (premises[0] | premises[2])
        assert set(Counter(row.label for row in split.test).values()) == {6, 7}
        assert len(split.train) + len(split.validation) == 40
        assert split.validation
    assert not data.split.test
    assert len(data.split.train) + len(data.split.validation) == 60


def test_the_same_seed_gives_the_same_folds(labelled):
    one, again, other = (
        load_data(DataSettings(train=labelled, cv=3, split_seed=seed)).fingerprint for seed in (0, 0, 1)
    )
    assert one == again != other


def test_a_label_too_rare_and_premises_too_few_for_the_folds_are_refused(tmp_path):
    rows = make_examples(30, seed=1)
    train = write_csv(tmp_path / "rare.csv", [*rows, *make_examples(3, seed=9, labels=("a", "b", "rare"))])
    with pytest.raises(DataError, match="5 folds, and 1 example with the label 'a': every fold needs one"):
        load_data(DataSettings(train=train, cv=5))
    one_text = [type(row)(row.id, "the same", row.text_pair, row.label) for row in rows]
    with pytest.raises(DataError, match=r"too few different texts for 5 folds.*Set data\.cv lower"):
        load_data(DataSettings(train=write_csv(tmp_path / "same.csv", one_text), cv=5))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"cv": 5, "test": "x.csv"}, "test does nothing. Leave it out; or leave cv out, and take splits=5"),
        ({"cv": 5, "validation": "x.csv"}, "validation does nothing"),
        ({"cv": 5, "test_size": 40}, "test_size does nothing"),
        (
            {"cv": 5, "external": ["x.csv"]},
            "external sets are scored by the classifiers of one split. Leave data.cv out",
        ),
        ({"splits": 3, "external": ["x.csv"]}, "Leave data.splits out to score them"),
        ({"splits": 3, "validation": "x.csv"}, "with splits the validation part is cut from train"),
        ({"cv": 5, "splits": 3}, "cv and splits exclude each other"),
        ({"cv_repeats": 3}, "cv_repeats does nothing without cv"),
    ],
)
def test_what_makes_no_sense_together_is_refused(data, words):
    with pytest.raises(ConfigError) as refused:
        parse_settings(Experiment, {"data": {"train": "x.csv", **data}})
    assert words in str(refused.value)


@pytest.mark.usefixtures("plain_page")
def test_data_in_memory_are_cross_validated_too(tmp_path):
    rows = make_examples(30, seed=4)
    settings = {"methods": ["majority"], "estimate": False, "doctor": False}
    run = compare(train=rows, data={"cv": 2}, out=str(tmp_path / "run"), **settings)
    assert len(run.records) == 2
    with pytest.raises(ConfigError, match=r"data\.cv: every example of train is tested once, and test is given too"):
        compare(train=rows, test=rows[:9], data={"cv": 2}, out=str(tmp_path / "other"), **settings)
    with pytest.raises(ConfigError, match=r"data\.splits: validation is cut from train, and is given too"):
        compare(train=rows, validation=rows[:9], data={"splits": 2}, out=str(tmp_path / "other"), **settings)


def test_a_learning_curve_needs_one_test_split():
    with pytest.raises(ConfigError, match=r"^learning_curve needs one test split"):
        parse_settings(Experiment, {"data": {"train": "x.csv", "cv": 5}, "learning_curve": [50]})


# --- a cross-validation


def test_every_candidate_is_trained_on_every_fold(crossed: Comparison):
    places = {
        path.parent.relative_to(crossed.folder.path).as_posix() for path in crossed.folder.path.rglob("record.json")
    }
    folds = {f"splits/{n}/trials/none/{name}/seed-0" for n in range(1, 7) for name in METHODS}
    assert places == {*folds, "trials/none/bag_of_words/seed-0"}
    assert len(crossed.records) == 12
    best = crossed.summary["candidates"][0]
    assert (best["method"], best["num_seeds"], best["shipped_accuracy"]) == ("bag_of_words", 1, None)
    assert crossed.summary["claims"] == "methods"
    assert (crossed.summary["num_test"], crossed.summary["clustering"]) == (60, None)
    right = [
        one.predicted == one.label
        for record in crossed.records
        if record.name == "bag_of_words"
        for one in record.predictions
    ]
    assert len(right) == 120
    assert best["accuracy"]["mean"] == pytest.approx(sum(right) / 120)


def test_one_line_says_how_it_was_tested_and_what_ships(crossed: Comparison):
    said = plain_table(crossed.summary).splitlines()
    tested = "3-fold cross-validation, repeated 2 times: each of 60 examples is tested 2 times"
    assert f"{tested}. bag_of_words is fitted again on all of them, and ships" in said
    assert "one seed" not in plain_table(crossed.summary)
    page = crossed.folder.report_file.read_text("utf-8")
    assert "3-fold cross-validation, repeated 2 times" in page
    assert "Where the chance comes from" in page
    assert "corrected resampled t-test" in page


def test_what_ships_was_fitted_on_all_examples(crossed: Comparison):
    assert crossed.winner == crossed.folder.path / "trials/none/bag_of_words/seed-0"
    record = RunRecord.read(crossed.winner)
    assert record.provenance["predictions_on"] == "validation"
    assert len(record.predictions) == 6  # a tenth of all examples; the other 54 are trained on
    predictor = Predictor.load(crossed.folder.path)
    assert predictor.place == crossed.winner
    assert predictor.predict([("w20 w21", "w0 w22")])[0].label == "entailment"
    majority = crossed.candidates[1]
    with pytest.raises(RunError, match=r"majority is not fitted on all examples.*entailor train"):
        majority.predictor()


def test_an_export_says_what_its_classifier_is_judged_by(crossed: Comparison, tmp_path):
    (found,) = export(crossed.folder.path, ["sklearn"], tmp_path / "exported", ask=ask_here)
    assert found.proof.passed
    card = (found.folder / "README.md").read_text("utf-8")
    assert "Fitted on all labelled examples after a cross-validation" in card
    assert "On the 6 examples of the validation split: accuracy" in card
    assert "Every recorded validation example was scored again" in card
    assert "the test split: accuracy" not in card


def test_the_folder_can_be_verified_and_compared_with_another(crossed: Comparison):
    found = verify(crossed.folder.path)
    assert found.sound, found.as_text()
    assert len(found.checks) > 13
    assert diff_runs(crossed.folder.path, crossed.folder.path).same


def test_the_log_says_that_each_example_was_read_once_all_was_chosen(crossed: Comparison):
    log = json.loads(crossed.folder.test_access_file.read_text())
    (read,) = log["reads"]
    assert log["test"]["examples"] == 60
    assert set(read["choices"]) == {f"none {name} split={n}" for n in range(1, 7) for name in METHODS}
    assert (read["exploratory"], read["results"]) == (False, True)


@pytest.mark.usefixtures("plain_page")
def test_a_run_killed_between_two_folds_goes_on_to_the_same_result(labelled, crossed, tmp_path, started):
    settings = experiment(labelled, tmp_path / "run", {"cv": 3, "cv_repeats": 2})

    def kill(number: int, count: int, title: str) -> None:
        if number == 9:
            assert (count, title) == (12, "bag_of_words, fold 3 of 6")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(settings, listener(trial=kill))
    assert len(started) == 8
    again = compare(settings)
    assert len(started) == 13  # four folds, and what ships
    for key in ("pairs", "num_test", "winner", "resampling"):
        assert again.summary[key] == crossed.summary[key]
    assert [one["accuracy"] for one in again.summary["candidates"]] == [
        one["accuracy"] for one in crossed.summary["candidates"]
    ]
    compare(settings)
    assert len(started) == 13
    with pytest.raises(RunError, match=r"holds another experiment \(data.cv: 3 there, 4 here\)"):
        compare(experiment(labelled, tmp_path / "run", {"cv": 4, "cv_repeats": 2}))


@pytest.mark.usefixtures("plain_page")
def test_a_fold_that_fails_is_told_and_its_candidate_is_not_compared(labelled, tmp_path, monkeypatch):
    def failing(plan: Any, task: Any, split: Any, folder: Path, *rest: Any) -> RunRecord:
        if plan.candidate == "majority" and "splits/2/" in folder.as_posix():
            return entailor.study.compare.lost_trial(plan, task, folder, "its process died")
        return run_trial(plan, task, split, folder, *rest)

    settings = experiment(labelled, tmp_path / "run", {"cv": 3})
    with monkeypatch.context() as patch:
        patch.setattr(entailor.study.compare, "run_trial", failing)
        run = compare(settings)
    assert [one.method for one in run.candidates] == ["bag_of_words"]
    (failure,) = run.summary["failed"]
    assert (failure["method"], failure["split"], failure["error_type"]) == ("majority", 2, "WorkerDied")
    assert "failed: majority, seed 0, split 2: WorkerDied: its process died" in plain_table(run.summary)
    again = compare(settings)
    assert [one.method for one in again.candidates] == ["bag_of_words", "majority"]
    assert again.summary["failed"] == []


# --- several cuts


@pytest.mark.usefixtures("plain_page")
def test_cuts_into_three_parts_differ_and_the_first_ships(labelled, tmp_path):
    run = compare(experiment(labelled, tmp_path / "run", {"splits": 3, "test_size": 12}))
    split = json.loads(run.folder.split_file.read_text())
    tests = [split["test"], *(one["test"] for one in split["splits"])]
    assert len({tuple(one) for one in tests}) == 3
    assert run.winner == run.folder.path / "trials/none/bag_of_words/seed-0"
    assert run.summary["num_test"] == len({id_ for one in tests for id_ in one})
    assert run.summary["resampling"]["same_test"] is False
    said = plain_table(run.summary)
    assert "3 splits" in said
    assert "The first one's ships" in said
    figures = verify(run.folder.path).checks[-1]
    assert (figures.what, figures.outcome) == ("figures", "sound")


@pytest.mark.usefixtures("plain_page")
def test_a_run_in_a_folder_that_is_called_like_a_split_is_none(nli_files, tmp_path):
    settings = experiment(str(nli_files.train), tmp_path / "splits" / "3", {"test": nli_files.test})
    run = compare(settings)
    assert run.winner is not None
    assert (run.summary["resampling"], len(run.candidates)) == (None, 2)
    assert (RunFolder.split_number(run.winner), RunFolder.of_trial(run.winner).path) == (0, run.folder.path.resolve())


@pytest.mark.usefixtures("plain_page")
def test_with_a_test_file_only_train_and_validation_are_cut(nli_files, tmp_path):
    run = compare(experiment(str(nli_files.train), tmp_path / "run", {"splits": 3, "test": nli_files.test}))
    split = json.loads(run.folder.split_file.read_text())
    assert all(one["test"] == split["test"] for one in split["splits"])
    assert len({tuple(one["validation"]) for one in (split, *split["splits"])}) == 3
    assert run.summary["resampling"]["same_test"] is True
    assert (run.summary["num_test"], run.summary["claims"]) == (18, "methods")
    best = run.summary["candidates"][0]
    assert (best["num_seeds"], best["shipped_accuracy"] is not None) == (1, True)
    assert best["variance"]["split"] is not None


@pytest.mark.usefixtures("plain_page")
def test_settings_are_chosen_on_each_splits_own_validation(labelled, tmp_path, monkeypatch):
    searched: dict[str, Any] = {}

    def search(plans: Any, budget: Any, task: Any, split: Any, folder: RunFolder, *rest: Any) -> Any:
        searched[folder.path.name] = split
        size = 100 + len(searched)
        return [replace(plan, method=plan.method.model_copy(update={"max_features": size})) for plan in plans]

    monkeypatch.setattr(entailor.study.compare, "search_candidates", search)
    settings = experiment(labelled, tmp_path / "run", {"cv": 3}, methods={"bag_of_words": {}}, budget={"trials": 2})
    run = compare(settings)
    assert list(searched) == ["1", "2", "3", "run"]  # the last for what ships
    for split, record in zip(searched.values(), [*run.records, RunRecord.read(run.winner)], strict=True):
        held = [one.id for one in record.validation_predictions]
        assert held == [example.id for example in split.validation]
    chosen = [record.hyperparameters["max_features"] for record in (*run.records, RunRecord.read(run.winner))]
    assert chosen == [101, 102, 103, 104]


@pytest.mark.usefixtures("plain_page")
def test_the_interval_of_several_cuts_holds_that_each_chose_its_own_settings(nli_files, tmp_path, monkeypatch):
    def search(plans: Any, budget: Any, task: Any, split: Any, folder: RunFolder, *rest: Any) -> Any:
        size = 1 + 40 * RunFolder.split_number(folder.trial("m", "a", 0))
        return [replace(plan, method=plan.method.model_copy(update={"max_features": size})) for plan in plans]

    monkeypatch.setattr(entailor.study.compare, "search_candidates", search)
    data = {"splits": 3, "test": nli_files.test}
    settings = experiment(
        str(nli_files.train), tmp_path / "run", data, methods={"bag_of_words": {}}, budget={"trials": 2}
    )
    run = compare(settings)
    assert [record.hyperparameters["max_features"] for record in run.records] == [1, 41, 81]
    answers = [{one.id: one.predicted == one.label for one in record.predictions} for record in run.records]
    ids = [one.id for one in run.records[0].predictions]
    right_SN = np.array([[each[id_] for id_ in ids] for each in answers])
    expected = accuracy_interval(Scored(right_SN, True, clusters(run.records[0]), np.arange(3)))
    found = run.summary["candidates"][0]["accuracy"]
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high))
    first = accuracy_interval(Scored(right_SN[:1], True, clusters(run.records[0])))
    assert expected.high - expected.low > first.high - first.low  # what choice and cut add is in it
