"""Requests a second of `entailor serve` beside plain FastAPI servers with a pipeline, in one run; then overload.

python benchmarks/serving.py --trial runs/mine/trials/MODEL/lora/seed-0 [--exports shipped/*]    (needs locust)

Every request carries a test example of its own and expects the probabilities that the classifier gave it alone, so that
a mixed-up answer shows. The rounds of the servers take turns. Clients run in a process of their own on the same
machine, so ratios say more than figures. Loopback only, bounded.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))
CLOSE = 1e-3
"""Most by which a probability may differ; those of two examples differ by more."""
OURS = "entailor"
OVERLOAD = 10
"""So many times the clients of a round come at once."""


def plain_server(folder: str, port: int, at_once: str) -> None:
    """Serve a checkpoint as guides show it: FastAPI and a pipeline, in a pool of threads or one request at a time."""
    import uvicorn
    from fastapi import FastAPI
    from transformers import pipeline

    ask: Any = pipeline("text-classification", model=folder, device="cpu", top_k=None)
    app = FastAPI()

    def classify(body: dict[str, Any]) -> Any:
        return ask({"text": body["text"], "text_pair": body["text_pair"]}, truncation=True)

    async def classify_alone(body: dict[str, Any]) -> Any:
        return classify(body)

    app.post("/classify")(classify if at_once == "threads" else classify_alone)
    app.get("/healthz")(lambda: "ok")
    uvicorn.run(app, port=port, log_level="error")


def load(url: str, kind: str, examples_file: str, clients: int, seconds: float) -> dict[str, Any]:
    """Send requests from so many clients, none of which waits, and say what became of them."""
    import gevent
    from locust import FastHttpUser, task
    from locust.env import Environment

    examples = json.loads(Path(examples_file).read_text(encoding="utf-8"))
    numbers = iter(range(10**9))
    outcomes: dict[str, int] = {}

    class Client(FastHttpUser):  # type: ignore[misc]
        host = url
        network_timeout = connection_timeout = 300.0

        @task
        def classify(self) -> None:
            one = examples[next(numbers) % len(examples)]
            text, pair = one["text"], one["text_pair"]
            if kind.startswith(OURS):
                body = {"model": "mine", "inputs": [text if pair is None else [text, pair]]}
            else:
                body = {"text": text, "text_pair": pair}
            path = "/v1/classify" if kind.startswith(OURS) else "/classify"
            with self.client.post(path, json=body, catch_response=True) as found:
                outcome = judged(kind, one["probabilities"], found)
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
                found.success() if outcome == "right" else found.failure(outcome)

    environment = Environment(user_classes=[Client], stop_timeout=300)  # what was sent is answered
    runner = environment.create_local_runner()
    began = time.perf_counter()
    runner.start(clients, spawn_rate=clients)
    gevent.sleep(seconds)
    runner.stop()
    seconds = time.perf_counter() - began
    total = environment.stats.total
    return {
        "answered_per_second": outcomes.get("right", 0) / seconds,
        "p50_ms": total.get_response_time_percentile(0.5),
        "p99_ms": total.get_response_time_percentile(0.99),
        "outcomes": outcomes,
    }


def judged(kind: str, expected: dict[str, float], found: Any) -> str:
    """Return what became of a request: right, mixed up, lost, or its status."""
    if found.status_code == 0:
        return "lost"
    if found.status_code != 200:
        return f"{found.status_code}{' with Retry-After' if 'retry-after' in found.headers else ''}"
    answer = found.json()
    if kind.startswith(OURS):
        said = {one["label"]: one["probability"] for one in answer["results"][0]["scores"]}
    else:
        said = {one["label"]: one["score"] for one in (answer[0] if isinstance(answer[0], list) else answer)}
    return "right" if all(abs(said[label] - value) < CLOSE for label, value in expected.items()) else "mixed up"


@dataclass
class Server:
    """A server in a process of its own."""

    kind: str
    command: list[str]
    port: int
    examples: Path

    def start(self) -> None:
        """Start it, and wait until it answers."""
        import httpx
        import psutil

        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        self.process = subprocess.Popen(self.command, env=environment, stderr=subprocess.DEVNULL)
        self.seen = psutil.Process(self.process.pid)
        for _ in range(1200):
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/healthz", trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.25)
        raise RuntimeError(f"{self.kind}: gave no answer")

    def load(self, clients: int, seconds: float) -> dict[str, Any]:
        """Have a process of clients send requests."""
        before = sum(self.seen.cpu_times()[:2])
        done = subprocess.run(
            [
                *(sys.executable, __file__, "--load", f"http://127.0.0.1:{self.port}", self.kind),
                *(str(self.examples), str(clients), str(seconds)),
            ],
            stdout=subprocess.PIPE,
            check=True,
        )
        found: dict[str, Any] = json.loads(done.stdout)
        spent = sum(self.seen.cpu_times()[:2]) - before
        answered = found["outcomes"].get("right", 0)
        return found | {
            "processor_ms_an_answer": 1e3 * spent / max(answered, 1),
            "memory_bytes": int(self.seen.memory_info().rss),
        }


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        return int(made.getsockname()[1])


def measured(servers: list[Server], asked: argparse.Namespace) -> dict[str, Any]:
    """Return what each round gave, by server, and what overload did to ours."""
    found: dict[str, Any] = {server.kind: [] for server in servers}
    for server in servers:
        server.load(4, 3)  # warms up
    for _ in range(asked.rounds):
        for server in servers:
            found[server.kind].append(server.load(asked.clients, asked.seconds))
            print(server.kind, found[server.kind][-1], file=sys.stderr, flush=True)
    ours = next(server for server in servers if server.kind == OURS)
    found["overload"] = [ours.load(OVERLOAD * asked.clients, asked.seconds) for _ in range(3)]
    for figure in ("answered_per_second", "p50_ms", "p99_ms", "processor_ms_an_answer"):
        found[figure] = {one.kind: statistics.median(row[figure] for row in found[one.kind]) for one in servers}
    speeds = found["answered_per_second"]
    best = max(value for kind, value in speeds.items() if not kind.startswith(OURS))
    found["ratio_to_the_better"] = {kind: value / best for kind, value in speeds.items() if kind.startswith(OURS)}
    return found


def expected(folder: Path, recorded: Sequence[Any], scratch: Path) -> Path:
    """Write the recorded test examples, each with the probabilities that this classifier gives it alone."""
    from entailor.data.example import Example
    from entailor.shipping.predictor import Predictor

    predictor = Predictor.load(folder)
    rows = []
    for one in recorded:
        row = predictor.probabilities([Example(one.id, one.text, one.text_pair)])[0]
        by_label = dict(zip(predictor.labels, map(float, row), strict=True))
        rows.append({"text": one.text, "text_pair": one.text_pair, "probabilities": by_label})
    path = scratch / f"{folder.name}.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trial", type=Path)
    parser.add_argument("--exports", type=Path, nargs="*", default=[], help="folders of `entailor export`")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("serving.json"))
    parser.add_argument("--plain", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--load", nargs=5, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.plain:
        plain_server(asked.plain[0], int(asked.plain[1]), asked.plain[2])
        return
    if asked.load:
        url, kind, examples, clients, seconds = asked.load
        print(json.dumps(load(url, kind, examples, int(clients), float(seconds))))
        return
    from entailor.shipping.export import Source, write_format

    with tempfile.TemporaryDirectory() as scratch:
        source = Source(asked.trial)
        checkpoint = Path(scratch) / "model"
        checkpoint.mkdir()
        write_format(source, "transformers", checkpoint)
        examples = expected(asked.trial, source.record.predictions, Path(scratch))
        servers = []
        for at_once in ("threads", "alone"):
            port = free_port()
            command = [sys.executable, __file__, "--plain", str(checkpoint), str(port), at_once]
            servers.append(Server(f"plain, {at_once}", command, port, examples))
        for folder in (asked.trial, *asked.exports):
            port = free_port()
            command = [sys.executable, "-m", "entailor", "serve", f"mine={folder}", "--port", str(port)]
            command += ["--max-queue", "64", "--max-inputs", "64"]
            kind = OURS if folder == asked.trial else f"{OURS}, {folder.name}"
            servers.append(Server(kind, command, port, expected(folder, source.record.predictions, Path(scratch))))
        try:
            for server in servers:
                server.start()
            found = measured(servers, asked)
            asked.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
            print(json.dumps(found, indent=1))
        finally:
            for server in servers:
                server.process.terminate()
                server.process.wait()


if __name__ == "__main__":
    main()
