"""Merging goes into full precision and is scored again."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import reseal

from entailor.cli.app import main
from entailor.errors import MethodError, OutputError, RunError
from entailor.runs.record import RunRecord
from entailor.shipping.merging import merge
from entailor.study.compare import compare

LORA = {"r": 2, "num_train_epochs": 2, "learning_rate": 0.03}


@pytest.fixture(scope="module")
def quantised_trial(tmp_path_factory, nli_experiment):
    settings = nli_experiment.model.model_copy(update={"load_in_4bit": True})
    out = str(tmp_path_factory.mktemp("runs") / "nf4")
    small = {"model": settings, "methods": {"lora": LORA, "p_tuning": {"num_train_epochs": 1}}, "seeds": (0,)}
    run = compare(nli_experiment.model_copy(update={"out": out, **small}))
    assert [record.error for record in run.records] == [None, None]
    return run


@pytest.fixture
def lora_trial(finished_run):
    record = next(record for record in finished_run.records if record.name == "lora")
    return finished_run.folder.trial(record.model, "lora", 0)


def test_a_merged_checkpoint_is_plain_and_scores_the_same(lora_trial, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    report = merge(lora_trial, tmp_path / "merged")
    assert report.trained_on == "full precision"
    assert report.flips == 0
    assert report.largest_change < 1e-5
    assert report.accuracy_before == report.accuracy_after
    row = RunRecord.read(lora_trial).predictions[0]
    assert report.examples == len(RunRecord.read(lora_trial).predictions)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        found = model(**tokenizer(row.text, row.text_pair, return_tensors="pt")).logits.softmax(-1)[0]
    assert model.config.id2label == dict(enumerate(row.probabilities))
    assert np.allclose(found, list(row.probabilities.values()), atol=1e-5)
    assert not [name for name in load_file(tmp_path / "merged" / "model.safetensors") if "lora" in name]
    assert json.loads((tmp_path / "merged" / "merge.json").read_text())["flips"] == 0


def test_merging_what_was_trained_on_nf4_states_the_price(quantised_trial, tmp_path):
    record = next(record for record in quantised_trial.records if record.name == "lora")
    trial = quantised_trial.folder.trial(record.model, "lora", 0)
    placed = record.provenance["placement"]
    assert {part["name"] for part in placed["parts"]} >= {"4-bit layers", "head"}
    assert placed["total_bytes"] < placed["load_bytes"]
    assert record.provenance["reload_gap"] < 1e-6
    report = merge(trial, tmp_path / "merged")
    assert report.trained_on == "nf4"
    assert 0 < report.largest_change < 0.2
    assert "(the price of training on nf4 weights)" in str(report)
    assert load_file(tmp_path / "merged" / "model.safetensors")["classifier.weight"].dtype == torch.float32
    environment = json.loads(quantised_trial.folder.environment_file.read_text())
    assert "tokens a second" in environment["placement"][record.model][0]["speed"]


def test_a_file_can_be_scored_instead(lora_trial, nli_files, tmp_path, capsys, monkeypatch):
    words = ["merge", "--run", str(lora_trial), "--output", str(tmp_path / "merged"), "--test", nli_files.validation]
    monkeypatch.setattr("sys.argv", ["entailor", *words, "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    report = json.loads(capsys.readouterr().out)
    assert report["examples"] == 18
    assert report["flips"] == 0


def test_other_scores_than_recorded_are_refused_and_leave_nothing(lora_trial, tmp_path):
    weights = lora_trial / "adapter" / "adapter_model.safetensors"
    kept, record = weights.read_bytes(), (lora_trial / "record.json").read_bytes()
    save_file({name: tensor + 0.5 for name, tensor in load_file(weights).items()}, weights)
    reseal(lora_trial)
    try:
        with pytest.raises(RunError, match=r"is not rounding, so nothing was written"):
            merge(lora_trial, tmp_path / "merged")
    finally:
        weights.write_bytes(kept)
        (lora_trial / "record.json").write_bytes(record)
    assert not (tmp_path / "merged").exists()


def test_a_folder_in_use_is_refused(lora_trial, tmp_path):
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(OutputError, match=r"exists already\. Give another --output"):
        merge(lora_trial, tmp_path)


def test_a_trial_without_an_adapter_is_refused(finished_run, quantised_trial, tmp_path):
    record = next(record for record in quantised_trial.records if record.name == "p_tuning")
    trial = quantised_trial.folder.trial(record.model, "p_tuning", 0)
    with pytest.raises(MethodError, match=r"p_tuning: has no adapter that changes weights"):
        merge(trial, tmp_path / "merged")
    with pytest.raises(MethodError, match=r"majority: has no adapter"):
        merge(finished_run.folder.trial("none", "majority", 0), tmp_path / "merged")
