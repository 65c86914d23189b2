"""Other people's templates, tokenizers and patterns, run in a child process with bounds on seconds, memory and output.

One child serves the whole process. It ends itself when a request takes too long, and ends with this process.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Lock
from typing import IO, Any

from entailor.tasks import foreign_worker

SECONDS = 10.0
"""What one request may take of the processor; a template takes a thousandth of a second, a large tokenizer two."""
BEYOND_BOUNDS = ("Ended", "MemoryError")
"""Kinds of errors that another try does not help with."""
_lock = Lock()
_children: dict[int, subprocess.Popen[str]] = {}  # by process: a fork must not share the pipes


class ForeignError(Exception):
    """What was run failed, or went beyond its bounds; callers say of which file or key.

    Attributes:
        kind: name of the exception in the child.
    """

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


def run_bounded(task: str, **values: Any) -> str:
    """Have a task of :mod:`entailor.tasks.foreign_worker` done in the child.

    Raises:
        ForeignError: it failed, or took too long or too much memory.
    """
    request = json.dumps({"task": task, "values": values, "seconds": SECONDS})
    with _lock:
        child = _child()
        try:
            _pipe(child.stdin).write(f"{request}\n")
            _pipe(child.stdin).flush()
            line = _pipe(child.stdout).readline()
        except OSError:
            line = ""
        except BaseException:  # Ctrl-C: an answer still under way must not be read as that of the next request
            _end(child)
            raise
        if not line:
            status = _end(child)
            took_long = f"it takes longer than {SECONDS:g} seconds"
            raise ForeignError(
                "Ended",
                took_long
                if status in (1, -getattr(signal, "SIGPROF", -1))
                else f"it ended the process (status {status})",
            )
    said = json.loads(line)
    if "error" in said:
        raise ForeignError(said["kind"], said["error"])
    return str(said["answer"])


def _child() -> subprocess.Popen[str]:
    child = _children.get(os.getpid())
    if child is None or child.poll() is not None:
        child = subprocess.Popen(  # noqa: S603 - our own file, without a shell
            [sys.executable, "-I", str(Path(foreign_worker.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what a library prints when it panics
            text=True,
            encoding="ascii",
        )
        _pipe(child.stdin).write(json.dumps([place for place in sys.path if place]) + "\n")
        _pipe(child.stdin).flush()
        _children[os.getpid()] = child
    return child


def _end(child: subprocess.Popen[str]) -> int:
    """Wait for a child that is ending, or end it."""
    _children.pop(os.getpid(), None)
    try:
        status = child.wait(timeout=1)
    except subprocess.TimeoutExpired:
        child.kill()
        status = child.wait()
    for pipe in (child.stdin, child.stdout):
        try:
            _pipe(pipe).close()
        except OSError:
            continue  # what was not read any more
    return status


@atexit.register
def _end_at_exit() -> None:
    """End the child of this process, if it has one, before the interpreter complains of it."""
    if (child := _children.get(os.getpid())) is not None:
        child.kill()
        _end(child)


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
