"""Pitfall 3: padding decides which position is read (transformers#34055, #35352, trl#422)."""

import numpy as np
import pytest
import torch
from tests.conftest import make_examples
from tests.methods.conftest import ALL_AT_ONCE, logprobs
from tests.pitfalls.conftest import make_plain_tokenizer
from transformers import LlamaForSequenceClassification

from entailor.classifiers.transformer import TransformerClassifier
from entailor.data.example import Example


def test_usual_pad_is_eos_reads_in_front_of_the_end_of_the_text(tiny_decoder):
    """A text that ends in </s>, as rendered chats do, is read one token too early: its end looks like padding."""
    tokenizer = make_plain_tokenizer(pad="</s>")
    model = tiny_decoder(LlamaForSequenceClassification, pad_token_id=tokenizer.pad_token_id, num_labels=3)
    batch = tokenizer(["w1 w2 w3 </s>"], return_tensors="pt")
    with torch.no_grad():
        read = model(**batch).logits[0]
        each_position = model.score(model.model(**batch).last_hidden_state)[0]
    assert torch.allclose(read, each_position[-2], atol=1e-5)
    assert not torch.allclose(read, each_position[-1], atol=1e-3)


def test_usual_without_a_pad_token_the_padding_itself_is_read(tiny_decoder):
    model = tiny_decoder(LlamaForSequenceClassification, pad_token_id=None, num_labels=3)
    alone = torch.tensor([[1, 10, 20]])
    padded = torch.tensor([[1, 10, 20, 0, 0]])
    mask = (torch.arange(5) < 3).long()[None]
    with torch.no_grad():
        assert not torch.allclose(model(alone).logits, model(padded, attention_mask=mask).logits, atol=1e-3)


@pytest.mark.parametrize("kind", ["bert", "llama", "gpt2", "mistral"])  # gpt2 and mistral have no pad token
def test_ours_takes_positions_from_lengths(kind, load_tiny, nli_task):
    classifier = TransformerClassifier(load_tiny(kind), nli_task)
    rows = make_examples(12, seed=3)
    together, alone = logprobs(classifier, rows, ALL_AT_ONCE), logprobs(classifier, rows, 1)
    np.testing.assert_allclose(together, alone, atol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_ours_reads_a_pad_token_that_is_text_as_text(kind, load_tiny, nli_task):
    classifier = TransformerClassifier(load_tiny(kind), nli_task)
    pad = classifier.text_encoder.tokenizer.pad_token
    items = classifier.encode([Example("x", f"w1 {pad}", f"w2 {pad}"), Example("y", "w1", "w2")])
    assert classifier.collate(items).mask_BT.sum(1).tolist() == [len(item) for item in items]
