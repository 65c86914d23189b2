"""Trials as tasks of Ray Core, on the cores and GPUs of this machine or of a cluster.

One task a job. Without a GPU a worker process takes one trial after the other, as one machine does, and so imports
PyTorch once; where there are GPUs it ends with each trial, so that the memory of its GPU is free. The driver alone
writes what is of the whole run; a trial writes its own folder, or sends its files back where its node does not see
that. Whether a dead worker's trial is tried again is decided here and not by Ray, which knows nothing of checkpoints.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from entailor.data.example import Split
from entailor.engine.stopping import RunContext, StopSwitch
from entailor.errors import ConfigError, RunError
from entailor.events import Event, Observer
from entailor.runs.files import read_json
from entailor.runs.ownership import OWNER_FILE, enclosing_run
from entailor.runs.trial_folder import CHECKPOINT_FOLDER
from entailor.scale.ray_worker import Assignment, Carried, Mailbox, run_job
from entailor.study.finished import complete_record
from entailor.study.jobs import Finished, Job

POLL_SECONDS = 0.5
MOST_DEATHS = 5  # of a trial's workers in a row, without a new checkpoint between them


@dataclass(frozen=True)
class RayExecutor:
    """Runs the trials of a comparison as tasks of Ray.

    Attributes:
        address: of a cluster, `auto` for the one this machine belongs to; None starts Ray on this machine alone.
        num_cpus: cores of each trial, which Ray makes the number of its threads.
        num_gpus: GPUs of each trial, a fraction where several share one. None: one for each trial with a model that is
            not kept on the CPU, where Ray has GPUs at all.

    Raises:
        ConfigError: ray is not installed, or a number is out of range.
    """

    address: str | None = None
    num_cpus: float = 1
    num_gpus: float | None = None

    def __post_init__(self) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ConfigError("--executor ray: ray is missing. pip install 'entailor[cluster]'")
        if self.num_cpus <= 0:
            raise ConfigError(f"--cpus-per-trial: a number above 0 was expected, found {self.num_cpus:g}")
        if (self.num_gpus or 0) < 0:
            raise ConfigError(f"--gpus-per-trial: 0 or more was expected, found {self.num_gpus:g}")

    @contextmanager
    def open(self, memory: Mapping[tuple[str, str], int]) -> Iterator[_RayPool]:
        """Give a pool; Ray is started, or the cluster met, with the first job that is left to run.

        Args:
            memory: bytes that a trial of a candidate is expected to need, by model and candidate.
        """
        with ExitStack() as ending:
            pool = _RayPool(self, memory, ending)
            try:
                yield pool
            finally:
                pool.cancel()


@dataclass
class _Attempt:
    """A job that is with Ray: how often its workers died since it last came further."""

    number: int
    job: Job
    deaths: int = 0
    checkpoints: frozenset[str] = frozenset()


class _RayPool:
    """One connection to Ray, and what the jobs of a run share there."""

    def __init__(self, executor: RayExecutor, memory: Mapping[tuple[str, str], int], ending: ExitStack) -> None:
        self.executor, self.memory, self.ending = executor, memory, ending
        self.ray: Any = None
        self.mailbox: Any = None
        self.task: Any = None
        self.most_memory, self.has_gpus = 0.0, False
        self.splits: dict[int, tuple[Split, Any]] = {}
        self.running: dict[Any, _Attempt] = {}

    def run(self, jobs: Sequence[Job], run_context: RunContext) -> Iterator[list[Finished]]:
        """Run jobs as Ray has room; see :class:`~entailor.study.jobs.Pool`.

        Raises:
            ConfigError: no cluster at the address, or this machine has less than a trial asks for.
            RunError: Ray could not be started here, or a folder cannot be written.
        """
        observer, stop = run_context.observer, run_context.stop or StopSwitch()
        left = [job for job in jobs if job.found is None]
        for number, job in enumerate((job for job in jobs if job.found is not None), start=1):
            if job.counted:
                observer.trial(number, len(jobs), job.title)
            yield [(job, job.found)]
        if not left:
            return
        self._connect(observer)
        begun = set[int]()
        for number, job in enumerate(left):
            self._submit(_Attempt(number, job))
        try:
            with stop.held():  # the first request lets every worker write a checkpoint
                while self.running:
                    ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=POLL_SECONDS)
                    if ready:
                        ready, _ = self.ray.wait(list(self.running), num_returns=len(self.running), timeout=0)
                    self._relay(left, begun, len(jobs), observer)
                    if stop.signum is not None:
                        break
                    if batch := [result for reference in ready for result in self._result(reference, observer)]:
                        yield batch
        finally:
            self.cancel()

    def _connect(self, observer: Observer) -> None:
        """Start Ray on this machine, or meet a cluster, once."""
        if self.ray is not None:
            return
        import ray

        logging.getLogger("ray").setLevel(logging.ERROR)
        if not ray.is_initialized():  # a program may have its own
            if self.executor.address is None:
                self._start()
            else:
                try:
                    ray.init(address=self.executor.address, log_to_driver=False, configure_logging=False)
                except (ConnectionError, OSError, RuntimeError, ValueError) as error:
                    raise ConfigError(
                        f"--address {self.executor.address}: no cluster of Ray there ({error}). Start one with "
                        "`ray start --head`, or leave --address out to use this machine alone"
                    ) from None
            self.ending.callback(ray.shutdown)
        self.ray = ray
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        self.mailbox = ray.remote(num_cpus=0)(Mailbox).options(scheduling_strategy=here).remote()
        self._check_room(observer)
        on_gpus = self.has_gpus or bool(self.executor.num_gpus)
        self.task = ray.remote(max_calls=int(on_gpus), max_retries=0)(run_job)  # 0: as many as there are

    def _start(self) -> None:
        """Start Ray for this process alone: reached from this machine only, no dashboard, no usage statistics."""
        import ray

        scratch = tempfile.TemporaryDirectory(prefix="entailor-ray-", ignore_cleanup_errors=True)
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray writes one to the home directory
        try:
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
                _temp_dir=self.ending.enter_context(scratch),
                _node_ip_address="127.0.0.1",
            )
        except Exception as error:  # Ray raises nothing more special where its processes are not up in 30 s
            ray.shutdown()
            raise RunError(
                f"--executor ray: Ray could not be started on this machine ({error}). Run the same command again when "
                "less runs beside it, or leave --executor out"
            ) from error

    def _check_room(self, observer: Observer) -> None:
        """Refuse what this machine can never give; a cluster may still get a node that can."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        self.most_memory = max(node.get("memory", 0) for node in nodes)
        self.has_gpus = any(node.get("GPU", 0) for node in nodes)
        cpus, gpus = self.executor.num_cpus, self.executor.num_gpus or 0
        if any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
            return
        there = "; ".join(f"{node.get('CPU', 0):g} cores, {node.get('GPU', 0):g} GPUs" for node in nodes)
        asked = f"--cpus-per-trial {cpus:g}, --gpus-per-trial {gpus:g}"
        if self.executor.address is None:
            raise ConfigError(f"{asked}: more than this machine has ({there}). Ask for less, or give --address")
        observer.warn(f"{asked}: no node has so much yet ({there}); the trials wait for one")

    def _submit(self, attempt: _Attempt) -> None:
        job = attempt.job
        attempt.checkpoints = _checkpoints(job.folder)
        if id(job.split) not in self.splits:  # kept here, so that no other object gets its id
            self.splits[id(job.split)] = job.split, self.ray.put(job.split)
        gpus = self.executor.num_gpus
        if gpus is None:
            needed = job.plan.method.needs_backbone and job.plan.settings.device_map != "cpu"
            gpus = int(self.has_gpus and needed)
        # an estimate that is too high must not keep a trial from ever running
        memory = min(self.memory.get((job.plan.model, job.plan.candidate), 0), int(self.most_memory))
        folder = job.folder.absolute()
        run = enclosing_run(folder) or folder
        owner = read_json(run / OWNER_FILE) if (run / OWNER_FILE).is_file() else None
        assignment = Assignment(attempt.number, job.work, job.plan, job.task, folder, Path.cwd(), run, owner)
        task = self.task.options(num_cpus=self.executor.num_cpus, num_gpus=gpus, memory=memory, name=job.title)
        self.running[task.remote(assignment, self.splits[id(job.split)][1], self.mailbox)] = attempt

    def _result(self, reference: Any, observer: Observer) -> list[Finished]:
        """Return a job that is over with its result; nothing where its worker died, and it is run again.

        Raises:
            RunError: its folder cannot be written.
        """
        from ray.exceptions import RayError, RayTaskError, TaskCancelledError

        attempt = self.running.pop(reference)
        job = attempt.job
        try:
            found = self.ray.get(reference)
            return [(job, found.unpack(job.folder) if isinstance(found, Carried) else found)]
        except TaskCancelledError:
            reason = "was told to stop"
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            reason = f"died ({type(error).__name__})"
        if (record := complete_record(job.plan, job.folder)) is not None:  # it died after the last line
            return [(job, record)]
        further = _checkpoints(job.folder) != attempt.checkpoints
        attempt.deaths = 1 if further else attempt.deaths + 1
        if attempt.deaths < MOST_DEATHS:
            observer.note(f"{job.title}: its worker {reason}; goes on from its last checkpoint")
            self._submit(attempt)
            return []
        return [
            (
                job,
                job.lost(
                    f"its worker {reason} {MOST_DEATHS} times without a new checkpoint. If memory ran out, set more "
                    "--cpus-per-trial so that fewer trials run at once, or lower scoring_batch_tokens"
                ),
            )
        ]

    def _relay(self, jobs: Sequence[Job], begun: set[int], count: int, observer: Observer) -> None:
        """Pass on what the workers reported."""
        from ray.exceptions import RayError

        try:
            events: list[tuple[int, Event]] = self.ray.get(self.mailbox.take.remote())
        except RayError:  # progress is not worth a run
            return
        for number, event in events:
            job = jobs[number]
            if event.kind != "trial":
                observer.on_event(replace(event, trial=job.title))
            elif job.counted and number not in begun:  # not again where its worker died
                begun.add(number)
                observer.trial(count - len(jobs) + len(begun), count, job.title)

    def cancel(self) -> None:
        """Let every worker finish its step and write a checkpoint, and wait until they are gone."""
        for reference in self.running:
            self.ray.cancel(reference)
        if self.running:
            self.ray.wait(list(self.running), num_returns=len(self.running), timeout=None)
        self.running.clear()


def _checkpoints(folder: Path) -> frozenset[str]:
    """Return the names of a trial's checkpoints, which change with every one that is written."""
    return frozenset(path.name for path in (folder / CHECKPOINT_FOLDER).glob("*"))
