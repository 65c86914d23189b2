"""Pitfall 19: offload and placement fail late or crawl (transformers#26153, #34079)."""

import json

import pytest
from tests.observers import listener

from entailor import compare
from entailor.errors import ModelError
from entailor.models import memory_plan as placement


def test_ours_says_model_precision_and_data_before_the_first_trial(nli_experiment, tmp_path):
    said: list[str] = []
    observer = listener(note=said.append, trial=lambda number, count, title: said.append(f"TRIAL {title}"))
    rows = {"majority": {}, "linear_probe": {"C": [1.0]}}
    out = tmp_path / "run"
    compare(nli_experiment.model_copy(update={"methods": rows, "out": str(out)}), observer)
    first = next(place for place, words in enumerate(said) if words.startswith("TRIAL"))
    before = " ".join(said[:first])
    assert "model " in before
    assert "precision fp32" in before
    assert "train 48, validation 18, test 18" in before
    assert "memory of " in before
    assert "in all" in before
    assert "tokens a second" in before
    machine = json.loads((out / "environment.json").read_text("utf-8"))
    ((planned,),) = ([*machine["placement"].values()],)
    assert planned[0]["total_bytes"] > 0
    assert {"cpu", "cores", "threads", "memory_bytes", "gpus"} <= machine.keys()


def test_ours_refuses_what_does_not_fit_before_anything_is_loaded(load_tiny, monkeypatch):
    monkeypatch.setattr(placement, "PIECE_BYTES", 0)
    monkeypatch.setattr(placement, "free_memory_bytes", lambda: 25_000)
    with pytest.raises(ModelError, match=r"where 25 kB are free\. Set model\.load_in_4bit=true"):
        load_tiny("bert")
