"""Builds the site: gathers the pages, writes one of the Python names, and runs MkDocs with warnings as errors.

``make site`` sets up what it needs and runs it. The pages are read from docs/ and the root as they are, so that they
read as well on a code host; links that leave docs/ are turned here. Entailor itself is read, not imported.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS, STAGE = ROOT / "docs", ROOT / "build" / "docs"
# Pages from outside of docs/, and where they stand in the site.
OTHERS = {
    name: Path("project") / name.lower()
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "CODE_OF_CONDUCT.md")
} | {"examples/README.md": Path("examples/index.md"), "benchmarks/README.md": Path("benchmarks/index.md")}
_LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def pages() -> dict[Path, Path]:
    """Return source to place in the site, for every page, schema, script and example."""
    found = {page: page.relative_to(DOCS) for page in DOCS.rglob("*.md")}
    found |= {schema: schema.relative_to(DOCS) for schema in DOCS.rglob("*.schema.json")}
    found |= {script: script.relative_to(DOCS) for script in DOCS.glob("*.js")}
    found |= {example: Path("examples") / example.name for example in (ROOT / "examples").glob("*.[yp]*")}
    return found | {ROOT / name: place for name, place in OTHERS.items()}


def gather(places: dict[Path, Path]) -> None:
    """Copy pages and examples into the stage, with links between them.

    Raises:
        SystemExit: a link leads to a file that is no part of the site.
    """
    shutil.rmtree(STAGE, ignore_errors=True)
    for source, place in places.items():
        target = STAGE / place
        target.parent.mkdir(parents=True, exist_ok=True)
        text = source.read_text(encoding="utf-8")
        target.write_text(with_links(text, source, places) if source.suffix == ".md" else text, encoding="utf-8")
    names = public_names()
    titles = "\n\n".join(f"::: {home}.{name}" for name, home in sorted(names.items()))
    (STAGE / "reference" / "api.md").write_text(f"# Python names\n\n{titles}\n", encoding="utf-8")


def with_links(text: str, source: Path, places: dict[Path, Path]) -> str:
    """Return a page with the links as they are in the site."""

    def turned(link: re.Match[str]) -> str:
        aim = (source.parent / link[1]).resolve()
        if aim not in places:
            raise SystemExit(
                f"{source.relative_to(ROOT)}: {link[1]} is no part of the site. Add it to docs/build_site.py"
            )
        path = Path(os.path.relpath(places[aim], places[source].parent)).as_posix()
        return f"]({path}{link[2] or ''})"

    return _LINK.sub(turned, text)


def public_names() -> dict[str, str]:
    """Return each public name with the module it is defined in, read from the package's source."""
    package = ast.parse((ROOT / "src" / "entailor" / "__init__.py").read_text(encoding="utf-8"))
    homes = next(
        node.value
        for node in package.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "_HOMES"
    )
    return dict(ast.literal_eval(homes))


def main() -> int:
    """Build the site in build/site; return the exit code of MkDocs."""
    gather(pages())
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--config-file",
        str(ROOT / "mkdocs.yml"),
    ]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # a notice of the theme's makers, no finding
    return subprocess.run(command, env=quiet, check=False).returncode  # noqa: S603 - our own interpreter


if __name__ == "__main__":
    raise SystemExit(main())
