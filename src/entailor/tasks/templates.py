"""How an example becomes a prompt, and which word stands for which label.

A template is Jinja, rendered in a sandbox; it ends in ``{{ label }}``, the label slot. Knows nothing of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from typing import Any

from entailor.config.parts import PromptSettings
from entailor.data.example import Example
from entailor.errors import ConfigError, near_miss
from entailor.runs.documents import read_bytes
from entailor.runs.paths import user_path
from entailor.tasks.foreign import ForeignError
from entailor.tasks.sandbox import MOST_SOURCE, renderer

SLOT = "\x00label\x00"
SUFFIXES = (".jinja", ".jinja2", ".j2")
NOT_JINJA = ("TemplateSyntaxError", "TemplateAssertionError", "SyntaxError")
ADDRESS = " at 0x"  # of something in memory, printed: another text in every process


@dataclass(frozen=True)
class Wording:
    """A template that ships.

    Attributes:
        pair: Jinja for pairs, or None where it does not fit them.
        single: Jinja for single texts, or None where it does not fit them.
        instruction: Jinja in front of everything; may use ``labels``, the label words, and ``words``, those by label.
        words: label name to word, where the words are not the label names.
        only: the label sets it is for; empty: any.
    """

    pair: str | None
    single: str | None = None
    instruction: str = ""
    words: Mapping[str, str] = field(default_factory=dict)
    only: tuple[frozenset[str], ...] = ()


THREE_WAY = frozenset({"entailment", "neutral", "contradiction"})
TWO_WAY = frozenset({"entailment", "not_entailment"})

SHIPPED: Mapping[str, Wording] = {
    # Brown et al. 2020, appendix G: the wording of ANLI (three labels) and RTE (two)
    "gpt3": Wording(
        pair="{{ premise }}\nQuestion: {{ hypothesis }} {% if words.neutral is defined %}{{ words.entailment }}, "
        "{{ words.contradiction }} or {{ words.neutral }}{% else %}{{ labels | join(' or ') }}{% endif %}?\n"
        "Answer: {{ label }}",
        words={"entailment": "True", "neutral": "Neither", "contradiction": "False", "not_entailment": "False"},
        only=(THREE_WAY, TWO_WAY),
    ),
    "instruction": Wording(
        pair="Premise: {{ premise }}\nHypothesis: {{ hypothesis }}\nRelation: {{ label }}",
        instruction="Read the premise and the hypothesis and say how the hypothesis relates to the premise. "
        "Answer with one of these words: {{ labels | join(', ') }}.",
        words={"not_entailment": "not entailment"},
        only=(THREE_WAY, TWO_WAY),
    ),
    "label": Wording(
        pair="First text: {{ text }}\nSecond text: {{ text_pair }}\nLabel: {{ label }}",
        single="Text: {{ text }}\nLabel: {{ label }}",
        instruction="Give the label of each text. The labels are: {{ labels | join(', ') }}.",
    ),
}


@dataclass(frozen=True)
class Template:
    """What is rendered for one task.

    Attributes:
        source: Jinja of one example, ending in the label slot.
        instruction: text in front of everything; empty for none.
        words: the label words, in the order of the task's labels.
        labels: label names, in the same order.
        separator: text between instruction, demonstrations and the example.
        chat: whether the model's own chat template goes around it.
        is_pair: whether examples are pairs.
        date: what chat templates that print a date print.
        own_instruction: whether the user wrote the instruction.
    """

    source: str
    instruction: str
    words: tuple[str, ...]
    labels: tuple[str, ...]
    separator: str
    chat: bool
    is_pair: bool
    date: date
    own_instruction: bool = False

    def before_slot(self, example: Example) -> str:
        """Return the rendered example up to the label slot, spaces in front of the slot included."""
        return self._render(example).rpartition(SLOT)[0]

    def word(self, label: str) -> str:
        """Return the word that stands for a label."""
        return self.words[self.labels.index(label)]

    def prompt(self, example: Example, shots: Sequence[Example]) -> str:
        """Return instruction, demonstrations and example as one text, up to the label slot."""
        parts = [self.instruction] if self.instruction else []
        parts += [self.before_slot(shot) + self.word(str(shot.label)) for shot in shots]
        return self.separator.join([*parts, self.before_slot(example)])

    def turns(self, example: Example, shots: Sequence[Example]) -> list[str]:
        """Return the turns of a chat, the user's first: each demonstration, its label word, then the example."""
        turns: list[str] = []
        for shot in shots:
            turns += [self.before_slot(shot).rstrip(), self.word(str(shot.label))]
        turns.append(self.before_slot(example).rstrip())
        lead = self.instruction + self.separator if self.instruction else ""
        return [(lead + turns[0]).rstrip(), *turns[1:]]

    def bare_end(self) -> str:
        """Return the last line in front of the slot that holds no text of the example: what PMI scores words after."""
        mark = "\x000\x00"  # no letters: a template may change their case
        rendered = self.before_slot(Example("", mark, mark))
        return rendered.rpartition(mark)[2].rpartition("\n")[2]

    def _render(self, example: Example) -> str:
        return _compiled(self.source)(
            text=example.text,
            premise=example.text,
            text_pair=example.text_pair,
            hypothesis=example.text_pair,
            labels=list(self.words),
            words=dict(zip(self.labels, self.words, strict=True)),
            label=SLOT,
        )


def build_template(
    prompt: PromptSettings, labels: Sequence[str], *, is_pair: bool, day: date | None = None
) -> Template:
    """Return the template of a task.

    Args:
        prompt: the user's choice; `template` names a file, holds Jinja itself, or is the name of one that ships.
        labels: the task's label names.
        is_pair: whether examples are pairs.
        day: for chat templates that print a date; None: today.

    Raises:
        ConfigError: an unknown template, one without a label slot at its end or without the texts, or label words that
            are empty, the same, or given for a label that does not exist.
    """
    wording = _wording(prompt.template, frozenset(labels), is_pair=is_pair)
    source = (wording.pair if is_pair else wording.single) or ""
    words = _words(prompt.verbalizer, wording.words, labels)
    instruction = wording.instruction if prompt.instruction is None else prompt.instruction
    template = Template(
        source=source,
        instruction=_compiled(instruction)(labels=list(words), words=dict(zip(labels, words, strict=True))),
        words=words,
        labels=tuple(labels),
        separator=prompt.separator,
        chat=prompt.chat,
        is_pair=is_pair,
        date=day or date.today(),
        own_instruction=prompt.instruction is not None,
    )
    _check_slots(template, prompt.template, is_pair=is_pair)
    return template


def with_template_text(prompt: PromptSettings) -> PromptSettings:
    """Return the settings with template files replaced by what stands in them, so that a record needs no file.

    Raises:
        ConfigError: a file cannot be read.
    """
    listed = tuple(map(_template_text, prompt.search.templates))
    search = prompt.search.model_copy(update={"templates": listed})
    return prompt.model_copy(update={"template": _template_text(prompt.template), "search": search})


def _template_text(template: str) -> str:
    if not template.endswith(SUFFIXES):
        return template
    try:
        text = read_bytes(user_path(template), 4 * MOST_SOURCE).decode()
        return text.rstrip("\n")
    except OSError as error:
        raise ConfigError(f"prompt.template: {template}: {error.strerror}. Check the path") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{template}: not UTF-8 at byte {error.start}. Save the file as UTF-8") from None


def _wording(name: str, labels: frozenset[str], *, is_pair: bool) -> Wording:
    if "{{" in name:
        return Wording(pair=name, single=name)
    if name == "auto":
        name = "gpt3" if is_pair and labels in SHIPPED["gpt3"].only else "label"
    if name not in SHIPPED:
        raise ConfigError(
            f"prompt.template: {name!r} is not known.{near_miss(name, SHIPPED)} Give auto, {', '.join(SHIPPED)}, "
            "a .jinja file, or Jinja with {{ label }} at its end"
        )
    wording = SHIPPED[name]
    if (wording.pair if is_pair else wording.single) is None:
        raise ConfigError(f"prompt.template: {name} is for pairs, and the data have single texts. Give label")
    if wording.only and labels not in wording.only:
        raise ConfigError(
            f"prompt.template: {name} is for the labels {' or '.join(', '.join(sorted(one)) for one in wording.only)}; "
            f"the data have {', '.join(sorted(labels))}. Rename them with data.label_names, or give label"
        )
    return wording


def _words(chosen: Mapping[str, str], usual: Mapping[str, str], labels: Sequence[str]) -> tuple[str, ...]:
    if unknown := sorted(set(chosen) - set(labels)):
        raise ConfigError(
            f"prompt.verbalizer: {unknown[0]!r} is no label of the data ({', '.join(labels)})."
            f"{near_miss(unknown[0], labels)}"
        )
    words = {label: chosen.get(label, usual.get(label, label)).strip() for label in labels}
    for label, word in words.items():
        if not word:
            raise ConfigError(f"prompt.verbalizer: the word for {label!r} is empty. Give a word")
        if same := next((other for other in labels if other != label and words[other] == word), None):
            raise ConfigError(
                f"prompt.verbalizer: {label!r} and {same!r} both stand as {word!r}, so no answer tells them apart. "
                "Give two different words"
            )
    return tuple(words.values())


def _check_slots(template: Template, name: str, *, is_pair: bool) -> None:
    """Hold a template against what it must have: the texts, and one label slot at its end."""
    where = "prompt.template"
    first, second = "\x001\x00", "\x002\x00"  # no letters: a template may change their case
    rendered = template._render(Example("", first, second if is_pair else None))
    if rendered.count(SLOT) != 1:
        raise ConfigError(f"{where}: {{{{ label }}}} stands {rendered.count(SLOT)} times in {name!r}, once is expected")
    if ADDRESS in rendered and ADDRESS not in template.source:
        raise ConfigError(f"{where}: {name!r} prints an address in memory, which is another each time. Leave it out")
    if rendered.rpartition(SLOT)[2].strip():
        raise ConfigError(f"{where}: {name!r} goes on behind {{{{ label }}}}. Put the label slot at the end")
    texts = (("premise", first), ("hypothesis", second)) if is_pair else (("text", first),)
    for variable, mark in texts:
        if mark not in rendered:
            raise ConfigError(f"{where}: {name!r} has no slot for the {variable}. Add {{{{ {variable} }}}}")


@cache
def _compiled(source: str) -> Callable[..., str]:
    """Return what renders a template, with failures that are ours: it may come from a stranger."""
    from jinja2 import TemplateError, TemplateSyntaxError

    if len(source) > MOST_SOURCE:
        raise ConfigError(f"prompt.template: {len(source):,} characters, at most {MOST_SOURCE:,} are taken")
    try:
        render = renderer(source)
    except (TemplateError, RecursionError, SyntaxError, ValueError, OverflowError) as error:
        raise ConfigError(f"prompt.template: not Jinja: {error}") from None

    def rendered(**values: Any) -> str:
        try:
            return render(**values)
        except (TemplateError, ForeignError, TypeError, ValueError, AttributeError, LookupError) as error:
            if isinstance(error, TemplateSyntaxError) or getattr(error, "kind", "") in NOT_JINJA:
                raise ConfigError(f"prompt.template: not Jinja: {error}") from None
            raise ConfigError(
                f"prompt.template: cannot be rendered: {error}. Known are text, text_pair, premise, hypothesis, "
                "labels, words and label"
            ) from None

    return rendered
