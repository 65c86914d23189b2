"""One trial in two processes of `torchrun`: the same results as in one, on from one to two and back, and no hang."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import make_examples, make_tiny, write_csv
from tests.kill import environment
from tests.observers import listener

from entailor.config.distributed import DistributedSettings
from entailor.config.experiment import Experiment
from entailor.config.overrides import dump_yaml
from entailor.config.parts import BudgetSettings, DataSettings, ModelSettings
from entailor.engine.stopping import Stopped, StopSwitch
from entailor.runs.layout import RunFolder
from entailor.runs.record import RunRecord
from entailor.study.compare import compare
from entailor.study.search import search_document

CHILD = Path(__file__).with_name("launched.py")
LOOP = {"per_device_train_batch_size": 7, "num_train_epochs": 2, "logging_steps": 1, "learning_rate": 0.003}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """An encoder and a decoder without dropout; batches of 7, the last of 5, that two processes cannot halve."""
    folder = tmp_path_factory.mktemp("launched")
    models = {kind: make_tiny(kind, folder / kind) for kind in ("bert", "llama")}
    for model in models.values():
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        config |= {key: 0.0 for key in config if "dropout" in key}
        (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    parts = {
        name: write_csv(folder / f"{name}.csv", make_examples(n, seed=n))
        for name, n in {"train": 75, "validation": 18, "test": 25}.items()
    }
    bert, llama = ({"models": [str(models[kind])]} for kind in ("bert", "llama"))
    halves = {"gradient_accumulation_steps": 2, "class_weight": "balanced", "num_train_epochs": 4}
    return Experiment(
        data=DataSettings(**parts),
        models=tuple(map(str, models.values())),
        model=ModelSettings(precision="fp32"),
        methods={
            "lora": {**LOOP, **bert, "r": 2, "lora_dropout": 0.0},
            "full_finetuning": {**LOOP, **halves, **bert},
            "p_tuning": {**LOOP, **bert},
            "nf4": {**LOOP, **bert, "method": "lora", "r": 2, "lora_dropout": 0.0, "model": {"load_in_4bit": True}},
            "decoder": {**LOOP, **llama, "method": "lora", "r": 2, "lora_dropout": 0.0},
            "in_context": llama,
            "linear_probe": bert,
        },
        seeds=(0,),
        restarts=0,
        doctor=False,
        estimate=False,
        checkpoint_minutes=None,
        out=str(folder / "run"),
    )


@pytest.fixture(scope="module")
def alone(experiment):
    compare(experiment)
    return records(experiment)


def records(experiment: Experiment) -> dict[str, RunRecord]:
    return {record.name: record for _, record in RunFolder(experiment.out).records()}


def other(experiment: Experiment, name: str, *methods: str) -> Experiment:
    chosen = {method: experiment.methods[method] for method in methods} or experiment.methods
    return experiment.model_copy(update={"out": f"{experiment.out}-{name}", "methods": chosen})


def launch(experiment: Experiment, happens: str = "0:0:nothing", *options: str) -> subprocess.CompletedProcess[str]:
    """Run a comparison in two processes."""
    config = Path(f"{experiment.out}.yaml")
    config.write_text(dump_yaml(experiment.model_dump(mode="json", exclude_defaults=True)), encoding="utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    surroundings = environment() | {"HAPPENS": happens}
    surroundings["PYTHONPATH"] += os.pathsep + str(CHILD.parents[2])
    words = [str(CHILD), "compare", "-v", "--config", str(config)]
    return subprocess.run(  # the limit only ends what hangs: two processes beside other work take minutes
        [*torchrun, *options, *words], check=False, env=surroundings, capture_output=True, text=True, timeout=1200
    )


def divided(experiment: Experiment) -> Experiment:
    return experiment.model_copy(update={"distributed": DistributedSettings(strategy="fsdp")})


def check_same(found: RunRecord, expected: RunRecord) -> None:
    assert found.error == expected.error is None
    losses, gold = (
        np.array([(point.step, point.train_loss, point.gradient_norm) for point in record.curve if point.train_loss])
        for record in (found, expected)
    )
    assert losses.shape == gold.shape
    np.testing.assert_allclose(losses, gold, atol=1e-5)
    for one, two in zip(found.predictions, expected.predictions, strict=True):
        assert one.id == two.id
        assert one.probabilities == pytest.approx(two.probabilities, abs=1e-5)


def test_two_processes_give_what_one_gives_also_on_from_where_one_stopped(experiment, alone):
    both, stop = other(experiment, "both"), StopSwitch()

    def at_13(name, done, *rest):
        if (name, done) == ("train", 13):
            stop.request(15)

    with pytest.raises(Stopped):
        compare(both, listener(stage=at_13), stop)
    ended = launch(both)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("of the best") <= 1  # the table stands once
    found = records(both)
    assert found.keys() == alone.keys()
    for name, record in found.items():
        check_same(record, alone[name])
        assert record.provenance["processes"] == {"world_size": 2, "way": "ddp"}
    assert len([point for point in alone["full_finetuning"].curve if point.train_loss]) >= 20


def test_a_signal_to_one_process_ends_both_with_a_checkpoint_from_which_one_goes_on(experiment, alone):
    broken = divided(other(experiment, "stopped", "full_finetuning"))
    ended = launch(broken, "1:13:SIGTERM")
    assert ended.returncode != 0
    assert "interrupted at step 13 of 24, a checkpoint is written" in ended.stderr
    names = sorted(path.name for path in Path(broken.out).glob("**/checkpoint/*"))
    assert [name[:-77] for name in names if "part" in name] == [f"step-000000013-part-{n}-of-2" for n in (1, 2)]
    assert len(names) == 3
    notes = []
    compare(broken, listener(note=notes.append))
    assert "full_finetuning: goes on from the checkpoint at step 13" in notes
    check_same(records(broken)["full_finetuning"], alone["full_finetuning"])


def test_two_processes_that_divide_the_weights_give_what_one_gives_also_on_from_where_it_stopped(experiment, alone):
    trained = "lora", "full_finetuning", "p_tuning", "nf4", "decoder"
    both, stop = other(experiment, "divided", *trained, "linear_probe"), StopSwitch()

    def at_13(name, done, *rest):
        if (name, done) == ("train", 13):
            stop.request(15)

    with pytest.raises(Stopped):
        compare(both, listener(stage=at_13), stop)
    ended = launch(divided(both))
    assert ended.returncode == 0, ended.stderr
    found = records(both)
    assert found.keys() == {*trained, "linear_probe"}
    for name, record in found.items():
        check_same(record, alone[name])
        way = "fsdp" if name in trained else "ddp"
        assert record.provenance["processes"] == {"world_size": 2, "way": way}
        (said,) = [event.text for event in record.events if "strategy=fsdp" in event.text]
        assert ("no shortcut is taken" in said) == (name in trained)


def test_an_error_in_one_process_ends_both_with_one_message(experiment):
    ended = launch(other(experiment, "error", "lora"), "1:3:error")
    assert ended.returncode != 0
    said = [line for line in ended.stderr.splitlines() if "a cable is loose" in line]
    assert said == [
        "error: process 1 of 2: RuntimeError: a cable is loose. All processes end; the same command goes on from the "
        "last checkpoint"
    ]


def test_a_killed_process_ends_both_and_started_again_a_search_and_a_learning_curve_go_on(experiment):
    changes = {"budget": BudgetSettings(trials=2), "learning_curve": (24, 48), "checkpoint_steps": 5}
    runs = [other(experiment, name, "lora").model_copy(update=changes) for name in ("killed", "searched")]
    ended = launch(runs[0], "1:13:SIGKILL", "--max-restarts", "1")
    assert ended.returncode == 0, ended.stderr
    # of the first process, or of its signal handler where the launcher is faster than the connection that breaks
    assert ended.stderr.count("the same command goes on") == 1
    assert "goes on from the checkpoint at step 10" in ended.stderr
    compare(runs[1])
    found, expected = (search_document(RunFolder(run.out))["studies"][0]["trials"] for run in runs)
    assert len(found) == len(expected) == 2
    for ours, gold in zip(found, expected, strict=True):
        assert ours["settings"] == gold["settings"]
        assert ours["validation_loss"] == pytest.approx(gold["validation_loss"], abs=1e-5)
    curves = [sorted(Path(run.out).glob("curve/**/record.json")) for run in runs]
    assert len(curves[0]) == len(curves[1]) > 0
    for ours, gold in zip(*curves, strict=True):
        check_same(*(RunRecord.read(path.parent) for path in (ours, gold)))
    check_same(*(records(run)["lora"] for run in runs))
