"""Far more requests than fit: each gets its own label, or is refused with a time to come back; none is lost."""

import threading
from collections import Counter

from tests.serving.conftest import LABELS


def test_ten_times_too_many_requests_are_answered_or_refused_and_never_mixed_up(start, registry):
    client = start(max_queue=8, max_inputs=4, wait_ms=0, batch_tokens=64)
    scorer = next(iter(registry)).predictor.scorer
    answers: dict[int, list] = {}
    most_waiting = []

    def ask(number: int) -> None:
        counts = [1 + (number * 7 + place * 3) % 11 for place in range(1 + number % 4)]
        found = client.post("/v1/classify", json={"model": "texts", "inputs": ["word " * count for count in counts]})
        most_waiting.append(len(client.app.state.batcher.queue))
        answers[number] = [counts, found]

    scorer.gate.clear()  # nothing is answered until all have come
    askers = [threading.Thread(target=ask, args=(number,)) for number in range(80)]
    for one in askers:
        one.start()
    while len(answers) < 60:  # at most 8 inputs wait, and one batch is run: the others are refused at once
        pass
    scorer.gate.set()
    for one in askers:
        one.join()
    statuses = Counter(found.status_code for _, found in answers.values())
    assert len(answers) == 80
    assert set(statuses) == {200, 429}
    assert statuses[429] >= 60
    for counts, found in answers.values():
        if found.status_code == 200:
            assert [one["label"] for one in found.json()["results"]] == [LABELS[count % 2] for count in counts]
        else:
            assert 1 <= int(found.headers["Retry-After"]) <= 60
            assert found.json()["error"]["type"] == "queue_full"
    assert max(most_waiting) <= 8
    # what came back later is answered
    assert (
        client.post("/v1/classify", json={"model": "texts", "inputs": ["one"]}).json()["results"][0]["label"] == "odd"
    )
