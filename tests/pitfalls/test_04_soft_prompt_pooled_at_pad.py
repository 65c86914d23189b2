"""Pitfall 4: soft prompts on decoders are pooled at position -1, which is a pad."""

import numpy as np
import pytest
import torch
from peft import PromptTuningConfig
from tests.conftest import make_examples
from tests.methods.conftest import ALL_AT_ONCE, logprobs
from tests.pitfalls.conftest import make_plain_tokenizer, usual_peft
from transformers import LlamaForSequenceClassification

from entailor.methods import build_method

SHORT, LONG = "w1 w2", "w3 w4 w5 w6 w7 w8"


def test_usual_peft_scores_change_with_the_neighbour_in_the_batch(tiny_decoder):
    tokenizer = make_plain_tokenizer(pad="<unk>")
    tokenizer.padding_side = "right"
    model = tiny_decoder(LlamaForSequenceClassification, pad_token_id=tokenizer.pad_token_id, num_labels=3)
    plain = {
        "alone": model(**tokenizer([SHORT], return_tensors="pt")).logits[0],
        "beside": model(**tokenizer([SHORT, LONG], padding=True, return_tensors="pt")).logits[0],
    }
    assert torch.allclose(plain["alone"], plain["beside"], atol=1e-4)  # right, as long as there is no prompt
    tuned = usual_peft(model, PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4)).eval()
    with torch.no_grad():
        alone = tuned(**tokenizer([SHORT], return_tensors="pt")).logits[0]
        beside = tuned(**tokenizer([SHORT, LONG], padding=True, return_tensors="pt")).logits[0]
    assert not torch.allclose(alone, beside, atol=1e-3)


@pytest.mark.parametrize("name", ["p_tuning", "prefix_tuning"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_ours_scores_an_example_the_same_alone_and_beside_others(name, kind, load_tiny, nli_task):
    classifier = build_method(name, {"num_virtual_tokens": 4}).adapt(load_tiny(kind), nli_task, 0)
    rows = make_examples(12, seed=3)
    np.testing.assert_allclose(logprobs(classifier, rows, 1), logprobs(classifier, rows, ALL_AT_ONCE), atol=1e-4)
