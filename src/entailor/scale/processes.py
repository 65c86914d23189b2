"""Several processes, started by `torchrun` or `accelerate launch`, that train one trial together.

The first runs the command as if it were alone. The others wait for trials, do the same steps on their share of each
batch, and write and print nothing. What they add up goes through `torch.distributed`; who failed and why goes through
the store that all of them reach, so that it is known even where no process answers any more.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from numpy.typing import NDArray

from entailor.config.distributed import DistributedSettings
from entailor.engine.checkpoint import Snapshot
from entailor.engine.memory import is_out_of_memory
from entailor.engine.ranks import Ranks
from entailor.engine.stopping import RunContext, Stopped, stop_on_signals
from entailor.errors import ConfigError, EntailorError, ProcessError, one_line
from entailor.events import SILENT
from entailor.methods import Classifier, TrainedMethod
from entailor.models.device import main_device
from entailor.models.sharded import is_sharded
from entailor.study.jobs import HERE, Finished, Job

T = TypeVar("T")
WAIT = timedelta(seconds=1)
ALIKE_SECONDS = 10
"""Within so many seconds an error that all processes meet is met by all of them."""
PIECE = 1 << 22
"""Numbers of gradients that are added up at once; larger tensors are by themselves."""


class _LostError(ProcessError):
    """Another process does not answer; which one, and why, is found in the store."""


class _FirstFailedError(EntailorError):
    """The first process failed at what it does for all."""


class Processes(Ranks):
    """The processes of a launcher; see :class:`~entailor.engine.ranks.Ranks`.

    Args:
        settings: how they share a training, and how long they wait for each other.
    """

    def __init__(self, settings: DistributedSettings) -> None:
        import torch
        import torch.distributed as dist
        from torch.distributed import PrefixStore  # type: ignore[attr-defined]
        from torch.distributed.rendezvous import rendezvous

        self.way, self.timeout = settings.strategy, timedelta(seconds=settings.ddp_timeout)
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        backend = "gloo"
        if accelerator is not None:
            here, local = torch.accelerator.device_count(), int(os.environ.get("LOCAL_RANK", os.environ["RANK"]))
            if local >= here:
                raise ConfigError(
                    f"process {local} of this machine has no {accelerator.type} device: there are {here}. Start at "
                    f"most {here} processes a machine"
                )
            torch.accelerator.set_device_index(local)
            backend = f"cpu:gloo,{accelerator.type}:{dist.get_default_backend_for_device(accelerator.type)}"
        try:
            store, self.rank, self.size = next(rendezvous("env://", timeout=self.timeout))
            # torchrun --max-restarts keeps the store, in which addresses of processes that are gone still stand
            self.store = PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
            group = {"store": PrefixStore("group", self.store), "rank": self.rank, "world_size": self.size}
            dist.init_process_group(backend, timeout=self.timeout, **group)
        except RuntimeError as error:
            raise ProcessError(f"the processes did not find each other: {one_line(error)}") from None
        self.trials = 0

    def close(self) -> None:
        """Let the others end, where this is the first, and leave them."""
        import torch.distributed as dist

        with suppress(RuntimeError):
            if self.rank == 0:
                self.store.set("entailor/over", "1")
            else:
                self.store.set(f"entailor/gone/{self.rank}", "1")
        with suppress(RuntimeError, ValueError, AssertionError):
            if self.rank == 0:  # it may hold the store
                self.store.wait([f"entailor/gone/{rank}" for rank in range(1, self.size)], timedelta(seconds=5))
            dist.destroy_process_group()

    @contextmanager
    def together(self, work: Callable[..., None], *what: Any) -> Iterator[None]:
        """Hand a trial to the others, and see afterwards how they fared."""
        self.trials += 1
        self.store.set(f"entailor/trial/{self.trials}", "1")
        try:
            self._from_first(lambda: (work, what))
            yield
        except Exception as error:
            self._settle(_as_lost(error))
            raise
        self._settle(None)

    def follow(self, run_context: RunContext) -> None:
        """Do this process's part of every trial, until the first process is through.

        Raises:
            Stopped: somebody asked for it.
            ProcessError: something failed here or elsewhere; the first process says what.
        """
        stop = run_context.stop
        while True:
            self.trials += 1
            while not self.store.check([f"entailor/trial/{self.trials}"]):
                if stop:
                    stop.check()
                if self.store.check(["entailor/over"]):
                    return
                with suppress(RuntimeError):  # nothing yet
                    self.store.wait([f"entailor/trial/{self.trials}"], WAIT)
            try:
                work, what = self._from_first(tuple)
                work(*what, run_context)
            except Stopped:
                raise
            except Exception as error:
                self._report(_as_lost(error))
            else:
                self.store.set(self._outcome_of(self.rank), "")

    def _outcome_of(self, rank: int) -> str:
        return f"entailor/outcome/{self.trials}/{rank}"

    def _report(self, error: Exception) -> None:
        """Tell the first process of an error, and go on only where it met the same.

        Raises:
            ProcessError: it did not; the connections are closed, so that no process waits for this one.
        """
        import torch.distributed as dist

        text = one_line(error) if isinstance(error, EntailorError) else f"{type(error).__name__}: {one_line(error)}"
        kind = type(error).__name__
        self.store.set(self._outcome_of(self.rank), f"{kind}\n{text}")
        try:
            self.store.wait([f"entailor/alike/{self.trials}"], timedelta(seconds=ALIKE_SECONDS))
        except RuntimeError:
            with suppress(RuntimeError, ValueError, AssertionError):
                dist.destroy_process_group()
            with suppress(RuntimeError):  # a launcher that sees this process end would end the first before it speaks
                self.store.wait(["entailor/over"], timedelta(seconds=3 * ALIKE_SECONDS))
            raise ProcessError(text) from error

    def _settle(self, error: Exception | None) -> None:
        """See how the others fared in a trial that is over here.

        Raises:
            ProcessError: one failed where this process did not, or otherwise than this process.
        """
        others = range(1, self.size)
        keys = [self._outcome_of(rank) for rank in others]
        lost = isinstance(error, _LostError)  # who closed its connections has said before why
        with suppress(RuntimeError):
            self.store.wait(keys, timedelta(seconds=(1 if lost else 3) * ALIKE_SECONDS) if error else self.timeout)
        own = "" if error is None else type(error).__name__
        found = {
            rank: self.store.get(key).decode() if self.store.check([key]) else _LostError.__name__
            for rank, key in zip(others, keys, strict=True)
        }
        kinds = {rank: text.partition("\n")[0] for rank, text in found.items()}
        if all(kind in (own, _FirstFailedError.__name__ if error else own) for kind in kinds.values()):
            if error is not None and not lost:
                self.store.set(f"entailor/alike/{self.trials}", "1")
                return
            if error is None:
                return
        causes = {
            rank: text.partition("\n")[2] for rank, text in found.items() if kinds[rank] not in ("", "_LostError")
        }
        if error is not None and not lost:
            text = f"{type(error).__name__}: {one_line(error)}"
            causes[0] = one_line(error) if isinstance(error, EntailorError) else text
        rank = min(causes, default=None)
        if rank is None:
            silent = [str(rank) for rank in found if kinds[rank] == "_LostError"]
            raise ProcessError(
                f"process {' and '.join(silent) or '1'} of {self.size} is gone or does not answer. See the launcher's "
                "report; the same command goes on from the last checkpoint"
            ) from error
        raise ProcessError(
            f"process {rank} of {self.size}: {causes[rank]}. All processes end; the same command goes on from the last "
            "checkpoint"
        ) from error

    def seed_step(self, seed: int, step: int) -> None:
        """Seed by seed, step and process."""
        import torch

        torch.manual_seed(((seed << 24) + step) * self.size + self.rank)

    def copy_first(self, tensors: Sequence[Any]) -> None:
        """Broadcast them."""
        import torch
        import torch.distributed as dist

        with torch.no_grad(), _answering():
            for tensor in tensors:
                if not is_sharded(tensor):  # else each has its own rows
                    dist.broadcast(tensor.data, src=0)

    def divide(self, classifier: Classifier) -> str:
        """Divide it by FSDP2, once all have the same new weights."""
        from entailor.scale.sharding import shard

        return shard(classifier, self.size, self.copy_first)

    def put_together(self, classifier: Classifier) -> dict[str, Any]:
        """Put one tensor after the other together."""
        from entailor.scale.sharding import whole_tensors

        with _answering():
            return whole_tensors(classifier, keep=self.rank == 0)

    def snapshot_from_first(self, make: Callable[[], Snapshot | None]) -> Snapshot | None:
        """Send plain values now, and tensors when they are asked for."""
        from entailor.scale.sending import SentTensors

        made: Snapshot | None = None

        def plain() -> str:
            nonlocal made
            made = make()
            return "" if made is None else json.dumps({**vars(made), "tensors": list(made.tensors)})

        text = self.from_first(plain)
        if not text:
            return None
        found, held = json.loads(text), None if made is None else made.tensors
        tensors = SentTensors(found["tensors"], held, self.from_first, lambda tensor: self.copy_first([tensor]))
        return Snapshot(**{**found, "tensors": tensors})

    def sum_gradients(self, parameters: Sequence[Any], loss: Any) -> Any:
        """Add up; a process that had no example of a step adds nothing.

        A tensor without a gradient in all processes has none afterwards, which the training loop refuses.
        """
        import torch

        if any(map(is_sharded, parameters)):  # the backward pass added them up
            self._sum([loss])
            return loss
        there = torch.tensor([float(one.grad is not None) for one in parameters], device=loss.device)
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        whole = bool(there.all()) if loss.device.type == "cpu" else all(there.tolist())
        self._sum([loss, there, *(one.grad for one in parameters)])
        if not whole:
            for parameter, count in zip(parameters, there.tolist(), strict=True):
                if count == 0:
                    parameter.grad = None
        return loss

    def _sum(self, tensors: Sequence[Any]) -> None:
        """Add up tensors of one device in place, small ones in pieces of many."""
        import torch
        import torch.distributed as dist

        with torch.no_grad(), _answering():
            for group in _pieces(tensors):
                if len(group) == 1 and group[0].is_contiguous():
                    dist.all_reduce(group[0])
                    continue
                flat = torch.cat([tensor.reshape(-1) for tensor in group])
                dist.all_reduce(flat)
                for tensor, part in zip(group, torch.split(flat, [one.numel() for one in group]), strict=True):
                    tensor.copy_(part.view_as(tensor))

    def add_up(self, *arrays: NDArray[Any]) -> None:
        """Add up through the CPU."""
        import torch

        self._sum([torch.from_numpy(array) for array in arrays])

    def largest(self, *numbers: int) -> tuple[int, ...]:
        """Compare through the CPU."""
        import torch
        import torch.distributed as dist

        both = torch.tensor(numbers)
        with _answering():
            dist.all_reduce(both, op=dist.ReduceOp.MAX)
        return tuple(both.tolist())

    def gather(self, value: T) -> list[T]:
        """Send it to all."""
        import torch.distributed as dist

        found: list[Any] = [None] * self.size
        with _answering():
            dist.all_gather_object(found, value)
        return found

    def from_first(self, make: Callable[[], T]) -> T:
        """Make it in the first process and send it; an error there ends the trial in all of them."""
        if self.rank:
            value, failed = self._from_first(tuple)
            if failed:
                raise _FirstFailedError("the first process failed")
            return value  # type: ignore[no-any-return]
        try:
            made = make()
        except BaseException:
            self._from_first(lambda: (None, True))
            raise
        self._from_first(lambda: (made, False))
        return made

    def _from_first(self, make: Callable[[], Any]) -> Any:
        import torch.distributed as dist

        held = [make() if self.rank == 0 else None]
        with _answering():
            dist.broadcast_object_list(held, src=0)
        return held[0]


@contextmanager
def _answering() -> Iterator[None]:
    """Turn what `torch.distributed` raises where a process is gone or silent into one kind of error."""
    try:
        yield
    except RuntimeError as error:
        raise _LostError(one_line(error)) from error


def _as_lost(error: Exception) -> Exception:
    """Return an error as what it means where FSDP2 met it in `torch.distributed`: another process does not answer."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))
    inside = module.startswith("torch.distributed.") and isinstance(error, RuntimeError)
    return _LostError(one_line(error)) if inside and not is_out_of_memory(error) else error


def _pieces(tensors: Sequence[Any]) -> Iterator[list[Any]]:
    """Give tensors in groups of one type, of at most so many numbers; a larger one is by itself."""
    group: list[Any] = []
    for tensor in tensors:
        size = sum(one.numel() for one in group) + tensor.numel()
        if group and (group[0].dtype != tensor.dtype or group[0].device != tensor.device or size > PIECE):
            yield group
            group = []
        group.append(tensor)
    if group:
        yield group


class ProcessesExecutor:
    """Runs one trial after the other, each in all the processes of a launcher.

    Args:
        processes: seen from the first of them.
    """

    def __init__(self, processes: Processes) -> None:
        self.processes = processes

    @contextmanager
    def open(self, memory: Mapping[tuple[str, str], int]) -> Iterator[ProcessesExecutor]:
        """Give itself."""
        yield self

    def run(self, jobs: Sequence[Job], run_context: RunContext) -> Iterator[list[Finished]]:
        """Run jobs in their order; see :class:`~entailor.study.jobs.Pool`.

        Raises:
            ConfigError: a model would stand on a device of another process.
        """
        for job in jobs:
            settings, method = job.plan.settings, job.plan.method
            if settings.device_map not in (None, "cpu") and method.needs_backbone:
                raise ConfigError(
                    f"model.device_map={settings.device_map}: each of several processes has a device of its own. Leave "
                    "it out, or start one process"
                )
            on_cpu = main_device().type == "cpu"
            odd = settings.load_in_8bit or (settings.load_in_4bit and not on_cpu)
            if self.processes.way == "fsdp" and odd and isinstance(method, TrainedMethod):
                bits = "8 bits" if settings.load_in_8bit else "4 bits on an accelerator"
                raise ConfigError(
                    f"distributed.strategy=fsdp: in {bits} the scales of a weight would stay where it was loaded, "
                    "apart from its rows. Set distributed.strategy=ddp, or leave quantization out"
                )
        return HERE.run(jobs, replace(run_context, ranks=self.processes))


@contextmanager
def launched(settings: DistributedSettings) -> Iterator[ProcessesExecutor]:
    """Meet the other processes of the launcher, and give the executor of the first one.

    Raises:
        ProcessError: they do not find each other.
    """
    processes = Processes(settings)
    try:
        yield ProcessesExecutor(processes)
    finally:
        processes.close()


def follow_first(settings: DistributedSettings) -> None:
    """Meet the other processes of the launcher, and do this one's part until the first is through.

    Raises:
        ProcessError: something failed here or elsewhere; the first process says what.
        Stopped: somebody asked for it.
    """
    processes = Processes(settings)
    try:
        with stop_on_signals() as stop:
            processes.follow(RunContext(SILENT, stop, processes))
    finally:
        processes.close()
