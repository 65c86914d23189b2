"""A classifier whose answer can be computed from the text alone, so that a mixed-up answer shows."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("prometheus_client", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

from starlette.testclient import TestClient

from entailor.serving.app import create_app
from entailor.serving.lanes import PredictorLane
from entailor.serving.registry import Registry, Served
from entailor.serving.settings import ServerSettings
from entailor.shipping.predictor import Predictor, Scored

LABELS = ("even", "odd", "سؤال")


class LengthScorer:
    """The label is the parity of the number of words; its probability falls from 0.9 to 0.4 where "unsure" stands."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def score(self, examples, observer=None):
        self.entered.set()
        assert self.gate.wait(60)
        self.batches.append(len(examples))
        if any("explode" in example.text for example in examples):
            raise RuntimeError("secret text")
        rows = []
        for example in examples:
            words = f"{example.text} {example.text_pair or ''}".split()
            top = 0.4 if "unsure" in words else 0.9
            row = np.full(3, (1 - top) / 2)
            row[len(words) % 2] = top
            rows.append(row)
        return Scored(np.array(rows))


@pytest.fixture(scope="session", name="make_predictor")
def _make_predictor() -> Callable[..., Predictor]:
    return make_predictor


def make_predictor(*, is_pair: bool = False, temperature: float | None = 2.0) -> Predictor:
    return Predictor(
        LengthScorer(),
        LABELS,
        is_pair=is_pair,
        name="words",
        temperature=temperature,
        place=Path("x"),
        base_model="/a/b",
    )


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    for name, predictor in (
        ("texts", make_predictor()),
        ("pairs", make_predictor(is_pair=True, temperature=None)),
    ):
        made._served[name] = Served(name, predictor, PredictorLane(predictor))
    return made


@pytest.fixture
def start(registry) -> Iterator[Callable[..., TestClient]]:
    """Start a server in this process with given settings; lines of its log are in `client.lines`."""
    with contextlib.ExitStack() as stack:

        def make(**settings) -> TestClient:
            lines: list[str] = []
            app = create_app(registry, ServerSettings(**{"wait_ms": 0, **settings}), lines.append)
            client = stack.enter_context(TestClient(app, base_url="http://localhost", raise_server_exceptions=False))
            client.lines = lines
            return client

        yield make
