"""Signals at named events, one that kills and some that ask: the same command goes on and gives the same."""

import signal

import pytest
from tests.kill import Runs, Target, differing
from tests.long.kills import make_experiment

ENDS = [
    Target("search trial: train", signum=signal.SIGTERM),
    Target("search study.json: half written", 2),
    Target("repeated search checkpoint: rename begun", 3),
    Target("trial record.json: written"),
    Target("trial checkpoint: written", 3),
    Target("curve point: train", signum=signal.SIGINT),
    Target("curve point: train", 3),
    Target("report begun"),
    Target("report begun", signum=signal.SIGTERM),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Of one seed and two settings; tests/long/kills.py has more of both."""
    folder = tmp_path_factory.mktemp("kills")
    experiment = make_experiment(folder)
    fewer = {"seeds": (0,), "budget": experiment.budget.model_copy(update={"trials": 2})}
    return Runs(experiment.model_copy(update=fewer), folder / "runs")


def test_signals_cost_nothing_but_time(runs, tmp_path):
    run, asked = tmp_path / "run", 0
    for end in ENDS:
        kills = end.signum == signal.SIGKILL
        assert runs.sit(run, end) == (-end.signum if kills else 128 + end.signum), end
        if not kills and end.event.endswith("train"):
            asked += 1
            said = runs.said(run).count("stopping after this step, with a checkpoint; once more stops at once")
            assert said == asked
            assert list(run.rglob("step-*.safetensors"))
    assert runs.finish(run) == []


def test_the_comparison_of_outcomes_sees_a_changed_figure_and_a_missing_file():
    one = {"a.json": {"candidates": [{"accuracy": 0.5}]}, "b": "1"}
    assert differing(one, one) == []
    assert len(differing(one, {"a.json": {"candidates": [{"accuracy": 0.25}]}})) == 2
