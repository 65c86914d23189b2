"""Pitfall 16: answers change with the batch they stand in (transformers#26869)."""

import numpy as np
import pytest
import torch
from tests.conftest import make_examples
from tests.methods.conftest import ALL_AT_ONCE, logprobs
from tests.pitfalls.conftest import make_plain_tokenizer
from transformers import LlamaForCausalLM

from entailor.classifiers.transformer import TransformerClassifier
from entailor.methods import build_method


def test_usual_half_precision_scores_move_with_padding(tiny_decoder):
    tokenizer = make_plain_tokenizer(pad="</s>")
    tokenizer.padding_side = "left"
    model = tiny_decoder(LlamaForCausalLM).to(torch.bfloat16)
    texts = [" ".join(f"w{(7 * row + place) % 50}" for place in range(3 + row)) for row in range(12)]
    with torch.no_grad():
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        together = torch.log_softmax(model(**batch).logits[:, -1].float(), -1)
        alone = torch.stack(
            [
                torch.log_softmax(model(**tokenizer([one], return_tensors="pt")).logits[0, -1].float(), -1)
                for one in texts
            ]
        )
    assert (together - alone).abs().max() > 1e-3


def test_ours_agree_within_a_ten_thousandth_whatever_the_batch(load_tiny, nli_task):
    classifier = TransformerClassifier(load_tiny("roberta"), nli_task)
    rows = make_examples(24, seed=3)
    scores = [logprobs(classifier, rows, tokens) for tokens in (1, 40, 200, ALL_AT_ONCE)]
    for other in scores[1:]:
        np.testing.assert_allclose(other, scores[0], atol=1e-4)
        assert (other.argmax(1) == scores[0].argmax(1)).all()


@pytest.mark.parametrize("shots", [0, 3])
def test_ours_asks_a_decoder_the_same_whatever_the_batch(shots, load_tiny, nli_task):
    method = build_method("in_context", {"num_fewshot": shots})
    classifier = method.adapt(load_tiny("llama", objective="language_model"), nli_task, 0)
    classifier.demonstrate(make_examples(9, seed=1))
    rows = make_examples(12, seed=3)
    scores = [logprobs(classifier, rows, tokens) for tokens in (1, 300, ALL_AT_ONCE)]
    for other in scores[1:]:
        np.testing.assert_allclose(other, scores[0], atol=1e-4)
