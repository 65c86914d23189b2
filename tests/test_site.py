"""The site holds every page, each in its place, with links that lead somewhere; `make site` builds it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import yaml

import entailor

ROOT = Path(__file__).parents[1]


@pytest.fixture
def site(tmp_path):
    spec = importlib.util.spec_from_file_location("build_site", ROOT / "docs" / "build_site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.STAGE = tmp_path / "stage"
    return module


def places_in(nav):
    for entry in nav:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        yield from [value] if isinstance(value, str) else places_in(value)


def test_the_navigation_names_every_page(site):
    site.gather(site.pages())
    there = {page.relative_to(site.STAGE).as_posix() for page in site.STAGE.rglob("*.md")}
    listed = set(places_in(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]))
    assert {place for place in there if not place.startswith("decisions/0")} == listed


def test_links_out_of_the_folder_are_turned_and_others_kept(site):
    places = site.pages()
    index = (ROOT / "docs" / "index.md").resolve()
    text = "[a](guides/data.md#columns) [b](../CONTRIBUTING.md) [c](https://example.org/x.md) [d](#top)"
    assert site.with_links(text, index, places) == (
        "[a](guides/data.md#columns) [b](project/contributing.md) [c](https://example.org/x.md) [d](#top)"
    )
    with pytest.raises(SystemExit, match=r"docs/index\.md: \.\./Makefile is no part of the site"):
        site.with_links("[x](../Makefile)", index, places)


def test_every_public_name_has_a_place_in_the_reference(site):
    assert set(site.public_names()) == set(entailor.__all__)
    site.gather(site.pages())
    page = (site.STAGE / "reference" / "api.md").read_text("utf-8")
    assert "::: entailor.study.compare.compare\n" in page
    assert page.count(":::") == len(entailor.__all__)


def test_search_needs_nothing_from_elsewhere(site):
    """The plugin that makes it work from the disk takes a script of this name, or fetches one."""
    (script,) = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["extra"]["polyfills"]
    assert "iframe-worker" in script
    site.gather(site.pages())
    assert "window.IFrameWorker" in (site.STAGE / script).read_text("utf-8")
