"""The method shown in CONTRIBUTING.md works as shown: one file more, and the command line runs it."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests import forked

import entailor
from entailor.data.example import Example, Split

CONTRIBUTING = Path(__file__).parents[1] / "CONTRIBUTING.md"


def shown_method() -> str:
    """Return the code of the worked example."""
    marked = r"^<!-- tests/test_contributing\.py .*?-->\n```python\n(.*?)^```"
    (block,) = re.findall(marked, CONTRIBUTING.read_text("utf-8"), re.M | re.S)
    return block


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a folder with a copy of the package that has the one file more."""
    assert entailor.__file__ is not None
    home = Path(entailor.__file__).parent
    shutil.copytree(home, tmp_path / "src" / "entailor")
    (tmp_path / "src" / "entailor" / "methods" / "bitfit.py").write_text(shown_method(), "utf-8")
    return tmp_path / "src"


def write_rows(path: Path, rows: tuple[Example, ...]) -> str:
    lines = [{"premise": row.text, "hypothesis": row.text_pair, "label": row.label} for row in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return str(path)


def test_one_file_makes_a_method(
    package: Path, tmp_path: Path, tiny_model: Callable[[str], Path], nli_split: Split
) -> None:
    files = [f"--{name}={write_rows(tmp_path / f'{name}.jsonl', tuple(rows))}" for name, rows in nli_split.parts()]
    words = ["compare", *files, "--model", tiny_model("bert"), "--methods", "majority,bitfit", "--seeds", "1", "--json"]
    words += ["--quiet", "--out", tmp_path / "run", "bitfit.train_norms=true", "num_train_epochs=2"]
    words += ["model.precision=fp32", "doctor=false", "estimate=false"]
    done = forked.entailor(*words, source=package, HOME=str(tmp_path)).wait()
    assert done.code == 0, done.err
    comparison = json.loads(done.out)
    assert comparison["failed"] == []
    row = next(row for row in comparison["candidates"] if row["method"] == "bitfit")
    assert row["hyperparameters"]["train_norms"] is True
    assert 0 < row["trainable_parameters"] < row["total_parameters"] / 2


def test_the_legend_of_folders_is_true() -> None:
    tree = re.search(r"^src/entailor/\n(.*?)^```", CONTRIBUTING.read_text("utf-8"), re.M | re.S)
    assert tree is not None
    root = CONTRIBUTING.parent
    for line in tree[1].splitlines():
        name = line.split()[0]
        assert (root / "src" / "entailor" / name if line.startswith(" ") else root / name).exists(), line
