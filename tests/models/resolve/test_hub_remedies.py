"""What an error about the Hub proposes is done, against a server that speaks as it does, and then it works."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from entailor.errors import ModelError
from entailor.models.resolve.source import resolve_model

COMMIT = "0123456789" * 4
NAME = "org/name"
TOKEN = "hf_of_the_test"


class Hub(ThreadingHTTPServer):
    """Has one model.

    Attributes:
        refusal: status and X-Error-Code of what a request without the token gets, or None.
        revisions: the names it knows for the one commit.
        asked: paths of all requests.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = files
        self.refusal: tuple[int, str] | None = None
        self.revisions = {"main", "v1", COMMIT}
        self.asked: list[str] = []


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.server.asked.append(path)
        _, _, rest = path.partition(f"{NAME}/")
        kind, _, inner = rest.partition("/")
        revision, _, file = inner.partition("/")
        if path == "/":
            self.say(200, b"")
        elif not rest:
            self.say(404, b"", "RepoNotFound")
        elif self.server.refusal and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.say(self.server.refusal[0], b"", self.server.refusal[1])
        elif revision not in self.server.revisions:
            self.say(404, b"", "RevisionNotFound")
        elif kind == "revision":
            self.say(200, json.dumps({"id": NAME, "sha": COMMIT, "siblings": []}).encode())
        elif kind == "tree":
            files = [{"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                     for name, content in self.server.files.items()]  # fmt: skip
            self.say(200, json.dumps(files).encode())
        else:
            self.say(200, self.server.files[file])

    do_HEAD = do_GET

    def say(self, status: int, content: bytes, code: str = "") -> None:
        self.send_response(status)
        told = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT, "X-Error-Code": code}
        for name, value in {**told, "Content-Length": str(len(content))}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture
def hub(cache, write_tiny_checkpoint, monkeypatch, tmp_path) -> Iterator[Hub]:
    folder = write_tiny_checkpoint(tmp_path / "there")
    server = Hub({path.name: path.read_bytes() for path in folder.iterdir()})
    address = f"http://127.0.0.1:{server.server_port}"
    constants = {
        "ENDPOINT": address,
        "HUGGINGFACE_CO_URL_TEMPLATE": f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        "HF_HUB_OFFLINE": False,
        "HF_TOKEN_PATH": str(tmp_path / "token"),
    }
    for name, value in constants.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("refusal", "remedy"),
    [
        ((403, "GatedRepo"), "gated on the Hub. Accept its licence on the model's page, then log in with"),
        (
            (401, "RepoNotFound"),
            "no such model on the Hub, or a private one. Check the spelling; for a private model log",
        ),
    ],
)
@pytest.mark.parametrize("way", ["HF_TOKEN", "hf auth login"])
def test_a_model_that_asks_for_a_login(hub, monkeypatch, tmp_path, refusal, remedy, way):
    hub.refusal = refusal
    with pytest.raises(ModelError, match=re.escape(remedy)):
        resolve_model(NAME)
    if way == "HF_TOKEN":
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    else:  # it writes this file
        (tmp_path / "token").write_text(TOKEN)
    assert resolve_model(NAME).path.name == COMMIT


def test_another_revision_and_a_hub_that_is_busy(hub):
    with pytest.raises(ModelError, match=r"no revision 'v2' on the Hub\. Name a branch, tag or commit"):
        resolve_model(NAME, revision="v2")
    assert resolve_model(NAME, revision="v1").path.name == COMMIT


def test_a_hub_that_is_down(hub, tmp_path, monkeypatch):
    hub.refusal = (503, "")
    with pytest.raises(ModelError, match=r"the Hub .*503") as caught:
        resolve_model(NAME)
    assert "give a local folder" in str(caught.value)
    assert resolve_model(str(tmp_path / "there")).path == tmp_path / "there"
    hub.refusal = None  # "try again later"
    assert resolve_model(NAME).path.name == COMMIT
    hub.refusal = (503, "")  # what is in the cache is used, and with HF_HUB_OFFLINE=1 nobody is asked
    assert resolve_model(NAME).path.name == COMMIT
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    asked = len(hub.asked)
    assert resolve_model(NAME).path.name == COMMIT
    assert len(hub.asked) == asked
    with pytest.raises(ModelError, match=r"Did you mean 'org/name'\? In the Hub's cache: org/name \(HF_HUB_OFFLINE=1"):
        resolve_model("org/nane")


def test_a_download_that_was_broken_off(hub, tmp_path):
    """Files that are missing from the cache are no model; with the Hub there again they are fetched."""
    place = resolve_model(NAME).path
    (place / "model.safetensors").unlink()
    hub.refusal = (503, "")
    with pytest.raises(ModelError, match="the Hub cannot be reached"):
        resolve_model(NAME)
    hub.refusal = None
    assert resolve_model(NAME).path == place
    assert (place / "model.safetensors").is_file()


def test_a_cache_that_cannot_be_written(hub, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with pytest.raises(ModelError, match=r"cannot be written .*Set HF_HOME to a folder you may write to"):
        resolve_model(NAME)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))  # as HF_HOME does
    assert resolve_model(NAME).path.is_relative_to(tmp_path / "home")
