"""manifest.json of an exported folder: what it is, what it was made of, and the checksum of every file in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from entailor.config.parts import all_different
from entailor.errors import RunError, VersionError
from entailor.runs.documents import well_formed
from entailor.runs.environment import installed_version
from entailor.runs.files import read_checked_json, write_checked_json
from entailor.runs.integrity import checksums, damaged_file
from entailor.runs.ownership import MANIFEST_FILE
from entailor.runs.record import MOST_LABELS

PROOF_FILE = "verification.json"
CARD_FILE = "README.md"
MANIFEST_VERSION = 1
EXPORT_AGAIN = "Export it again"
Format = Literal["transformers", "adapter", "sklearn", "onnx", "onnx-int8", "gguf", "gguf-f16"]
REFUSED_ENDINGS = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
LIBRARIES = ("entailor", "torch", "transformers", "peft", "tokenizers", "gguf", "onnx", "onnxruntime", "numpy")
# What systems, git, the Hub's client and Python leave in any folder; hidden files are read by nobody.
_LEFT_BY_OTHERS = re.compile(r"(^|/)(\.|__pycache__/|(Thumbs\.db|desktop\.ini)$)")
# written after the proof, which reads the manifest
LATE_FILES = (MANIFEST_FILE,)


class BaseModelEntry(BaseModel):
    """The base model an export was made of."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    revision: str | None
    licence: str | None
    weights_sha256: str | None


class Manifest(BaseModel):
    """The content of manifest.json."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())

    version: Literal[1]
    format: Format
    name: str
    method: str
    labels: Annotated[list[str], Field(min_length=1, max_length=MOST_LABELS), AfterValidator(all_different)]
    is_pair: bool
    temperature: Annotated[float, Field(ge=1e-3, le=1e6)] | None
    input: dict[str, Any]
    base_model: BaseModelEntry | None
    trial_sha256: str
    split_sha256: str | None
    libraries: dict[str, str]
    files: dict[str, str]


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries an export may have been written with."""
    return {name: found for name in LIBRARIES if (found := installed_version(name)) is not None}


def write_manifest(folder: Path, values: Mapping[str, Any]) -> None:
    """Write manifest.json with the checksums of all other files."""
    files = checksums(folder, leave_out=LATE_FILES)
    Manifest.model_validate({**values, "files": files})
    write_checked_json(folder / MANIFEST_FILE, {**values, "files": files})


def read_manifest(folder: str | Path) -> Manifest:
    """Return the manifest of an exported folder, every file held against it.

    A folder may come from a stranger: nothing of it is run, and no file that is not listed is read.

    Raises:
        RunError: it is damaged, was changed, holds a pickle or code of its own, or did not pass its proof.
    """
    place = Path(folder)
    if place.name.endswith(".rejected"):
        raise RunError(f"{place}: this export did not pass its proof; {PROOF_FILE} says why. {EXPORT_AGAIN}")
    file = place / MANIFEST_FILE
    values = read_checked_json(file, EXPORT_AGAIN)
    if isinstance(found := values.get("version"), int) and found != MANIFEST_VERSION:
        raise VersionError(file, found, MANIFEST_VERSION)
    with well_formed(RunError, file, EXPORT_AGAIN):
        manifest = Manifest.model_validate(values)
    for name in manifest.files:
        path = place / name
        outside = path.is_symlink() or not path.resolve().is_relative_to(place.resolve())
        if outside or Path(name).is_absolute() or ".." in Path(name).parts:
            raise RunError(f"{file}: {name[:80]!r} lies outside the folder. Do not use this export")
        if path.suffix in REFUSED_ENDINGS:
            raise RunError(f"{path}: pickle is never loaded. Do not use this export")
    present = {path.relative_to(place).as_posix() for path in place.rglob("*") if not path.is_dir()}
    present = {name for name in present if not _LEFT_BY_OTHERS.search(name)}
    if extra := sorted(present - set(manifest.files) - {MANIFEST_FILE}):
        raise RunError(f"{place / extra[0]}: not in {MANIFEST_FILE}. Delete it, or {EXPORT_AGAIN.lower()}")
    if problem := damaged_file(place, manifest.files, manifest.files):
        raise RunError(f"{problem}. {EXPORT_AGAIN}")
    return manifest
