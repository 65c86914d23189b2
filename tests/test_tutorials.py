"""The tutorials tell what happens: every command is run, and prints what the page says, but for the figures."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def load(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tutorial, notebooks = load("tutorial"), load("notebooks")


@pytest.mark.parametrize("page", tutorial.PAGES, ids=lambda page: page.stem)
def test_the_page_tells_what_happens(page, tmp_path):
    text = page.read_text("utf-8")
    found, expected = (tutorial.without_figures(one) for one in (tutorial.run_page(text, tmp_path), text))
    assert found == expected, "run python docs/tutorial.py and read what changed"


def test_a_page_that_lies_is_noticed(tmp_path):
    honest = "```console\n$ entailor --version\nentailor 9.9.9\n```\n"
    assert tutorial.without_figures(tutorial.run_page(honest, tmp_path)) == tutorial.without_figures(honest)
    lie = honest.replace("entailor 9", "exailor 9")
    assert tutorial.without_figures(tutorial.run_page(lie, tmp_path)) != tutorial.without_figures(lie)
    with pytest.raises(RuntimeError, match="exit code 2"):
        tutorial.run_page("```console\n$ entailor compare --train nothing.csv\n```\n", tmp_path)
    with pytest.raises(RuntimeError, match="Expected"):
        tutorial.run_page("```pycon\n>>> 1 + 1\n3\n```\n", tmp_path)


@pytest.mark.parametrize("name", notebooks.PAGES)
def test_a_notebook_is_its_page(name):
    page = (DOCS / "tutorials" / f"{name}.md").read_text("utf-8")
    written = (DOCS / "notebooks" / f"{name}.ipynb").read_text("utf-8")
    assert written == notebooks.text_of(page), "run python docs/notebooks.py"
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(written)["cells"]]
    code = "\n".join(text for kind, text in cells if kind == "code")
    for command in re.findall(r"^\$ (entailor .*?)(?: &)?$", page, re.M):
        assert command in code
    assert not [text for kind, text in cells if kind == "markdown" and "```console" in text]


@pytest.fixture
def with_kernel(monkeypatch):
    """`make notebooks` installs both; half a minute a notebook."""
    for name in ("nbclient", "ipykernel"):
        pytest.importorskip(name)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(DOCS.parent / "src"), os.environ.get("PYTHONPATH", "")]))


@pytest.mark.parametrize("name", notebooks.PAGES)
def test_a_notebook_runs(name, with_kernel, capsys):
    notebooks.run(DOCS / "notebooks" / f"{name}.ipynb")
    assert capsys.readouterr().out == f"{name}.ipynb ran\n"


@pytest.mark.parametrize("command", ["entailor compare --train nothing.csv", "python -c 'raise SystemExit(3)'"])
def test_a_notebook_whose_command_fails_is_noticed(command, with_kernel, tmp_path):
    from nbclient.exceptions import CellExecutionError

    file = tmp_path / "broken.ipynb"
    file.write_text(notebooks.text_of(f"# Broken\n\n```console\n$ {command}\n```\n"), "utf-8")
    with pytest.raises(CellExecutionError, match="AssertionError"):
        notebooks.run(file)
