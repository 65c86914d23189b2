import os
from pathlib import Path

import pytest

from entailor.config.parts import PromptSettings
from entailor.data.example import Example
from entailor.errors import ConfigError
from entailor.tasks import Task
from entailor.tasks.templates import build_template, with_template_text

NLI = ("entailment", "neutral", "contradiction")
PAIR = Example("x", "It rains.", "It is wet.", "neutral")


def template(labels=NLI, *, is_pair=True, **prompt):
    return build_template(PromptSettings(**prompt), labels, is_pair=is_pair)


def refusal(labels=NLI, *, is_pair=True, **prompt):
    with pytest.raises(ConfigError) as caught:
        template(labels, is_pair=is_pair, **prompt)
    return str(caught.value)


def test_nli_is_asked_as_gpt3_was():
    made = template()
    assert made.before_slot(PAIR) == "It rains.\nQuestion: It is wet. True, False or Neither?\nAnswer: "
    assert made.words == ("True", "Neither", "False")
    assert made.instruction == ""
    assert made.bare_end() == "Answer: "


def test_two_labels_are_asked_in_two_words():
    made = template(("entailment", "not_entailment"))
    assert made.before_slot(PAIR).endswith("It is wet. True or False?\nAnswer: ")


def test_the_order_of_labels_changes_no_word():
    made = template(("contradiction", "entailment", "neutral"))
    assert made.before_slot(PAIR) == template().before_slot(PAIR)
    assert made.word("entailment") == "True"


def test_any_task_has_a_template():
    made = template(("LOC", "NUM"), is_pair=False, verbalizer={"LOC": "place", "NUM": "number"})
    assert made.before_slot(Example("x", "Where?")) == "Text: Where?\nLabel: "
    assert made.instruction == "Give the label of each text. The labels are: place, number."
    assert template(("same", "other")).before_slot(PAIR) == "First text: It rains.\nSecond text: It is wet.\nLabel: "


def test_text_that_looks_like_jinja_is_text():
    example = Example("x", "{{ 7 * 7 }}", "{% raw %}", "neutral")
    assert template().before_slot(example).startswith("{{ 7 * 7 }}\nQuestion: {% raw %} ")


def test_a_file_is_read_once_and_its_text_is_kept(tmp_path):
    file = tmp_path / "mine.jinja"
    file.write_text("{{ premise }} => {{ hypothesis }}: {{ label }}\n", encoding="utf-8")
    kept = with_template_text(PromptSettings(template=str(file)))
    assert kept.template == "{{ premise }} => {{ hypothesis }}: {{ label }}"
    file.unlink()
    assert build_template(kept, NLI, is_pair=True).before_slot(PAIR) == "It rains. => It is wet.: "
    with pytest.raises(ConfigError, match=r"mine\.jinja: No such file"):
        with_template_text(PromptSettings(template=str(file)))
    Path(file).write_bytes(b"\xff{{ label }}")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 0"):
        with_template_text(PromptSettings(template=str(file)))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (os.mkfifo, "a named pipe"),
        (lambda file: file.symlink_to("/dev/zero"), "a device"),
        (Path.mkdir, "Is a directory"),
        (lambda file: file.write_text("x" * 500_000), "500,000 bytes, at most"),
    ],
)
def test_a_template_file_that_has_no_end_is_not_read(make, problem, tmp_path):
    make(tmp_path / "mine.jinja")
    with pytest.raises(ConfigError, match=rf"mine\.jinja: {problem}"):
        with_template_text(PromptSettings(template=str(tmp_path / "mine.jinja")))


def test_a_template_file_of_an_unknown_user_is_an_error():
    with pytest.raises(ConfigError, match="No such file"):
        with_template_text(PromptSettings(template="~nobody-of-this-name/mine.jinja"))


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ({"template": "gtp3"}, ["'gtp3' is not known", "Did you mean 'gpt3'?"]),
        ({"template": "{{ premise }} {{ hypothesis }}"}, ["stands 0 times"]),
        ({"template": "{{ label }} {{ premise }} {{ hypothesis }}"}, ["goes on behind {{ label }}"]),
        ({"template": "{{ premise }} {{ label }}"}, ["no slot for the hypothesis. Add {{ hypothesis }}"]),
        ({"template": "{{ premise }"}, ["not Jinja"]),
        ({"template": "{{ premis }} {{ hypothesis }} {{ label }}"}, ["cannot be rendered", "'premis' is undefined"]),
        ({"template": "{{ ''.__class__.__mro__ }}{{ label }}"}, ["cannot be rendered", "unsafe"]),
        ({"verbalizer": {"neutral": "True"}}, ["'entailment' and 'neutral' both stand as 'True'"]),
        ({"verbalizer": {"neutral": " "}}, ["the word for 'neutral' is empty"]),
        ({"verbalizer": {"netural": "x"}}, ["'netural' is no label", "Did you mean 'neutral'?"]),
    ],
)
def test_what_cannot_be_asked_is_refused(prompt, parts):
    message = refusal(**prompt)
    for part in ["prompt.", *parts]:
        assert part in message


def test_nli_templates_are_for_nli():
    assert "gpt3 is for pairs" in refusal(("a", "b"), is_pair=False, template="gpt3")
    assert "the data have a, b. Rename them" in refusal(("a", "b"), template="instruction")


def test_a_task_carries_its_template():
    task = Task(NLI, True, PromptSettings(template="instruction"))
    assert "entailment, neutral, contradiction" in task.template.instruction
