"""What runs in a worker of Ray: one job, whose progress goes to a mailbox that the driver empties."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from entailor.data.example import Split
from entailor.engine.stopping import RunContext, stop_on_signals
from entailor.errors import RunError
from entailor.events import Event, Observer, StageProgress
from entailor.runs.environment import installed_version
from entailor.runs.files import atomic_path, read_json
from entailor.runs.ownership import LOCK_FILE, OWNER_FILE
from entailor.runs.trial_folder import RECORD_FILE, clear_trial, refuse_trial_links
from entailor.study.jobs import Work
from entailor.study.trial_plan import TrialPlan
from entailor.tasks import Task

POST_SECONDS = 0.5  # a stage is reported at most this often, so that thousands of steps cost nothing
LOCK_SECONDS = 60.0  # a worker whose driver was killed is gone long before


class Mailbox:
    """An actor beside the driver that holds what workers report: every remark, and of a stage the last word."""

    def __init__(self) -> None:
        self.events: list[tuple[int, Event]] = []
        self.stages: dict[int, Event] = {}

    def post(self, number: int, event: Event) -> None:
        """Take an event of a job."""
        if event.kind == "stage":
            self.stages[number] = event
        else:
            self.events.append((number, event))

    def take(self) -> list[tuple[int, Event]]:
        """Give what came since it was last asked."""
        taken = [*self.events, *self.stages.items()]
        self.events, self.stages = [], {}
        return taken


class _Posting:
    """Sends the events of a job to the mailbox, a stage not more often than anybody can read."""

    def __init__(self, mailbox: Any, number: int) -> None:
        self.mailbox, self.number = mailbox, number
        self.stage, self.last = "", 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event.data, StageProgress):
            now = time.monotonic()
            if event.data.name == self.stage and now - self.last < POST_SECONDS:
                return
            self.stage, self.last = event.data.name, now
        self.mailbox.post.remote(self.number, event)


def installed_release() -> str:
    """Return the version of Entailor here; a worker of another one would do otherwise."""
    return installed_version("entailor") or "source"


@dataclass(frozen=True)
class Assignment:
    """What a worker is sent of a job; its data come out of the object store.

    Attributes:
        number: of the job among those of the driver.
        work: as in :class:`~entailor.study.jobs.Job`, like the next three.
        plan: what to run.
        task: labels and input shape.
        folder: where it writes.
        directory: the working directory of the driver, from which models are named.
        run: the run folder the folder lies in.
        owner: what stands there of the driver, by which a worker knows that both see the same disk.
        release: of Entailor at the driver.
    """

    number: int
    work: Work
    plan: TrialPlan
    task: Task
    folder: Path
    directory: Path
    run: Path
    owner: Any
    release: str = field(default_factory=installed_release)


@dataclass(frozen=True)
class Carried:
    """What comes back from a node that does not see the run folder.

    Attributes:
        result: of the job.
        files: name below the job's folder, and content.
    """

    result: Any
    files: tuple[tuple[str, bytes], ...]

    def unpack(self, folder: Path) -> Any:
        """Write the files, the record last, since a folder that has one is whole; return the result."""
        clear_trial(folder)
        for name, content in sorted(self.files, key=lambda file: file[0] == RECORD_FILE):
            with atomic_path(folder / name) as temporary:
                temporary.write_bytes(content)
        return self.result


def run_job(assignment: Assignment, split: Split, mailbox: Any) -> Any:
    """Run a job; the body of a task.

    Args:
        assignment: what to run.
        split: on which data.
        mailbox: handle of the :class:`Mailbox`.

    Raises:
        RunError: the folder cannot be reached or written, or is in use, or another release is installed here.
        Stopped: the driver, or the system, asked for it.
    """
    here = platform.node()
    if assignment.release != installed_release():
        versions = f"Entailor {installed_release()} found, expected {assignment.release}"
        raise RunError(f"{here}: {versions}. Install the same on every node")
    with stop_on_signals() as stop:  # Ray cancels a task through the handler of SIGINT
        mailbox.post.remote(assignment.number, Event("trial"))
        context = RunContext(Observer(_Posting(mailbox, assignment.number)), stop)
        what = assignment.plan, assignment.task, split
        if not _sees_the_run(assignment):
            with tempfile.TemporaryDirectory(prefix="entailor-trial-") as scratch:
                folder = Path(scratch) / "trial"
                result = assignment.work(*what, folder, context)
                found = sorted(path for path in folder.rglob("*") if path.is_file())
                files = tuple((path.relative_to(folder).as_posix(), path.read_bytes()) for path in found)
                return Carried(result, files)
        try:
            os.chdir(assignment.directory)
        except OSError as error:
            problem = f"{assignment.directory}: cannot be reached on {here} ({error.strerror})"
            raise RunError(f"{problem}. Run the command in a folder that every node mounts") from None
        with _only_one(assignment.folder):
            return assignment.work(*what, assignment.folder, context)


def _sees_the_run(assignment: Assignment) -> bool:
    """Tell whether the driver's run folder is on a disk of this node, and not only one of the same name."""
    if assignment.owner is None:  # the driver could not write it
        return True
    try:
        return bool(read_json(assignment.run / OWNER_FILE) == assignment.owner)
    except RunError:
        return False


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Wait until no worker of a driver that was killed is at this folder any more.

    Raises:
        RunError: one still is.
    """
    refuse_trial_links(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE, timeout=LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(f"{folder}: another process works there. Wait until it is done, or end it") from None
    try:
        yield
    finally:
        (folder / LOCK_FILE).unlink(missing_ok=True)
        lock.release()
