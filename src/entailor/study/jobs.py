"""What a study has to run, apart from where it is run.

A job is one trial, one point of a learning curve, or the search of one candidate. It works in its own folder, goes on
from what stands there, and is the same wherever it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from entailor.data.example import Split
from entailor.engine.stopping import RunContext
from entailor.study.trial_plan import TrialPlan
from entailor.tasks import Task

Work = Callable[[TrialPlan, Task, Split, Path, RunContext], Any]
Finished = tuple["Job", Any]


def next_comparison(compared: int) -> int:
    """Return at how many ended trials they are compared again: one more, and from twenty on a tenth more.

    Each comparison is over all of them; one after each of a thousand would take longer than the trials.
    """
    return compared + max(1, compared // 10)


@dataclass(frozen=True)
class Job:
    """One thing to run.

    Attributes:
        title: what it is called while it runs.
        work: a function of a module, which another process can import: :func:`~entailor.study.trial.run_trial`.
        plan: of its trial, or the plan whose settings are searched.
        task: labels and input shape.
        split: what it trains and is scored on.
        folder: where it writes.
        lost: gives its result, from the reason, where the processes that run it keep dying.
        found: its result where that is there already, and nothing is run; else None.
        counted: whether it is announced as a trial.
    """

    title: str
    work: Work
    plan: TrialPlan
    task: Task
    split: Split
    folder: Path
    lost: Callable[[str], Any]
    found: Any = None
    counted: bool = True


class Pool(Protocol):
    """What runs jobs."""

    def run(self, jobs: Sequence[Job], run_context: RunContext) -> Iterator[list[Finished]]:
        """Run jobs; yield those that are done, with their results, as many at a time as came meanwhile.

        Args:
            jobs: what is to be run.
            run_context: who is told how it goes, and who may stop it.

        Raises:
            RunError: a folder cannot be written.
            Stopped: somebody asked for it.
        """
        ...


class Executor(Protocol):
    """Where the jobs of a run are run."""

    def open(self, memory: Mapping[tuple[str, str], int]) -> AbstractContextManager[Pool]:
        """Give a pool for one run.

        Args:
            memory: bytes that a trial of a candidate is expected to need, by model and candidate.
        """
        ...


class ThisProcess:
    """Runs one job after the other, here."""

    def open(self, memory: Mapping[tuple[str, str], int]) -> AbstractContextManager[Pool]:
        """Give itself; what fits was planned when the models were placed."""
        return nullcontext(self)

    def run(self, jobs: Sequence[Job], run_context: RunContext) -> Iterator[list[Finished]]:
        """Run jobs in their order, and yield each when it is done."""
        for number, job in enumerate(jobs, start=1):
            if run_context.stop:
                run_context.stop.check()
            if job.counted:
                run_context.observer.trial(number, len(jobs), job.title)
            what = job.plan, job.task, job.split, job.folder
            yield [(job, job.work(*what, run_context) if job.found is None else job.found)]


HERE = ThisProcess()
