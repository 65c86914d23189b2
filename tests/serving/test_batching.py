"""What the micro-batcher plans, with a clock of its own; and that nothing is lost or mixed up."""

import math
import threading

import numpy as np
import pytest

from entailor.data.example import Example
from entailor.serving.batching import (
    Batcher,
    BatchQueue,
    Call,
    ClosedError,
    Job,
    QueuedInput,
    QueueFullError,
    run_batch,
)

TEXT = "x" * 40  # 13 tokens by the estimate


class Echo:
    """Answers with the number that stands in the text; fails on "bad"."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()

    def run(self, jobs):
        assert self.gate.wait(60)
        self.batches.append([job.example.text for job in jobs])
        if any(job.example.text == "bad" for job in jobs):
            raise ValueError("bad")
        return [np.array([float(job.example.text)]) for job in jobs]


def works(lane, texts, arrived=0.0, call=None):
    call = call or Call(len(texts))
    return [QueuedInput(lane, Job("m", Example("0", text)), call, place, arrived) for place, text in enumerate(texts)]


def texts(batch):
    return [work.job.example.text for work in batch]


def test_an_input_waits_for_company_and_no_longer():
    queue, lane = BatchQueue(tokens=1000, wait=0.5, limit=10), Echo()
    assert queue.pause(0.0) == math.inf
    queue.add(works(lane, ["1"], arrived=10.0))
    assert queue.pause(10.0) == 0.5
    assert queue.pause(10.25) == 0.25
    queue.add(works(lane, ["2"], arrived=10.25))
    assert queue.pause(10.5) == 0.0  # counted from the first one
    assert texts(queue.take()) == ["1", "2"]


def test_a_batch_that_is_full_waits_for_nobody_and_keeps_within_its_tokens():
    queue, lane = BatchQueue(tokens=40, wait=9.0, limit=10), Echo()
    queue.add(works(lane, [TEXT] * 2))
    assert queue.pause(0.0) == 9.0
    queue.add(works(lane, [TEXT] * 2))
    assert queue.pause(0.0) == 0.0
    assert [len(queue.take()) for _ in range(2)] == [3, 1]


def test_one_input_larger_than_a_batch_is_run_by_itself():
    queue, lane = BatchQueue(tokens=4, wait=0.0, limit=10), Echo()
    queue.add(works(lane, [TEXT, TEXT]))
    assert [len(queue.take()) for _ in range(2)] == [1, 1]


def test_lanes_take_turns_by_the_age_of_their_oldest_input():
    queue, first, second = BatchQueue(tokens=1000, wait=0.0, limit=10), Echo(), Echo()
    queue.add([*works(first, ["1"]), *works(second, ["2"]), *works(first, ["3"])])
    assert [texts(queue.take()) for _ in range(2)] == [["1", "3"], ["2"]]


def test_what_nobody_waits_for_is_not_run():
    queue, lane = BatchQueue(tokens=1000, wait=0.0, limit=10), Echo()
    gone = Call(2)
    queue.add([*works(lane, ["1", "2"], call=gone), *works(lane, ["3"])])
    gone.future.cancel()
    assert texts(queue.take()) == ["3"]
    assert len(queue) == 0


def test_an_error_is_that_of_the_request_that_caused_it():
    lane = Echo()
    good, bad, other = Call(2), Call(2), Call(1)
    run_batch(
        [*works(lane, ["1", "2"], call=good), *works(lane, ["3", "bad"], call=bad), *works(lane, ["5"], call=other)]
    )
    assert [float(row[0]) for row in good.future.result(0)] == [1.0, 2.0]
    assert [float(row[0]) for row in other.future.result(0)] == [5.0]
    with pytest.raises(ValueError, match="bad"):
        bad.future.result(0)


def test_answers_come_in_the_order_of_the_inputs_whatever_the_order_of_the_batches():
    lane, call = Echo(), Call(3)
    first, second, third = works(lane, ["1", "2", "3"], call=call)
    run_batch([third])
    run_batch([first, second])
    assert [float(row[0]) for row in call.future.result(0)] == [1.0, 2.0, 3.0]


@pytest.fixture
def batcher():
    made = Batcher(BatchQueue(tokens=64, wait=0.0, limit=4))
    made.start()
    yield made
    if made.alive:
        made.close()


def jobs(*numbers):
    return [Job("m", Example("0", str(number))) for number in numbers]


def test_a_full_queue_refuses_a_request_whole_and_says_when_to_come_back(batcher):
    lane = Echo()
    lane.gate.clear()
    batcher.submit(lane, jobs(0))
    while len(batcher.queue):  # until the thread has taken it
        pass
    waiting = batcher.submit(lane, jobs(1, 2, 3))
    with pytest.raises(QueueFullError) as full:
        batcher.submit(lane, jobs(4, 5))
    assert 1 <= full.value.retry_after <= 60
    last = batcher.submit(lane, jobs(6))
    lane.gate.set()
    assert [float(row[0]) for row in waiting.result(60)] == [1.0, 2.0, 3.0]
    assert float(last.result(60)[0][0]) == 6.0
    assert not any("4" in batch or "5" in batch for batch in lane.batches)


def test_closing_answers_what_waits_and_takes_nothing_more():
    batcher, lane = Batcher(BatchQueue(tokens=64, wait=3600.0, limit=9)), Echo()
    batcher.start()
    waiting = [batcher.submit(lane, jobs(number)) for number in range(3)]
    assert not any(one.done() for one in waiting)
    batcher.close()
    assert [float(one.result(0)[0][0]) for one in waiting] == [0.0, 1.0, 2.0]
    with pytest.raises(ClosedError):
        batcher.submit(lane, jobs(9))


def test_hurry_runs_what_waits_and_still_takes_more():
    batcher, lane = Batcher(BatchQueue(tokens=64, wait=3600.0, limit=9)), Echo()
    batcher.start()
    waiting = batcher.submit(lane, jobs(1))
    batcher.hurry()
    assert float(waiting.result(60)[0][0]) == 1.0
    assert float(batcher.submit(lane, jobs(2)).result(60)[0][0]) == 2.0
    batcher.close()


def test_two_hundred_requests_from_many_threads_get_their_own_answers():
    batcher, lane = Batcher(BatchQueue(tokens=64, wait=0.0, limit=10_000)), Echo()
    batcher.start()
    found: dict[int, list[float]] = {}

    def ask(first: int) -> None:
        for start in range(first, first + 50, 2):
            rows = batcher.submit(lane, jobs(start, start + 1)).result(60)
            found[start] = [float(row[0]) for row in rows]

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(0, 400, 50)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    batcher.close()
    assert found == {start: [start, start + 1] for start in range(0, 400, 2)}
