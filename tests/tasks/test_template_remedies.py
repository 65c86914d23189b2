"""What an error about a prompt tells the user to do is done, to the letter, and then there is a template."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from entailor.config.parts import PromptSettings
from entailor.errors import ConfigError
from entailor.tasks.templates import Template, build_template, with_template_text

LABELS = ("good", "bad")


def build(given: dict[str, object]) -> Template:
    return build_template(with_template_text(PromptSettings.model_validate(given)), LABELS, is_pair=False)


@pytest.mark.parametrize(
    ("wrong", "remedy", "told"),
    [
        ("gpt3", "is for pairs, and the data have single texts. Give label", "label"),
        ("labell", "Did you mean 'label'?", "label"),
        ("nothing", "Give auto,", "auto"),
        ("nothing", "a .jinja file", "{folder}/mine.jinja"),
        ("nothing", "or Jinja with {{ label }} at its end", "{{ text }}: {{ label }}"),
        ("{folder}/none.jinja", "Check the path", "{folder}/mine.jinja"),
        ("{folder}/latin.jinja", "Save the file as UTF-8", "{folder}/mine.jinja"),
        ("{{ label }} {{ text }} {{ label }}", "stands 2 times", "{{ text }} {{ label }}"),
        ("{{ text }} {{ label }} or not", "Put the label slot at the end", "{{ text }} or not {{ label }}"),
        ("Answer {{ label }}", "Add {{ text }}", "Answer {{ text }} {{ label }}"),
        ("{{ text }} {{ labels.index }} {{ label }}", "Leave it out", "{{ text }} {{ label }}"),
        ("{{ text }} {{ x.y }} {{ label }}", "Known are text, text_pair, premise, hypothesis, labels, words and label",
         "{{ text }} {{ words|join }} {{ label }}"),
    ],
)  # fmt: skip
def test_templates(tmp_path: Path, wrong: str, remedy: str, told: str):
    (tmp_path / "mine.jinja").write_text("{{ text }} {{ label }}")
    (tmp_path / "latin.jinja").write_bytes("{{ text }} é {{ label }}".encode("latin-1"))
    with pytest.raises(ConfigError, match=re.escape(remedy)):
        build({"template": wrong.replace("{folder}", str(tmp_path))})
    assert build({"template": told.replace("{folder}", str(tmp_path))})


@pytest.mark.parametrize(
    ("wrong", "remedy", "told"),
    [
        ({"god": "x"}, "Did you mean 'good'?", {"good": "x"}),
        ({"good": " "}, "Give a word", {"good": "fine"}),
        ({"good": "x", "bad": "x"}, "Give two different words", {"good": "x", "bad": "y"}),
    ],
)
def test_label_words(wrong: dict[str, str], remedy: str, told: dict[str, str]):
    with pytest.raises(ConfigError, match=re.escape(remedy)):
        build({"verbalizer": wrong})
    assert build({"verbalizer": told})
