"""Comparing from Python: data in memory, resumed and refused as files are, and results as objects."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from entailor import Comparison, Experiment, Observer, compare, verify
from entailor.config.experiment import parse_settings
from entailor.errors import ConfigError, RunError
from entailor.runs.files import write_text
from entailor.runs.integrity import BLANK_CHECKSUM, with_checksum

TRAIN = pd.DataFrame(
    {"text": [f"{word} film {n}" for n in range(60) for word in ("good", "bad")], "label": ["yes", "no"] * 60}
)
TEST = TRAIN[:40]


def films(out: Path, **changes):
    given = {"train": TRAIN, "test": TEST, "methods": ["majority", "bag_of_words"], "out": str(out)}
    return compare(**{**given, **changes})


@pytest.fixture(scope="module", autouse=True)
def plain_page():
    """Drawing takes longer than these runs; the page has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        page = with_checksum(f"page {BLANK_CHECKSUM}\n")
        patch.setattr("entailor.study.compare.write_report", lambda folder: write_text(folder.report_file, page))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Comparison:
    return films(tmp_path_factory.mktemp("runs") / "films")


def test_results_are_objects(run):
    best, majority = run.candidates
    assert run.best == best
    assert (best.method, best.seeds, best.accuracy.mean, best.tied_with_best) == ("bag_of_words", (0,), 1.0, False)
    assert majority.accuracy.low < majority.accuracy.mean == 0.5 < majority.accuracy.high
    assert best.figures["stored_bytes"] > 0
    assert run.recommendation.candidate == best
    assert run.recommendation.candidate.trial == run.winner
    assert "bag_of_words" in run.recommendation.sentence
    answers = run.recommendation.candidate.predictor().predict(["a good one", "bad, bad"])
    assert [answer.label for answer in answers] == ["yes", "no"]
    assert majority.predictor().name == "majority"


def test_a_notebook_shows_table_recommendation_and_report(run):
    page = run._repr_html_()
    assert page.count("<tr>") == 3
    assert "100.0 (" in page
    assert run.recommendation.sentence in page
    assert f'href="{run.folder.report_file}"' in page
    assert page.count("<svg ") == 1
    assert 'aria-label="Test accuracy by candidate"' in page
    hostile = Comparison(run.folder, {**run.summary, "sentence": "<script>alert(1)</script>"}, ())
    assert "<script>" not in hostile._repr_html_()
    assert repr(run) == f"Comparison(folder=RunFolder({str(run.folder.path)!r}))"


def test_a_finished_run_can_be_read_again(run):
    again = Comparison.read(run.folder.path)
    assert again.candidates == run.candidates
    assert [record.name for record in again.records] == ["bag_of_words", "majority"]
    with pytest.raises(RunError, match=r"comparison\.json: no such file"):
        Comparison.read(run.folder.path / "data")


def test_the_same_data_resume_and_other_data_are_refused(run):
    reused = []
    observer = Observer(lambda event: reused.append(event.data.reused) if event.kind == "finished" else None)
    path = run.folder.path / "data" / "train.json"
    before = path.read_bytes()
    films(run.folder.path, observer=observer)
    assert reused == [True, True]
    for changes in ({"train": TRAIN[::-1]}, {"test": TRAIN[:38]}):
        with pytest.raises(RunError, match="the data have changed since its trials were run"):
            films(run.folder.path, **changes)
    assert path.read_bytes() == before
    with pytest.raises(RunError, match=r"data\.test: .*test\.json. there, None here"):
        films(run.folder.path, test=None)


def test_the_run_can_be_made_again_from_its_own_folder(run, tmp_path):
    written = yaml.safe_load(run.folder.experiment_file.read_text())
    again = compare(parse_settings(Experiment, {**written, "out": str(tmp_path / "again")}))
    assert again.best.accuracy == run.best.accuracy
    split = [one.folder.split_file.read_text() for one in (run, again)]
    assert split[0] == split[1]


def test_verify_looks_at_the_data_and_damage_is_written_again(tmp_path):
    out = tmp_path / "run"
    films(out)
    assert verify(out).sound
    path = out / "data" / "test.json"
    path.write_text(path.read_text().replace("good film 1", "good film 2", 1))
    (check,) = [check for check in verify(out).checks if check.outcome != "sound"]
    assert check.what == "data/test.json"
    assert "Give `compare` the same data again" in check.words
    films(out)
    assert verify(out).sound


def test_keywords_go_over_the_experiment(tmp_path):
    base = Experiment(methods="majority", seeds=2, data={"columns": {"text": "message"}, "validation_size": 0.2})
    frame = TRAIN.rename(columns={"text": "message"})
    run = compare(base, train=frame, methods="bag_of_words", out=str(tmp_path / "run"))
    assert [one.method for one in run.candidates] == ["bag_of_words"]
    assert run.summary["sizes"] == {"train": 72, "validation": 24, "test": 24}
    with pytest.raises(ConfigError, match=r"unknown key\. Did you mean 'methods'"):
        compare(train=frame, method="lora")
