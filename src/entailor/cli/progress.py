"""How a run is shown while it goes: bars with the time left on a terminal, one line a trial elsewhere."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from entailor.cli.output import remark
from entailor.events import Event, Observer, StageProgress, TrialFinished, TrialStarted

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from entailor.runs.record import RunRecord

TRUNCATION_ALARM = 0.1  # share of test texts from which on truncation is said at once and not in the report alone


@contextmanager
def watch(*, quiet: bool, verbose: bool = False) -> Iterator[Observer]:
    """Give an observer that writes to standard error.

    Args:
        quiet: show nothing but warnings: examples and candidates that are left out.
        verbose: show notes as well, and the estimate of each candidate.
    """
    if quiet:
        yield Observer(lambda event: remark(event.text) if event.severity == "warning" else None)
    elif sys.stderr.isatty():
        with _bars(verbose=verbose) as observer:
            yield observer
    else:
        yield Observer(_Lines(verbose=verbose))


@contextmanager
def counting(*, quiet: bool) -> Iterator[Observer]:
    """Give an observer that writes remarks and, on a terminal, how many examples are done.

    Args:
        quiet: show nothing but warnings.
    """
    if quiet or not sys.stderr.isatty():
        yield notes(quiet=quiet)
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed:,} examples"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)

        def show(event: Event) -> None:
            if isinstance(event.data, StageProgress):
                bar.update(task, completed=event.data.done)
            elif event.data is None:
                bar.console.print(escape(event.text), highlight=False, soft_wrap=True)

        yield Observer(show)


def notes(*, quiet: bool) -> Observer:
    """Give an observer that writes remarks and no progress, for work that runs no trial."""

    def show(event: Event) -> None:
        if event.data is None and (event.severity == "warning" or not quiet):
            remark(event.text)

    return Observer(show)


def _outcome(record: RunRecord, reused: bool) -> str:
    from entailor.evaluation.wording import duration, percent
    from entailor.runs.record import PREDICTIONS_ON

    if record.status == "failed":
        return f"failed: {record.error}"
    right = sum(example.predicted == example.label for example in record.predictions)
    part = record.provenance.get(PREDICTIONS_ON, "test")
    words = f"{percent(right / len(record.predictions))} of {part} right"
    if reused:
        return f"{words} (already there)"
    return f"{words}, trained in {duration(record.costs.train_seconds)}"


def _alarms(record: RunRecord) -> list[str]:
    """Return what changes how a trial's accuracy is read, one line each."""
    alarms = [event.text for event in record.events if event.severity == "warning"]
    if record.costs.truncated_share >= TRUNCATION_ALARM:
        alarms += [event.text for event in record.events if event.kind == "truncation"]
    return alarms


class _Lines:
    """One line when a trial begins and one when it is over."""

    def __init__(self, *, verbose: bool) -> None:
        self.title, self.verbose = "", verbose

    def __call__(self, event: Event) -> None:
        match event.data:
            case TrialStarted(number, count):
                self.title = event.text
                remark(f"[{number}/{count}] {event.text}")
            case TrialFinished(record, reused):
                # several may run at once, and then another one began meanwhile
                name = f"{event.trial}: " if event.trial not in ("", self.title) else ""
                for line in (_outcome(record, reused), *_alarms(record)):
                    remark(f"    {name}{line}")
            case _ if event.kind == "estimate":
                _show_estimate(event.data, verbose=self.verbose)
            case None if self.verbose or event.severity == "warning":
                remark(event.text)


def _show_estimate(expected: Mapping[str, Any], say: Callable[[str], None] = remark, *, verbose: bool) -> None:
    from entailor.report.effort import estimate_lines

    if expected["candidates"]:
        say("\n".join(estimate_lines(expected)[0 if verbose else -1 :]))


@contextmanager
def _bars(*, verbose: bool) -> Iterator[Observer]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]}", justify="right"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
    )
    # the time left is told by all steps that were taken; a trial takes longer than the half minute of the default
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=math.inf) as bars:
        yield Observer(_Bars(bars, verbose=verbose))


@dataclass
class _Part:
    """The bar of a trial's stage."""

    bar: TaskID
    stage: StageProgress


class _Bars:
    """One bar for all trials, and below it one for the stage of each trial that is under way.

    In the first a trial is as long as it was expected to take; where that is not known of all, they are alike.
    """

    def __init__(self, bars: Progress, *, verbose: bool) -> None:
        self.bars, self.verbose = bars, verbose
        self.whole = bars.add_task("trials", total=None, visible=False, count="", words="")  # until one begins
        self.parts: dict[str, _Part] = {}
        self.title, self.count, self.done = "", 0, 0
        self.lengths: dict[tuple[str, str], float] = {}
        self.total, self.completed = 0.0, 0.0

    def __call__(self, event: Event) -> None:
        match event.data:
            case TrialStarted():
                self._begin(event.data, event.text)
            case StageProgress():
                self._step(event.data, event.text, event.trial)
            case TrialFinished(record, reused):
                self._finished(record, event.trial or self.title, reused=reused)
            case _ if event.kind == "estimate":
                self._expect(event.data["candidates"])
                _show_estimate(event.data, self._say, verbose=self.verbose)
            case None if self.verbose or event.severity == "warning":
                self._say(event.text)

    def _expect(self, candidates: Sequence[Mapping[str, Any]]) -> None:
        if not any(one["error"] for one in candidates):
            self.lengths = {(one["model"], one["method"]): one["trial_seconds"] for one in candidates}
            self.total = sum(one["trials"] * one["trial_seconds"] for one in candidates)

    def _say(self, text: str, style: str | None = None) -> None:
        self.bars.console.print(escape(text), style=style, highlight=False, soft_wrap=True)

    def _begin(self, trial: TrialStarted, title: str) -> None:
        self.title, self.count = title, trial.count
        if trial.number == 1:
            self.done, self.completed = 0, 0.0
        self._whole(escape(title))

    def _whole(self, words: str) -> None:
        count = f"{self.done}/{self.count}"
        total, completed = (self.total, self.completed) if self.total else (self.count, self.done)
        self.bars.update(self.whole, total=total, completed=completed, visible=True, count=count, words=words)

    def _step(self, stage: StageProgress, text: str, trial: str) -> None:
        part = self.parts.get(trial)
        if part is None or stage.name != part.stage.name or stage.done < part.stage.done:
            self._end_stage(trial)
            # a new line, since one whose total is known cannot be made one whose total is not
            name = f"{escape(trial)}: {stage.name}" if trial else stage.name
            part = _Part(self.bars.add_task(name, total=stage.total or None, count="", words=""), stage)
            self.parts[trial] = part
        part.stage = stage
        count = f"{stage.done:,}/{stage.total:,}" if stage.total else ""
        self.bars.update(part.bar, completed=stage.done, count=count, words=escape(text))

    def _end_stage(self, trial: str) -> None:
        if part := self.parts.pop(trial, None):
            self.bars.remove_task(part.bar)

    def _finished(self, record: RunRecord, title: str, *, reused: bool) -> None:
        for trial in ("", title):
            self._end_stage(trial)
        self._say(f"{title}: {_outcome(record, reused)}")
        for alarm in _alarms(record):
            self._say(f"  {alarm}", style="yellow")
        self.done += 1
        self.completed += 0 if reused else self.lengths.get((record.model, record.name), 0)
        self._whole("")
