"""Pitfall 23: half precision on a CPU without support: five to forty times slower (pytorch#146508)."""

import json

import torch
from transformers import LlamaForCausalLM

from entailor import ModelSettings, compare
from entailor.engine import precision


def test_usual_half_precision_is_taken_without_a_question(tiny_decoder):
    """Whoever writes dtype=bfloat16 gets it on any processor; nothing measures and nothing tells."""
    assert tiny_decoder(LlamaForCausalLM).to(torch.bfloat16).dtype is torch.bfloat16


def test_ours_measures_says_why_and_records_it(nli_experiment, monkeypatch, tmp_path):
    speeds = {"fp32": 100.0, "bf16": 4.0}  # a processor that emulates bf16
    monkeypatch.setattr(precision, "measure_gflops", lambda name, hidden, intermediate: speeds[name])
    monkeypatch.setenv("ENTAILOR_CACHE", str(tmp_path / "cache"))
    rows = {"lora": {"r": 2, "num_train_epochs": 1}}
    changed = {"methods": rows, "seeds": (0,), "model": ModelSettings(), "out": str(tmp_path / "run")}
    (record,) = compare(nli_experiment.model_copy(update=changed)).records
    assert record.provenance["precision"] == "fp32"
    assert "bf16 4 GFLOP/s" in record.provenance["precision_reason"]
    (choice,) = json.loads((tmp_path / "run" / "environment.json").read_text("utf-8"))["precision"].values()
    assert (choice["precision"], choice["bf16_gflops"]) == ("fp32", 4.0)
