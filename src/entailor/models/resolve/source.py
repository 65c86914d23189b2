"""Turns the name of a model into a folder on this machine that transformers can load: Hub, folder, GGUF or package.

Nothing is loaded here, and nothing is ever read by pickle.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from entailor.errors import ModelError, near_miss
from entailor.models.resolve.cache import SOURCE_FILE, file_sha256, read_source, weights_sha256
from entailor.models.resolve.folder import PICKLE_PATTERNS, PICKLE_REMEDY, answer_files, check_folder, matches
from entailor.models.resolve.gguf import convert_gguf
from entailor.models.resolve.hub import cached_models, commit_of, fetch_from_hub
from entailor.models.resolve.package import (
    KNOWN_PACKAGES,
    PREFIX,
    KnownPackage,
    fetch_package,
    package_folder,
    parse_spec,
)
from entailor.runs.cache_place import cache_folder
from entailor.runs.paths import user_path

Kind = Literal["hub", "folder", "gguf", "package"]


@dataclass(frozen=True)
class ModelFolder:
    """A checkpoint on this machine.

    Attributes:
        name: as the user wrote it.
        path: a folder with config.json, safetensors weights (whole or in parts with an index) and tokenizer files.
        kind: where it comes from.
        weights_sha256: of the one weight file, so that `sha256sum` gives the same; of the list of names and hashes
            where there are several; of the GGUF file where the weights were converted from one. 64 hex digits.
        revision: branch, tag or commit asked for, of a Hub model.
        commit: the commit that was got, of a Hub model.
        files_sha256: of each other file that decides what the model answers: configuration, tokenizer, code that is
            run.
    """

    name: str
    path: Path
    kind: Kind
    weights_sha256: str
    revision: str | None = None
    commit: str | None = None
    files_sha256: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class KnownModel:
    """A model that is known by name, or stands in a cache.

    Attributes:
        name: what `resolve_model` takes.
        kind: where it comes from.
        description: what it is, in words.
        parameters: number of weights, or None where that was not read.
        licence: of the weights, or None where it is not known.
        cached: whether it can be used without a network.
        path: where it stands, if cached.
        size_bytes: on disk, if cached.
    """

    name: str
    kind: Kind
    description: str
    parameters: int | None = None
    licence: str | None = None
    cached: bool = True
    path: Path | None = None
    size_bytes: int | None = None


def resolve_model(
    name: str,
    *,
    revision: str | None = None,
    cache: Path | None = None,
    remote_code: bool = False,
    hash_again: bool = False,
) -> ModelFolder:
    """Return a local, checked folder for a model, fetching or converting it the first time.

    A path that exists is always taken before a Hub id of the same name.

    Args:
        name: a Hub id, a folder, a GGUF file, or ``pypi:NAME==VERSION[#sha256=HEX]``.
        revision: branch, tag or commit; for Hub models only.
        cache: where packages and converted files are kept; None: `cache_folder()`. The Hub has its own cache.
        remote_code: also fetch the Python files of a Hub model. They are not run here.
        hash_again: believe no remembered hash of the weights.

    Raises:
        ModelError: the model cannot be found, fetched, read or trusted.
    """
    cache = cache_folder() if cache is None else cache
    hashes = None if hash_again else cache
    text = name.strip()
    if not text:
        raise ModelError("an empty model name. Give a Hub id, a folder, a GGUF file or pypi:NAME==VERSION")
    path = user_path(text)
    packaged, here = text.startswith(PREFIX), os.path.exists(path)  # noqa: PTH110 - Path.exists can raise
    if not packaged and not here:
        if _written_as_path(text):
            raise _missing_path(path)
        snapshot = fetch_from_hub(text, revision, remote_code=remote_code)
        files = check_folder(snapshot, damage_remedy=f"Delete {snapshot.parent.parent} and run again")
        digest, others = weights_sha256(files, hashes), _files_sha256(snapshot, code=remote_code)
        return ModelFolder(name, snapshot, "hub", digest, revision, commit_of(snapshot), others)
    if revision is not None:
        raise ModelError(f"{name}: has no revisions, only Hub models do. Leave out revision={revision!r}")
    if packaged:
        folder = fetch_package(parse_spec(text), cache)
        return _converted(name, folder, "package", hashes)
    if path.suffix.lower() == ".gguf" and path.is_file():
        folder = convert_gguf(path, cache, hashes)
        return _converted(name, folder, "gguf", hashes)
    digest = weights_sha256(_check_local(path), hashes)
    return ModelFolder(name, path, "folder", digest, files_sha256=_files_sha256(path, code=remote_code))


def list_models(cache: Path | None = None) -> list[KnownModel]:
    """Return the known packages, then what else stands in Entailor's cache and in the Hub's.

    Args:
        cache: as in `resolve_model`.
    """
    cache = cache_folder() if cache is None else cache
    known = {package_folder(one.name, one.version, one.sha256, cache): one for one in KNOWN_PACKAGES}
    models = [_listed_package(package, folder) for folder, package in known.items()]
    for place in ("packages", "gguf"):
        folders = sorted(source.parent for source in cache.glob(f"{place}/[!.]*/{SOURCE_FILE}"))
        models.extend(_listed_folder(folder) for folder in folders if folder not in known)
    for repo in cached_models():
        models.append(
            KnownModel(repo.repo_id, "hub", "in the Hub's cache", path=repo.repo_path, size_bytes=repo.size_on_disk)
        )
    return models


def _listed_package(package: KnownPackage, folder: Path) -> KnownModel:
    here = folder.is_dir()
    return KnownModel(
        name=package.spec,
        kind="package",
        description=package.description,
        parameters=package.parameters,
        licence=package.licence,
        cached=here,
        path=folder if here else None,
        size_bytes=_folder_bytes(folder) if here else None,
    )


def _listed_folder(folder: Path) -> KnownModel:
    """Describe a folder of the cache; the file a GGUF was read from may be gone, so the folder itself is its name."""
    kind: Kind = "gguf" if folder.parent.name == "gguf" else "package"
    try:
        source = str(read_source(folder)["name"])
    except ModelError:
        name, text = str(folder), "damaged; delete this folder"
    else:
        name, text = (str(folder), f"converted from {source}") if kind == "gguf" else (source, "from a package")
    return KnownModel(name, kind, text, path=folder, size_bytes=_folder_bytes(folder))


def _converted(name: str, folder: Path, kind: Kind, hashes: Path | None) -> ModelFolder:
    """Hold a folder of the cache against what was written there; a GGUF file's hash stands for what was made of it."""
    again = f"Delete {folder} and run again"
    digest, source = weights_sha256(check_folder(folder, damage_remedy=again), hashes), read_source(folder)
    written = source.get("weights_sha256") or digest
    if digest != written:
        raise ModelError(
            f"{folder}: its weights have the SHA-256 {digest[:12]}..., {written[:12]}... was written. {again}"
        )
    return ModelFolder(name, folder, kind, source.get("gguf_sha256") or digest, files_sha256=_files_sha256(folder))


def _check_local(path: Path) -> tuple[Path, ...]:
    """Check a folder the user named, and turn down a file with the next step."""
    if path.is_dir():
        try:
            return check_folder(path)
        except ModelError as error:
            if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(path)) and not path.is_absolute():
                raise ModelError(f"{error}. (A folder of this name stands here, so the Hub was not asked)") from None
            raise
    if matches(path.name, PICKLE_PATTERNS):
        raise ModelError(f"{path}: weights stored by pickle. {PICKLE_REMEDY}")
    raise ModelError(f"{path}: a file, but a folder or a .gguf file was expected. Give its folder: {path.parent}")


def _missing_path(path: Path) -> ModelError:
    parent = path.parent
    beside = sorted(entry.name for entry in parent.iterdir()) if parent.is_dir() else []
    hint = near_miss(path.name, beside) if parent.is_dir() else f" There is no folder {parent} either."
    return ModelError(f"{path}: no such file or folder.{hint} Check the path, or give a Hub id without './'")


def _written_as_path(text: str) -> bool:
    """Return whether a name can only be meant as a path: such a name is never sent to the Hub."""
    return text.startswith((".", "/", "~")) or "\\" in text or text.lower().endswith(".gguf")


def _files_sha256(folder: Path, *, code: bool = False) -> dict[str, str]:
    return {file.relative_to(folder).as_posix(): file_sha256(file) for file in answer_files(folder, code=code)}


def _folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
