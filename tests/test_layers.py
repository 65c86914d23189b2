"""The order of the folders, held by import-linter's contracts in pyproject.toml, and the size of the files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
MOST_LINES = 500
DRAWERS = {"utils", "helpers", "common", "misc"}


def test_every_folder_imports_from_its_left_only():
    pytest.importorskip("importlinter")
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()", "--no-cache"]
    paths = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_files_are_short_and_say_what_they_are_for():
    assert len(SOURCES) > 30
    for path in SOURCES:
        source = path.read_text(encoding="utf-8")
        assert source.count("\n") <= MOST_LINES, path
        assert source.startswith('"""'), path
        assert path.stem not in DRAWERS, path
