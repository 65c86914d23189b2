"""Calls in processes of their own that need not import the libraries again: a server has done so, and forks.

Such a process knows nothing of the tests' own but its environment, its folder and its path of modules.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.fork_server"])
if str(ROOT) not in sys.path:  # children look for `tests` there
    sys.path.append(str(ROOT))


class Ended(NamedTuple):
    """Exit code of a call, negative for a signal, and what it printed."""

    code: int
    out: str
    err: str


class Forked:
    """A call that runs. Its function is named by module, so that the tests' process need not import that.

    Attributes:
        err: its standard error, to be read line by line.
    """

    def __init__(self, module: str, function: str, *arguments: Any, **environment: str) -> None:
        handle, self._out = tempfile.mkstemp()
        os.close(handle)
        read, write = CONTEXT.Pipe(duplex=False)
        values = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment}
        call = (module, function, arguments, values, self._out, write)
        self.process = CONTEXT.Process(target=_call, args=call)
        self.process.start()
        write.close()
        self.err = os.fdopen(os.dup(read.fileno()), encoding="utf-8", errors="replace")  # closed by `wait`
        read.close()

    def send(self, signum: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, signum)

    def wait(self) -> Ended:
        """Wait for its end; return what was not read so far."""
        with self.err:
            err = self.err.read()
        self.process.join()
        out = Path(self._out).read_text(encoding="utf-8", errors="replace")
        Path(self._out).unlink()
        assert self.process.exitcode is not None
        return Ended(self.process.exitcode, out, err)


def forked(module: str, function: str, *arguments: Any, **environment: str) -> Ended:
    """Make a call in a process of its own and wait for its end."""
    return Forked(module, function, *arguments, **environment).wait()


def entailor(*words: object, source: Path | None = None, **environment: str) -> Forked:
    """Start the command in a process of its own, without the lines in its figures.

    Args:
        words: behind `entailor`.
        source: a folder with another copy of the package.
        environment: further variables.
    """
    return Forked("tests.forked", "run_command", list(map(str, words)), source, **environment)


def run_command(words: list[str], source: Path | None) -> None:
    if source is not None:
        sys.path.insert(0, str(source))
    sys.argv = ["entailor", *words]
    importlib.import_module("entailor.report.plots")._svg = blank_figure
    importlib.import_module("entailor.cli.app").main()


def blank_figure(figure: object) -> str:
    """Stand for the drawing of a figure, which takes longer than a tiny comparison."""
    return '<svg width="1pt" height="1pt" viewBox="0 0 1 1"></svg>'


def check_one_thread(process: object) -> None:
    """Hold that a process that forks has one thread, where the system tells: else what it forks may hang."""
    if (threads := Path(f"/proc/{process}/task")).is_dir():
        assert len(list(threads.iterdir())) == 1, f"process {process} has several threads"


def _call(
    module: str, function: str, arguments: tuple[Any, ...], values: dict[str, str], out: str, err: Connection
) -> None:
    """The body of a child; its standard streams are those of the server until now."""
    os.environ.clear()
    os.environ.update(values)
    with Path(out).open("wb") as file:
        os.dup2(file.fileno(), 1)
    os.dup2(err.fileno(), 2)
    err.close()
    check_one_thread(os.getppid())
    getattr(importlib.import_module(module), function)(*arguments)
