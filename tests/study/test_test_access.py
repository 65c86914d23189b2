"""The marker of reads of the test split: what is written when, and what is exploratory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.observers import listener

import entailor.study.compare
from entailor.config.experiment import Experiment
from entailor.data.example import Split
from entailor.errors import RunError
from entailor.events import SILENT, Observer
from entailor.report.effort import effort_lines
from entailor.report.tables import headline, plain_table
from entailor.runs.files import write_text
from entailor.runs.layout import RunFolder
from entailor.study.compare import Comparison, compare
from entailor.study.test_access import AccessLog, log_test_access


@pytest.fixture(autouse=True)
def plain_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entailor.study.compare, "write_report", lambda folder: write_text(folder.report_file, "page"))


@pytest.fixture
def run(nli_experiment: Experiment, tmp_path: Path) -> Any:
    """Return what compares some rows in one folder."""

    def go(rows: dict[str, dict[str, Any]], observer: Observer = SILENT) -> Comparison:
        changes = {"methods": rows, "seeds": (0,), "out": str(tmp_path / "run")}
        return compare(nli_experiment.model_copy(update=changes), observer)

    return go


def late(run: Comparison) -> dict[str, bool]:
    return {row["method"]: row["exploratory"] for row in run.summary["candidates"]}


def test_one_run_is_one_read_with_time_and_hashes(run, tmp_path, nli_split):
    first = run({"majority": {}, "bag_of_words": {}})
    written = json.loads((tmp_path / "run" / "test_access.json").read_text())
    (read,) = written["reads"]
    assert written["test"]["examples"] == 18
    assert read["split"] == nli_split.fingerprint()
    assert set(read["choices"]) == {"none majority", "none bag_of_words"}
    assert len(read["sha256"]) == 64
    assert (read["exploratory"], read["results"]) == (False, True)
    assert all(read["time"] <= record.provenance["started"] for record in first.records)
    assert late(first) == {"majority": False, "bag_of_words": False}


def test_the_same_command_again_is_no_new_read(run, tmp_path):
    run({"majority": {}})
    before = (tmp_path / "run" / "test_access.json").read_text()
    run({"majority": {}})
    assert (tmp_path / "run" / "test_access.json").read_text() == before


def test_a_row_added_later_is_exploratory_in_file_table_and_lines(run):
    run({"majority": {}})
    second = run({"majority": {}, "narrow": {"method": "bag_of_words", "max_ngram": 1}})
    assert late(second) == {"majority": False, "narrow": True}
    assert [read["exploratory"] for read in second.summary["test_access"]["reads"]] == [False, True]
    assert "narrow (exploratory)" in plain_table(second.summary)
    assert "majority (exploratory)" not in plain_table(second.summary)
    assert effort_lines(second.summary)[-1].endswith("they were added: narrow")
    assert "narrow is exploratory" in headline(second.summary)
    assert late(run({"majority": {}})) == {"majority": False, "narrow": True}


def test_a_failed_row_set_right_after_results_are_known_is_exploratory(run):
    run({"majority": {}, "bag_of_words": {"min_df": 100_000}})
    assert late(run({"majority": {}, "bag_of_words": {}})) == {"majority": False, "bag_of_words": True}


def test_a_run_that_was_broken_off_before_any_result_read_nothing(run):
    def stop(*what: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run({"majority": {}}, listener(trial=stop))
    assert late(run({"bag_of_words": {}})) == {"bag_of_words": False}


def test_a_kill_between_the_first_record_and_the_marker_makes_nothing_exploratory(run, tmp_path, monkeypatch):
    def killed(*what: object) -> None:
        raise KeyboardInterrupt

    rows = {"majority": {}, "bag_of_words": {}}
    with monkeypatch.context() as patch:
        patch.setattr(AccessLog, "with_results", killed)
        with pytest.raises(KeyboardInterrupt):
            run(rows)
    assert len(list((tmp_path / "run").rglob("record.json"))) == 1
    again = run(rows)
    assert late(again) == {"majority": False, "bag_of_words": False}
    (read,) = again.summary["test_access"]["reads"]
    assert (read["exploratory"], read["results"]) == (False, True)
    assert late(run({**rows, "narrow": {"method": "bag_of_words", "max_ngram": 1}}))["narrow"]


def test_a_row_added_later_and_killed_before_its_marker_stays_exploratory(run, tmp_path, monkeypatch):
    def killed(*what: object) -> None:
        raise KeyboardInterrupt

    run({"majority": {}})
    rows = {"bag_of_words": {}, "narrow": {"method": "bag_of_words", "max_ngram": 1}}
    with monkeypatch.context() as patch:
        patch.setattr(AccessLog, "with_results", killed)
        with pytest.raises(KeyboardInterrupt):
            run(rows)
    again = run(rows)
    assert late(again) == {"majority": False, "bag_of_words": True, "narrow": True}
    assert [read["exploratory"] for read in again.summary["test_access"]["reads"]] == [False, True]


def test_results_of_a_learning_curve_count_as_known(run, tmp_path, nli_experiment):
    failing = {"bag_of_words": {"min_df": 2}}
    changes = {"methods": failing, "seeds": (0,), "out": str(tmp_path / "run"), "learning_curve": (24,)}
    compare(nli_experiment.model_copy(update=changes))
    folder = RunFolder(tmp_path / "run")
    ((_, point),) = folder.curve_records()
    marker = json.loads(folder.test_access_file.read_text())
    (folder.test_access_file).unlink()
    split = Split((), (), ())
    seal = log_test_access(
        folder.test_access_file, split, {"none bag_of_words n=24": "0"}, [("none bag_of_words n=24", point)]
    )
    assert seal.is_exploratory("none bag_of_words n=24")  # its result was there, with other settings
    assert set(marker["reads"][0]["choices"]) == {"none bag_of_words", "none bag_of_words n=24"}


def test_records_without_a_marker_count_as_read(run, tmp_path):
    run({"majority": {}})
    (tmp_path / "run" / "test_access.json").unlink()
    assert late(run({"majority": {}, "bag_of_words": {}})) == {"majority": False, "bag_of_words": True}


def test_removed_trials_do_not_make_test_unread(run, tmp_path):
    import shutil

    run({"majority": {}})
    shutil.rmtree(tmp_path / "run" / "trials")
    assert late(run({"bag_of_words": {}})) == {"bag_of_words": True}


def test_an_edited_marker_is_refused(run, tmp_path):
    run({"majority": {}})
    path = tmp_path / "run" / "test_access.json"
    path.write_text(path.read_text().replace("none majority", "none bag_of_words"))
    with pytest.raises(RunError, match=r"test_access\.json: damaged or changed by hand"):
        run({"bag_of_words": {}})


def test_another_test_split_is_unread(tmp_path, nli_split: Split):
    path = tmp_path / "test_access.json"
    seal = log_test_access(path, nli_split, {"a": "1"}, [])
    replace(seal, reads=({**seal.reads[0], "results": True},)).write()
    other = Split(nli_split.train, nli_split.validation, nli_split.test[:-1])
    assert not log_test_access(path, other, {"b": "1"}, []).is_exploratory("b")
