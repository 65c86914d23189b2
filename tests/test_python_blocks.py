"""Python in the documentation: every call fits what is called, and what words alone can run is run.

The rest needs a checkpoint of the Hub, an export, a cluster or data of several kinds on one page, and is not run here;
tests of those parts do the same on tiny models.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

import entailor
from entailor.config.experiment import Experiment

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^ *```python\n(.*?)^ *```", re.M | re.S)
PAGES = [
    page
    for page in sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
    if BLOCK.search(page.read_text("utf-8"))
]
RUN = {"README.md": "runs/mine", "docs/guides/install.md": "runs/first", "docs/guides/calibration.md": "runs/mine"}
"""Pages whose blocks need nothing but a finished run, and the folder they look for it in."""


def blocks(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text("utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_is_called_is_there_and_takes_what_it_is_given(page):
    known: dict[str, object] = {}  # a later block of a page goes on with the names of the earlier ones
    for block in blocks(page):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] == "entailor":
                module = importlib.import_module(str(node.module))
                known |= {one.asname or one.name: getattr(module, one.name) for one in node.names}
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and callable(known.get(node.func.id)):
                check_call(known[node.func.id], node)


def check_call(called: object, node: ast.Call) -> None:
    keywords = [str(one.arg) for one in node.keywords]
    found = inspect.signature(called).bind(*node.args, **dict.fromkeys(keywords))
    for name in found.arguments.get("settings", {}):  # what `compare` hands on
        assert name in Experiment.model_fields, f"{ast.unparse(node)}: {name}"


def test_a_call_that_does_not_fit_is_noticed():
    check_call(entailor.compare, ast.parse("compare(train=x, seeds=3)", mode="eval").body)
    with pytest.raises(AssertionError, match="sedes"):
        check_call(entailor.compare, ast.parse("compare(train=x, sedes=3)", mode="eval").body)
    with pytest.raises(TypeError, match="unexpected keyword"):
        check_call(entailor.predict, ast.parse("predict('a', 'b', 'c', threshold=1)", mode="eval").body)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with a finished run of words, and the frames it was made of."""
    import pandas as pd

    rows = [(f"where is parcel {i}", "parcel") for i in range(30)] + [(f"wrong invoice {i}", "bill") for i in range(30)]
    train = pd.DataFrame({"text": [text for text, _ in rows], "label": [label for _, label in rows]})
    folder = tmp_path_factory.mktemp("desk")
    train[["text"]].to_csv(folder / "new.csv", index=False)
    quick = {"methods": "majority,bag_of_words", "estimate": False, "doctor": False}
    for out in set(RUN.values()):
        entailor.compare(train=train, test=train[::7], out=str(folder / out), **quick)
    return folder, {"train_df": train, "test_df": train[::7]}


@pytest.mark.parametrize("name", RUN)
def test_the_blocks_of_a_page_run(name, desk, monkeypatch, capsys):
    folder, names = desk
    monkeypatch.chdir(folder)
    # the page's own call with its frames, but for the model: its folder holds the run of words
    monkeypatch.setattr(entailor, "compare", lambda **given: entailor.Comparison.read(given["out"]))
    for block in blocks(ROOT / name):
        exec(compile(block, name, "exec"), dict(names))
    if name != "docs/guides/calibration.md":
        assert capsys.readouterr().out.splitlines()[-1] in ("parcel", "bill")
    else:
        assert (folder / "labelled.csv").read_text("utf-8").startswith("line,id,label")
