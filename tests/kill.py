"""Runs that end themselves at the k-th occurrence of a named event, and how the outcome of two runs differs.

Every sitting of a run is a forked process. It watches its own renames, removals and progress from outside the package,
and sends itself a signal where it was told to: nothing here depends on the clock or on the load of the machine.
"""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import signal
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

from tests.forked import CONTEXT, blank_figure, check_one_thread
from tests.observers import listener

import entailor.study.compare
from entailor.config.experiment import Experiment
from entailor.engine.stopping import Stopped, stop_on_signals
from entailor.events import Observer
from entailor.methods import registered_methods
from entailor.report import plots
from entailor.runs.integrity import file_sha256
from entailor.study.compare import compare

SRC = Path(__file__).parent.parent / "src"
GROUPS = {"tuning": "search", "trials": "trial", "curve": "curve point"}
CHECKPOINT = re.compile(r"step-\d+.*\.safetensors")
# Keys that hold or follow from a time, a size of memory, or a checksum over such.
MACHINE = re.compile(
    r"seconds|memory|latency|per_second|speed|started|ended|written|^time$|sha256$|checksum|^files$|placement|estimate"
    r"|parts|command|threads|^reason$|precision_reason"
)
MEASURED = re.compile(r"<?[\d.,]+ (ms|s|min|h|[kMG]B)\b")  # in sentences
TIMED = {"record.json", "comparison.json", "study.json", "test_access.json", "environment.json", "doctor.json"}
UNCOMPARED = {"estimate.json", "report.html", ".lock", ".lock.json"}  # the page is made from what is compared


def environment() -> dict[str, str]:
    """Return the environment of a command that is run as a process of its own."""
    paths = os.pathsep.join([str(SRC), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True)
class Target:
    """Where a sitting ends itself: the occurrence of an event, from 1, and the signal it sends itself there."""

    event: str
    occurrence: int = 1
    signum: int = signal.SIGKILL


class Events:
    """Counts what happens in a run and raises the signal at the target."""

    def __init__(self, run: Path, target: Target | None) -> None:
        self.run, self.target = run, target
        self.counts: Counter[str] = Counter()
        self.where = "start"

    def happened(self, event: str, torn: str | os.PathLike[str] | None = None) -> None:
        self.counts[event] += 1
        if self.target and (event, self.counts[event]) == (self.target.event, self.target.occurrence):
            if torn is not None:
                os.truncate(torn, Path(torn).stat().st_size // 2)
            os.kill(os.getpid(), self.target.signum)

    def named(self, path: Any) -> str | None:
        """Return what a file of the run is called in events; None for what is no part of it."""
        try:
            parts = Path(path).absolute().relative_to(self.run).parts
        except (TypeError, ValueError):
            return None
        group = f"{GROUPS[parts[0]]} " if parts[0] in GROUPS else ""
        group = "repeated search " if any(part.startswith("search-") for part in parts) else group
        name = "external scores" if "external" in parts else parts[-1]
        return group + ("checkpoint" if CHECKPOINT.fullmatch(name) else name)

    def observer(self) -> Observer:
        def trial(number: int, count: int, title: str) -> None:
            self.where = "curve point" if " labels, seed" in title else "trial"
            self.happened(f"{self.where} begun")

        def stage(name: str, done: int, total: int, words: str) -> None:
            if name.startswith("tuning"):
                self.where = "search trial"
            self.happened(f"{self.where}: {name.rpartition(': ')[2]}")

        return listener(
            trial=trial, stage=stage, finished=lambda record, reused: self.happened(f"{self.where} finished")
        )

    @contextmanager
    def watched(self) -> Iterator[None]:
        replace, unlink, write_report = os.replace, os.unlink, entailor.study.compare.write_report

        def watched_replace(source: Any, target: Any, **more: Any) -> None:
            name = self.named(target)
            if name:
                self.happened(f"{name}: half written", torn=source)
                self.happened(f"{name}: rename begun")
            replace(source, target, **more)
            if name:
                self.happened(f"{name}: written")

        def watched_unlink(path: Any, *rest: Any, **more: Any) -> None:
            name = self.named(path) if "dir_fd" not in more else None
            if name and not name.endswith(".tmp"):
                self.happened(f"{name}: removal begun")
            unlink(path, *rest, **more)

        def watched_report(*what: Any) -> None:
            self.happened("report begun")
            write_report(*what)
            self.happened("report finished")

        with (
            mock.patch("os.replace", watched_replace),
            mock.patch("os.unlink", watched_unlink),
            mock.patch("entailor.study.compare.write_report", watched_report),
        ):
            yield


def _sit(experiment: Experiment, target: Target | None, said: Path, cache: Path, counts: Path | None) -> int:
    """Run one sitting and return its exit code; the body of a forked child."""
    os.environ["ENTAILOR_CACHE"] = str(cache)
    with said.open("a", encoding="utf-8") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    events = Events(Path(experiment.out), target)
    try:
        with stop_on_signals() as stop, events.watched():
            compare(experiment, events.observer(), stop)
    except Stopped as stopped:
        return 128 + stopped.signum
    except BaseException:
        traceback.print_exc()
        raise
    if counts:
        counts.write_text(json.dumps(events.counts), encoding="utf-8")
    return 0


def _fork_each(sittings: Connection) -> None:
    """Fork for every sitting that is asked for, and tell how it ended: the body of a process that imports once."""
    registered_methods()
    import entailor.models.load
    import entailor.shipping.restoring  # noqa: F401

    plots._svg = blank_figure
    gc.freeze()  # children collect what they make, not what the libraries are
    with suppress(EOFError):
        while True:
            sitting = sittings.recv()
            check_one_thread("self")
            pid = os.fork()
            if not pid:
                code: Any = 1
                try:
                    code = _sit(*sitting)
                finally:
                    os._exit(code)
            sittings.send(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


class Runs:
    """Runs one experiment in folders of its own, sitting by sitting."""

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        self.experiment, self.folder = experiment, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.sittings, theirs = CONTEXT.Pipe()
        CONTEXT.Process(target=_fork_each, args=(theirs,), daemon=True).start()
        theirs.close()
        self.whole = folder / "whole"
        counts = folder / "counts.json"
        assert self.sit(self.whole, counts=counts) == 0, self.said(self.whole)
        self.counts: dict[str, int] = json.loads(counts.read_text(encoding="utf-8"))
        self.expected = outcome(self.whole)

    def sit(self, run: Path, target: Target | None = None, counts: Path | None = None) -> int:
        """Run until the end or the target; return the exit code, negative for a signal."""
        experiment = self.experiment.model_copy(update={"out": str(run)})
        rest = (target, run.with_suffix(".log"), self.folder / "cache", counts)
        self.sittings.send((experiment, *rest))
        code: int = self.sittings.recv()
        return code

    def said(self, run: Path) -> str:
        return run.with_suffix(".log").read_text(encoding="utf-8", errors="replace")[-3000:]

    def finish(self, run: Path) -> list[str]:
        """Let a run that was ended go on to its end; return how its outcome differs from the undisturbed one."""
        if self.sit(run) != 0:
            return [f"did not go on: {self.said(run)}"]
        found = differing(self.expected, outcome(run))
        if not found:
            shutil.rmtree(run)
        return found


def outcome(run: Path) -> dict[str, Any]:
    """Return everything a run left behind by file, times and memory aside."""
    found: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if not path.is_file() or path.name in UNCOMPARED or path.name.endswith(".tmp"):
            continue
        if path.name in TIMED:
            found[name] = _plain(json.loads(path.read_text(encoding="utf-8").replace(str(run), "RUN")))
        elif path.name == "experiment.yaml":
            found[name] = path.read_text(encoding="utf-8").replace(str(run), "RUN").rpartition("\n#")[0]
        else:
            found[name] = file_sha256(path)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items() if not MACHINE.search(key)}
    if isinstance(value, str):
        return MEASURED.sub("#", value)
    return [_plain(one) for one in value] if isinstance(value, list) else value


def differing(one: Any, other: Any, key: str = "") -> list[str]:
    """Return the keys at which two outcomes differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = sorted({*one, *other})
        return [line for name in names for line in differing(one.get(name), other.get(name), f"{key}/{name}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [line for number, pair in pairs for line in differing(*pair, f"{key}[{number}]")]
    return [] if one == other else [f"{key}: {one!r:.200} and {other!r:.200}"]
