"""How a run is shown while it goes: bars with the time left on a terminal, one line a trial elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from entailor.experiment import Observer
from entailor.record import RunRecord


@contextmanager
def watch(*, quiet: bool) -> Iterator[Observer]:
    """Give an observer that writes to standard error.

    Args:
        quiet: show nothing.
    """
    if quiet:
        yield Observer()
    elif sys.stderr.isatty():
        with _bars() as observer:
            yield observer
    else:
        yield _lines()


def _outcome(record: RunRecord, reused: bool) -> str:
    if record.status == "failed":
        return f"failed: {record.error}"
    right = sum(row.predicted == row.label for row in record.predictions)
    words = f"{right / len(record.predictions):.1%} of test right"
    if reused:
        return f"{words} (already there)"
    return f"{words}, {record.costs.train_seconds:.0f} s of training"


def _alarms(record: RunRecord) -> list[str]:
    return [event for event in record.events if event.startswith(("ALARM", "restart"))]


def _lines() -> Observer:
    def say(text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def finished(record: RunRecord, reused: bool) -> None:
        say(f"    {_outcome(record, reused)}")
        for alarm in _alarms(record):
            say(f"    {alarm}")

    return Observer(note=say, trial=lambda number, count, title: say(f"[{number}/{count}] {title}"), finished=finished)


@contextmanager
def _bars() -> Iterator[Observer]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        whole = bars.add_task("trials", total=None, words="")
        part = bars.add_task("", total=None, words="", visible=False)
        title = ""

        def begin(number: int, count: int, name: str) -> None:
            nonlocal title
            title = name
            bars.update(whole, total=count, completed=number - 1, words=escape(name))

        def step(stage: str, done: int, total: int, words: str) -> None:
            if bars.tasks[part].description != stage or done < bars.tasks[part].completed:
                bars.reset(part, description=stage, visible=True)
            bars.update(part, completed=done, total=total, words=escape(words), visible=True)

        def finished(record: RunRecord, reused: bool) -> None:
            bars.console.print(f"{escape(title)}: {escape(_outcome(record, reused))}", highlight=False)
            for alarm in _alarms(record):
                bars.console.print(f"  {escape(alarm)}", style="yellow", highlight=False)
            bars.update(whole, advance=1, words="")
            bars.update(part, visible=False)

        yield Observer(
            note=lambda text: bars.console.print(escape(text), highlight=False),
            trial=begin,
            stage=step,
            finished=finished,
        )
