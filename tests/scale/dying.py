"""Trials that kill their own process, for tests on a real Ray, whose workers import this module."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from entailor.data.example import Split
from entailor.engine.stopping import RunContext
from entailor.events import Event, Observer, StageProgress
from entailor.runs.record import RunRecord
from entailor.study.trial import run_trial
from entailor.study.trial_plan import TrialPlan
from entailor.tasks import Task


def dies_once(
    mark: Path, plan: TrialPlan, task: Task, split: Split, folder: Path, run_context: RunContext
) -> RunRecord:
    """Run a trial; the process is killed after the fifth step of the first that comes so far, which leaves a mark."""

    def hear(event: Event) -> None:
        run_context.observer.on_event(event)
        stage = event.data
        if isinstance(stage, StageProgress) and (stage.name, stage.done) == ("train", 5) and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    return run_trial(plan, task, split, folder, RunContext(Observer(hear), run_context.stop))
