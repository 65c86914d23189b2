"""What messages propose exists: each flag, key, value, command, extra and variable that a text in src names."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest
from typer.main import get_command

from entailor.cli.app import app
from entailor.config.experiment import Experiment, parse_settings
from entailor.config.overrides import SECTIONS, apply_overrides
from entailor.errors import ConfigError
from entailor.methods.registry import build_method, known_keys, registered_methods

ROOT = Path(__file__).parents[1]
OF_OTHERS = {"--head", "--upgrade"}  # of `ray start` and pip


@cache
def texts() -> list[tuple[str, str]]:
    """Return file and text of every string in src that is no docstring; what is filled in stands as …."""
    found = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        parts |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if id(node) not in parts and isinstance(node, ast.Constant | ast.JoinedStr):
                values = node.values if isinstance(node, ast.JoinedStr) else [node]
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in values)
                found.append((path.name, text))
    return found


def found(pattern: str) -> dict[str, set[str]]:
    """Return what a pattern finds in the texts, and in which files."""
    places: dict[str, set[str]] = defaultdict(set)
    for name, text in texts():
        if " " in text:
            for one in re.findall(pattern, text):
                places[one].add(name)
    return places


def names_of(command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    for inner in getattr(command, "commands", {}).values():
        yield from names_of(inner)


def test_flags():
    named = found(r"(?<![\w-])--[a-z][a-z-]+(?![\w…-])")
    assert len(named) > 25
    assert not {name: places for name, places in named.items() if name not in {*names_of(get_command(app)), *OF_OTHERS}}


def test_commands():
    named = found(r"(?:`|Run |: |^)entailor (?!is )([a-z][a-z-]+)")
    assert len(named) > 5
    assert not {name: places for name, places in named.items() if name not in get_command(app).commands}


def test_extras_and_variables():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = found(r"entailor\[([a-z,]+)\]")
    assert len(named) > 5
    assert not {name: places for name, places in named.items() if not {*name.split(",")} <= extras.keys()}
    read = {text for _, text in texts() if re.fullmatch(r"ENTAILOR_[A-Z_]+", text)}
    assert {"ENTAILOR_CACHE"} <= set(found(r"\bENTAILOR_[A-Z_]+\b")) <= read


def settings_named() -> dict[str, set[str]]:
    """Return the key=value words of all texts, without those of flags, of Python and of HTML."""
    named = found(r"(?<![\w.\"'-])((?:[a-z_]+\.)*[a-z_]+=[A-Za-z0-9_.-]+)(?![\w…(])")
    python = ("overwrite=", "trust_remote_code=", "orient=", "split=", "model=FOLDER", "n=", "q=", "style=", "href=")
    general = ("key=", "field=", "premise=", "hypothesis=", "text=", "label=", "tracking=")
    return {one.rstrip("."): places for one, places in named.items() if not one.startswith((*python, *general))}


def takes(word: str) -> bool:
    """Whether an experiment, or one with the method that has the key, takes a setting."""
    key = word.partition("=")[0]
    path = key.split(".")
    owners = [name for name, kind in registered_methods().items() if path[-1] in kind.model_fields]
    needed = {"metric=cost": ["recommend.costs={a: {b: 1}}"], "learning_rate=1e-4": ["methods=lora"]}.get(word, [])
    for method in [None] if path[0] in SECTIONS else [None, *owners]:
        words = [*([f"methods={method}"] if method else []), *needed, word]
        try:
            asked = parse_settings(Experiment, apply_overrides({"data": {"train": "a.csv"}}, words, known_keys))
            if method:
                build_method(method, asked.methods[method])
        except ConfigError:
            continue
        return True
    return False


def test_settings():
    named = settings_named()
    assert len(named) > 25
    assert not {word: places for word, places in named.items() if not takes(word)}


def test_dotted_keys():
    known = {f"{section}.{name}" for section, kind in SECTIONS.items() for name in kind.model_fields}
    files = ("data.csv", "model.safetensors", "model.save_pretrained", "model.resize_token_embeddings")
    named = found(rf"(?<![\w./-])((?:{'|'.join(SECTIONS)})\.[a-z_]+)(?![\w…])")
    assert len(named) > 30
    assert not {name: places for name, places in named.items() if name not in {*known, *files}}


@pytest.mark.parametrize("word", ["model.long_text=windows", "recommend.ties=most_exact", "scoring=echo"])
def test_what_does_not_exist_is_found(word: str):
    assert not takes(word)
