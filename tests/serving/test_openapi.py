"""The server does what its OpenAPI document says to whatever schemathesis makes of it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

pytest.importorskip("schemathesis", reason="schemathesis is not installed")

from tests.serving import openapi_hooks
from tests.serving.listening import listening

from entailor.serving.app import create_app
from entailor.serving.lanes import PredictorLane
from entailor.serving.registry import Registry, Served
from entailor.serving.settings import ServerSettings

TOKEN = "a-token-of-the-test"
REQUESTS = os.environ.get("ENTAILOR_OPENAPI_REQUESTS", "20")


@pytest.fixture
def url(make_predictor, tmp_path) -> Iterator[str]:
    registry = Registry()
    for name in ("texts", "pairs"):
        predictor = make_predictor(is_pair=name == "pairs")
        registry._served[name] = Served(name, predictor, PredictorLane(predictor))
    with listening(create_app(registry, ServerSettings(wait_ms=0, token=TOKEN, models_folder=tmp_path))) as address:
        yield address


def test_requests_made_of_the_document_are_answered_as_it_says(url, tmp_path):
    done = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--checks", "all",
            "--header", f"Authorization: Bearer {TOKEN}", "--max-examples", REQUESTS, "--seed", "1",
            "--continue-on-failure", "--no-color",
        ],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": openapi_hooks.__file__},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"(\d{3,}) generated, \1 passed", done.stdout), done.stdout
