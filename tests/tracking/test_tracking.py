"""Each tool is asked with its own API what it kept; where it is not installed, the error says what to do."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import warnings
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from entailor.config.experiment import Experiment, parse_settings
from entailor.config.parts import TrackingSettings
from entailor.errors import ConfigError, OutputError
from entailor.events import SILENT, Event, Observer
from entailor.runs.files import write_checked_json
from entailor.runs.layout import RunFolder
from entailor.runs.record import Costs, CurvePoint, Prediction, RunRecord
from entailor.study.compare import compare
from entailor.tracking import sinks
from entailor.tracking.figures import final_figures, title
from entailor.tracking.mlflow_model import save_model
from entailor.tracking.mlflow_sink import MLflowSink
from entailor.tracking.sinks import Tracked, check_tracking, tracked

CURVE = (
    CurvePoint(step=10, epoch=0.5, train_loss=0.7, learning_rate=1e-3),
    CurvePoint(step=20, epoch=1.0, train_loss=0.5, validation_loss=0.6, validation_accuracy=0.75, learning_rate=5e-4),
)
RECORD = RunRecord(
    "org/model",
    "lora",
    "lora",
    0,
    ("a", "b"),
    hyperparameters={"learning_rate": 1e-3, "target_modules": ["query"]},
    costs=Costs(train_seconds=75.0, stored_bytes=1000),
    curve=CURVE,
    predictions=(Prediction("1", "a", {"a": 0.9, "b": 0.1}), Prediction("2", "b", {"a": 0.8, "b": 0.2})),
)
BLANK = replace(RECORD, costs=Costs(), curve=(), predictions=())  # while it trains
FAILED = RunRecord("none", "majority", "majority", 1, ("a", "b"), status="failed", error="no memory")
SUMMARY = {"sentence": "lora is best"}


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    found = RunFolder(tmp_path / "run")
    RECORD.write(found.trial("org/model", "lora", 0))
    FAILED.write(found.trial("none", "majority", 1))
    write_checked_json(found.comparison_file, SUMMARY)
    found.report_file.write_text("<p>report</p>")
    return found


def tell(folder: RunFolder, **settings) -> Iterator[Tracked]:
    """Tell the sinks of a trial that trains, another that failed, one that was there already, and the comparison.

    Yields what is told after the first point and when all is over.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tools and what they bring
        with tracked(TrackingSettings(**settings), folder, SILENT) as told:
            told.observer.point(BLANK, 0, CURVE[0])
            yield told
            for point in CURVE[1:]:
                told.observer.point(BLANK, 0, point)
            for record, reused in ((RECORD, False), (FAILED, False), (RECORD, True)):
                told.observer.finished(record, reused=reused)
            told.finish(SUMMARY)
    assert list(told.sinks) == list(settings)
    yield told


def run(folder: RunFolder, **settings) -> None:
    assert len(list(tell(folder, **settings))) == 2


def written_outside(folder: RunFolder, *named: Path) -> list[Path]:
    return [path for path in folder.path.parent.iterdir() if path not in (folder.path, *named)]


@pytest.mark.parametrize("name", list(TrackingSettings.model_fields))
def test_a_tool_that_is_missing_is_named_before_the_work(monkeypatch, tmp_path, name):
    monkeypatch.setattr(sinks, "find_spec", lambda package: None)
    asked = parse_settings(
        Experiment, {"tracking": {name: True if name == "tensorboard" else "x"}, "out": str(tmp_path)}
    )
    with pytest.raises(ConfigError, match=rf"tracking.{name}: {name} is not installed. Run: pip install 'entailor"):
        compare(asked)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_tracked_or_needed_unless_asked_for(monkeypatch, folder):
    monkeypatch.setattr(sinks, "find_spec", lambda package: None)
    check_tracking(TrackingSettings())
    assert tracked(TrackingSettings(), folder, SILENT).sinks == {}


class Kept:
    """A sink that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def begin(self, record, place, attempt):
        self.told.append(f"begin {title(record, attempt)}")
        return self

    def point(self, point):
        self.told.append(f"step {point.step}")

    def end(self, record, place):
        self.told.append(f"end {record.status if record else 'broken off'} {place.name}")

    def finish(self, summary, folder):
        self.told.append(summary["sentence"])


def test_a_sink_that_fails_is_dropped_with_a_warning_and_the_run_goes_on(folder):
    class Broken(Kept):
        def point(self, point):
            raise OSError("server gone")

    events: list[Event] = []
    kept = Kept()
    with Tracked(Observer(events.append), folder, {"mlflow": Broken(), "wandb": kept}) as told:
        told.observer.point(BLANK, 0, CURVE[0])
        told.observer.point(BLANK, 0, CURVE[1])
        told.observer.finished(RECORD, reused=False)
        told.observer.finished(RECORD, reused=True)
        told.observer.note("something else")
    warned = [event.text for event in events if event.severity == "warning"]
    assert warned == ["tracking.mlflow: OSError: server gone. Nothing more is tracked there"]
    assert kept.told == ["begin lora on org/model, seed 0", "step 10", "step 20", "end complete seed-0"]
    assert [event.kind for event in events if event.severity == "info"] == ["point"] * 2 + ["finished"] * 2 + ["note"]


def test_a_training_that_is_started_again_or_broken_off_is_closed(folder):
    kept = Kept()
    with Tracked(SILENT, folder, {"wandb": kept}) as told:
        told.observer.point(BLANK, 0, CURVE[0])
        told.observer.point(replace(BLANK, seed=1), 0, CURVE[0])  # trials that run at once
        told.observer.point(BLANK, 1, CURVE[0])
    assert kept.told == [
        "begin lora on org/model, seed 0",
        "step 10",
        "begin lora on org/model, seed 1",
        "step 10",
        "end broken off seed-0",
        "begin lora on org/model, seed 0, restart 1",
        "step 10",
        "end broken off seed-1",
        "end broken off seed-0",
    ]


def test_what_a_sink_is_given():
    figures = final_figures(RECORD)
    assert figures["test/accuracy"] == 0.5
    assert figures["cost/train_seconds"] == 75.0
    assert "test/mcc" in figures


def test_tensorboard_reads_curves_and_figures(folder):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def scalars() -> dict[str, list[tuple[int, float]]]:
        (place,) = (folder.path / "tracking" / "tensorboard").glob("*/lora/*")
        read = EventAccumulator(str(place)).Reload()
        return {
            tag: [(one.step, one.tensor_proto.float_val[0]) for one in read.Tensors(tag)]
            for tag in read.Tags()["tensors"]
        }

    for _ in range(2):  # the second time in place of the first
        telling = tell(folder, tensorboard=True)
        next(telling)
        assert scalars()["train/loss"] == [(10, pytest.approx(0.7))]  # while it trains
        next(telling)
        assert scalars()["train/loss"] == [(10, pytest.approx(0.7)), (20, 0.5)]
        assert scalars()["validation/accuracy"] == [(20, 0.75)]
        assert scalars()["test/accuracy"] == [(20, 0.5)]
    assert written_outside(folder) == []


def test_mlflow_reads_runs_curves_settings_and_artefacts(folder, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    telling = tell(folder, mlflow="sqlite:///kept.db")
    next(telling)
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    from mlflow import MlflowClient

    client = MlflowClient("sqlite:///kept.db")
    experiment = client.get_experiment_by_name("run")
    (running,) = client.search_runs([experiment.experiment_id])
    assert (running.info.status, running.data.metrics["train/loss"]) == ("RUNNING", 0.7)
    assert running.data.params["learning_rate"] == "0.001"
    next(telling)
    runs = {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"lora on org/model, seed 0", "majority, seed 1", "comparison"}
    lora = runs["lora on org/model, seed 0"]
    assert lora.data.params["target_modules"] == "['query']"
    assert lora.data.metrics["test/accuracy"] == 0.5
    history = client.get_metric_history(lora.info.run_id, "train/loss")
    assert sorted((one.step, one.value) for one in history) == [(10, 0.7), (20, 0.5)]
    assert runs["majority, seed 1"].info.status == "FAILED"
    assert runs["majority, seed 1"].data.tags["error"] == "no memory"
    kept = {one.path for one in client.list_artifacts(runs["comparison"].info.run_id)}
    assert kept == {"comparison.json", "report.html"}
    assert written_outside(folder, tmp_path / "kept.db") == []

    with tracked(TrackingSettings(mlflow="sqlite:///kept.db"), folder, SILENT) as again:  # the command that goes on
        write_checked_json(folder.comparison_file, {"sentence": "full_finetuning is best"})
        again.finish({"sentence": "full_finetuning is best"})
    (comparison,) = client.search_runs([experiment.experiment_id], "tags.`mlflow.runName` = 'comparison'")
    assert (comparison.info.status, comparison.data.tags["sentence"]) == ("FINISHED", "full_finetuning is best")
    file = client.download_artifacts(comparison.info.run_id, "comparison.json", str(tmp_path))
    assert "full_finetuning is best" in Path(file).read_text()

    other = RunFolder(tmp_path / "elsewhere" / "run")  # a folder of the same name, on a server that both share
    write_checked_json(other.comparison_file, SUMMARY)
    other.report_file.write_text("<p>report</p>")
    sink = MLflowSink("sqlite:///kept.db", folder.path.resolve())
    sink.finish(SUMMARY, other)
    assert len(client.search_runs([experiment.experiment_id], "tags.`mlflow.runName` = 'comparison'")) == 2


def test_mlflow_says_what_cannot_be_opened(folder):
    pytest.importorskip("mlflow")
    with pytest.raises(ConfigError, match=r"tracking.mlflow: nonsense://x cannot be opened"):
        tracked(TrackingSettings(mlflow="nonsense://x"), folder, SILENT)


def test_an_exported_classifier_is_an_mlflow_model_without_a_pickle(tmp_path, nli_files):
    mlflow = pytest.importorskip("mlflow")
    import pandas as pd

    from entailor.shipping.export import export

    done = compare(Experiment(data=nli_files, methods={"bag_of_words": {}}, out=str(tmp_path / "run"), estimate=False))
    exported = tmp_path / "exported"
    export(done.folder.path, ["sklearn"], exported)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(OutputError, match=r"no export. Write one with: entailor export"):
            save_model(tmp_path, tmp_path / "model")
        model = mlflow.pyfunc.load_model(str(save_model(exported, tmp_path / "model")))
    frame = pd.DataFrame({"premise": ["w1 w2", "w3"], "hypothesis": ["w1", "w4"]}, index=[7, 9])
    answers = model.predict(frame)
    expected = done.best.predictor().predict(list(zip(frame.premise, frame.hypothesis, strict=True)))
    assert list(answers.label) == [one.label for one in expected]
    assert list(answers.index) == [7, 9]
    assert not [path for path in (tmp_path / "model").rglob("*") if path.suffix in (".pkl", ".pickle")]
    with pytest.raises(OutputError, match="exists"):
        save_model(exported, tmp_path / "model")


def wandb_records(content: bytes) -> Iterator[bytes]:
    """Parse a .wandb file: a header of 7 bytes, then blocks of 32 kB with records as LevelDB logs have them."""
    place, parts = 7, b""
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last of several
            yield parts
            parts = b""


def test_wandb_writes_offline_runs(folder, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run(folder, wandb="sorting")
    wandb.teardown()  # as the end of the process does: what was written is on the disk
    from wandb.proto.wandb_internal_pb2 import Record

    found = {}
    for path in (folder.path / "tracking" / "wandb").glob("offline-run-*/*.wandb"):
        records = [Record.FromString(content) for content in wandb_records(path.read_bytes())]
        (name,) = {one.run.display_name for one in records if one.HasField("run")}
        found[name] = [
            {item.key or item.nested_key[0]: item.value_json for item in one.history.item}
            for one in records
            if one.HasField("history")
        ]
    assert set(found) == {"lora on org/model, seed 0", "majority, seed 1"}
    losses = [step["train/loss"] for step in found["lora on org/model, seed 0"] if "train/loss" in step]
    assert losses == ["0.7", "0.5"]
    assert written_outside(folder) == []


def test_trackio_keeps_runs_in_the_run_folder(folder):
    if find_spec("trackio") is None:  # not importorskip: trackio reads where to write when it is imported
        pytest.skip("trackio is not installed")
    run(folder, trackio="sorting")
    (database,) = (folder.path / "tracking" / "trackio").rglob("sorting*.db")
    with contextlib.closing(sqlite3.connect(database)) as read:
        names = {name for (name,) in read.execute("select distinct run_name from metrics")}
    assert names == {"lora on org/model, seed 0"}  # a failed trial that logged nothing is not kept
    assert written_outside(folder) == []


def test_an_address_where_no_server_is_is_said_at_once():
    from entailor.tracking.mlflow_sink import check_answers

    with socket.socket() as taken:  # bound and not listening: nobody else answers there
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=rf"no server answers at {uri} \(ConnectionError\)"):
            check_answers(uri)
