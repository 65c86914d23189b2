"""Pitfall 15: special tokens are added twice, or a text makes them."""

import pytest
from tests.conftest import ENCODERS, NLI_LABELS
from tests.pitfalls.conftest import make_plain_tokenizer

from entailor.config.parts import PromptSettings
from entailor.data.example import Example
from entailor.tasks import Task

TEMPLATE = "{{ bos_token }} {% for message in messages %}{{ message['content'] }} {{ eos_token }} {% endfor %}"


def test_usual_a_rendered_template_tokenised_again_begins_twice():
    tokenizer = make_plain_tokenizer()
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "w1 w2"}], chat_template=TEMPLATE, tokenize=False
    )
    ids = tokenizer(rendered)["input_ids"]
    assert ids[:2] == [tokenizer.bos_token_id] * 2


def test_ours_adds_special_tokens_once_whatever_the_text_says(load_tiny):
    for kind in ENCODERS:
        encoder = load_tiny(kind).text_encoder
        tokenizer = encoder.tokenizer
        (item,) = encoder.encode([Example("x", f"{tokenizer.cls_token} w1", f"w2 {tokenizer.sep_token} w3")])
        (plain,) = encoder.encode([Example("x", "w1", "w2 w3")])
        assert item.input_ids.count(tokenizer.cls_token_id) == plain.input_ids.count(tokenizer.cls_token_id) == 1
        assert item.input_ids.count(tokenizer.sep_token_id) == plain.input_ids.count(tokenizer.sep_token_id)


@pytest.mark.parametrize("chat", [False, True])
def test_ours_begins_a_prompt_once(chat, load_tiny):
    task = Task(NLI_LABELS, True, PromptSettings(chat=chat))
    encoder = load_tiny("llama", task=task, objective="language_model").text_encoder
    tokenizer = encoder.tokenizer
    (item,) = encoder.encode([Example("x", f"{tokenizer.bos_token} w1", "w2")])
    assert item.input_ids[0] == tokenizer.bos_token_id
    assert item.input_ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.bos_token in tokenizer.decode(item.input_ids[1:])  # the text's own stays, as text
