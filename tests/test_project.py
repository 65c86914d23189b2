"""The files around the code say the same: versions, extras, workflows, constraints."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_citation_has_the_version():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"] == PROJECT["version"]


def test_the_tests_run_on_every_python_that_is_promised():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text("utf-8"))["jobs"]
    promised = [re.fullmatch(r".* :: (3\.\d+)", line) for line in PROJECT["classifiers"]]
    assert jobs["pythons"]["strategy"]["matrix"]["python"] == [found[1] for found in promised if found]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_hold_no_secret_and_run_what_is_there(path):
    text = path.read_text("utf-8")
    assert "secrets." not in text
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"\bmake (\w+)", text):
        assert f"\n{target}:" in makefile
    for place in re.findall(r"\b(?:scripts/[\w.]+|\.ci/\w+)", text):
        assert (ROOT / place).is_file()


def test_the_lowest_versions_are_those_declared():
    found = script("lowest").lowest_versions(
        {"dependencies": ["torch>=2.8", "rich", "numpy>=2.0,<3"], "optional-dependencies": {"excel": ["openpyxl>=3.1"]}}
    )
    assert found == ["numpy==2.0", "openpyxl==3.1", "torch==2.8"]


def test_what_the_image_copies_is_there():
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    copied = [name for line in re.findall(r"^COPY ([^-\n].*)", dockerfile, re.M) for name in line.split()[:-1]]
    assert copied
    kept = (ROOT / ".dockerignore").read_text("utf-8").split()
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in kept
    (extras,) = re.findall(r'"\.\[([\w,]+)\]"', dockerfile)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_no_assert_does_work_that_is_needed():
    """With python -O there are none: what one reads first, such as scores of before a change, would not be read."""
    trees = {path: ast.parse(path.read_text("utf-8")) for path in (ROOT / "src").rglob("*.py")}
    made = {
        node.name
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and any("property" in ast.unparse(one) for one in node.decorator_list)
    }
    for path, tree in trees.items():
        for test in (node.test for node in ast.walk(tree) if isinstance(node, ast.Assert)):
            for part in ast.walk(test):
                asked = isinstance(part, ast.Call) and ast.unparse(part.func) not in ("isinstance", "type", "len")
                read = isinstance(part, ast.Attribute) and part.attr in made
                does_work = asked or read
                assert not does_work, f"{path}:{test.lineno}: {ast.unparse(test)}"
