import errno
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors
from huggingface_hub.errors import HTTPError

from entailor.errors import ModelError
from entailor.models.resolve.hub import fetch_from_hub
from entailor.models.resolve.source import resolve_model

COMMIT = "0123456789" * 4


@pytest.fixture
def answer(cache, monkeypatch, tmp_path):
    """Have the Hub's client raise an error, or give a snapshot folder with these files; return what it was asked."""
    monkeypatch.chdir(tmp_path)
    asked = []

    def set_answer(outcome: Exception | tuple[str, ...]):
        def snapshot_download(name, **kwargs):
            asked.append((name, kwargs))
            if isinstance(outcome, Exception):
                raise outcome
            folder = tmp_path / "hub" / "models--org--name" / "snapshots" / COMMIT
            folder.mkdir(parents=True)
            for file in outcome:
                (folder / file).touch()
            return str(folder)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        return asked

    return set_answer


def http_error(kind: type[errors.HfHubHTTPError], status: int) -> errors.HfHubHTTPError:
    return kind(f"{status} Client Error.\nmore", response=SimpleNamespace(status_code=status, headers={}, request=None))


def cache_a_model(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "hub" / f"models--{name.replace('/', '--')}" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder / "config.json").touch()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (http_error(errors.GatedRepoError, 403), "org/name: gated on the Hub. Accept its licence.*hf auth login"),
        (http_error(errors.RepositoryNotFoundError, 404), "org/name: no such folder here and no such model on the Hub"),
        (http_error(errors.RevisionNotFoundError, 404), "org/name: no revision 'v2' on the Hub"),
        (http_error(errors.HfHubHTTPError, 503), "the Hub answered with status 503 .503 Client Error"),
        (errors.HFValidationError("Repo id must use"), "neither a folder on this machine nor a Hub id"),
        (errors.LocalEntryNotFoundError("outgoing traffic has been disabled"), "the Hub cannot be reached .outgoing"),
        (errors.OfflineModeIsEnabled("offline"), "the Hub cannot be reached .offline"),
        (HTTPError("proxy refused"), "the Hub cannot be reached .proxy refused"),
        (OSError(errno.ENOSPC, "No space left on device"), "hub: the disk is full. Free some space, or set HF_HOME to"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_every_failure_is_told_in_words(answer, error, words):
    answer(error)
    with pytest.raises(ModelError, match=words):
        resolve_model("org/name", revision="v2")


def test_certificates_that_are_not_there_are_not_taken_for_the_cache(answer, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nothing")
    answer(FileNotFoundError(errno.ENOENT, "No such file"))
    with pytest.raises(
        ModelError, match=r"no file of certificates where SSL_CERT_FILE says \(No such file\)\. Correct"
    ):
        resolve_model("org/name")


def test_without_a_network_the_ways_out_are_listed(answer, tmp_path):
    for name in ("org/namf", "gpt2"):
        cache_a_model(tmp_path, name)
    answer(errors.LocalEntryNotFoundError("no connection"))
    with pytest.raises(ModelError) as caught:
        resolve_model("org/name")
    text = str(caught.value)
    assert "Did you mean 'org/namf'?" in text
    assert "In the Hub's cache: gpt2, org/namf (HF_HUB_OFFLINE=1" in text
    assert "a local folder, a GGUF file, or a package (pypi:NAME==VERSION)" in text


def test_a_misspelt_name_is_held_against_the_cache(answer, tmp_path):
    cache_a_model(tmp_path, "roberta-large")
    answer(http_error(errors.RepositoryNotFoundError, 401))
    with pytest.raises(ModelError, match="Did you mean 'roberta-large'"):
        resolve_model("roberta-lagre")


def test_only_safe_files_are_asked_for(answer):
    asked = answer(("config.json", "model.safetensors"))
    assert fetch_from_hub("org/name", "v2").name == COMMIT
    ((name, kwargs),) = asked
    assert (name, kwargs["revision"]) == ("org/name", "v2")
    offered = [
        *("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "spiece.model"),
        *("model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json"),
        *(
            "pytorch_model.bin",
            "modeling_custom.py",
            "onnx/model.safetensors",
            "consolidated.safetensors",
            "model.gguf",
        ),
    ]
    patterns = {key: kwargs[f"{key}_patterns"] for key in ("allow", "ignore")}
    kept = huggingface_hub.utils.filter_repo_objects(
        offered, allow_patterns=patterns["allow"], ignore_patterns=patterns["ignore"]
    )
    assert list(kept) == offered[:9]


def test_the_code_of_a_checkpoint_is_fetched_only_when_asked(answer):
    asked = answer(("config.json", "model.safetensors"))
    fetch_from_hub("org/name", None, remote_code=True)
    assert "*.py" in asked[0][1]["allow_patterns"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["config.json", "pytorch_model.bin"], "found only pytorch_model.bin.*never loaded.*refs/pr/1"),
        (["model.Q4_0.gguf"], "holds GGUF files"),
        (["README.md"], "found nothing of the kind"),
    ],
)
def test_a_repository_without_safetensors_is_refused(answer, monkeypatch, files, words):
    answer(("config.json",))
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda name, revision: files)
    with pytest.raises(ModelError, match=words):
        resolve_model("org/name")
