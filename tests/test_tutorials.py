"""The tutorials tell what happens: every command is run, and prints what the page says, but for the figures."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / "docs" / "tutorial.py"


def load():
    spec = importlib.util.spec_from_file_location("tutorial", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tutorial = load()


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
