"""Pitfall 18: resume restores the wrong thing (transformers#35850, #29078, #35087)."""

import signal

import pytest
import torch
from tests.conftest import FP32, make_examples
from tests.observers import listener

from entailor import compare
from entailor.config.parts import ModelSettings
from entailor.data.example import Split
from entailor.engine.stopping import UNATTENDED, RunContext, Stopped, StopSwitch
from entailor.methods import build_method
from entailor.runs.integrity import checksums
from entailor.study.trial import run_trial
from entailor.study.trial_plan import TrialPlan


def test_usual_weights_alone_do_not_go_on_where_training_stopped():
    """`torch.save(model.state_dict())` and load: the optimizer's moments are gone, and the end is another."""

    def steps(layer, optimizer, first, last):
        for step in range(first, last):
            x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            layer(x).pow(2).mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    def fresh():
        torch.manual_seed(0)
        layer = torch.nn.Linear(4, 2)
        return layer, torch.optim.AdamW(layer.parameters(), lr=0.05)

    through, optimizer = fresh()
    steps(through, optimizer, 0, 8)
    first, optimizer = fresh()
    steps(first, optimizer, 0, 4)
    second, optimizer = fresh()
    second.load_state_dict(first.state_dict())
    steps(second, optimizer, 4, 8)
    assert not torch.allclose(second.weight, through.weight, atol=1e-3)


def test_ours_redoes_nothing_that_is_complete_and_ends_the_same(nli_experiment, finished_run, tmp_path):
    """A run that is interrupted between trials: the same command goes on, and the records are those of one run."""
    changed = {"methods": {"lora": nli_experiment.methods["lora"]}, "out": str(tmp_path / "parts")}
    compare(nli_experiment.model_copy(update={**changed, "seeds": (0,)}))
    record = next((tmp_path / "parts").rglob("record.json"))
    written = record.stat().st_mtime_ns
    parts = compare(nli_experiment.model_copy(update=changed))
    assert record.stat().st_mtime_ns == written
    whole = [one for one in finished_run.records if one.name == "lora"]
    for one, other in zip(whole, parts.records, strict=True):
        assert one.predictions == other.predictions


def test_ours_broken_off_in_the_middle_ends_with_the_same_weights_to_the_bit(nli_task, tiny_model, tmp_path):
    """Weights, moments, schedule, random states and the place in the data all come back; so does what is saved."""
    lora = build_method("lora", {"r": 2, "num_train_epochs": 2, "per_device_train_batch_size": 4})
    plan = TrialPlan("lora", lora, str(tiny_model("bert")), 0, ModelSettings(), FP32, restarts=0)
    split = Split(*(tuple(make_examples(count, seed=count)) for count in (40, 9, 6)))

    def until_step_7(stage, done, total, words):
        if stage == "train" and done == 7:
            stop.request(signal.SIGTERM)

    def trained(folder, run_context=UNATTENDED):
        run_trial(plan, nli_task, split, folder, run_context)
        return {name: value for name, value in checksums(folder).items() if name != "record.json"}  # it holds times

    stop = StopSwitch()
    with pytest.raises(Stopped, match="step 7 of 20"):
        trained(tmp_path / "parts", RunContext(listener(stage=until_step_7), stop))
    assert not (tmp_path / "parts" / "record.json").exists()
    assert trained(tmp_path / "parts") == trained(tmp_path / "whole")
