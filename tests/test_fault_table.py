"""Every test that docs/guides/faults.md names exists, and every fault names one."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
LINES = [
    line
    for line in (ROOT / "docs" / "guides" / "faults.md").read_text("utf-8").splitlines()
    if line.startswith("|") and not line.startswith(("| what went wrong", "| ---"))
]


@cache
def defined_in(file):
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_test_of_the_table_exists():
    named = [found for line in LINES for found in NAMED.findall(line)]
    assert len(named) > 100
    assert [name for file, name in named if name not in defined_in(file)] == []


def test_every_fault_is_held_by_a_test():
    for line in LINES:
        wrong, now, held, also = (cell.strip() for cell in line.strip("|").split("|"))
        assert all((wrong, now))
        assert re.match(r"[1-9]\d*: .", also), wrong  # how many further cases of its kind
        assert NAMED.findall(held), wrong
        assert not re.sub(NAMED, "", held).strip()
