"""Makes notebooks of the tutorials, so that both tell the same, and runs them.

``python docs/notebooks.py`` writes docs/notebooks/; with ``--run`` each is executed in an empty folder by nbclient, as
``make notebooks`` does. tests/test_tutorials.py holds that the notebooks are those of the pages. A notebook needs
nothing beside it: it installs Entailor where it is missing, and writes the scripts of examples/ that it runs.

A ``console`` block becomes one cell a command, a ``pycon`` block a cell of Python, a block behind
``<!-- save as NAME -->`` a cell that writes the file. What pages say commands print is left out: running says it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "docs" / "notebooks"
PAGES = ("ten-minutes", "rare-labels")
SECONDS_A_CELL = 600
_BLOCK = re.compile(r"^(?:<!-- save as (?P<file>\S+) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
_SHOWN = ("console", "pycon")
_SCRIPT = re.compile(r"^\$ python (examples/\w+\.py)", re.M)
HEADER = """\
# Installs Entailor where it is missing, as in Colab. All else that this notebook needs is written by it.
import importlib.util
from pathlib import Path

if importlib.util.find_spec("entailor") is None:
    %pip install --quiet "entailor[serve]"
Path("examples").mkdir(exist_ok=True)"""


def notebook(page: str) -> dict[str, Any]:
    """Return a tutorial as a notebook of version 4.5."""
    cells = [*_cells(page)]
    title, *rest = cells
    scripts = sorted(set(_SCRIPT.findall(page)))
    written = [("code", f"%%writefile {name}\n{(ROOT / name).read_text('utf-8').rstrip()}") for name in scripts]
    ordered = [title, ("code", HEADER), *written, *rest]
    return {
        "cells": [
            {
                "cell_type": kind,
                "id": f"cell-{number}",
                "metadata": {},
                "source": text.splitlines(keepends=True),
                **({"execution_count": None, "outputs": []} if kind == "code" else {}),
            }
            for number, (kind, text) in enumerate(ordered)
        ],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _cells(page: str) -> Iterator[tuple[str, str]]:
    """Yield the kind and the text of each cell."""
    end, prose = 0, ""
    for block in _BLOCK.finditer(page):
        prose += page[end : block.start()]
        end = block.end()
        if not block["file"] and block["kind"] not in _SHOWN:
            prose += block.group()  # a block that is not run stays a block
            continue
        yield "markdown", prose.strip()
        prose = ""
        if block["file"]:
            yield "code", f"%%writefile {block['file']}\n{block['text'].rstrip()}"
        elif block["kind"] == "pycon":
            lines = (line[4:] for line in block["text"].splitlines() if line.startswith((">>> ", "... ")))
            yield "code", "\n".join(lines)
        else:
            for command in re.findall(r"^\$ (.*)", block["text"], re.M):
                yield "code", _cell(command)
    yield "markdown", (prose + page[end:]).strip()


def _cell(command: str) -> str:
    if command.endswith(" &"):
        return f"%%bash --bg\n{command.removesuffix(' &')}"
    return "!" + command.replace("curl -s ", "curl -s --retry 60 --retry-connrefused --retry-delay 1 ")


def text_of(page: str) -> str:
    """Return a notebook as its file holds it."""
    return json.dumps(notebook(page), indent=1, ensure_ascii=False) + "\n"


def run(path: Path) -> None:
    """Execute a notebook in an empty folder, with the commands of the environment that this runs in.

    Raises:
        CellExecutionError: a cell of Python failed, or a command, whose exit code is looked at.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    made = nbformat.read(path, as_version=4)
    for cell in made.cells:
        if cell.cell_type == "code" and cell.source.startswith("!"):
            cell.source += "\nassert _exit_code == 0, _exit_code"
    commands = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    with tempfile.TemporaryDirectory() as place:
        client = NotebookClient(made, timeout=SECONDS_A_CELL, resources={"metadata": {"path": place}})
        try:
            # a loop of its own, so that nothing which nbclient leaves behind meets the next notebook
            asyncio.run(client.async_execute(env={**os.environ, "PATH": commands}))
        except CellExecutionError:
            sys.stderr.write(f"{path.name} failed\n")
            raise
    sys.stdout.write(f"{path.name} ran\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", action="store_true", help="Execute them.")
    asked = parser.parse_args()
    PLACE.mkdir(exist_ok=True)
    for name in PAGES:
        target = PLACE / f"{name}.ipynb"
        target.write_text(text_of((ROOT / "docs" / "tutorials" / f"{name}.md").read_text("utf-8")), "utf-8")
        sys.stdout.write(f"{target.relative_to(ROOT)} written\n")
        if asked.run:
            run(target)
