"""What an installation lacks is named, with what it is for and the command that installs it."""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import typer

from entailor.cli.environment import env
from entailor.errors import EntailorError
from entailor.runs import requirements
from entailor.runs.requirements import PURPOSES, check_requirements

DECLARED = [
    "torch>=2.8",
    'colorama>=0.4; sys_platform == "nowhere"',
    'openpyxl>=3.1; extra == "excel"',
    'fastapi>=0.130; extra == "serve"',
    'uvicorn>=0.30; extra == "serve"',
]


def having(**versions):
    def installed(name):
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    return installed


def test_what_is_missing_is_named_with_its_remedy():
    found = {one.name: one for one in check_requirements(having(torch="2.13.0", fastapi="0.100"), DECLARED)}
    assert list(found) == ["core", "excel", "serve", "pip"]
    assert found["core"].missing == found["pip"].missing == ()
    assert found["core"].remedy == ""
    assert found["excel"].missing == ("openpyxl>=3.1",)
    assert found["excel"].remedy == 'pip install --upgrade "entailor[excel]"'
    assert found["serve"].missing == ("fastapi>=0.130 (0.100 is installed)", "uvicorn>=0.30")
    assert found["serve"].purpose == "entailor serve"


def test_a_core_that_is_too_old_and_an_environment_without_pip(monkeypatch):
    monkeypatch.setattr(requirements, "find_spec", lambda name: None)
    found = check_requirements(having(torch="2.1.0+cpu"), DECLARED)
    assert found[0].missing == ("torch>=2.8 (2.1.0+cpu is installed)",)
    assert found[-1].missing == ("pip",)
    assert "ensurepip" in found[-1].remedy


def test_sources_that_are_not_installed_say_so(monkeypatch):
    def unknown(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(requirements, "requires", unknown)
    with pytest.raises(EntailorError, match=r"not installed\. Run: pip install \."):
        check_requirements()


def test_every_extra_says_what_it_is_for():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(PURPOSES) == set(project["optional-dependencies"])


def test_the_command_prints_it_and_fails_where_the_core_lacks_something(monkeypatch, capsys):
    for versions, code in (({"torch": "2.9"}, None), ({}, 1)):
        found = check_requirements(having(**versions), DECLARED)
        monkeypatch.setattr(requirements, "check_requirements", lambda found=found: found)
        if code is None:
            env(check=True)
        else:
            with pytest.raises(typer.Exit) as stopped:
                env(check=True)
            assert stopped.value.exit_code == code
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == (
            "core      missing torch>=2.8. Run: pip install --upgrade entailor" if code else "core      complete"
        )
        assert lines[2:4] == [
            'excel     missing openpyxl>=3.1. Run: pip install --upgrade "entailor[excel]"',
            "          for reading .xlsx files",
        ]
    assert max(map(len, PURPOSES)) < 10  # or the word behind it touches the name
    monkeypatch.setattr(requirements, "check_requirements", lambda: found[1:])
    env(check=True, as_json=True)
    assert json.loads(capsys.readouterr().out)[0]["missing"] == ["openpyxl>=3.1"]
