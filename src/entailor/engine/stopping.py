"""Stopping on a signal: what runs finishes its step first, and everything else stops where it is.

`stop_on_signals` puts a switch behind the signals of the process; only whoever owns the process should.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from entailor.engine.ranks import ALONE, Ranks
from entailor.events import SILENT, Observer
from entailor.runs.launcher import launched_rank


class Stopped(KeyboardInterrupt):
    """The user or the system asked to stop; not an error, and like Ctrl-C not caught by ``except Exception``.

    Args:
        signum: the signal's number.
        place: how far the work had come, in words.
    """

    def __init__(self, signum: int, place: str = "") -> None:
        self.signum, self.place = signum, place
        super().__init__(place)


class StopSwitch:
    """Holds a first request back while a step is under way; a second one stops at once.

    Args:
        patient: take no second request: a launcher sends its processes what the terminal has sent them already, and
            ends those that do not end in time.

    Attributes:
        signum: the signal that asked first, or None.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.patient = patient
        self.signum: int | None = None
        self._held = False

    def request(self, signum: int) -> bool:
        """Ask to stop.

        Returns:
            True where the request is held back until the step is done.

        Raises:
            Stopped: nothing is under way that is worth finishing, or it is asked for the second time.
        """
        again = self.signum is not None
        if again and self.patient:
            return True
        # kept also where it is raised: inside __del__ or a callback of a library the exception is dropped
        self.signum = signum
        if again or not self._held:
            raise Stopped(signum)
        return True

    def check(self) -> None:
        """Stop where it was asked for.

        Raises:
            Stopped: there was a request.
        """
        if self.signum is not None:
            raise Stopped(self.signum)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold requests back; whoever is inside asks for `signum` after each step.

        Raises:
            Stopped: at the start, where the exception of a request was dropped; at the end, where a request came too
                late to be seen inside.
        """
        self.check()
        self._held = True
        try:
            yield
        finally:
            self._held = False
        self.check()


@dataclass(frozen=True)
class RunContext:
    """What a trial does not depend on.

    Attributes:
        observer: told how it goes.
        stop: asked after every training step.
        ranks: the processes that run it together.
    """

    observer: Observer = SILENT
    stop: StopSwitch | None = None
    ranks: Ranks = ALONE


UNATTENDED = RunContext()


@contextmanager
def stop_on_signals() -> Iterator[StopSwitch]:
    """Let Ctrl-C, SIGTERM and a terminal that is closed end the run after the training step that is under way."""
    stop = StopSwitch(patient=launched_rank() is not None)
    more = b"" if stop.patient else b"; once more stops at once"

    def ask(signum: int, _frame: object) -> None:
        first = stop.signum is None
        if stop.request(signum) and first:
            # not through sys.stderr, which the signal may have interrupted in the middle of a write
            with suppress(OSError):  # the terminal is gone
                os.write(2, b"stopping after this step, with a checkpoint" + more + b"\n")

    if threading.current_thread() is not threading.main_thread():  # handlers belong to that one
        yield stop
        return
    hangup = getattr(signal, "SIGHUP", None)
    closing = [hangup] if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN else []  # nohup
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM, *closing)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
