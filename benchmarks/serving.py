"""Requests a second of `entailor serve` beside a plain FastAPI server with a pipeline, in one run; then overload.

python benchmarks/serving.py --trial runs/mine/trials/MODEL/lora/seed-0 [--out serving.json]

Every request carries a recorded test example of its own and expects its recorded probabilities. The rounds of both
servers alternate. Clients run on the same machine, so the ratio says more than the figures. Loopback only, bounded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))


def plain_server(folder: str, port: int) -> None:
    """Serve a checkpoint as guides show it: FastAPI, a pipeline, one request at a time in a thread."""
    import uvicorn
    from fastapi import FastAPI
    from transformers import pipeline

    ask: Any = pipeline("text-classification", model=folder, device="cpu", top_k=None)
    app = FastAPI()

    @app.post("/classify")
    def classify(body: dict[str, Any]) -> Any:
        return ask({"text": body["text"], "text_pair": body["text_pair"]}, truncation=True)

    @app.get("/healthz")
    def healthz() -> str:
        return "ok"

    uvicorn.run(app, port=port, log_level="error")


class Plain:
    """How the plain server is asked."""

    def __init__(self, folder: Path, port: int) -> None:
        self.command = [sys.executable, __file__, "--plain-server", str(folder), str(port)]
        self.path = "/classify"

    def body(self, text: str, pair: str | None) -> dict[str, Any]:
        """Return a request."""
        return {"text": text, "text_pair": pair}

    def probabilities(self, answer: Any) -> dict[str, float]:
        """Return the probabilities of an answer by label."""
        scores = answer[0] if isinstance(answer[0], list) else answer
        return {one["label"]: one["score"] for one in scores}


class Entailor:
    """How `entailor serve` is asked."""

    def __init__(self, trial: Path, port: int, *arguments: str) -> None:
        self.command = [sys.executable, "-m", "entailor", "serve", f"mine={trial}", "--port", str(port), *arguments]
        self.path = "/v1/classify"

    def body(self, text: str, pair: str | None) -> dict[str, Any]:
        """Return a request."""
        return {"model": "mine", "inputs": [text if pair is None else [text, pair]]}

    def probabilities(self, answer: Any) -> dict[str, float]:
        """Return the probabilities of an answer by label."""
        return {one["label"]: one["probability"] for one in answer["results"][0]["scores"]}


class Running:
    """A server in a process of its own."""

    def __init__(self, kind: Any, port: int) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        self.kind, self.url = kind, f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(kind.command, env=environment, stderr=subprocess.DEVNULL)
        for _ in range(1200):
            try:
                if httpx.get(f"{self.url}/healthz", trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.25)
        raise RuntimeError(f"{kind.command[:4]}: gave no answer")

    @property
    def memory(self) -> int:
        """Bytes of memory of its own."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    async def load(self, examples: Sequence[Any], clients: int, requests: int) -> dict[str, Any]:
        """Send requests from so many clients at once, and say what became of them."""
        numbers = iter(range(requests))
        milliseconds: list[float] = []
        outcomes: Counter[str] = Counter()
        limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
        async with httpx.AsyncClient(base_url=self.url, limits=limits, timeout=300, trust_env=False) as http:

            async def client() -> None:
                for number in numbers:
                    one = examples[number % len(examples)]
                    began = time.perf_counter()
                    try:
                        found = await http.post(self.kind.path, json=self.kind.body(one.text, one.text_pair))
                    except httpx.TransportError:
                        outcomes["lost"] += 1
                        continue
                    if found.status_code == 200:
                        milliseconds.append((time.perf_counter() - began) * 1e3)
                        said = self.kind.probabilities(found.json())
                        close = all(abs(said[label] - value) < 1e-3 for label, value in one.probabilities.items())
                        outcomes["right" if close else "mixed up"] += 1
                    else:
                        later = " with Retry-After" if "retry-after" in found.headers else ""
                        outcomes[f"{found.status_code}{later}"] += 1

            began = time.perf_counter()
            await asyncio.gather(*(client() for _ in range(clients)))
            seconds = time.perf_counter() - began
        percentiles = statistics.quantiles(milliseconds, n=100) if len(milliseconds) > 1 else [0.0] * 99
        return {
            "answered_per_second": outcomes["right"] / seconds,
            "p50_ms": percentiles[49],
            "p99_ms": percentiles[98],
            "outcomes": dict(outcomes),
            "memory_bytes": self.memory,
        }


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        return int(made.getsockname()[1])


async def measured(servers: dict[str, Running], examples: Sequence[Any], asked: argparse.Namespace) -> dict[str, Any]:
    """Return what each round gave, by server, and what overload did."""
    found: dict[str, Any] = {name: [] for name in servers}
    for server in servers.values():
        await server.load(examples, 4, 40)  # warms up
    for _ in range(asked.rounds):
        for name, server in servers.items():
            found[name].append(await server.load(examples, asked.clients, asked.requests))
    before = servers["entailor"].memory
    found["overload"] = await servers["entailor"].load(examples, 20 * asked.clients, 10 * asked.requests)
    found["overload"]["memory_growth"] = servers["entailor"].memory / before
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trial", type=Path)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=400, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("serving.json"))
    parser.add_argument("--plain-server", nargs=2, metavar=("FOLDER", "PORT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.plain_server:
        plain_server(asked.plain_server[0], int(asked.plain_server[1]))
        return
    from entailor.shipping.export import Source, write_format

    with tempfile.TemporaryDirectory() as scratch:
        source = Source(asked.trial)
        examples = source.record.predictions
        write_format(source, "transformers", Path(scratch))
        ports = free_port(), free_port()
        servers = {
            "plain": Running(Plain(Path(scratch), ports[0]), ports[0]),
            "entailor": Running(Entailor(asked.trial, ports[1], "--max-queue", "64", "--max-inputs", "64"), ports[1]),
        }
        try:
            found = asyncio.run(measured(servers, examples, asked))
            speed = {name: statistics.median(one["answered_per_second"] for one in found[name]) for name in servers}
            found |= {"answered_per_second": speed, "ratio": speed["entailor"] / speed["plain"]}
            asked.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
            print(json.dumps(found, indent=1))
        finally:
            for server in servers.values():
                server.process.terminate()
            for server in servers.values():
                server.process.wait()


if __name__ == "__main__":
    main()
