"""The documentation is true where a program can tell: generated parts, links, commands, experiments, trees."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from typer.main import get_command

from entailor.cli.app import app
from entailor.config.experiment import Experiment, parse_settings
from entailor.config.overrides import apply_overrides, read_yaml
from entailor.methods import build_method, registered_methods
from entailor.methods.registry import known_keys

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NOT_OURS = {"build", "dist", "node_modules", "runs"}
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in NOT_OURS for part in page.relative_to(ROOT).parts)
)
BRANCHES = " \t│├└─"


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """Yield the fenced blocks of a page that are marked with one of the languages."""
    for language, block in re.findall(r"^ *```(\w*)\n(.*?)^ *```", page.read_text("utf-8"), re.M | re.S):
        if language in languages:
            yield block


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```", "", page.read_text("utf-8"), flags=re.M | re.S)


def links(page: Path) -> list[str]:
    """Return the targets of a page's links."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def anchors(page: Path) -> set[str]:
    """Return the anchors GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading)).lower().replace(" ", "-") for heading in headings}


def test_generated_parts_are_fresh() -> None:
    stale = load_generator().stale_pages()
    assert not stale, f"run python docs/generate.py: {', '.join(map(str, stale))}"


def test_a_changed_page_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = load_generator()
    for page in (DOCS / "methods").glob("*.md"):
        (tmp_path / "methods").mkdir(exist_ok=True)
        (tmp_path / "methods" / page.name).write_text(page.read_text("utf-8").replace("`0.01`", "`0.02`"), "utf-8")
    monkeypatch.setattr(generator, "DOCS", tmp_path)
    assert generator.main(["--check"]) == 1
    assert "lora.md is stale" in capsys.readouterr().err
    assert not (tmp_path / "reference").exists()
    assert generator.main([]) == 0
    assert generator.main(["--check"]) == 0
    assert "| `weight_decay` | `0.01` |" in (tmp_path / "methods" / "lora.md").read_text("utf-8")


def test_every_method_has_a_page_and_every_page_a_method() -> None:
    assert {page.stem for page in (DOCS / "methods").glob("*.md")} == set(registered_methods())


def test_every_key_of_a_method_is_explained() -> None:
    generator = load_generator()
    for name, kind in registered_methods().items():
        for key in kind.model_fields:
            assert generator.meaning(kind, key).strip(), f"{name}.{key}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        aim = (page.parent / path).resolve() if path else page
        assert aim.exists(), f"{target}: nothing there"
        assert not anchor or anchor in anchors(aim), f"{target}: no such heading"


def test_index_links_every_page_of_the_documentation() -> None:
    index, records = DOCS / "index.md", DOCS / "decisions" / "README.md"
    linked = {(page.parent / target.partition("#")[0]).resolve() for page in (index, records) for target in links(page)}
    assert {page.resolve() for page in DOCS.rglob("*.md")} - linked == {index.resolve()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_understood(page: Path) -> None:
    # a page may show a method that is not there yet
    known = {*registered_methods(), *re.findall(r'Method, name="(\w+)"', page.read_text("utf-8"))}
    for block in blocks(page, "bash", "console", "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.removeprefix("$ ").partition(" | ")[0].removesuffix(" &")
            words = shlex.split(command, comments=True) if line.startswith(("$ ", "entailor")) else []
            if words[:1] == ["entailor"] and not words[1].startswith("-"):
                named = parameters_of(words[1:])
                methods = str(named.get("methods") or named.get("method") or "")
                assert {name for name in methods.split(",") if name} <= known, line
                if "overrides" in named:
                    experiment_of(named)


def parameters_of(words: list[str]) -> dict[str, object]:
    """Let the verb's own parser read the words."""
    command = get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    with command.make_context(str(command.name), words) as context:
        return context.params


def experiment_of(named: dict[str, object]) -> Experiment:
    """Lay the words key=value of a command over its file where that is an example, else over every method."""
    words = [str(word) for word in named.get("overrides") or ()]
    words += [f"data.{flag}={named[flag]}" for flag in ("cv", "splits") if named.get(flag)]
    config = ROOT / str(named.get("config") or "")
    names = str(named.get("methods") or named.get("method") or ",".join(registered_methods()))
    values = read_yaml(config) if config.is_file() else {"methods": names}
    return parse_settings(Experiment, apply_overrides(values, words, known_keys))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_experiments_are_understood(page: Path) -> None:
    for block in blocks(page, "yaml"):
        experiment = parse_settings(Experiment, yaml.safe_load(block))
        for row, settings in experiment.methods.items():
            build_method(row, settings)


PITFALLS = (DOCS / "pitfalls.md").read_text("utf-8")


@pytest.mark.parametrize("test_name", sorted(set(re.findall(r"`(test_\w+)`", PITFALLS))))
def test_tests_named_in_the_pitfalls_exist(test_name: str) -> None:
    files = [ROOT / path for path in re.findall(r"`(tests/[\w/]+\.py)`", PITFALLS)]
    assert any(f"def {test_name}(" in path.read_text("utf-8") for path in files)


def test_the_readme_shows_folders_that_exist() -> None:
    shown = [path for block in blocks(ROOT / "README.md", "", "text") for path in paths_of_tree(block)]
    assert shown, "README.md shows no tree of folders"
    missing = [str(path.relative_to(ROOT)) for path in shown if not path.exists()]
    assert not missing


def paths_of_tree(block: str) -> Iterator[Path]:
    """Yield what a tree names, one path a line: folders end in a slash, what they hold is indented."""
    inside: list[tuple[int, Path]] = [(-1, ROOT)]
    for line in block.splitlines():
        name = line.strip(BRANCHES).split(" ")[0]
        if not re.fullmatch(r"[\w.\-/]+", name) or not (name.endswith("/") or "." in name):
            continue
        depth = len(line) - len(line.lstrip(BRANCHES))
        while inside[-1][0] >= depth:
            inside.pop()
        path = ROOT if name in ("entailor/", "./") and depth == 0 else inside[-1][1] / name
        yield path
        if name.endswith("/"):
            inside.append((depth, path))


def test_a_tree_that_lies_is_noticed() -> None:
    tree = "entailor/\n├── src/entailor/   the package\n│   ├── data/   reading\n│   └── drawer/\n└── docs/\n"
    told = list(paths_of_tree(tree))
    assert [path.exists() for path in told] == [True, True, True, False, True]
