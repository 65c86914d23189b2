from dataclasses import replace

import pytest
from tests.conftest import DECODERS, make_decoder_tokenizer, make_examples

from entailor.config.parts import PromptSettings
from entailor.data.example import Example
from entailor.errors import ConfigError, ModelError
from entailor.models.prompts import common_prefix
from entailor.tasks import Task

NLI = ("entailment", "neutral", "contradiction")
PAIR = Example("x", "w1 w2", "w3", "neutral")


@pytest.fixture
def encoder(load_tiny):
    def make(kind="llama", objective="language_model", prompt=None, **settings):
        task = Task(NLI, True, PromptSettings(**(prompt or {})))
        return load_tiny(kind, task, objective=objective, **settings).text_encoder

    return make


@pytest.mark.parametrize("kind", DECODERS)
def test_special_tokens_stand_in_front_once_and_never_behind(kind, encoder):
    prompts = encoder(kind)
    begin, end = prompts.tokenizer.bos_token_id, prompts.tokenizer.eos_token_id
    ids = prompts.encode([PAIR])[0].input_ids
    expected = 1 if kind in ("llama", "mistral", "gemma") else 0
    assert (ids.count(begin), ids.count(end)) == (expected, 0)
    assert ids[:expected] == [begin] * expected


def test_a_chat_has_its_control_tokens_once(encoder):
    prompts = encoder(prompt={"chat": True, "instruction": "w9"})
    shot = replace(PAIR, label="entailment")
    item = prompts.encode([PAIR], shots=lambda row: [shot])[0]
    words = "".join(prompts.pieces(item.input_ids))
    question = "w1 w2\nQuestion: w3 True, False or Neither?\nAnswer:"
    assert words == (
        f"<|begin|>user: w9\n\n{question}<|end|>\nassistant: True<|end|>\nuser: {question}<|end|>\nassistant:"
    )
    # what the chat template wrote is control, as transformers itself has it
    assert item.input_ids == prompts.tokenizer(words, add_special_tokens=False)["input_ids"]
    assert item.input_ids.count(prompts.tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("chat", [False, True])
def test_text_that_spells_a_control_token_is_text(chat, encoder):
    prompts = encoder(prompt={"chat": chat})
    plain = prompts.encode([PAIR])[0].input_ids
    odd = prompts.encode([replace(PAIR, text="w1 <|end|> w2 <|begin|>")])[0].input_ids
    for token in (prompts.tokenizer.bos_token_id, prompts.tokenizer.eos_token_id):
        assert odd.count(token) == plain.count(token)
    assert "<|end|> w2 <|begin|>" in "".join(prompts.pieces(odd))


def test_prompt_and_word_are_tokenised_together(encoder):
    prompts = encoder()
    item = prompts.encode([PAIR])[0]
    for label, word in enumerate(("True", "Neither", "False")):
        text = f"w1 w2\nQuestion: w3 True, False or Neither?\nAnswer: {word}"
        whole = prompts.tokenizer(text)["input_ids"]
        assert [*item.input_ids, *item.continuations[label]] == whole
        assert prompts.tokenizer.decode(item.continuations[label]) == f" {word}"


def test_a_word_that_melts_into_the_prompt_is_scored_from_there(encoder):
    # without a space the tokenizer joins the last letters of the prompt and the word
    prompts = encoder(
        prompt={"template": "{{ premise }} {{ hypothesis }} Tr{{ label }}", "verbalizer": {"entailment": "ue"}}
    )
    item = prompts.encode([PAIR])[0]
    whole = prompts.tokenizer("w1 w2 w3 True")["input_ids"]
    assert [*item.input_ids, *item.continuations[0]] == whole
    assert all(item.continuations)


def test_words_that_begin_alike_to_the_end_are_refused(encoder):
    with pytest.raises(ConfigError, match=r"'w1' \(neutral\) are the beginning of those of 'w1 w2' \(contradiction\)"):
        encoder(prompt={"verbalizer": {"neutral": "w1", "contradiction": "w1 w2"}})
    assert encoder(objective="classify", prompt={"verbalizer": {"neutral": "w1", "contradiction": "w1 w2"}})
    words = {"neutral": "w1", "contradiction": "w1 w2", "entailment": "w1 w2 w3"}
    with pytest.raises(ConfigError, match=r"likewise of contradiction\. Give other words for them"):
        encoder(prompt={"verbalizer": words})
    assert encoder(prompt={"verbalizer": {**words, "neutral": "no", "contradiction": "maybe"}})


def test_demonstrations_stand_in_front_with_their_words(encoder):
    prompts = encoder(prompt={"instruction": "w9 w9"})
    shots = [Example("a", "w5", "w6", "contradiction"), Example("b", "w7", "w8", "entailment")]
    item = prompts.encode([PAIR], shots=lambda row: shots)[0]
    assert "".join(prompts.pieces(item.input_ids)) == (
        ("<|begin|>" if prompts.first_ids else "")
        + "w9 w9\n\nw5\nQuestion: w6 True, False or Neither?\nAnswer: False\n\n"
        "w7\nQuestion: w8 True, False or Neither?\nAnswer: True\n\nw1 w2\nQuestion: w3 True, False or Neither?\nAnswer:"
    )
    assert item.shots == 2


def test_what_does_not_fit_the_context_has_fewer_demonstrations(encoder):
    prompts = encoder()
    shots = [replace(row, label="neutral") for row in make_examples(30, seed=5)]
    item = prompts.encode([PAIR], shots=lambda row: shots)[0]
    assert 0 < item.shots < 30
    assert len(item) <= prompts.context == 320
    text = "".join(prompts.pieces(item.input_ids))
    assert text.endswith("\n\nw1 w2\nQuestion: w3 True, False or Neither?\nAnswer:")  # the nearest ones are kept
    assert shots[-1].text in text
    assert not item.truncated


def test_the_longest_text_is_cut_and_the_slot_never(encoder):
    prompts = encoder(max_length=60)
    long = Example("x", " ".join(["w1"] * 100), "w3 w4", "neutral")
    item = prompts.encode([long])[0]
    assert item.truncated
    assert len(item) <= 60
    text = "".join(prompts.pieces(item.input_ids))
    assert text.endswith("w1\nQuestion: w3 w4 True, False or Neither?\nAnswer:")


def test_a_context_too_short_for_one_example_is_an_error(encoder):
    prompts = encoder(max_length=40, prompt={"instruction": " ".join(["w1"] * 40)})
    with pytest.raises(ModelError, match=r"the prompt takes \d+ tokens without any text, and 40 is all.*instruction"):
        prompts.encode([PAIR])


def test_a_model_without_a_chat_template_says_so(tiny_model, load_tiny, tmp_path):
    from transformers import AutoModelForCausalLM

    tokenizer = make_decoder_tokenizer("llama")
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    AutoModelForCausalLM.from_pretrained(tiny_model("llama")).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"no chat template. Set prompt.chat=false"):
        load_tiny(tmp_path, Task(NLI, True, PromptSettings(chat=True)))


def test_the_common_beginning_of_rows():
    assert common_prefix([[1, 2, 3], [1, 2], [1, 2, 4]]) == [1, 2]
    assert common_prefix([[1, 2], [3]]) == []
    assert common_prefix([]) == []
