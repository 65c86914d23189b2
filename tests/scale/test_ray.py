"""Trials on a real Ray, started for this test on the cores there are; skipped where it is not installed."""

import os
from functools import partial
from pathlib import Path

import psutil
import pytest
from tests.kill import SRC, outcome
from tests.long.kills import make_experiment
from tests.observers import listener
from tests.scale.dying import dies_once
from tests.scale.outcomes import differing_results

pytest.importorskip("ray")

import entailor.study.compare
from entailor.config.parts import BudgetSettings
from entailor.scale import RayExecutor
from entailor.study.compare import compare

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray leaves sockets and files to the end of the process


def test_a_search_a_trial_and_a_curve_are_the_same_though_a_worker_is_killed(tmp_path, monkeypatch):
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
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SRC), str(SRC.parent)]))  # of the workers
    monkeypatch.setattr(entailor.study.compare, "run_trial", partial(dies_once, tmp_path / "died"))
    notes = []
    compare(there, listener(note=notes.append), executor=RayExecutor())
    assert (tmp_path / "died").exists()
    assert "lora: its worker died (WorkerCrashedError); goes on from its last checkpoint" in notes
    assert "lora: goes on from the checkpoint at step 4" in notes
    assert differing_results(outcome(Path(here.out)), outcome(Path(there.out))) == []
    running = psutil.process_iter(["cmdline"])
    workers = [one for one in running if "".join(one.info["cmdline"] or []).startswith("ray::")]
    assert psutil.wait_procs(workers, timeout=60)[1] == []  # they end by themselves, a moment later
