"""Runs command lines in this process under limits of time and memory, and says what is wrong with how they end."""

from __future__ import annotations

import contextlib
import io
import re
import resource
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from tests.hostile.cases import Case, Words

from entailor.cli import app as cli

MOST_CPU_SECONDS = 4  # of one command; a hostile one takes a fraction of a second
MOST_WALL_SECONDS = 60  # of one command that waits instead of working; generous, since the machine may be busy
MOST_MEMORY = 1 << 30  # above what the libraries take


class _TooLong(BaseException):
    """Outside of everything a command catches."""


def _stop(number: int, frame: object) -> None:
    raise _TooLong(signal.Signals(number).name)


@contextlib.contextmanager
def time_limit(cpu_seconds: float, wall_seconds: float) -> Iterator[None]:
    """Raise where what is inside works for longer than the one or takes longer than the other."""
    signal.signal(signal.SIGPROF, _stop)
    signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    signal.setitimer(signal.ITIMER_REAL, wall_seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def command(words: Words) -> tuple[int, str]:
    """Run the command line in this process; return its exit code and what it said. Anything else comes out."""
    said, before = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True), sys.argv
    sys.argv = ["entailor", *words]
    code: object = 0
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                cli.main()
            except SystemExit as ended:
                code = ended.code
    finally:
        sys.argv = before
    text = said.buffer.getvalue().decode()  # type: ignore[attr-defined]
    return code if isinstance(code, int) else int(code is not None), text


def problem(case: Case, folder: Path, only: int | None = None) -> str | None:
    """Return what is wrong with how a case ends, or None; `only` picks one of its commands."""
    commands = case.build(folder)
    for words in commands if only is None else [commands[only % len(commands)]]:
        try:
            with time_limit(MOST_CPU_SECONDS, MOST_WALL_SECONDS):
                code, text = command(words)
        except BaseException:
            return f"{words[0]}: {traceback.format_exc(limit=-6)}"[-2_000:]
        if code not in case.codes:
            return f"{words[0]}: exit code {code}: {text[-500:]}"
        if code == 2 and not re.search(r"^(error: |Usage: )", text, re.MULTILINE):
            return f"{words[0]}: no error was told: {text[-500:]}"
        if len(text) > 20_000:
            return f"{words[0]}: {len(text):,} characters were said: {text[:300]}"
    return None


def limit_memory() -> None:
    """Let this process take so much more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MOST_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
