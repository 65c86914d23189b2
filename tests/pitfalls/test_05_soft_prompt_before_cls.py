"""Pitfall 5: soft prompts stand in front of the token the head reads, and use positions up (P-tuning-v2#9)."""

import pytest
import torch
from peft import PromptEncoderConfig
from tests.conftest import make_examples
from tests.pitfalls.conftest import usual_peft

from entailor.data.example import Example
from entailor.methods import build_method

VIRTUAL = 6


def embedded(model, run):
    """Return the embeddings of the positions, as they enter the encoder's first layer."""
    seen = []
    hook = model.register_forward_hook(lambda module, inputs, kwargs, output: seen.append(kwargs), with_kwargs=True)
    with torch.no_grad():
        run()
    hook.remove()
    return seen[-1]["inputs_embeds"]


def usual(plain_encoder):
    config = PromptEncoderConfig(task_type="SEQ_CLS", num_virtual_tokens=VIRTUAL, encoder_hidden_size=16)
    return usual_peft(plain_encoder(), config).eval()


def test_usual_peft_puts_virtual_tokens_where_the_pooler_reads(plain_encoder):
    model = usual(plain_encoder)
    ids = torch.tensor([[2, 10, 20, 3]])  # [CLS] is 2
    table = model.get_base_model().get_input_embeddings().weight
    inputs = embedded(model.get_base_model(), lambda: model(input_ids=ids, attention_mask=torch.ones_like(ids)))
    assert not torch.allclose(inputs[0, 0], table[2])  # bert's pooler reads position 0
    assert torch.allclose(inputs[0, VIRTUAL], table[2])


def test_usual_peft_fails_on_a_text_that_fits_the_model(plain_encoder):
    model = usual(plain_encoder)
    most = model.config.max_position_embeddings
    ids = torch.full((1, most), 10)
    model.get_base_model()(input_ids=ids)  # fits without the prompt
    with pytest.raises((RuntimeError, IndexError)):
        model(input_ids=ids, attention_mask=torch.ones_like(ids))


def test_ours_stand_behind_the_first_token_and_have_their_room(load_tiny, nli_task):
    classifier = build_method("p_tuning", {"num_virtual_tokens": VIRTUAL}).adapt(load_tiny("bert"), nli_task, 0)
    batch = classifier.collate(classifier.encode(make_examples(2, seed=3)))
    table = classifier.model.get_input_embeddings().weight
    inputs = embedded(classifier.model.bert, lambda: classifier.logits(batch))
    assert torch.allclose(inputs[0, 0], table[int(batch.ids_BT[0, 0])])
    assert torch.allclose(inputs[0, 1 : VIRTUAL + 1], classifier.prompt(), atol=1e-6)
    long = Example("x", "w1 " * 200, "w2", "neutral")
    (item,) = classifier.encode([long])
    assert item.truncated
    assert len(item) == classifier.text_encoder.max_length - VIRTUAL
    assert torch.isfinite(classifier.logits(classifier.collate([item]))).all()
