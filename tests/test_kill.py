"""SIGKILL at named events, and signals that ask: the same command goes on and gives the same."""

import signal

import pytest
from tests.kill import Runs, Target, differing
from tests.long.kills import make_experiment

KILLS = [
    [("search study.json: half written", 2), ("search checkpoint: rename begun", 3), ("test_reads.json: written", 1)],
    [("search trial: train", 14), ("trial record.json: written", 1), ("trial record.json: rename begun", 1)],
    [("trial checkpoint: written", 3), ("curve point: train", 5), ("trial external scores: half written", 2)],
    [("comparison.json: half written", 2), ("curve point record.json: written", 2), ("report begun", 1)],
]
STOPS = ["search trial: train", "search study.json: rename begun", "trial: test"]
STOPS += ["curve point: train", "curve point: challenge", "report begun"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    return Runs(make_experiment(folder), folder / "runs")


@pytest.mark.parametrize("kills", KILLS, ids=lambda kills: kills[0][0])
def test_kills_cost_nothing_but_time(kills, runs, tmp_path):
    for event, occurrence in kills:
        assert runs.sit(tmp_path / "run", Target(event, occurrence)) == -signal.SIGKILL, (event, occurrence)
    assert runs.finish(tmp_path / "run") == []


@pytest.mark.parametrize("event", STOPS)
def test_a_signal_that_asks_is_obeyed_and_the_same_command_goes_on(event, runs, tmp_path):
    signum = signal.SIGTERM if STOPS.index(event) % 2 else signal.SIGINT
    assert runs.sit(tmp_path / "run", Target(event, 2 if "train" in event else 1, signum)) == 128 + signum
    if event.endswith("train"):
        said = runs.said(tmp_path / "run")
        assert "stopping after this step, with a checkpoint; once more stops at once" in said
        assert list((tmp_path / "run").rglob("step-*.safetensors"))
    assert runs.finish(tmp_path / "run") == []


def test_the_comparison_of_outcomes_sees_a_changed_figure_and_a_missing_file():
    one = {"a.json": {"rows": [{"accuracy": 0.5}]}, "b": "1"}
    assert differing(one, one) == []
    assert len(differing(one, {"a.json": {"rows": [{"accuracy": 0.25}]}})) == 2
