"""SIGKILL at named events, and signals that ask: the same command goes on and gives the same."""

import signal

import pytest
from tests.kill import Runs, Target, differing
from tests.long.kills import make_experiment

KILLS = [
    ("search study.json: half written", 2),
    ("repeated search checkpoint: rename begun", 3),
    ("trial record.json: written", 1),
    ("trial checkpoint: written", 3),
    ("curve point: train", 5),
    ("report begun", 1),
]
STOPS = [
    ("search trial: train", signal.SIGTERM),
    ("curve point: train", signal.SIGINT),
    ("report begun", signal.SIGTERM),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Of one seed and two settings; tests/long/kills.py has more of both."""
    folder = tmp_path_factory.mktemp("kills")
    experiment = make_experiment(folder)
    fewer = {"seeds": (0,), "budget": experiment.budget.model_copy(update={"trials": 2})}
    return Runs(experiment.model_copy(update=fewer), folder / "runs")


def test_kills_cost_nothing_but_time(runs, tmp_path):
    for event, occurrence in KILLS:
        assert runs.sit(tmp_path / "run", Target(event, occurrence)) == -signal.SIGKILL, (event, occurrence)
    assert runs.finish(tmp_path / "run") == []


def test_a_signal_that_asks_is_obeyed_and_the_same_command_goes_on(runs, tmp_path):
    run = tmp_path / "run"
    for event, signum in STOPS:
        assert runs.sit(run, Target(event, signum=signum)) == 128 + signum, event
        asked = runs.said(run).count("stopping after this step, with a checkpoint; once more stops at once")
        if event.endswith("train"):
            assert asked == 1 + STOPS.index((event, signum))
            assert list(run.rglob("step-*.safetensors"))
    assert runs.finish(run) == []


def test_the_comparison_of_outcomes_sees_a_changed_figure_and_a_missing_file():
    one = {"a.json": {"candidates": [{"accuracy": 0.5}]}, "b": "1"}
    assert differing(one, one) == []
    assert len(differing(one, {"a.json": {"candidates": [{"accuracy": 0.25}]}})) == 2
