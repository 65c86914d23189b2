"""Pitfall 17: merging into 4-bit weights loses accuracy (peft#2321, #1043)."""

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from tests.pitfalls.conftest import usual_peft
from transformers import LlamaForSequenceClassification

from entailor import compare
from entailor.models.load import quiet_libraries
from entailor.shipping.export import export
from entailor.shipping.verification import ask_here

IDS = torch.tensor([[1, 10, 20, 30], [1, 11, 31, 41]])
CONFIG = {"task_type": "SEQ_CLS", "r": 4, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}


def moved_by_merging(model):
    """Return how far merging an adapter moves the scores, as a share of the largest."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        adapted = usual_peft(model, LoraConfig(**CONFIG)).eval()
    with torch.no_grad(), quiet_libraries():
        before = adapted(input_ids=IDS).logits
        after = adapted.merge_and_unload()(input_ids=IDS).logits
    return float((before - after).abs().max() / before.abs().max())


@pytest.mark.filterwarnings("ignore")  # "may get different generations due to rounding errors"
def test_usual_merging_into_4_bit_moves_the_scores_and_into_full_precision_does_not(tiny_decoder, tmp_path):
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    wide = {"hidden_size": 64, "intermediate_size": 64}  # blocks of 4-bit weights have 64
    tiny_decoder(LlamaForSequenceClassification, num_labels=3, pad_token_id=0, **wide).save_pretrained(tmp_path)
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    with quiet_libraries():
        quantised = LlamaForSequenceClassification.from_pretrained(tmp_path, quantization_config=nf4)
        full = LlamaForSequenceClassification.from_pretrained(tmp_path)
    assert moved_by_merging(full) < 1e-4
    assert moved_by_merging(quantised) > 1e-2


def test_ours_merges_into_full_precision_and_scores_again(nli_experiment, tmp_path):
    settings = nli_experiment.model.model_copy(update={"load_in_4bit": True})
    rows = {"lora": {"r": 2, "num_train_epochs": 1, "learning_rate": 0.03}}
    changed = {"model": settings, "methods": rows, "seeds": (0,), "out": str(tmp_path / "run")}
    run = compare(nli_experiment.model_copy(update=changed))
    (record,) = run.records
    placed = record.provenance["placement"]
    assert {part["name"] for part in placed["parts"]} >= {"4-bit layers", "head"}
    assert placed["total_bytes"] < placed["load_bytes"]
    assert record.provenance["reload_gap"] < 1e-6
    # another base than in training, so not the recorded scores; eighteen examples show no small loss
    (report,) = export(run.best.trial, ["transformers"], tmp_path / "merged", margin=0.9, ask=ask_here)
    assert report.proof.passed
    assert report.proof.examples == 18
    assert 0 < report.proof.largest_change < 0.2
    weights = load_file(tmp_path / "merged" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()} == {torch.float32}
    assert not [name for name in weights if "lora" in name]
