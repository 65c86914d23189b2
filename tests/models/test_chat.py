"""Chat templates of models: the texts come back once and as they are, or the run ends with one error."""

from datetime import date

import pytest
from tests.conftest import make_decoder_tokenizer

from entailor.errors import ModelError
from entailor.models.chat import MARK, ChatFrame
from entailor.tasks import foreign

DAY = date(2026, 7, 4)
LOOP = "{% for message in messages %}BODY{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
LEGIT = {
    "plain": LOOP.replace("BODY", "{{ message.role }}: {{ message['content'] }}{{ eos_token }}\n"),
    "trimmed": LOOP.replace("BODY", "{{ bos_token }}{{ message.content | trim }}\n"),
    "system": "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% else %}Be kind.{% endif %}"
    + LOOP.replace("BODY", "{{ message.content.strip() }}\n"),
    "alternating": LOOP.replace(
        "BODY",
        "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles') }}{% endif %}"
        "{{ '[INST] ' + message.content + ' [/INST]' }}",
    ),
    "generation": LOOP.replace("BODY", "{% generation %}{{ message.content }}{% endgeneration %}"),
    "namespace": "{% set ns = namespace(n=0) %}"
    + LOOP.replace("BODY", "{% set ns.n = ns.n + 1 %}{{ ns.n }}{{ message.content }}"),
    "macro": "{% macro say(m) %}<{{ m.role }}>{{ m.content }}{% endmacro %}"
    + LOOP.replace("BODY", "{{ say(message) }}"),
    "break": LOOP.replace("BODY", "{% if loop.index > 99 %}{% break %}{% endif %}{{ message.content }}"),
    "tools": "{% if tools %}{{ tools | tojson }}{% endif %}" + LOOP.replace("BODY", "{{ message.content }}"),
    "string": LOOP.replace(
        "BODY",
        "{% if message.content is string %}{{ message.content }}{% else %}{% for p in message.content %}{{ p.text }}"
        "{% endfor %}{% endif %}",
    ),
    "thinking": LOOP.replace("BODY", "{{ message.content.split('</think>')[-1].lstrip('\\n') }}"),
}
PARTS = {
    "parts": LOOP.replace("BODY", "{% for part in message.content %}{{ part.text }}{% endfor %}"),
    "typed": LOOP.replace(
        "BODY", "{% for p in message.content if p['type'] == 'text' %}{{ p['text'] }}{% endfor %}{{ eos_token }}"
    ),
    "first part": LOOP.replace("BODY", "{{ message.content[0].text }}"),
}
REFUSED = {
    "no text": LOOP.replace("BODY", "{{ message.role }}"),
    "tojson": LOOP.replace("BODY", "{{ message.content | tojson }}"),
    "upper": LOOP.replace("BODY", "{{ message.content | upper }}"),
    "lower": LOOP.replace("BODY", "{{ message.content | lower }}"),
    "title": LOOP.replace("BODY", "{{ message.content | title }}"),
    "escaped": LOOP.replace("BODY", "{{ message.content | e }}"),
    "cut": LOOP.replace("BODY", "{{ message.content[:3] }}"),
    "reversed": LOOP.replace("BODY", "{{ message.content[::-1] }}"),
    "repr": LOOP.replace("BODY", "{{ [message.content] }}"),
    "twice": LOOP.replace("BODY", "{{ message.content }} again {{ message.content }}"),
    "system alone": LOOP.replace("BODY", "{% if message.role == 'system' %}{{ message.content }}{% endif %}"),
    "raises": "{{ raise_exception('only tools are answered') }}",
    "tools alone": "{% if not tools %}{{ raise_exception('no tools') }}{% endif %}" + LEGIT["plain"],
    "now": "{{ now() }}" + LEGIT["plain"],
    "random": "{{ [1, 2] | random }}" + LEGIT["plain"],
    "lipsum": "{{ lipsum() }}" + LEGIT["plain"],
    "address": "{{ raise_exception }}" + LEGIT["plain"],
    "broken": "{% for" + LEGIT["plain"],
    "empty": " ",
    "hangs": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "hangs at compile": "{{ 10 ** (10 ** 9) }}" + LEGIT["plain"],
    "memory": "{{ 'a' * 10 ** 11 }}",
    "doubling": "{% set n = namespace(a='aaaa') %}{% for a in range(99) %}{% set n.a = n.a ~ n.a %}{% endfor %}",
    "long": "{{ 'a' * 999999 }}" + LEGIT["plain"],
    "deep": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "date format": "{{ strftime_now('%Y' * 9999999) }}" + LEGIT["plain"],
    "python": "{{ ''.__class__.__mro__[1].__subclasses__()[0] }}" + LEGIT["plain"],
    "attr": "{{ (''|attr('__class__')).__base__ }}" + LEGIT["plain"],
    "namespace": "{% set n = namespace(__class__=1) %}" + LEGIT["plain"],
    "mutates": "{{ messages.clear() }}" + LEGIT["plain"],
}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(foreign, "SECONDS", 1.5)


@pytest.fixture(scope="module")
def tokenizer():
    return make_decoder_tokenizer("llama")


def frame(tokenizer, template, day=DAY):
    tokenizer.chat_template = template
    return ChatFrame(tokenizer, day)


def filled(made, texts):
    names = {index: name for name, index in made.control.items()}
    return "".join(
        names[piece] if isinstance(piece, int) else MARK.sub(lambda found: texts[int(found[1])], piece)
        for piece in made.around(len(texts))
    )


@pytest.mark.parametrize("name", [*LEGIT, *PARTS])
def test_a_template_gives_what_transformers_gives(name, tokenizer):
    texts = ["How?", "So.", "And <this> & 'that'?"]
    roles = ["user", "assistant", "user"]
    contents = [[{"type": "text", "text": text}] for text in texts] if name in PARTS else texts
    made = frame(tokenizer, {**LEGIT, **PARTS}[name])
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert filled(made, texts) == expected


@pytest.mark.parametrize("name", REFUSED)
def test_a_template_that_does_not_keep_the_text_once_is_one_error(name, tokenizer):
    with pytest.raises(ModelError, match=r"^prompt\.chat: the chat template .*Set prompt\.chat=false"):
        frame(tokenizer, REFUSED[name])


def test_an_answer_that_is_left_out_is_an_error_where_there_are_demonstrations(tokenizer):
    made = frame(tokenizer, LOOP.replace("BODY", "{% if message.role == 'user' %}{{ message.content }}{% endif %}"))
    made.around(1)
    with pytest.raises(ModelError, match=r"text of message 2 \(assistant\)"):
        made.around(3)


def test_messages_in_another_order_are_an_error(tokenizer):
    made = frame(tokenizer, LEGIT["plain"].replace("in messages", "in messages | reverse"))
    with pytest.raises(ModelError, match="another order"):
        made.around(3)


def test_the_date_is_the_one_given(tokenizer):
    template = "{{ strftime_now('%d %b %Y %H:%M') }}" + LEGIT["plain"]
    assert filled(frame(tokenizer, template), ["x"]).startswith("04 Jul 2026 00:00")
    assert filled(frame(tokenizer, template, date(2027, 1, 2)), ["x"]).startswith("02 Jan 2027")


def test_of_several_templates_the_default_is_taken(tokenizer):
    made = frame(tokenizer, {"tool_use": REFUSED["raises"], "default": LEGIT["plain"]})
    assert filled(made, ["x"]) == "user: x<|end|>\nassistant:"
    with pytest.raises(ModelError, match="no default"):
        frame(tokenizer, {"tool_use": LEGIT["plain"], "rag": LEGIT["plain"]})


@pytest.mark.parametrize("special", ["A", "0", "<", "user", "\x00", "&"])
def test_special_tokens_that_look_like_marks_do_not_take_them_apart(special):
    tokenizer = make_decoder_tokenizer("llama")
    tokenizer.add_special_tokens({"additional_special_tokens": [special]})
    assert filled(frame(tokenizer, LEGIT["plain"]), ["x 0 A <"]) == "user: x 0 A <<|end|>\nassistant:"


def test_a_template_is_rendered_once(tokenizer, monkeypatch):
    made = frame(tokenizer, LEGIT["plain"])
    monkeypatch.setattr("entailor.models.chat.run_bounded", None)
    assert filled(made, ["x"]) == filled(made, ["x"])
