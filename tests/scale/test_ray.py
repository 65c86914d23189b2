"""Trials on a real Ray, started for this test on two cores; skipped where it is not installed."""

import os
import signal
from pathlib import Path

import psutil
import pytest
from tests.kill import outcome
from tests.long.kills import make_experiment
from tests.observers import listener
from tests.scale.outcomes import differing_results

pytest.importorskip("ray")

from entailor.scale import RayExecutor
from entailor.study.compare import compare

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray leaves sockets and files to the end of the process


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ray")
    return make_experiment(folder).model_copy(update={"out": str(folder / "here")})


@pytest.fixture(scope="module")
def here(experiment):
    compare(experiment)
    return outcome(Path(experiment.out))


def workers():
    """The processes of Ray that run a trial."""
    return [one for one in psutil.process_iter(["cmdline"]) if "ray::run_job" in " ".join(one.info["cmdline"] or [])]


def test_search_seeds_and_curve_are_the_same_though_workers_are_killed(experiment, here, tmp_path):
    run = experiment.model_copy(update={"out": str(tmp_path / "run"), "checkpoint_steps": 2})
    killed, notes = [], []

    def stage(name, *_):
        if name.endswith("train") and len(killed) < 2:
            for one in workers():
                os.kill(one.pid, signal.SIGKILL)
                killed.append(one.pid)

    compare(run, listener(stage=stage, note=notes.append), executor=RayExecutor())
    assert killed
    assert [note for note in notes if "goes on from its last checkpoint" in note]
    assert differing_results(here, outcome(Path(run.out))) == []
    assert workers() == []
