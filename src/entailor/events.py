"""What a run reports, and to whom.

Nothing that runs prints or logs. It hands events to one observer, and whoever shows the run (the bars of the command
line, a notebook, a test) is that observer. What is decided while a run goes is never decided by an observer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["info", "warning"]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing worth reporting.

    Attributes:
        kind: while a run goes `note`, `trial`, `stage`, `point`, `finished` or `estimate`; in a record also `collapse`,
            `restart`, `truncation` and what else changes how its figures are read.
        severity: a warning is shown even where nothing else is.
        text: a sentence, or what is under way in a few words; "" where the data say all.
        data: of a `trial` a :class:`TrialStarted`, of a `stage` a :class:`StageProgress`, of a `point` a
            :class:`PointLogged`, of `finished` a :class:`TrialFinished`, of an `estimate` what
            :func:`entailor.estimate` returns; None of all others.
        trial: title of the trial it is of, where that is not the last one that began: several may run at once.
    """

    kind: str
    severity: Severity = "info"
    text: str = ""
    data: Any = None
    trial: str = ""


@dataclass(frozen=True, slots=True)
class TrialStarted:
    """A trial begins: the `number`-th of `count`; the event's text is its title."""

    number: int
    count: int


@dataclass(frozen=True, slots=True)
class StageProgress:
    """How far a stage of a trial has come; `total` is 0 where it is not known."""

    name: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class PointLogged:
    """A training has come to a point of its curve.

    Attributes:
        record: the :class:`~entailor.RunRecord` of its trial so far: who it is and its settings, without results.
        attempt: 0, and one more each time a training that collapsed is started again with another seed.
        point: a :class:`~entailor.runs.record.CurvePoint`.
    """

    record: Any  # records stand above events, and hold some
    attempt: int
    point: Any


@dataclass(frozen=True, slots=True)
class TrialFinished:
    """A trial is over.

    Attributes:
        record: its :class:`~entailor.RunRecord`.
        reused: it was there already.
    """

    record: Any
    reused: bool


def _ignore(event: Event) -> None:
    pass


@dataclass(frozen=True)
class Observer:
    """Who is told how a run goes.

    Attributes:
        on_event: called with each event; the default ignores all.
    """

    on_event: Callable[[Event], None] = _ignore

    def note(self, text: str) -> None:
        """Report a line worth showing."""
        self.on_event(Event("note", text=text))

    def warn(self, text: str) -> None:
        """Report a line to show even where nothing else is: examples of the user that are left out."""
        self.on_event(Event("note", "warning", text))

    def trial(self, number: int, count: int, title: str) -> None:
        """Report that a trial begins."""
        self.on_event(Event("trial", text=title, data=TrialStarted(number, count)))

    def stage(self, name: str, done: int = 0, total: int = 0, text: str = "") -> None:
        """Report how far a stage has come."""
        self.on_event(Event("stage", text=text, data=StageProgress(name, done, total)))

    def point(self, record: Any, attempt: int, point: Any) -> None:
        """Report a point of the curve of a training that is under way."""
        self.on_event(Event("point", data=PointLogged(record, attempt, point)))

    def finished(self, record: Any, *, reused: bool, trial: str = "") -> None:
        """Report a trial's record, and the title it began with."""
        self.on_event(Event("finished", data=TrialFinished(record, reused), trial=trial))

    def estimate(self, expected: Any) -> None:
        """Report what is expected of the run, before its first trial."""
        self.on_event(Event("estimate", data=expected))


SILENT = Observer()
