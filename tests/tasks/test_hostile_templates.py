"""Templates of strangers: each renders or ends in one error, in bounded time and memory, and none reaches Python."""

import pytest

from entailor.config.parts import PromptSettings
from entailor.data.example import Example
from entailor.errors import ConfigError
from entailor.tasks import foreign
from entailor.tasks.templates import build_template

END = " {{ text }} {{ label }}"
ENDLESS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}",
    "{{ 10 ** (10 ** 8) }}",
    "{% set n = namespace(a=9) %}{% for a in range(99) %}{% set n.a = n.a ** 9 %}{% endfor %}{{ n.a }}",
    "{{ 'a' * 10 ** 10 }}",
    "{{ text * 10 ** 10 }}",
    "{{ [1] * 10 ** 10 }}",
    "{{ 'a' | center(10 ** 10) }}",
    "{{ '%9999999999d' % 1 }}",
    "{{ '%9999999999d' | format(1) }}",
    "{{ '{:9999999999}'.format(1) }}",
    "{{ 'a'.ljust(10 ** 10) }}",
    "{{ 'a'.zfill(10 ** 10) }}",
    "{% set n = namespace(a='aaaa') %}{% for a in range(99) %}{% set n.a = n.a ~ n.a %}{% endfor %}{{ n.a }}",
    "{{ ('a' * 9999)" + " | replace('a', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa')" * 9 + " }}",
    "{{ 'aaaaaaaaaaaaaaaa' | " + " | ".join(["join('aaaaaaaaaaaaaaaa')"] * 12) + " }}",
    "{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "{{ 'a' | indent(10 ** 10) }}",
    "{{ ('a ' * 999999) | wordwrap(1) | wordwrap(1) | length }}" + "{{ ('b' * 9999999) }}" * 3,
    "{{ range(99999) | map('string') | join('a' * 99999) }}",
    "{{ [range(99999), range(99999)] | map('list') | list | pprint }}" * 99,
    "{{ 10 ** 9999999 }}",
    "{% set ns = namespace(l=[1]) %}{% for a in range(99) %}{% set ns.l = ns.l + ns.l %}{% endfor %}{{ ns.l }}",
]
ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ labels.__class__.__base__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ self.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ namespace(__class__=1) }}",
    "{{ dict.mro() }}",
    "{{ range.__class__ }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ '{a.__class__}'.format_map({'a': 1}) }}",
    "{{ labels.append('x') }}",
    "{{ words.update({'a': 'b'}) }}",
    "{{ words.clear() }}",
    "{{ raise_exception('no') }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends 'base' %}",
    "{{ config }}",
    "{{ lipsum() }}",
    "{{ [1, 2] | random }}",
    "{{ get_flashed_messages() }}",
    "{{ labels.append }}",
    "{{ now() }}",
]
BROKEN = [
    "{{ text",
    "{% if %}",
    "{% for a in labels %}",
    "{{ text | nothing }}",
    "{{ " + "(" * 900 + "1" + ")" * 900 + " }}",
    "{{ " + "[" * 2000 + " }}",
    "{{ " + "-" * 3000 + "1 }}",
    "{{ nobody }}",
    "{{ text.nothing.more }}",
    "{{ 1 / 0 }}",
    "{{ text + 1 }}",
    "{{ labels[99].upper() }}",
    "{{ '{' * 9 }}{{" * 500,
    "{{" * 40_000,
    "{% raw %}" * 5000,
    "x" * 200_000,
]
LEGIT = [
    "{{ text | upper }}: {{ label }}",
    "{% for l in labels %}{{ loop.index }}. {{ l }}\n{% endfor %}{{ text }} {{ label }}",
    "{% set t = text | trim %}{{ t }} {{ label }}",
    "{% if text | length > 3 %}{{ text }}{% else %}{{ text }}{% endif %} {{ label }}",
    "{{ labels | sort | join('/') }} {{ text }} {{ label }}",
    "{{ text.replace('a', 'b') }} {{ label }}",
    "{% macro q(t) %}<{{ t }}>{% endmacro %}{{ q(text) }} {{ label }}",
    "{# note #}{{ '=' * 20 }}\n{{ text }}\n{{ label }}",
    "{{ text }} at 0x12 {{ label }}",
    "{{ text ~ '?' }} {{ label }}",
]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(foreign, "SECONDS", 1.0)


def built(source):
    return build_template(PromptSettings(template=source), ("a", "b"), is_pair=False)


@pytest.mark.parametrize("source", [*ENDLESS, *ESCAPES, *BROKEN], ids=lambda source: source[:40])
def test_a_hostile_template_is_one_error(source):
    with pytest.raises(ConfigError, match=r"^prompt\.template: ") as caught:
        built(source + END)
    assert len(str(caught.value)) < 1_500


def test_what_ends_the_child_says_so_and_the_next_template_is_rendered():
    with pytest.raises(ConfigError, match="takes longer than 1 seconds"):
        built(ENDLESS[0] + END)
    assert built(LEGIT[1]).before_slot(Example("", "x", None)) == "1. a\n2. b\nx "


@pytest.mark.parametrize("source", LEGIT)
def test_an_odd_template_renders_as_jinja_has_it(source):
    from jinja2 import Template

    text = "a long\x00 tail \ud800 {{ no }}"
    expected = Template(source).render(text=text, labels=["a", "b"], label="")
    assert built(source).before_slot(Example("", text, None)) == expected


def test_what_cannot_grow_needs_no_child(monkeypatch):
    monkeypatch.setattr(foreign, "run_bounded", None)
    monkeypatch.setattr("entailor.tasks.sandbox.run_bounded", None)
    assert built("{{ labels | join(', ') }}: {{ text }} {{ label }}").before_slot(Example("", "x", None)) == "a, b: x "
