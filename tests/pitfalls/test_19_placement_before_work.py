"""Pitfall 19: offload and placement fail late or crawl (transformers#26153, #34079)."""

import json

from entailor import Observer, compare


def test_ours_says_model_precision_and_data_before_the_first_trial(nli_experiment, tmp_path):
    said: list[str] = []
    observer = Observer(note=said.append, trial=lambda number, count, title: said.append(f"TRIAL {title}"))
    rows = {"majority": {}, "linear_probe": {"C": [1.0]}}
    out = tmp_path / "run"
    compare(nli_experiment.model_copy(update={"methods": rows, "out": str(out)}), observer)
    first = next(place for place, words in enumerate(said) if words.startswith("TRIAL"))
    before = " ".join(said[:first])
    assert "model " in before
    assert "precision fp32" in before
    assert "train 48, tune 18, test 18" in before
    machine = json.loads((out / "environment.json").read_text("utf-8"))
    assert {"cpu", "cores", "threads", "memory_bytes", "gpus"} <= machine.keys()
