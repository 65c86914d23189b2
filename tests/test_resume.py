"""A training that is broken off and goes on gives what the undisturbed one gives, to the last bit."""

import json
import random
import shutil
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from tests.conftest import FP32, make_examples
from tests.observers import listener

from entailor.config.parts import ModelSettings
from entailor.data.example import Split
from entailor.engine.checkpoint import CheckpointStore
from entailor.engine.stopping import RunContext, Stopped, StopSwitch
from entailor.methods import TrainedMethod, build_method, registered_methods
from entailor.models.precision import PrecisionChoice
from entailor.runs.integrity import checksums
from entailor.runs.record import RunRecord
from entailor.study.trial import run_trial
from entailor.study.trial_plan import TrialPlan

FAST = {
    "num_train_epochs": 2.0,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "learning_rate": 0.01,
    "num_virtual_tokens": 4,
    "logging_steps": 3,
    "eval_strategy": "steps",
    "eval_steps": 4,
    "lr_scheduler_type": "cosine",
}
TRAINED = [  # what is taught by another candidate needs a whole run: see test_distillation.py
    name
    for name, kind in registered_methods().items()
    if issubclass(kind, TrainedMethod) and not kind.learns_from_others
]
SPLIT = Split(*(tuple(make_examples(count, seed=count)) for count in (40, 9, 6)))
LAST_STEP = 10


def make_plan(tiny_model, name="lora", **more):
    kind = registered_methods()[name]
    settings = {key: value for key, value in FAST.items() if key in kind.model_fields} | more
    return TrialPlan("row", build_method(name, settings), str(tiny_model("bert")), 0, ModelSettings(), FP32, restarts=0)


@pytest.fixture
def plan(tiny_model):
    return partial(make_plan, tiny_model)


class BreakOff:
    """Asks a training to stop after a step, as SIGTERM does."""

    def __init__(self, *steps):
        self.steps, self.stop, self.notes = list(steps), StopSwitch(), []

    def __call__(self, stage, done, total, words):
        if stage == "train" and self.steps and done == self.steps[0]:
            self.steps.pop(0)
            assert self.stop.request(signal.SIGTERM)

    @property
    def run_context(self):
        return RunContext(listener(note=self.notes.append, stage=self), self.stop)


def broken_off(plan, task, folder, step):
    breaks = BreakOff(step)
    with pytest.raises(Stopped) as stopped:
        run_trial(plan, task, SPLIT, folder, breaks.run_context)
    assert stopped.value.signum == signal.SIGTERM
    assert f"step {step} of" in stopped.value.place
    assert "a checkpoint is written" in stopped.value.place
    assert not (folder / "record.json").exists()


def gone_on(plan, task, folder):
    notes, logged = [], []
    observer = listener(note=notes.append, point=lambda told: logged.append((told.attempt, told.point)))
    record = run_trial(plan, task, SPLIT, folder, RunContext(observer))
    assert record.status == "complete", record.error
    last = logged[-1][0]
    assert [point for attempt, point in logged if attempt == last] == list(record.curve)  # from its first step on
    return record, notes


def without_times(record):
    """A record without what a clock or the memory of the machine decides."""
    kept = {
        key: value
        for key, value in record.provenance.items()
        if key not in ("started", "ended", "wall_seconds", "placement")
    }
    return replace(record, costs=None, provenance={**kept, "parts": record.provenance["placement"]["parts"]})


def learned(folder):
    return {name: digest for name, digest in checksums(folder).items() if name != "record.json"}


@pytest.fixture(scope="module")
def undisturbed(tiny_model, nli_task, tmp_path_factory):
    """LoRA as `plan` makes it, trained from beginning to end: the record and its folder."""
    folder = tmp_path_factory.mktemp("undisturbed") / "whole"
    return run_trial(make_plan(tiny_model), nli_task, SPLIT, folder), folder


@pytest.fixture(scope="module")
def checkpointed(tiny_model, nli_task, tmp_path_factory):
    """The folder of the same training, broken off after step 6, with a checkpoint a step."""
    folder = tmp_path_factory.mktemp("checkpointed") / "broken"
    broken_off(replace(make_plan(tiny_model), checkpoint_steps=1), nli_task, folder, 6)
    return folder


@pytest.fixture
def broken(checkpointed, tmp_path):
    return shutil.copytree(checkpointed, tmp_path / "broken")


@pytest.mark.parametrize("name", TRAINED)
def test_every_trained_method_goes_on_to_the_bit(name, plan, nli_task, tmp_path):
    chosen = plan(name)
    whole = run_trial(chosen, nli_task, SPLIT, tmp_path / "whole")
    assert whole.status == "complete", whole.error
    for step in (3, 7) if name == "lora" else (7,):
        broken_off(chosen, nli_task, tmp_path / "broken", step)
        random.random()  # whatever the process did meanwhile
        torch.rand(3)
    record, notes = gone_on(chosen, nli_task, tmp_path / "broken")
    assert notes == ["row: goes on from the checkpoint at step 7"]
    assert without_times(record) == without_times(whole)
    assert learned(tmp_path / "broken") == learned(tmp_path / "whole")
    assert RunRecord.read(tmp_path / "broken") == record
    assert not (tmp_path / "broken" / "checkpoint").exists()


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("bert", {"precision": PrecisionChoice("bf16", "asked for")}),
        ("llama", {"settings": ModelSettings(load_in_4bit=True)}),
    ],
    ids=["bf16", "4-bit"],
)
def test_lora_in_few_bits_goes_on_to_the_bit(kind, changes, plan, nli_task, tmp_path, tiny_model):
    chosen = replace(plan("lora"), model=str(tiny_model(kind)), **changes)
    whole = run_trial(chosen, nli_task, SPLIT, tmp_path / "whole")
    assert whole.status == "complete", whole.error
    broken_off(chosen, nli_task, tmp_path / "broken", 6)
    record, notes = gone_on(chosen, nli_task, tmp_path / "broken")
    assert "at step 6" in notes[0]
    assert without_times(record) == without_times(whole)
    assert learned(tmp_path / "broken") == learned(tmp_path / "whole")


def test_the_first_and_the_last_step_will_do(undisturbed, plan, nli_task, tmp_path):
    whole, folder = undisturbed
    for step in (1, LAST_STEP):  # some in between: see every method above
        broken = tmp_path / f"broken-{step}"
        broken_off(plan(), nli_task, broken, step)
        record, _ = gone_on(plan(), nli_task, broken)
        assert without_times(record) == without_times(whole), step
        assert learned(broken) == learned(folder), step


def test_other_settings_go_on_as_well(plan, nli_task, tmp_path):
    by_epoch = {"eval_strategy": "epoch", "num_train_epochs": 1.5}
    chosen = plan(metric_for_best_model="mcc", class_weight="balanced", **by_epoch)
    whole = run_trial(chosen, nli_task, SPLIT, tmp_path / "whole")
    broken_off(chosen, nli_task, tmp_path / "broken", 6)
    record, _ = gone_on(chosen, nli_task, tmp_path / "broken")
    assert without_times(record) == without_times(whole)
    assert learned(tmp_path / "broken") == learned(tmp_path / "whole")


def test_a_restart_after_a_collapse_goes_on_from_its_own_checkpoint(plan, nli_task, tmp_path):
    chosen = replace(plan("full_finetuning", learning_rate=1e-9), restarts=1)
    whole = run_trial(chosen, nli_task, SPLIT, tmp_path / "whole")
    chosen = replace(chosen, checkpoint_steps=2)
    breaks, calls = BreakOff(3), []

    def second_attempt(stage, done, total, words):
        calls.append(stage)
        if calls.count("train") > LAST_STEP:
            breaks(stage, done, total, words)

    with pytest.raises(Stopped):
        run_trial(chosen, nli_task, SPLIT, tmp_path / "broken", RunContext(listener(stage=second_attempt), breaks.stop))
    steps, notes = [], []
    watch = listener(note=notes.append, stage=lambda name, done, *rest: steps.append(done) if name == "train" else None)
    record = run_trial(chosen, nli_task, SPLIT, tmp_path / "broken", RunContext(watch))
    assert notes == ["row: goes on from the checkpoint at step 3"]
    assert steps == list(range(4, LAST_STEP + 1))  # of the second attempt; nothing of the first is done again
    assert record.provenance["seed_used"] == 1000
    assert without_times(record) == without_times(whole)


def test_checkpoints_change_nothing_and_the_last_two_stay(undisturbed, broken, plan, nli_task):
    names = sorted(path.name for path in (broken / "checkpoint").iterdir())
    assert [name[:14] for name in names] == ["step-000000005", "step-000000006"]
    record, notes = gone_on(plan(), nli_task, broken)  # other intervals are the same training
    assert "at step 6" in notes[0]
    assert without_times(record) == without_times(undisturbed[0])


def test_checkpoints_of_another_training_that_got_further_do_not_displace_new_ones(broken, plan, nli_task):
    other = plan("lora", r=4)
    broken_off(replace(other, checkpoint_steps=1), nli_task, broken, 2)
    names = sorted(path.name[:14] for path in (broken / "checkpoint").iterdir())
    assert names == ["step-000000001", "step-000000002"]
    _, notes = gone_on(other, nli_task, broken)
    assert notes == ["row: goes on from the checkpoint at step 2"]


def test_only_checkpoints_are_removed_and_no_link_is_followed(plan, nli_task, tmp_path):
    folder = tmp_path / "a" / "checkpoint"
    folder.mkdir(parents=True)
    own = folder / "step-000000001.safetensors"
    own.write_text("mine")
    gone_on(replace(plan("lora"), checkpoint_steps=2), nli_task, tmp_path / "a")
    assert list(folder.iterdir()) == [own]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / f"step-000000001-{'0' * 64}.safetensors").write_text("mine")
    store = CheckpointStore(tmp_path / "link")
    store.folder.symlink_to(tmp_path / "elsewhere")
    store.clear()
    assert store.files() == []
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(damage, undisturbed, broken, plan, nli_task):
    newest = max((broken / "checkpoint").iterdir())
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes({"cut": content[:1000], "flip": content}[damage])
    record, notes = gone_on(plan(), nli_task, broken)
    assert notes[0].startswith(f"checkpoint skipped: {newest}: damaged")
    assert "at step 5" in notes[1]
    assert without_times(record) == without_times(undisturbed[0])


def test_a_checkpoint_of_another_training_is_not_taken(broken, plan, nli_task, tmp_path, tiny_model):
    shutil.copytree(broken, tmp_path / "b")
    record, notes = gone_on(plan("lora", r=4), nli_task, broken)
    assert "of other settings, data, model or versions" in notes[0]
    assert record.costs.epochs == 2  # all of them
    _, notes = gone_on(replace(plan("lora"), model=str(tiny_model("electra"))), nli_task, tmp_path / "b")
    assert ["of other settings, data, model or versions" in note for note in notes] == [True, True]


def test_nothing_in_a_checkpoint_is_a_pickle(checkpointed):
    file = max((checkpointed / "checkpoint").iterdir())
    size = int.from_bytes(file.read_bytes()[:8], "little")
    head = json.loads(file.read_bytes()[8 : 8 + size])
    assert json.loads(head["__metadata__"]["checkpoint"])["step"] == 6
    assert {one["dtype"] for name, one in head.items() if name != "__metadata__"} <= {"F32", "U8", "I64", "BOOL"}


def test_a_disk_that_is_full_costs_the_checkpoint_and_not_the_training(plan, nli_task, tmp_path, monkeypatch):

    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    chosen = replace(plan("lora"), checkpoint_steps=5)
    record, notes = gone_on(chosen, nli_task, tmp_path / "a")
    assert [note.partition(":")[0] for note in notes] == ["no checkpoint at step 5", "no checkpoint at step 10"]
    assert "the disk is full. Free some space. The training goes on" in notes[0]
    assert record.status == "complete"


def test_minutes_are_counted_by_a_clock_that_cannot_be_set_back(plan, nli_task, tmp_path, monkeypatch):
    from entailor.engine import checkpoint

    times = iter(range(0, 10**6, 31))
    monkeypatch.setattr(checkpoint.time, "time", lambda: 1 / 0)
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: float(next(times)))
    breaks = BreakOff(9)
    with pytest.raises(Stopped):
        run_trial(replace(plan("lora"), checkpoint_minutes=1), nli_task, SPLIT, tmp_path / "a", breaks.run_context)
    assert len(list((tmp_path / "a" / "checkpoint").iterdir())) == 2


def test_a_second_request_stops_at_once():
    stop = StopSwitch()
    with pytest.raises(Stopped):
        stop.request(signal.SIGINT)
    stop = StopSwitch()
    with stop.held():
        assert stop.request(signal.SIGTERM)
        with pytest.raises(Stopped) as stopped:
            stop.request(signal.SIGINT)
        stop.signum = None
    assert stopped.value.signum == signal.SIGINT
    late = StopSwitch()
    with pytest.raises(Stopped), late.held():
        late.request(signal.SIGTERM)
