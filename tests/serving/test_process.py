"""The command as an operator runs it: killed under load, started again, and stopped while requests wait."""

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.forked import entailor

from entailor.runs.record import RunRecord
from entailor.runs.trial_folder import RECORD_FILE
from entailor.study.results import Comparison

TOKEN = "a-token-of-the-test"


class Server:
    """`entailor serve` in a process of its own, and a client of it."""

    def __init__(self, *arguments: object) -> None:
        self.call = entailor("serve", *arguments, "--port", "0", ENTAILOR_SERVE_TOKEN=TOKEN)
        self.ended = False
        for line in self.call.err:
            if '"listening"' in line:
                break
        else:
            raise AssertionError(self.call.wait())
        headers = {"Authorization": f"Bearer {TOKEN}"}
        self.client = httpx.Client(base_url=json.loads(line)["url"], headers=headers, timeout=120, trust_env=False)

    def ask(self, texts: list) -> httpx.Response:
        return self.client.post("/v1/classify", json={"model": "mine", "inputs": texts})

    def figure(self, name: str) -> float:
        text = self.client.get("/metrics").text
        return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[1])

    def end(self, number: int) -> tuple[int, list[str]]:
        """Send a signal; return the exit code and the log since it listened."""
        self.ended = True
        self.call.send(number)
        ended = self.call.wait()
        self.client.close()
        return ended.code, ended.err.splitlines()


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    started: list[Server] = []
    yield started
    for one in started:
        if not one.ended:
            one.end(signal.SIGKILL)


def lora_trial(run: Comparison) -> Path:
    return next(path.parent for path in run.folder.path.rglob(RECORD_FILE) if "lora" in str(path))


def test_killed_under_load_every_client_knows_and_no_file_changes(finished_run, servers):
    trial = lora_trial(finished_run)
    before = {path: path.read_bytes() for path in trial.rglob("*") if path.is_file()}
    known = RunRecord.read(trial).predictions
    first = Server(f"mine={trial}", "--max-queue", "300")
    servers.append(first)
    answered, lost, wrong = threading.Semaphore(0), [], []

    def ask_until_it_is_gone(number: int) -> None:
        one = known[number]
        while True:
            try:
                answer = first.ask([[one.text, one.text_pair]])
            except httpx.HTTPError as error:
                lost.append(error)
                return
            said = {score["label"]: score["probability"] for score in answer.json()["results"][0]["scores"]}
            if answer.status_code != 200 or said != pytest.approx(one.probabilities, abs=1e-4):
                wrong.append(said)
            answered.release()

    asking = [threading.Thread(target=ask_until_it_is_gone, args=(number,)) for number in range(4)]
    for thread in asking:
        thread.start()
    for _ in range(20):
        answered.acquire()
    assert first.end(signal.SIGKILL)[0] == -signal.SIGKILL
    for thread in asking:
        thread.join()
    assert len(lost) == 4  # every client knows
    assert wrong == []
    assert {path: path.read_bytes() for path in trial.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_asked_to_end_it_answers_what_it_accepted(finished_run, servers, number):
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip(f"{number.name} is ignored here, as under nohup, and so it is by the server")
    # inputs wait an hour for company, so that the requests below are there when the signal comes
    server = Server(f"mine={lora_trial(finished_run)}", "--wait-ms", "3600000", "--max-queue", "300")
    servers.append(server)
    found: list[httpx.Response] = []
    askers = [threading.Thread(target=lambda: found.append(server.ask([["w11 w12", "w0"]]))) for _ in range(3)]
    for one in askers:
        one.start()
    while server.figure("entailor_queue_inputs") < 3:
        time.sleep(0.02)  # leaves the core to the server
    code, log = server.end(number)
    assert code == 0
    for one in askers:
        one.join()
    assert [answer.status_code for answer in found] == [200] * 3
    assert all(len(answer.json()["results"][0]["scores"]) == 3 for answer in found)
    assert json.loads(log[-1])["event"] == "stopped"
    assert not any("w11" in line for line in log)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "neither a trial"),
        (["a/same", "b/same"], "two classifiers would be called 'same'"),
        (["x", "--max-inputs", "0"], "--max-inputs"),
        (["x", "--models-folder", "y"], "there is no token"),
    ],
)
def test_what_cannot_be_served_is_one_line_and_exit_2(arguments, words, capsys, monkeypatch):
    from entailor.cli.app import main

    monkeypatch.delenv("ENTAILOR_SERVE_TOKEN", raising=False)
    monkeypatch.setattr(sys, "argv", ["entailor", "serve", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err
