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

from entailor.config.parts import BudgetSettings
from entailor.scale import RayExecutor
from entailor.study.compare import compare

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray leaves sockets and files to the end of the process


def workers():
    """The processes of Ray that run a trial."""
    return [one for one in psutil.process_iter(["cmdline"]) if "ray::run_job" in " ".join(one.info["cmdline"] or [])]


def test_a_search_a_trial_and_a_curve_are_the_same_though_workers_are_killed(tmp_path):
    whole = make_experiment(tmp_path)
    experiment = whole.model_copy(
        update={
            "methods": {"lora": whole.methods["lora"]},
            "seeds": (0,),
            "budget": BudgetSettings(trials=1),
            "data": whole.data.model_copy(update={"external": ()}),
            "doctor": False,
        }
    )
    here, there = (experiment.model_copy(update={"out": str(tmp_path / name)}) for name in ("here", "there"))
    compare(here)
    killed, notes = [], []

    def stage(name, *_):
        if name.endswith("train") and not killed:
            for one in workers():
                os.kill(one.pid, signal.SIGKILL)
                killed.append(one.pid)

    compare(there, listener(stage=stage, note=notes.append), executor=RayExecutor())
    assert killed
    assert [note for note in notes if "its worker died (WorkerCrashedError); goes on from its last checkpoint" in note]
    assert differing_results(outcome(Path(here.out)), outcome(Path(there.out))) == []
    assert workers() == []
