"""The whole path on tiny models: what a run folder holds, and what a second, a broken off and a wrong run do to it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests.observers import listener
from tests.study.experiments import changed, files_of, with_data

import entailor.engine.trainer
import entailor.study.compare
from entailor.classifiers.transformer import TransformerClassifier
from entailor.config.experiment import Experiment, parse_settings
from entailor.config.parts import DataSettings, Priorities
from entailor.data.example import Example
from entailor.errors import ConfigError, DataError, ModelError
from entailor.methods.bag_of_words import BagOfWordsClassifier
from entailor.methods.lora import Lora
from entailor.runs.record import RunRecord
from entailor.shipping.restoring import load_classifier
from entailor.study.compare import Comparison, compare

pytestmark = pytest.mark.usefixtures("plain_page")
TIMES = {
    "train_seconds",
    "load_seconds",
    "tokenize_seconds",
    "evaluate_seconds",
    "examples_per_second",
    "test_examples_per_second",
    "latency_p50_ms",
    "latency_p95_ms",
    "peak_memory_bytes",
}


def without_times(summary: dict[str, Any]) -> dict[str, Any]:
    """A summary with its rows by name and without what a clock or the memory of the process decides."""
    rows = {
        (row["model"], row["method"]): {key: value for key, value in row.items() if key not in TIMES}
        for row in summary["candidates"]
    }
    # between equally good rows the quicker one is called the best, and its tests are the others' tests
    for row in rows.values():
        for key in ("best", "difference_to_best", "tied_with_best", "group", "p_best", "p_majority"):
            del row[key]
        for key in ("pareto", "pareto_by"):  # costs
            del row[key]
    others = ("winner", "sentence", "precision", "candidates", "pairs", "detectable", "recommendation", "test_access")
    others += ("clustering",)  # a mean over the candidates
    kept = {key: value for key, value in summary.items() if key not in others}
    return {**kept, "candidates": rows}


# --- what a run leaves behind


def test_the_run_folder_holds_what_was_promised(finished_run: Comparison, nli_experiment: Experiment):
    run = finished_run.folder.path
    assert {path.name for path in run.iterdir()} == {
        "experiment.yaml",
        "environment.json",
        "split.json",
        "test_access.json",
        "trials",
        "comparison.json",
        "doctor.json",
        "report.html",
        ".lock",
        ".entailor.json",
    }
    (model,) = {path.name for path in (run / "trials").iterdir()} - {"none"}
    trials = {str(path.parent.relative_to(run / "trials")) for path in run.rglob("record.json")}
    assert trials == {
        "none/majority/seed-0",
        "none/bag_of_words/seed-0",
        "none/hypothesis_only/seed-0",
        f"{model}/linear_probe/seed-0",
        f"{model}/lora/seed-0",
        f"{model}/lora/seed-1",
    }
    for trial in trials:
        held = {path.name for path in (run / "trials" / trial).iterdir()}
        tables = {"curve.jsonl", "predictions.jsonl", "validation_predictions.jsonl"}
        assert held == {"record.json", "classifier.json", "adapter", *tables}
    assert not [path for path in run.rglob("*") if path.name.endswith(".tmp")]


def test_comparison_json_holds_the_keys_other_tools_read(finished_run: Comparison):
    summary = json.loads(finished_run.folder.comparison_file.read_text())
    assert summary.pop("checksum").startswith("sha256:")
    assert summary == json.loads(json.dumps(finished_run.summary))
    assert len(summary["candidates"]) == 5
    for row in summary["candidates"]:
        assert set(row["accuracy"]) >= {"mean", "low", "high"}
        assert row["num_seeds"] == (2 if row["method"] == "lora" else 1)
        for key in ("macro_f1", "train_seconds", "peak_memory_bytes", "trainable_parameters", "stored_bytes"):
            assert row[key] > 0, key
        assert (row["examples_per_second"] or 0) > 0 or row["method"] != "lora"
    assert summary["sizes"] == {"train": 48, "validation": 18, "test": 18}
    assert summary["num_test"] == 18
    assert summary["labels"] == ["entailment", "neutral", "contradiction"]
    assert summary["failed"] == []


def test_learnable_data_are_learnt(finished_run: Comparison):
    accuracy = {row["method"]: row["accuracy"]["mean"] for row in finished_run.summary["candidates"]}
    assert accuracy["majority"] == pytest.approx(1 / 3)
    assert accuracy["bag_of_words"] > 0.9
    assert accuracy["hypothesis_only"] > 0.9  # the data are made so; with real ones this would be an artefact


def test_experiment_yaml_holds_every_default_and_makes_the_same_run(finished_run: Comparison, started):
    values = yaml.safe_load(finished_run.folder.experiment_file.read_text())
    assert values["methods"]["lora"]["method"] == "lora"
    assert set(values["methods"]["lora"]) == {"method", *Lora.model_fields}
    assert values["data"].keys() == DataSettings.model_fields.keys()
    before = files_of(finished_run.folder.path, under="trials")
    again = compare(parse_settings(Experiment, values))
    assert started == []
    assert again.summary == finished_run.summary
    assert files_of(finished_run.folder.path, under="trials") == before


def test_environment_and_split_are_written(finished_run: Comparison, nli_split, nli_experiment: Experiment):
    environment = json.loads(finished_run.folder.environment_file.read_text())
    assert environment["versions"]["torch"]
    assert environment["data"]["fingerprint"] == nli_split.fingerprint()
    assert environment["precision"][nli_experiment.models[0]]["precision"] == "fp32"
    split = json.loads(finished_run.folder.split_file.read_text())
    assert split["test"] == [row.id for row in nli_split.test]
    assert split["fingerprint"] == nli_split.fingerprint()


def test_the_winner_can_be_loaded(finished_run: Comparison, nli_split):
    assert finished_run.winner is not None
    picked = finished_run.summary["recommendation"]
    record = RunRecord.read(finished_run.winner)
    assert (record.model, record.name, record.seed) == (picked["model"], picked["method"], 0)
    classifier = load_classifier(finished_run.winner)
    logits_BL = classifier.logits(classifier.collate(classifier.encode(nli_split.test)))
    said = [classifier.task.labels[index] for index in np.asarray(logits_BL).argmax(axis=1)]
    assert said == [row.predicted for row in record.predictions]


# --- the same command again


def test_the_same_command_again_redoes_nothing(quick, started):
    first = compare(quick)
    before = files_of(first.folder.path, under="trials")
    assert [row for row, _ in started] == ["majority", "bag_of_words"]
    seen: list[tuple[str, bool]] = []
    second = compare(quick, listener(finished=lambda record, reused: seen.append((record.name, reused))))
    assert len(started) == 2
    assert seen == [("majority", True), ("bag_of_words", True)]
    assert files_of(first.folder.path, under="trials") == before
    assert second.summary == first.summary
    assert second.records == first.records


def test_other_priorities_pick_another_row_and_train_nothing(quick, started):
    first = compare(quick)
    assert first.winner == first.folder.trial("none", "bag_of_words", 0)
    started.clear()
    stored = {row["method"]: row["stored_bytes"] for row in first.summary["candidates"]}
    small = parse_settings(Priorities, {"max_stored_bytes": stored["majority"]})
    second = compare(changed(quick, recommend=small))
    assert started == []
    assert second.winner is None  # the majority baseline alone is within the limit, and it is nothing to ship
    assert second.summary["recommendation"]["outcome"] == "none_beats_majority"
    assert second.summary["winner"] == first.summary["winner"]  # the best row is the best row
    none = compare(changed(quick, recommend=parse_settings(Priorities, {"max_stored_bytes": 1})))
    assert none.winner is None
    assert yaml.safe_load(none.folder.experiment_file.read_text())["recommend"]["max_stored_bytes"] == 1


def test_what_the_test_split_can_show_is_said_before_the_first_trial(quick, started):
    said: list[str] = []
    compare(quick, listener(note=said.append, trial=lambda number, count, title: said.append(f"trial {number}")))
    place = next(
        i
        for i, text in enumerate(said)
        if text.startswith("18 test examples are too few to show which of two candidates is best")
    )
    assert place < said.index("trial 1")


class Interrupt:
    """An observer that presses Ctrl-C at the nth call of one of its functions."""

    def __init__(self, at: int, stage: str | None = None) -> None:
        self.at, self.stage_wanted, self.calls = at, stage, 0

    def __call__(self, *what: Any) -> None:
        self.calls += self.stage_wanted in (None, what[0])
        if self.calls == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("moment", "interrupt", "done_before"),
    [
        ("finished", Interrupt(2), 2),
        ("trial", Interrupt(4), 3),
        ("stage", Interrupt(9, "train"), 3),  # in the middle of the second seed of lora
        ("stage", Interrupt(4, "save"), 3),
    ],
)
def test_a_broken_off_run_goes_on_where_it_stopped(
    finished_run, nli_experiment, out, started, moment, interrupt, done_before
):
    rows = {name: nli_experiment.methods[name] for name in ("majority", "bag_of_words", "lora")}
    experiment = changed(nli_experiment, methods=rows, out=out)
    with pytest.raises(KeyboardInterrupt):
        compare(experiment, listener(**{moment: interrupt}))
    records = sorted(Path(out).rglob("record.json"))
    assert len(records) == done_before
    halfway = json.loads((Path(out) / "comparison.json").read_text())
    assert sum(row["num_seeds"] for row in halfway["candidates"]) == done_before
    assert (Path(out) / "report.html").exists()
    before = {path: path.stat().st_mtime_ns for path in records}
    started.clear()
    resumed = compare(experiment)
    assert len(started) == 4 - done_before
    assert {path: path.stat().st_mtime_ns for path in records} == before
    whole = without_times(finished_run.summary)
    whole["candidates"] = {key: row for key, row in whole["candidates"].items() if key[1] in rows}
    assert without_times(resumed.summary) == whole


def test_two_runs_in_two_folders_predict_the_same_to_the_last_bit(finished_run, nli_experiment, out):
    rows = {name: nli_experiment.methods[name] for name in ("lora", "linear_probe", "bag_of_words")}
    # alone and in another order: a trial owes nothing to those before it
    again = compare(changed(nli_experiment, methods=rows, seeds=(1, 0), out=out))
    pairs = 0
    for place, record in again.folder.records():
        earlier = finished_run.folder.path / place.relative_to(again.folder.path)
        assert (place / "predictions.jsonl").read_bytes() == (earlier / "predictions.jsonl").read_bytes()
        assert RunRecord.read(earlier).curve == record.curve
        pairs += 1
    assert pairs >= 4


def test_every_record_tells_its_precision(nli_experiment, out):
    rows = {"linear_probe": {"C": [1.0]}, "lora": {"r": 2, "num_train_epochs": 1}}
    in_bf16 = nli_experiment.model.model_copy(update={"precision": "bf16"})
    run = compare(changed(nli_experiment, methods=rows, model=in_bf16, seeds=(0,), out=out))
    probe, lora = run.records
    assert (probe.name, probe.provenance["precision"]) == ("linear_probe", "fp32")
    assert (lora.name, lora.provenance["precision"]) == ("lora", "bf16")
    assert lora.provenance["precision_reason"]


def test_a_collapsed_training_is_started_again_and_says_so(nli_experiment, out):
    rows = {"lora": {"r": 2, "num_train_epochs": 1, "learning_rate": 1e-6}}
    (record,) = compare(changed(nli_experiment, methods=rows, restarts=1, seeds=(0,), out=out)).records
    assert record.status == "complete"
    assert [event.kind for event in record.events if event.kind != "collapse"] == ["restart", "one_class"]
    assert record.provenance["seed_used"] == 1000
    assert record.seed == 0


def test_other_seeds_train_other_classifiers(finished_run):
    first, second = [record.predictions for record in finished_run.records if record.name == "lora"]
    assert first != second


# --- failures


def test_a_failed_trial_is_recorded_the_others_go_on_and_it_is_tried_again(nli_experiment, out, started, real_page):
    methods = {"majority": {}, "lora": {"target_modules": ["nowhere"]}, "linear_probe": {"C": [1.0]}}
    experiment = changed(nli_experiment, methods=methods, seeds=(0,), out=out)
    run = compare(experiment)
    (failed,) = run.summary["failed"]
    assert (failed["method"], failed["seed"]) == ("lora", 0)
    assert "nowhere" in failed["error"]
    assert "target_modules" in failed["error"]
    assert {row["method"] for row in run.summary["candidates"]} == {"majority", "linear_probe"}
    assert [record.status for record in run.records] == ["complete", "failed", "complete"]
    assert "nowhere" in run.folder.report_file.read_text()
    started.clear()
    assert compare(experiment).summary["failed"] == run.summary["failed"]
    assert started == [("lora", 0)]
    # nothing of the row is complete, so its settings may be set right in the same folder
    methods["lora"] = {"target_modules": ["query"], "num_train_epochs": 1, "r": 2}
    fixed = compare(changed(experiment, methods=methods))
    assert fixed.summary["failed"] == []
    assert {row["method"] for row in fixed.summary["candidates"]} == {"majority", "lora", "linear_probe"}


def test_an_unforeseen_error_is_recorded_with_its_traceback(quick, monkeypatch):
    def broken(self: BagOfWordsClassifier, *rest: object) -> tuple[str, ...]:
        raise RuntimeError("mat1 and mat2 cannot be multiplied")

    monkeypatch.setattr(BagOfWordsClassifier, "fit", broken)
    run = compare(quick)
    (failed,) = run.summary["failed"]
    assert "RuntimeError: mat1 and mat2 cannot be multiplied" in failed["error"]
    details = run.folder.trial("none", "bag_of_words", 0) / "traceback.txt"
    assert str(details) in failed["error"]
    assert "in broken" in details.read_text()
    assert [row["method"] for row in run.summary["candidates"]] == ["majority"]


def test_when_all_fail_there_is_a_report_and_the_settings_can_be_set_right(nli_experiment, out, real_page):
    broken = changed(nli_experiment, methods={"lora": {"target_modules": ["nowhere"]}}, seeds=(0,), out=out)
    run = compare(broken)
    assert run.winner is None
    assert run.summary["winner"] is None
    assert "1 of 1 failed" in run.summary["sentence"]
    assert "nowhere" in run.folder.report_file.read_text()
    other = changed(broken, model=broken.model.model_copy(update={"max_length": 32}), methods={"majority": {}})
    assert compare(other).summary["failed"] == []


def test_a_wrong_model_does_not_take_the_folder(quick):
    with pytest.raises(ModelError):
        compare(changed(quick, methods={"linear_probe": {}}, models=("/nowhere/at/all",)))
    assert compare(with_data(quick, max_train_examples=30)).summary["sizes"]["train"] == 30


# --- the data's shape


def test_single_texts_leave_hypothesis_only_out_with_a_note(quick, nli_split, csv_of, tmp_path, started):
    def single(rows: tuple[Example, ...]) -> list[Example]:
        return [Example(row.id, f"{row.text} {row.text_pair}", None, row.label, row.group) for row in rows]

    files = {name: csv_of(tmp_path / f"{name}.csv", single(rows)) for name, rows in nli_split.parts()}
    experiment = changed(quick, data=DataSettings(**files), methods={"hypothesis_only": {}, "bag_of_words": {}})
    notes: list[str] = []
    run = compare(experiment, listener(warn=notes.append))
    assert [row["method"] for row in run.summary["candidates"]] == ["bag_of_words"]
    assert [note for note in notes if note.startswith("hypothesis_only is left out")]
    with pytest.raises(ConfigError, match="none of the chosen methods"):
        compare(changed(experiment, methods={"hypothesis_only": {}}))


def test_two_labels(nli_experiment, nli_split, csv_of, tmp_path, out):
    def two(rows: tuple[Example, ...]) -> list[Example]:
        return [row for row in rows if row.label != "contradiction"]

    files = {name: csv_of(tmp_path / f"{name}.csv", two(rows)) for name, rows in nli_split.parts()}
    rows = {name: nli_experiment.methods[name] for name in ("majority", "bag_of_words", "linear_probe", "lora")}
    run = compare(changed(nli_experiment, data=DataSettings(**files), methods=rows, seeds=(0,), out=out))
    assert run.summary["failed"] == []
    assert run.summary["labels"] == ["entailment", "neutral"]
    assert run.summary["candidates"][0]["accuracy"]["mean"] > 0.9
    assert all(len(row["confusion"]) == 2 for row in run.summary["candidates"])


def test_a_model_called_none_is_refused(quick):
    with pytest.raises(ConfigError, match=r"'none'.*\./none"):
        compare(changed(quick, models=("none",), methods={"linear_probe": {}}))


def test_bad_data_are_met_before_the_folder_is_made(quick, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        compare(with_data(quick, test=str(tmp_path / "test.csv")))
    assert not Path(quick.out).exists()


# --- how it is done


@pytest.mark.parametrize("row", ["lora", "bag_of_words"])
def test_the_test_split_is_read_once_and_after_training(nli_experiment, out, monkeypatch, nli_split, row):
    test_ids = {example.id for example in nli_split.test}
    events: list[str] = []

    def watch(kind: type[Any], name: str, event: Callable[..., str | None]) -> None:
        original = getattr(kind, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            events.extend([told] if (told := event(*args)) else [])
            return original(*args, **kwargs)

        monkeypatch.setattr(kind, name, watched)

    def encoded(_: object, examples: list[Example]) -> str | None:
        return "test is read" if test_ids & {example.id for example in examples} else None

    for kind in (TransformerClassifier, BagOfWordsClassifier):
        watch(kind, "encode", encoded)
    watch(BagOfWordsClassifier, "fit", lambda *rest: "trained")
    monkeypatch.setattr(entailor.engine.trainer, "train", tell_after(entailor.engine.trainer.train, events))
    compare(changed(nli_experiment, methods={row: nli_experiment.methods[row]}, seeds=(0,), out=out))
    assert events == ["trained", "test is read"]


def tell_after(function: Callable[..., Any], events: list[str]) -> Callable[..., Any]:
    def told(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        events.append("trained")
        return result

    return told


def test_many_trials_are_not_compared_after_each(nli_experiment, out, monkeypatch):
    from entailor.study import compare as study

    compared: list[int] = []
    monkeypatch.setattr(study, "write_comparison", lambda _, records, *rest: compared.append(len(records)) or {"a": 1})
    monkeypatch.setattr(study, "write_report", lambda folder: None)
    methods = {f"same{number}": {"method": "majority"} for number in range(45)}
    experiment = changed(nli_experiment, methods=methods, out=out)
    with pytest.raises(KeyboardInterrupt):
        compare(experiment, listener(trial=Interrupt(30)))
    assert compared == [*range(1, 21), 22, 24, 26, 28, 29]  # the last one because it was broken off
    compared.clear()
    compare(experiment)
    assert compared == [30, 33, 36, 39, 42, 45]


def test_the_observer_is_told_of_every_trial_and_stage(nli_experiment, tiny_model, out):
    titles: list[str] = []
    stages: list[tuple[str, int, int]] = []
    models = (str(tiny_model("bert")), str(tiny_model("distilbert")))
    methods = {"majority": {}, "lora": {"r": 2, "num_train_epochs": 1}}
    observer = listener(
        trial=lambda number, count, title: titles.append(f"{number}/{count} {title}"),
        stage=lambda stage, done, total, words: stages.append((stage, done, total)),
    )
    compare(changed(nli_experiment, models=models, methods=methods, out=out), observer)
    assert titles == [
        "1/5 majority",
        f"2/5 lora on {models[0]}, seed 0",
        f"3/5 lora on {models[0]}, seed 1",
        f"4/5 lora on {models[1]}, seed 0",
        f"5/5 lora on {models[1]}, seed 1",
    ]
    assert {stage for stage, _, _ in stages} >= {"load", "tokenize", "train", "test", "features", "fit", "save"}
    assert all(0 <= done <= total for stage, done, total in stages)
    last: dict[str, tuple[int, int]] = {stage: (done, total) for stage, done, total in stages}
    assert last["train"][0] == last["train"][1] == 3
    assert last["test"][0] == last["test"][1] == 18


def test_without_model_methods_no_model_is_opened(quick):
    assert compare(changed(quick, models=("/nowhere/at/all",))).summary["failed"] == []


@pytest.fixture
def labels_as_numbers(nli_split, tmp_path) -> DataSettings:
    numbers = {"entailment": "0", "neutral": "1", "contradiction": "2"}
    for name, rows in nli_split.parts():
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(
                [("a", "b", "c"), *((row.text, row.text_pair, numbers[row.label]) for row in rows)]
            )
    return DataSettings(
        **{name: str(tmp_path / f"{name}.csv") for name, _ in nli_split.parts()},
        columns={"premise": "a", "hypothesis": "b", "label": "c"},
        label_names={written: name for name, written in numbers.items()},
    )


def test_labels_and_columns_are_mapped_by_name(quick, labels_as_numbers, finished_run):
    run = compare(changed(quick, data=labels_as_numbers))
    row = next(row for row in run.summary["candidates"] if row["method"] == "bag_of_words")
    earlier = next(row for row in finished_run.summary["candidates"] if row["method"] == "bag_of_words")
    assert row["accuracy"] == earlier["accuracy"]
    assert row["confusion"] == earlier["confusion"]
