"""Servers on loopback that speak OpenAI's protocol: one that makes answers up, one with a model, and their faults."""

import json
import math
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

Body = dict[str, Any]
Fault = Callable[[BaseHTTPRequestHandler], bool]
"""Answers a request in a wrong way; False where it lets it pass."""
WORDS = ("True", "Neither", "False", "entailment", "neutral", "contradiction", "yes", "no", *"abcdef")


@dataclass
class ApiServer:
    """A running server, and what it was asked.

    Attributes:
        base_url: its address.
        answer: path and body to the JSON of an answer.
        faults: one is taken off the front for each request; none are left: all is well.
    """

    base_url: str
    answer: Callable[[str, Body], Any]
    faults: list[Fault] = field(default_factory=list)
    asked: list[Body] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def running(answer: Callable[[str, Body], Any]) -> Iterator[ApiServer]:
    at_once = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            nonlocal at_once
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                at_once += 1
                state.most_at_once = max(state.most_at_once, at_once)
                state.asked.append(body)
                state.keys.append(self.headers.get("Authorization"))
                fault = state.faults.pop(0) if state.faults else None
            try:
                if fault is None or not fault(self):
                    send(self, 200, state.answer(self.path, body))
            finally:
                with state.lock:
                    at_once -= 1

        def log_message(self, *parts: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state = ApiServer(f"http://127.0.0.1:{server.server_address[1]}/v1", answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send(handler: BaseHTTPRequestHandler, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(content)))
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)


def status(number: int, headers: dict[str, str] | None = None, **error: str) -> Fault:
    def fault(handler: BaseHTTPRequestHandler) -> bool:
        send(handler, number, {"error": {"message": f"made up: {number}", **error}}, headers)
        return True

    return fault


def wrong_json(handler: BaseHTTPRequestHandler) -> bool:
    send(handler, 200, b'{"choices": [')
    return True


def other_json(handler: BaseHTTPRequestHandler) -> bool:
    send(handler, 200, {"hello": "world"})
    return True


def cut_connection(handler: BaseHTTPRequestHandler) -> bool:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices"')
    handler.close_connection = True
    return True


def dripping(handler: BaseHTTPRequestHandler) -> bool:
    """Send a byte now and then until nobody listens: no single wait is long, all together are."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b" ")
            handler.wfile.flush()
            threading.Event().wait(0.02)
    except OSError:
        handler.close_connection = True
    return True


def chat_answer(text: str, tops: dict[str, float] | None = None, **message: Any) -> Any:
    """Return the JSON of a chat's answer of one token."""
    told = [{"token": token, "logprob": logprob} for token, logprob in (tops or {}).items()]
    logprobs = {"content": [{"token": text, "logprob": tops[text], "top_logprobs": told}]} if tops else None
    choice = {"message": {"content": text, **message}, "logprobs": logprobs, "finish_reason": "stop"}
    return {"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 2}}


def made_up(path: str, body: Body) -> Any:
    """Return an answer that depends on the whole prompt, with log-probabilities of the words of the tests."""
    rng = random.Random(json.dumps(body.get("messages") or body.get("prompt")))
    weights = {word: rng.random() for word in WORDS}
    tops = {word: math.log(0.9 * weight / sum(weights.values())) for word, weight in weights.items()}
    return chat_answer(max(tops, key=lambda word: tops[word]), tops)


class ModelAnswers:
    """A decoder behind /completions, as vLLM answers: `echo`, `logprobs` of prompt and answer, greedy."""

    def __init__(self, backbone: Any) -> None:
        self.model, self.tokenizer = backbone.model.eval(), backbone.text_encoder.tokenizer

    def __call__(self, path: str, body: Body) -> Any:
        ids = self.tokenizer(body["prompt"])["input_ids"]
        prompt_length = len(ids)
        for _ in range(min(body["max_tokens"], 2)):
            with torch.inference_mode():
                logprobs_TV = torch.log_softmax(self.model(torch.tensor([ids])).logits[0], -1)
            ids = [*ids, int(logprobs_TV[-1].argmax())]
        told = [self._told(ids, place, logprobs_TV, body["logprobs"]) for place in range(len(ids))]
        shown = told if body.get("echo") else told[prompt_length:]
        tokens, figures, tops = (list(column) for column in zip(*shown, strict=True))
        return {
            "choices": [
                {
                    "text": "".join(tokens),
                    "finish_reason": "length",
                    "logprobs": {
                        "tokens": tokens,
                        "token_logprobs": figures,
                        "top_logprobs": tops,
                        "text_offset": [0] * len(tokens),
                    },
                }
            ],
            "usage": {"prompt_tokens": prompt_length, "completion_tokens": len(ids) - prompt_length},
        }

    def _told(self, ids: list[int], place: int, logprobs_TV: torch.Tensor, count: int) -> tuple[str, Any, Any]:
        text = self.tokenizer.decode([ids[place]])
        if place == 0:
            return text, None, None
        at_V = logprobs_TV[place - 1]
        top = at_V.topk(min(count, len(at_V)))
        tops = {self.tokenizer.decode([int(i)]): float(v) for v, i in zip(top.values, top.indices, strict=True)}
        return text, float(at_V[ids[place]]), tops
