"""An observer for tests: one function for each kind of event, called with what the event holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from entailor.events import Event, Observer

Hear = Callable[..., object]


def _deaf(*_: Any) -> None:
    pass


def listener(
    *,
    note: Hear = _deaf,
    warn: Hear = _deaf,
    trial: Hear = _deaf,
    stage: Hear = _deaf,
    finished: Hear = _deaf,
    estimate: Hear = _deaf,
    point: Hear = _deaf,
) -> Observer:
    """Hear of (text), (text), (number, count, title), (stage, done, total, text), (record, reused), estimate, point."""

    def hear(event: Event) -> None:
        what = event.data
        match event.kind:
            case "trial":
                trial(what.number, what.count, event.text)
            case "stage":
                stage(what.name, what.done, what.total, event.text)
            case "finished":
                finished(what.record, what.reused)
            case "estimate":
                estimate(what)
            case "point":
                point(what)
            case _:
                (warn if event.severity == "warning" else note)(event.text)

    return Observer(hear)
