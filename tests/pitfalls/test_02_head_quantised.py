"""Pitfall 2: the head gets quantised (unsloth#5027, transformers#24037)."""

import pytest
import torch
from transformers import LlamaForSequenceClassification

from entailor import ModelSettings
from entailor.errors import ModelError
from entailor.methods import build_method
from entailor.models.load import quiet_libraries
from entailor.models.quantization import check_heads_left_alone, quantized_layer, quantized_layers


@pytest.fixture
def plain_decoder(tiny_decoder, tmp_path):
    """The folder of a plain llama with a classification head."""
    tiny_decoder(LlamaForSequenceClassification, num_labels=3, pad_token_id=0).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore")
def test_usual_skipping_lm_head_alone_quantises_the_classification_head(plain_decoder):
    """The recipe of causal language models, copied to a classifier whose head has another name."""
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=["lm_head"])
    with quiet_libraries():
        model = LlamaForSequenceClassification.from_pretrained(plain_decoder, quantization_config=config)
    assert model.score.weight.dtype == torch.uint8
    assert not model.score.weight.requires_grad  # so it cannot be trained either


@pytest.mark.parametrize("kind", ["bert", "roberta", "llama", "gpt2"])
def test_ours_keeps_every_head_in_fp32_and_trainable(kind, load_tiny, nli_task):
    method = build_method("lora", {"r": 2})
    classifier = method.adapt(load_tiny(kind, load_in_4bit=True), nli_task, 0)
    assert quantized_layers(classifier.model)  # the body is in 4 bits
    heads = {name: tensor for name, tensor in classifier.named_parameters() if classifier.is_head(name)}
    assert heads
    assert all(tensor.dtype == torch.float32 for tensor in heads.values())
    assert any(tensor.requires_grad for tensor in heads.values())


def test_ours_looks_after_loading_and_refuses_a_quantised_head(load_tiny):
    model = load_tiny("bert").model
    settings = ModelSettings(load_in_4bit=True)
    model.classifier = quantized_layer(model.classifier, settings)
    with pytest.raises(ModelError, match="classifier"):
        check_heads_left_alone(model, ["classifier"])
