"""What is shown while a run goes: bars on a terminal, plain lines elsewhere, nothing where quiet was asked for."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace

import pytest
from rich.progress import Progress

from entailor.cli.progress import watch
from entailor.events import Event, StageProgress
from entailor.runs.record import Costs, Prediction, RunRecord

RIGHT = RunRecord(
    "m",
    "lora",
    "lora",
    0,
    ("a", "b"),
    costs=Costs(train_seconds=75),
    events=(
        Event("one_class", "warning", "ALARM: [one] class"),
        Event("note", text="C=1 chosen"),
        Event("restart", "warning", "restart: again"),
    ),
    predictions=(Prediction("1", "a", {"a": 0.9, "b": 0.1}), Prediction("2", "b", {"a": 0.9, "b": 0.1})),
)
FAILED = replace(RIGHT, status="failed", error="ModelError: [/red] no such thing", events=(), predictions=())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, *, quiet: bool = False, verbose: bool = False) -> str:
    """What a run of three trials writes to a stream, without the codes that move the cursor."""
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with watch(quiet=quiet, verbose=verbose) as observer:
        observer.warn("lora is left out")
        observer.note("reading [bold]a[/bold] file with [/] in its name")
        observer.trial(1, 3, "lora [x], seed 0")
        observer.stage("load", 0, 0, "")
        for done in range(4):
            observer.stage("train", done, 3, f"loss 0.{done}, validation [50 %]")
        observer.stage("train", 0, 3, "again")
        observer.stage("test", 1234, 2345, "")
        observer.finished(RIGHT, reused=False)
        observer.trial(2, 3, "lora, seed 1")
        observer.finished(RIGHT, reused=True)
        observer.trial(3, 3, "majority")
        observer.finished(FAILED, reused=False)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


def test_lines_where_nobody_watches(monkeypatch):
    assert shown(monkeypatch, io.StringIO(), verbose=True).splitlines() == [
        "lora is left out",
        "reading [bold]a[/bold] file with [/] in its name",
        "[1/3] lora [x], seed 0",
        "    50.0 % of test right, trained in 75 s",
        "    ALARM: [one] class",
        "    restart: again",
        "[2/3] lora, seed 1",
        "    50.0 % of test right (already there)",
        "    ALARM: [one] class",
        "    restart: again",
        "[3/3] majority",
        "    failed: ModelError: [/red] no such thing",
    ]


def test_bars_on_a_terminal(monkeypatch):
    text = shown(monkeypatch, Terminal(), verbose=True)
    assert "reading [bold]a[/bold] file with [/] in its name\n" in text
    assert "lora [x], seed 0: 50.0 % of test right, trained in 75 s\n" in text
    assert "  ALARM: [one] class\n" in text
    assert "C=1 chosen" not in text
    assert "lora, seed 1: 50.0 % of test right (already there)\n" in text
    assert "majority: failed: ModelError: [/red] no such thing\n" in text
    last = text.rstrip().splitlines()[-1]
    assert last.startswith("trials")
    assert "3/3" in last


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_notes_are_shown_on_demand_and_warnings_always(monkeypatch, stream):
    text = shown(monkeypatch, stream())
    assert "lora is left out\n" in text
    assert "50.0 % of test right, trained in 75 s\n" in text
    assert "reading" not in text


def test_the_bar_of_a_trial_tells_loss_validation_and_time_left(monkeypatch):
    update = Progress.update  # drawn at every step, not ten times a second
    monkeypatch.setattr(Progress, "update", lambda *given, **fields: update(*given, **fields, refresh=True))
    text = shown(monkeypatch, Terminal())
    line = next(line for line in text.splitlines() if line.startswith("train") and "3/3" in line)
    assert re.search(r"3/3 +\d:\d\d:\d\d +\d:\d\d:\d\d loss 0.3, validation \[50 %\]", line)


def test_no_bar_is_left_by_a_run_that_ends_before_its_first_trial(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with watch(quiet=False) as observer:
        observer.warn("nothing begins")
    assert "trials" not in stream.getvalue()


def test_the_time_left_weighs_trials_by_what_they_were_expected_to_take(monkeypatch):
    """Three trials of a second that took 10 each, after one that was there: 60 seconds' worth is left, so 600."""
    time = 0.0
    made = Progress.__init__
    monkeypatch.setattr(
        Progress, "__init__", lambda *given, **fields: made(*given, **fields, get_time=lambda: time, auto_refresh=False)
    )
    monkeypatch.setattr(sys, "stderr", Terminal())
    candidate = {"model": "m", "method": "lora", "trials": 3, "trial_seconds": 1.0, "error": None}
    slow = {"model": "m", "method": "slow", "trials": 2, "trial_seconds": 30.0, "error": None}
    monkeypatch.setattr("entailor.cli.progress._show_estimate", lambda *given, **named: None)
    with watch(quiet=False) as observer:
        observer.estimate({"candidates": [candidate, slow]})
        observer.trial(1, 6, "lora")
        for number in range(4):
            observer.finished(RIGHT, reused=number == 0)
            time += 10
        bars = observer.on_event.bars
        assert bars.tasks[0].time_remaining == 600


def test_only_warnings_when_quiet(monkeypatch):
    assert shown(monkeypatch, Terminal(), quiet=True) == "lora is left out\n"


@pytest.mark.parametrize(("share", "said"), [(0.62, True), (0.1, True), (0.02, False), (0.0, False)])
def test_truncation_of_many_texts_is_said_at_once(monkeypatch, share, said):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with watch(quiet=False) as observer:
        cut = Event("truncation", text="many texts were truncated. Raise it")
        observer.finished(replace(RIGHT, costs=Costs(truncated_share=share), events=(cut,)), reused=False)
    assert (cut.text in stream.getvalue()) == said


def at_once(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> str:
    """What two trials that run at the same time write."""
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with watch(quiet=False) as observer:
        observer.trial(1, 2, "one")
        observer.trial(2, 2, "two")
        for trial in ("one", "two"):
            observer.on_event(Event("stage", data=StageProgress("train", 1, 9), trial=trial))
        observer.finished(RIGHT, reused=False, trial="one")
        observer.finished(RIGHT, reused=False, trial="two")
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


def test_lines_of_trials_that_run_at_once_say_whose_they_are(monkeypatch):
    begun_and_done = [
        line for line in at_once(monkeypatch, io.StringIO()).splitlines() if "of test" in line or "[" in line
    ]
    assert [line for line in begun_and_done if "ALARM" not in line] == [
        "[1/2] one",
        "[2/2] two",
        "    one: 50.0 % of test right, trained in 75 s",
        "    50.0 % of test right, trained in 75 s",
    ]


def test_bars_of_trials_that_run_at_once_stand_below_each_other(monkeypatch):
    text = at_once(monkeypatch, Terminal())
    assert "one: train" in text
    assert "two: train" in text
    assert "one: 50.0 % of test right, trained in 75 s\n" in text
    assert "two: 50.0 % of test right, trained in 75 s\n" in text
    assert "2/2" in text
