"""How a run is shown while it goes: bars with the time left on a terminal, one line a trial elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from entailor.report.effort import estimate_lines
from entailor.report.tables import duration, percent
from entailor.runs.record import RunRecord
from entailor.study.compare import Observer

TRUNCATION_ALARM = 0.1  # share of test texts from which on truncation is said at once and not in the report alone


@contextmanager
def watch(*, quiet: bool) -> Iterator[Observer]:
    """Give an observer that writes to standard error.

    Args:
        quiet: show nothing but candidates that are left out.
    """
    if quiet:
        yield Observer(warn=_say)
    elif sys.stderr.isatty():
        with _bars() as observer:
            yield observer
    else:
        yield _lines()


def _outcome(record: RunRecord, reused: bool) -> str:
    if record.status == "failed":
        return f"failed: {record.error}"
    right = sum(example.predicted == example.label for example in record.predictions)
    words = f"{percent(right / len(record.predictions))} of test right"
    if reused:
        return f"{words} (already there)"
    return f"{words}, trained in {duration(record.costs.train_seconds)}"


def _alarms(record: RunRecord) -> list[str]:
    """Return what changes how a trial's accuracy is read, one line each."""
    alarms = [event for event in record.events if event.startswith(("ALARM", "restart"))]
    if record.costs.truncated_share >= TRUNCATION_ALARM:
        alarms.append(
            f"{percent(record.costs.truncated_share)} of the test texts were truncated. Raise model.max_length or set "
            "model.long_texts=windows"
        )
    return alarms


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _lines() -> Observer:
    say = _say

    def finished(record: RunRecord, reused: bool) -> None:
        say(f"    {_outcome(record, reused)}")
        for alarm in _alarms(record):
            say(f"    {alarm}")

    return Observer(
        note=say,
        warn=say,
        trial=lambda number, count, title: say(f"[{number}/{count}] {title}"),
        finished=finished,
        estimate=lambda expected: say("\n".join(estimate_lines(expected))) if expected["candidates"] else None,
    )


@contextmanager
def _bars() -> Iterator[Observer]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]}", justify="right"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        whole = bars.add_task("trials", total=None, count="", words="")
        part: TaskID | None = None
        stage_now, done_now, title, trials_now = "", 0, "", (0, 0)

        def say(text: str, style: str | None = None) -> None:
            bars.console.print(escape(text), style=style, highlight=False, soft_wrap=True)

        def begin(number: int, count: int, name: str) -> None:
            nonlocal title, trials_now
            title, trials_now = name, (number, count)
            bars.update(whole, total=count, completed=number - 1, count=f"{number - 1}/{count}", words=escape(name))

        def step(stage: str, done: int, total: int, words: str) -> None:
            nonlocal part, stage_now, done_now
            if part is None or stage != stage_now or done < done_now:
                end_stage()
                # a new line, since one whose total is known cannot be made one whose total is not
                part = bars.add_task(stage, total=total or None, count="", words="")
            stage_now, done_now = stage, done
            bars.update(part, completed=done, count=f"{done:,}/{total:,}" if total else "", words=escape(words))

        def end_stage() -> None:
            nonlocal part
            if part is not None:
                bars.remove_task(part)
                part = None

        def finished(record: RunRecord, reused: bool) -> None:
            end_stage()
            say(f"{title}: {_outcome(record, reused)}")
            for alarm in _alarms(record):
                say(f"  {alarm}", style="yellow")
            number, count = trials_now
            bars.update(whole, completed=number, count=f"{number}/{count}", words="")

        def estimate(expected: dict[str, Any]) -> None:
            if expected["candidates"]:
                say("\n".join(estimate_lines(expected)))

        yield Observer(note=say, warn=say, trial=begin, stage=step, finished=finished, estimate=estimate)
