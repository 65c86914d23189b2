"""Runs a command line in the process of the tests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from entailor.cli import app as cli


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def entailor_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return what runs a command line in this process, through the entry point of the script."""

    def run(*words: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["entailor", *map(str, words)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        found = capsys.readouterr()
        return Result(code, found.out, found.err)

    return run
