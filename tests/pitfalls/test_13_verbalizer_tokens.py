"""Pitfall 13: verbalizer words split differently after a space, or share a first token.

(lm-evaluation-harness#2346, #1556)
"""

import pytest
from tests.conftest import NLI_LABELS

from entailor.config.parts import PromptSettings
from entailor.data.example import Example, Split
from entailor.diagnostics.base import CheckInput
from entailor.diagnostics.tokens import label_tokens, token_checks
from entailor.errors import ConfigError
from entailor.methods import build_method
from entailor.tasks import Task


@pytest.fixture(scope="module")
def byte_level():
    """A byte-level BPE tokenizer that knows "pos" with and without a space, made as those of gpt2 and llama 3 are."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    merges = [("p", "o"), ("po", "s"), ("Ġ", "pos")]
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    backend = Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="!")


class Encoder:
    """As much of a text encoder as reading label names takes."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer


def test_usual_word_and_prompt_tokenised_apart_are_not_what_stands_in_the_text(byte_level):
    apart = byte_level("the answer is ")["input_ids"] + byte_level("positive")["input_ids"]
    together = byte_level("the answer is positive")["input_ids"]
    assert apart != together
    assert byte_level.decode(apart) == byte_level.decode(together)


def test_usual_scoring_the_first_token_alone_cannot_tell_these_labels_apart(byte_level):
    first = [byte_level(f" {label}")["input_ids"][0] for label in ("positive", "possible")]
    assert first[0] == first[1]


def test_ours_names_labels_that_begin_with_the_same_token(byte_level):
    outcome = label_tokens(Encoder(byte_level), "tiny", ("positive", "possible", "not"))
    (found,) = outcome.findings
    assert (found.kind, found.severity) == ("same_first_token", "info")
    assert "'positive', 'possible' begin with the same token" in found.message


def test_ours_calls_equal_tokens_an_error_and_a_prefix_a_warning(byte_level, load_tiny):
    encoder = load_tiny("bert").text_encoder  # lower-cases, so Yes and yes are one word to it
    evidence = CheckInput(Split((Example("a", "yes", None, "Yes"),), (), ()), ("Yes", "yes", "yes no"), is_pair=False)
    (names, _) = token_checks(encoder, "tiny", evidence)
    assert {one.kind: one.severity for one in names.outcome.findings} == {
        "same_label_tokens": "error",
        "prefix_label_tokens": "warning",
    }


def test_ours_names_a_thousand_alike_labels_once(byte_level):
    labels = ("intent", *(f"intent {n}" for n in range(1000)))
    (found,) = label_tokens(Encoder(byte_level), "tiny", labels).findings
    assert (found.kind, len(found.figures["labels"])) == ("prefix_label_tokens", 1001)
    assert found.message.endswith("higher: 'intent / intent 0', 'intent / intent 1', 'intent / intent 2' and 997 more")
    findings = {one.kind: one for one in label_tokens(Encoder(byte_level), "tiny", labels[1:]).findings}
    assert len(findings["same_first_token"].figures["labels"]) == 1000
    assert len(findings) <= 2


def test_ours_tokenises_prompt_and_word_together_and_scores_all_its_tokens(load_tiny, nli_task):
    classifier = build_method("in_context", {}).adapt(load_tiny("llama", objective="language_model"), nli_task, 0)
    (item,) = classifier.encode([Example("x", "w1 w2", "w3", "neutral")])
    tokenizer = classifier.text_encoder.tokenizer
    words = classifier.text_encoder.template.words
    wholes = [tokenizer.decode([*item.input_ids, *ids]) for ids in item.continuations]
    assert all(whole.endswith(f"Answer: {word}") for whole, word in zip(wholes, words, strict=True))
    assert all(
        tokenizer(whole.removeprefix(tokenizer.bos_token))["input_ids"] == [*item.input_ids, *ids]
        for whole, ids in zip(wholes, item.continuations, strict=True)
    )


def test_ours_refuses_words_of_which_one_begins_another(load_tiny):
    """Where label words are scored, this is an error before anything is loaded in vain; the reason is given."""
    task = Task(NLI_LABELS, True, PromptSettings(verbalizer={"neutral": "w1", "contradiction": "w1 w2"}))
    with pytest.raises(ConfigError, match=r"'w1' .neutral. are the beginning of those of 'w1 w2'"):
        load_tiny("llama", task=task, objective="language_model")
