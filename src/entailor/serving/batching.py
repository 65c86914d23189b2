"""The micro-batcher: inputs of many requests share a batch, by tokens, after a short wait; the queue is bounded.

What plans (`BatchQueue`) knows neither threads nor a clock; what runs (`Batcher`) is one thread, since a model's
layers take all cores anyway.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from entailor.data.example import Example

Probabilities = NDArray[np.float64]
BYTES_PER_TOKEN = 4
"""Rough; only decides which inputs are gathered. A classifier cuts its batches by true counts."""
MOST_RETRY_SECONDS = 60


@dataclass(frozen=True)
class Job:
    """One input for one classifier.

    Attributes:
        model: which classifier of its lane; whatever the lane tells them apart by.
        example: the input.
    """

    model: Any
    example: Example


class Lane(Protocol):
    """Classifiers whose inputs may stand in one batch."""

    def run(self, jobs: Sequence[Job]) -> list[Probabilities]:
        """Return probabilities_L of each job, not calibrated."""
        ...


class QueueFullError(Exception):
    """The queue has no room for a request.

    Args:
        retry_after: seconds after which there may be room.
    """

    def __init__(self, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__(f"the queue is full; try again in {retry_after} s")


class ClosedError(Exception):
    """The server is stopping and takes nothing more."""


@dataclass(eq=False)
class Call:
    """The inputs of one request, answered together."""

    size: int
    future: Future[list[Probabilities]] = field(default_factory=Future)
    answers: dict[int, Probabilities] = field(default_factory=dict)

    def answer(self, index: int, probabilities_L: Probabilities) -> None:
        """Note the answer to one input; the last one completes the call."""
        self.answers[index] = probabilities_L
        if len(self.answers) == self.size:
            with suppress(InvalidStateError):  # the client has gone
                self.future.set_result([self.answers[place] for place in range(self.size)])

    def fail(self, error: BaseException) -> None:
        """Complete the call with an error."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass(frozen=True, eq=False)
class QueuedInput:
    """One input in the queue.

    Attributes:
        lane: who runs it.
        job: what is run.
        call: whom the answer belongs to.
        index: its place in the call.
        arrived: seconds of the queue's clock.
    """

    lane: Lane
    job: Job
    call: Call
    index: int
    arrived: float

    @property
    def tokens(self) -> int:
        """Return about how many tokens it has."""
        texts = (self.job.example.text, self.job.example.text_pair or "")
        return 3 + sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) // BYTES_PER_TOKEN


class BatchQueue:
    """Inputs that wait, oldest first.

    Args:
        tokens: a batch is gathered up to about so many.
        wait: seconds an input waits for company.
        limit: most inputs that wait.
    """

    def __init__(self, tokens: int, wait: float, limit: int) -> None:
        self.tokens, self.wait, self.limit = tokens, wait, limit
        self._works: deque[QueuedInput] = deque()

    def __len__(self) -> int:
        return len(self._works)

    def has_room(self, count: int) -> bool:
        """Tell whether so many inputs fit."""
        return len(self._works) + count <= self.limit

    def add(self, works: Sequence[QueuedInput]) -> None:
        """Put inputs at the end."""
        self._works.extend(works)

    def pause(self, now: float) -> float:
        """Return the seconds until the next batch is due: 0 where it is, infinite where nothing waits."""
        if not self._works:
            return math.inf
        first = self._works[0]
        if first.arrived + self.wait <= now:
            return 0.0
        full = sum(work.tokens for work in self._works if work.lane is first.lane) >= self.tokens
        return 0.0 if full else first.arrived + self.wait - now

    def take(self) -> list[QueuedInput]:
        """Remove and return the next batch: the oldest input, and others of its lane in their order; one at least.

        Inputs nobody waits for any more are dropped.
        """
        batch: list[QueuedInput] = []
        rest: deque[QueuedInput] = deque()
        tokens = 0
        for work in self._works:
            if work.call.future.done():
                continue
            fits = not batch or (work.lane is batch[0].lane and tokens + work.tokens <= self.tokens)
            (batch if fits else rest).append(work)
            tokens += work.tokens if fits else 0
        self._works = rest
        return batch


class Batcher:
    """Runs batches on a thread of its own.

    Args:
        queue: what plans them.
        on_batch: told of inputs, seconds and tokens of each batch.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        queue: BatchQueue,
        on_batch: Callable[[int, float, int], None] = lambda inputs, seconds, tokens: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.queue, self._on_batch, self._clock = queue, on_batch, clock
        self._changed = Condition()
        self._hurry = self._closed = False
        self._seconds_per_input = 0.01  # a guess, until something has been measured
        self._thread = Thread(target=self._loop, name="entailor-batcher", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether requests are answered."""
        return self._thread.is_alive() and not self._closed

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def submit(self, lane: Lane, jobs: Sequence[Job]) -> Future[list[Probabilities]]:
        """Queue the inputs of one request, all or none.

        Raises:
            QueueFullError: there is no room.
            ClosedError: :meth:`close` was called.
        """
        call = Call(len(jobs))
        now = self._clock()
        works = [QueuedInput(lane, job, call, index, now) for index, job in enumerate(jobs)]
        with self._changed:
            if self._closed:
                raise ClosedError
            if not self.queue.has_room(len(works)):
                seconds = math.ceil(len(self.queue) * self._seconds_per_input)
                raise QueueFullError(min(max(1, seconds), MOST_RETRY_SECONDS))
            self.queue.add(works)
            self._changed.notify()
        return call.future

    def hurry(self) -> None:
        """From now on run at once what waits; safe in a signal handler."""
        with self._changed:
            self._hurry = True
            self._changed.notify()

    def close(self) -> None:
        """Take nothing more, answer what waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _loop(self) -> None:
        while True:
            with self._changed:
                while pause := self.queue.pause(self._clock()):
                    if math.isinf(pause):
                        if self._closed:
                            return
                        self._changed.wait()
                    elif self._hurry or self._closed:
                        break
                    else:
                        self._changed.wait(pause)
                batch = self.queue.take()
            if batch:
                started = self._clock()
                run_batch(batch)
                seconds = self._clock() - started
                self._seconds_per_input += 0.1 * (seconds / len(batch) - self._seconds_per_input)
                self._on_batch(len(batch), seconds, sum(work.tokens for work in batch))


def run_batch(batch: Sequence[QueuedInput]) -> None:
    """Run a batch and answer; where it fails, each request by itself, so that only the culprit gets the error."""
    try:
        answers = batch[0].lane.run([work.job for work in batch])
    except Exception as error:  # whatever it is, it is the client's to read, and the thread goes on
        calls = list(dict.fromkeys(work.call for work in batch))
        if len(calls) == 1:
            calls[0].fail(error)
            return
        for call in calls:
            run_batch([work for work in batch if work.call is call])
        return
    for work, probabilities_L in zip(batch, answers, strict=True):
        work.call.answer(work.index, probabilities_L)
