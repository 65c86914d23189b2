"""The command as an operator runs it: killed, started again, and stopped while requests wait."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import httpx
import pytest

from entailor.runs.record import RECORD_FILE

TOKEN = "a-token-of-the-test"


class Server:
    """`entailor serve` in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        environment = {**os.environ, "ENTAILOR_SERVE_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "entailor", "serve", *arguments, "--port", "0"],
            env=environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.log: list[str] = []
        for line in self.process.stderr:
            self.log.append(line)
            if '"listening"' in line:
                self.url = json.loads(line)["url"]
                break
        else:
            raise AssertionError("".join(self.log))
        self.reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr))
        self.reader.start()

    def ask(self, texts: list) -> httpx.Response:
        return httpx.post(
            f"{self.url}/v1/classify", json={"model": "mine", "inputs": texts},
            headers={"Authorization": f"Bearer {TOKEN}"}, timeout=120, trust_env=False,
        )  # fmt: skip

    def figure(self, name: str) -> float:
        text = httpx.get(
            f"{self.url}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=120, trust_env=False
        ).text
        return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[1])

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        code = self.process.wait(120)
        self.reader.join()
        self.process.stderr.close()
        return code


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    started: list[Server] = []
    yield started
    for one in started:
        if one.process.poll() is None:
            one.end(signal.SIGKILL)


def test_killed_it_starts_again_and_on_sigterm_it_answers_what_it_accepted(finished_run, servers):
    trial = next(path.parent for path in finished_run.folder.path.rglob(RECORD_FILE) if "lora" in str(path))
    before = {path: path.read_bytes() for path in trial.rglob("*") if path.is_file()}
    # inputs wait an hour for company, so that the requests below are there when the signals come
    first = Server(f"mine={trial}", "--wait-ms", "3600000", "--max-queue", "300")
    servers.append(first)
    lost: list[Exception] = []

    def ask_and_lose() -> None:
        try:
            first.ask([["w11", "w0"]])
        except httpx.HTTPError as error:
            lost.append(error)

    asking = threading.Thread(target=ask_and_lose)
    asking.start()
    while first.figure("entailor_queue_inputs") < 1:
        pass
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    asking.join()
    assert len(lost) == 1  # the client knows
    assert {path: path.read_bytes() for path in trial.rglob("*") if path.is_file()} == before

    second = Server(f"mine={trial}", "--wait-ms", "3600000", "--max-queue", "300")
    servers.append(second)
    found: list[httpx.Response] = []
    askers = [threading.Thread(target=lambda: found.append(second.ask([["w11 w12", "w0"]]))) for _ in range(3)]
    for one in askers:
        one.start()
    while second.figure("entailor_queue_inputs") < 3:
        pass
    assert second.end(signal.SIGTERM) == 0
    for one in askers:
        one.join()
    assert [answer.status_code for answer in found] == [200] * 3
    assert all(len(answer.json()["results"][0]["scores"]) == 3 for answer in found)
    assert json.loads(second.log[-1])["event"] == "stopped"
    assert not any("w11" in line for line in second.log)


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
