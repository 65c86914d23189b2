"""Points of a learning curve: nested samples, enough steps, nothing saved, nothing run twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.observers import listener

import entailor.study.compare
import entailor.study.learning_curve
from entailor.config.experiment import Experiment
from entailor.data.example import Example
from entailor.data.stratify import nested_samples
from entailor.engine.stopping import Stopped, StopSwitch
from entailor.events import SILENT, Observer
from entailor.methods import build_method
from entailor.report.effort import effort_lines
from entailor.runs.files import write_text
from entailor.runs.layout import RunFolder
from entailor.study.compare import Comparison, compare
from entailor.study.learning_curve import LEAST_STEPS, plan_points
from entailor.study.trial import run_trial
from entailor.study.trial_plan import TrialPlan


@pytest.fixture(autouse=True)
def plain_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entailor.study.compare, "write_report", lambda folder: write_text(folder.report_file, "page"))


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Row and number of training labels of every point that is run."""
    points: list[tuple[str, int]] = []

    def counted(plan: Any, task: Any, split: Any, *rest: Any) -> Any:
        points.append((plan.candidate, len(split.train)))
        return run_trial(plan, task, split, *rest)

    monkeypatch.setattr(entailor.study.learning_curve, "run_trial", counted)
    return points


@pytest.fixture
def run(nli_experiment: Experiment, tmp_path: Path) -> Any:
    def go(rows: dict[str, dict[str, Any]], sizes: object, observer: Observer = SILENT) -> Comparison:
        values = nli_experiment.model_dump()
        values |= {"methods": rows, "seeds": (0,), "out": str(tmp_path / "run"), "learning_curve": sizes}
        return compare(Experiment.model_validate(values), observer)

    return go


# --- samples


def rows_of(**counts: int) -> tuple[Example, ...]:
    names = [name for name, count in counts.items() for _ in range(count)]
    return tuple(Example(str(index), f"t{index}", None, name) for index, name in enumerate(names))


def test_samples_are_nested_and_keep_the_proportions():
    rows = rows_of(a=60, b=30, c=10)
    samples = nested_samples(rows, [10, 20, 50], seed=3)
    assert [len(samples[size]) for size in (10, 20, 50)] == [10, 20, 50]
    assert set(samples[10]) < set(samples[20]) < set(samples[50])
    counts = Counter(row.label for row in samples[50])
    assert abs(counts["a"] - 30) <= 1
    assert abs(counts["b"] - 15) <= 1
    assert abs(counts["c"] - 5) <= 1
    assert list(samples[20]) == sorted(samples[20], key=lambda row: int(row.id))


def test_every_label_stands_in_the_smallest_sample_and_the_seed_decides():
    rows = rows_of(a=500, b=2, c=1)
    assert {row.label for row in nested_samples(rows, [3], seed=0)[3]} == {"a", "b", "c"}
    assert nested_samples(rows, [9], seed=0) == nested_samples(rows, [9], seed=0)
    assert nested_samples(rows, [9], seed=0) != nested_samples(rows, [9], seed=1)


# --- plans


def test_small_samples_get_enough_steps_and_never_more_than_the_whole(tmp_path):
    lora = TrialPlan("lora", build_method("lora", {}), "m", 0, Experiment().model)
    bag = TrialPlan("bag", build_method("bag_of_words", {}), "none", 0, Experiment().model)
    points = plan_points([lora, bag], [50, 200, 2000, 9000], 9000, RunFolder(tmp_path))
    assert [(point.plan.candidate, point.num_train) for point in points] == [
        (row, size) for size in (50, 200, 2000) for row in ("lora", "bag")
    ]
    by_size = {point.num_train: point.plan.method for point in points if point.plan.candidate == "lora"}
    assert 50 * by_size[50].num_train_epochs / 16 >= LEAST_STEPS
    assert by_size[2000].num_train_epochs == lora.method.num_train_epochs
    (small,) = plan_points([lora], [50], 100, RunFolder(tmp_path))
    assert 50 * small.plan.method.num_train_epochs == pytest.approx(100 * lora.method.num_train_epochs, rel=0.05)
    assert not any(point.plan.keep for point in points)


def test_what_is_asked_and_not_trained_has_no_curve(tmp_path):
    asked = TrialPlan("zero", build_method("in_context", {}), "m", 0, Experiment().model)
    tuned = TrialPlan("head", build_method("lora", {"head": "verbalizer"}), "m", 0, Experiment().model)
    assert [point.plan.candidate for point in plan_points([asked, tuned], [50], 100, RunFolder(tmp_path))] == ["head"]


# --- runs


def test_points_are_run_smallest_first_on_samples_and_save_no_classifier(run, ran, tmp_path):
    done = run({"majority": {}, "bag_of_words": {}}, "24,12")
    assert ran == [("majority", 12), ("bag_of_words", 12), ("majority", 24), ("bag_of_words", 24)]
    curve = done.summary["learning_curve"]
    assert {row["method"]: [point["n"] for point in row["points"]] for row in curve["candidates"]} == {
        "majority": [12, 24, 48],
        "bag_of_words": [12, 24, 48],
    }
    assert not list((tmp_path / "run" / "curve").rglob("adapter"))
    whole = {row["method"]: row["accuracy"]["mean"] for row in done.summary["candidates"]}
    for row in curve["candidates"]:
        assert row["points"][-1]["accuracy"]["mean"] == whole[row["method"]]
        assert "3 sizes" in row["refused"]
    assert curve["num_test"] == 18
    assert any(line.startswith("accuracy by number of training labels") for line in effort_lines(done.summary))


def test_points_that_are_there_are_not_run_again_and_sizes_may_be_added(run, ran, tmp_path):
    run({"bag_of_words": {}}, [12])
    ran.clear()
    again = run({"bag_of_words": {}}, [12, 24])
    assert ran == [("bag_of_words", 24)]
    points = again.summary["learning_curve"]["candidates"][0]["points"]
    assert [(point["n"], point["exploratory"]) for point in points] == [(12, False), (24, True), (48, False)]
    kept = run({"bag_of_words": {}}, ())
    assert [point["n"] for point in kept.summary["learning_curve"]["candidates"][0]["points"]] == [12, 24, 48]
    assert "learning_curve:\n- 12\n- 24" in (tmp_path / "run" / "experiment.yaml").read_text()


def test_a_curve_that_was_broken_off_goes_on(run, ran):
    def stop(number: int, count: int, title: str) -> None:
        if "24 labels" in title:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run({"bag_of_words": {}}, [12, 24], listener(trial=stop))
    run({"bag_of_words": {}}, [12, 24])
    assert ran == [("bag_of_words", 12), ("bag_of_words", 24)]


def test_a_signal_in_a_point_ends_with_a_checkpoint_and_the_point_goes_on(nli_experiment, tmp_path):
    rows = {"lora": {"r": 2, "num_train_epochs": 1, "learning_rate": 0.03}}
    values = nli_experiment.model_dump() | {"methods": rows, "seeds": (0,), "learning_curve": (24,)}
    stop, title, notes = StopSwitch(), [""], []

    def ask(stage: str, done: int, *rest: object) -> None:
        if stage == "train" and "24 labels" in title[-1] and done == 2:
            stop.request(15)

    def go(name: str, **more: Any) -> Comparison:
        return compare(Experiment.model_validate(values | {"out": str(tmp_path / name)}), **more)

    watch = listener(trial=lambda number, count, name: title.append(name), stage=ask)
    with pytest.raises(Stopped, match=r"step 2 of .* a checkpoint is written"):
        go("broken", observer=watch, stop=stop)
    go("broken", observer=listener(note=notes.append))
    go("whole")
    assert "lora: goes on from the checkpoint at step 2" in notes
    (one,), (other,) = (list(RunFolder(tmp_path / name).curve_records()) for name in ("broken", "whole"))
    assert one[1].predictions == other[1].predictions
    assert one[1].curve == other[1].curve
    assert not list((tmp_path / "broken").rglob("checkpoint"))


def test_a_failed_point_is_named_and_tried_again(run, ran):
    done = run({"bag_of_words": {"min_df": 40}}, [12])
    (failed,) = done.summary["learning_curve"]["failed"] if done.summary["learning_curve"] else [None]
    assert (failed["method"], failed["n"]) == ("bag_of_words", 12)
    assert "min_df" in failed["error"]
    assert done.summary["learning_curve"]["candidates"] == []
    run({"bag_of_words": {"min_df": 40}}, [12])
    assert len(ran) == 2


def test_trained_points_are_trained(run):
    done = run({"lora": {"r": 2, "num_train_epochs": 2, "learning_rate": 0.03}}, [24])
    small, whole = done.summary["learning_curve"]["candidates"][0]["points"]
    assert small["epochs"] == 2 * whole["epochs"]
    assert small["train_seconds"] > 0
