"""Prints the lowest versions that pyproject.toml declares, as constraints for pip.

python scripts/lowest.py > lowest.txt && pip install -c lowest.txt ".[dev]"
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def lowest_versions(project: dict[str, object]) -> list[str]:
    """Return one line a package, ``name==version``, for core and extras; what has no lower bound is left out."""
    extras = project.get("optional-dependencies", {})
    assert isinstance(extras, dict)
    declared = [*project["dependencies"], *(line for lines in extras.values() for line in lines)]  # type: ignore[misc]
    bounds = {
        requirement.name: specifier.version
        for requirement in map(Requirement, declared)
        for specifier in requirement.specifier
        if specifier.operator == ">="
    }
    return [f"{name}=={version}" for name, version in sorted(bounds.items())]


if __name__ == "__main__":
    sys.stdout.write("\n".join(lowest_versions(tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"])) + "\n")
