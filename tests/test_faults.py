"""What a disk, a clock, memory, numbers, another process or a silent Hub do to a run, and what is said."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import FP32
from tests.engine.conftest import Toy, ToyMethod, toy_data
from tests.kill import environment

import entailor.study.compare
import entailor.study.trial
from entailor.config.parts import ModelSettings
from entailor.engine.memory import is_out_of_memory
from entailor.engine.scorer import collect_features, score
from entailor.engine.trainer import train
from entailor.engine.training import LoopRuntime, TrainingData
from entailor.errors import DivergedError, RunError, TrainingError
from entailor.methods import build_method
from entailor.runs.files import write_json, write_text
from entailor.runs.integrity import disk_trouble
from entailor.runs.lock import OWNER_FILE, lock_run
from entailor.runs.record import RunRecord
from entailor.shipping.restoring import load_classifier
from entailor.study.compare import compare
from entailor.study.trial import run_trial
from entailor.study.trial_plan import TrialPlan


@pytest.fixture(autouse=True)
def plain_page(monkeypatch):
    monkeypatch.setattr(entailor.study.compare, "write_report", lambda folder: write_text(folder.report_file, "page"))


@pytest.fixture
def experiment(nli_experiment, tmp_path):
    rows = {name: nli_experiment.methods[name] for name in ("majority", "lora")}
    return nli_experiment.model_copy(update={"methods": rows, "seeds": (0,), "out": str(tmp_path / "run")})


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- disks


@pytest.mark.parametrize("size", [0, 1_000, 5_000])
def test_a_file_that_may_not_grow_stops_the_run_and_the_next_one_goes_on(size, experiment):
    with (
        pytest.raises(RunError, match=r"may not become as large as needed here .*Raise it") as caught,
        largest_file(size),
    ):
        compare(experiment)
    assert experiment.out in str(caught.value)
    assert not list(Path(experiment.out).rglob("*.tmp"))
    result = compare(experiment)
    assert [record.status for record in result.records] == ["complete", "complete"]


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting needs root")
def test_a_disk_that_fills_up(experiment, tmp_path):
    with small_disk(tmp_path / "disk", "48k"):
        full = experiment.model_copy(update={"out": str(tmp_path / "disk" / "run")})
        with pytest.raises(RunError, match=r"the disk is full\. Free some space"):
            compare(full)
        subprocess.run(["mount", "-o", "remount,size=4m", str(tmp_path / "disk")], check=True)
        assert [record.status for record in compare(full).records] == ["complete", "complete"]
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        with pytest.raises(RunError, match=r"file system is read-only\. Make it writable, or give another --out"):
            compare(full)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "no permission"),
        (errno.EIO, "the disk reports an error"),
    ],
)
def test_what_a_disk_says_in_the_middle_of_a_run(number, said, experiment, monkeypatch):
    def refuse(self, folder):
        raise OSError(number, os.strerror(number), str(folder))

    monkeypatch.setattr(RunRecord, "write", refuse)
    with pytest.raises(RunError, match=f"{said}.*Then run the same command again"):
        compare(experiment)


def test_libraries_that_keep_no_error_number_are_understood():
    assert disk_trouble(RuntimeError("I/O error: No space left on device (os error 28)")).startswith("the disk is full")
    assert disk_trouble(ValueError("no such key")) is None
    assert disk_trouble(FileNotFoundError(2, "No such file")) is None


# --- another process


def test_a_folder_in_use_says_by_whom_and_since_when(experiment, tmp_path):
    with lock_run(tmp_path / "run"):
        since = datetime.now(UTC) - timedelta(hours=5)
        write_json(tmp_path / "run" / OWNER_FILE, {"pid": 4711, "host": "there", "since": since.isoformat()})
        with pytest.raises(
            RunError, match=r"run is in use by process 4711 on there, for 5 hours\. Wait until it is done"
        ):
            compare(experiment)
        write_json(tmp_path / "run" / OWNER_FILE, {"pid": 1, "host": "a", "since": "2999-01-01T00:00:00+00:00"})
        with pytest.raises(RunError, match="for 0 seconds"):
            compare(experiment)
        (tmp_path / "run" / OWNER_FILE).write_text("{")
        with pytest.raises(RunError, match="in use by another process"):
            compare(experiment)
    assert compare(experiment).records


def test_a_killed_owner_leaves_no_lock(experiment, tmp_path):
    code = f"""
import sys
from pathlib import Path
from entailor.runs.lock import lock_run
with lock_run(Path({str(tmp_path / "run")!r})):
    print("held", flush=True)
    sys.stdin.read()  # until it is killed
"""
    owner = subprocess.Popen(
        [sys.executable, "-c", code], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout.readline() == "held\n"
    with pytest.raises(RunError, match=f"in use by process {owner.pid} on "):
        compare(experiment)
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    assert compare(experiment).records


# --- clocks


def test_a_clock_that_is_set_back_gives_no_end_before_the_beginning(
    tiny_model, nli_task, nli_split, tmp_path, monkeypatch
):
    class Back(datetime):
        times = iter(datetime(2030, 1, 1, tzinfo=UTC) - timedelta(days=index) for index in range(1000))

        @classmethod
        def now(cls, tz=None):
            return next(cls.times)

    monkeypatch.setattr(entailor.study.trial, "datetime", Back)
    plan = TrialPlan("row", build_method("majority", {}), "none", 0, ModelSettings(), FP32)
    record = run_trial(plan, nli_task, nli_split, tmp_path / "trial")
    assert record.provenance["started"] <= record.provenance["ended"]


# --- memory


class Greedy(Toy):
    """Has memory for three examples at a time."""

    room = 3

    def __init__(self, error):
        super().__init__()
        self.error = error

    def logits(self, batch):
        if len(batch) > self.room:
            raise self.error
        return super().logits(batch)


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    RuntimeError(
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes. Error code 12"
    ),
]


def run_toy(toy, **settings):
    data = TrainingData(*toy_data(32), *toy_data(12, seed=1))
    return train(toy, ToyMethod(learning_rate=0.05, num_train_epochs=2, **settings), data, LoopRuntime(0))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_batch_too_large_is_halved_and_the_gradient_is_the_same(error):
    plain, greedy = Toy(), Greedy(error)
    whole, halved = run_toy(plain), run_toy(greedy)
    assert [event.text for event in halved.events] == [
        "step 1: out of memory with 16 examples at a time; from here on 8, the gradient still averaged over the same "
        "examples",
        "step 1: out of memory with 8 examples at a time; from here on 4, the gradient still averaged over the same "
        "examples",
        "step 1: out of memory with 4 examples at a time; from here on 2, the gradient still averaged over the same "
        "examples",
    ]
    torch.testing.assert_close(greedy.layer.weight, plain.layer.weight, rtol=1e-5, atol=1e-7)
    assert halved.examples_seen == whole.examples_seen == 64
    assert [point.step for point in halved.curve] == [point.step for point in whole.curve]


def test_scores_are_the_same_in_halves():
    items, _ = toy_data(20)
    greedy, plain = Greedy(MemoryError()), Toy()
    for toy in (greedy, plain):
        toy.layer.weight.data.fill_(0.3)
    np.testing.assert_allclose(score(greedy, items, 1000), score(plain, items, 1000), atol=1e-6)


def test_features_are_the_same_in_halves():
    items, _ = toy_data(20)

    class Reader:
        """Has memory for three texts at a time; its features are their lengths."""

        def collate(self, members):
            if len(members) > 3:
                raise MemoryError
            return members

        def features(self, members):
            return np.array([[len(one)] for one in members])

    found = collect_features(Reader(), items, [0] * 20, 1000)
    assert found.features[:, 0].tolist() == [len(one) for one in items]


def test_one_example_too_many_says_what_to_do():
    greedy = Greedy(MemoryError())
    greedy.room = 0
    with pytest.raises(
        TrainingError, match=r"step 1: out of memory with one example at a time\. Lower model.max_length"
    ):
        run_toy(greedy)


def test_other_errors_are_not_taken_for_want_of_memory():
    with pytest.raises(RuntimeError, match="shape"):
        run_toy(Greedy(RuntimeError("shape mismatch")))
    assert not is_out_of_memory(ValueError("can't allocate memory"))


def test_a_trial_out_of_memory_fails_and_the_others_go_on(experiment, monkeypatch):
    from entailor.methods.lora import Lora

    def refuse(*_, **__):
        raise MemoryError("cannot have 9 GB")

    monkeypatch.setattr(Lora, "adapt", refuse)
    first, second = compare(experiment).records
    assert (first.status, second.status) == ("complete", "failed")
    assert second.error.startswith("MemoryError: out of memory (cannot have 9 GB). Lower model.max_length")


@contextmanager
def memory_for(tokens: int, monkeypatch: pytest.MonkeyPatch, *, training: bool) -> Iterator[None]:
    """Let tiny BERT have memory for so many tokens of one text while it trains, or while it reads."""
    from transformers import BertModel

    plain = BertModel.forward

    def forward(self, input_ids=None, **kwargs):
        checkpointing = any(getattr(part, "gradient_checkpointing", False) for part in self.modules())
        if input_ids.shape[1] > tokens and torch.is_grad_enabled() == training and not checkpointing:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, input_ids, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(BertModel, "forward", forward)
        yield


@pytest.mark.parametrize(
    ("method", "settings", "remedy", "told"),
    [
        ("lora", {"num_train_epochs": 1}, "Lower model.max_length, set gradient_checkpointing=true", {"max_length": 8}),
        ("lora", {"num_train_epochs": 1}, "set gradient_checkpointing=true", {"gradient_checkpointing": True}),
        ("linear_probe", {"C": [1.0]}, "Lower model.max_length, take a smaller model", {"max_length": 8}),
    ],
)
def test_what_an_error_of_memory_proposes_works(
    tiny_model, nli_task, nli_split, tmp_path, monkeypatch, method, settings, remedy, told
):
    def run(name: str, settings: dict[str, Any], **model: Any) -> RunRecord:
        chosen = ModelSettings(precision="fp32", **model)
        plan = TrialPlan("row", build_method(method, settings), str(tiny_model("bert")), 0, chosen, FP32)
        return run_trial(plan, nli_task, nli_split, tmp_path / name)

    with memory_for(8, monkeypatch, training=method == "lora"):
        failed = run("first", settings)
        assert remedy in failed.error, failed.error
        own = {key: value for key, value in told.items() if key == "gradient_checkpointing"}
        record = run("second", settings | own, **{key: told[key] for key in told.keys() - own.keys()})
    assert record.status == "complete", record.error


# --- numbers


class Breaks(Toy):
    """Gives no number from a step on."""

    def __init__(self, at):
        super().__init__()
        self.at, self.calls = at, 0

    def logits(self, batch):
        self.calls += self.training
        logits = super().logits(batch)
        return logits * float("nan") if self.training and self.calls >= self.at else logits


@pytest.mark.parametrize(("at", "kept"), [(2, "the weights after step 1"), (4, "the best weights so far, of step 2")])
def test_a_loss_that_is_no_number_leaves_good_weights(at, kept):
    toy = Breaks(at)
    with pytest.raises(DivergedError, match=rf"step {at}: loss nan, gradient norm nan\. Lower learning_rate") as caught:
        run_toy(toy)
    assert caught.value.kept == kept
    assert torch.isfinite(toy.layer.weight).all()
    assert not toy.training
    assert toy.layer.weight.grad is None


def test_the_last_good_classifier_is_kept_and_loads(tiny_model, nli_task, nli_split, tmp_path):
    settings = {"learning_rate": 1e18, "num_train_epochs": 2, "max_grad_norm": 1e18, "per_device_train_batch_size": 8}
    plan = TrialPlan("row", build_method("lora", settings), str(tiny_model("bert")), 0, ModelSettings(), FP32)
    record = run_trial(plan, nli_task, nli_split, tmp_path / "trial")
    assert record.status == "failed"
    assert record.error.startswith("DivergedError: step ")
    place = tmp_path / "trial" / "last_good"
    if "are kept in" in record.error:
        assert str(place) in record.error
        assert load_classifier(place).task.labels == nli_task.labels
    else:
        assert "No weights of before are left" in record.error
        assert not place.exists()


# --- the Hub


@pytest.fixture
def silent_server():
    """Takes connections and never says a word."""
    server = socket.create_server(("127.0.0.1", 0))
    taken: list[socket.socket] = []

    def take() -> None:
        while True:
            try:
                taken.append(server.accept()[0])
            except OSError:
                return

    threading.Thread(target=take, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    server.close()
    for connection in taken:
        connection.close()


def ask_hub(endpoint: str, cache: Path) -> tuple[str, float]:
    code = "from entailor.models.resolve.hub import fetch_from_hub; fetch_from_hub('org/model', None)"
    values = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cache),
        "HF_HUB_ETAG_TIMEOUT": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
    }
    values = {**environment(), **values, "HF_HUB_OFFLINE": "0"}
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], env=values, capture_output=True, text=True, check=False, timeout=120
    )
    return done.stderr.strip().splitlines()[-1] if done.stderr else "", time.monotonic() - begin


def test_a_hub_that_never_answers_is_given_up(silent_server, tmp_path):
    said, _ = ask_hub(silent_server, tmp_path / "hub")
    assert "org/model: no such folder here, and the Hub cannot be reached" in said
    assert "give a local folder, a GGUF file, or a package" in said


def test_a_hub_that_is_not_there(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    said, _ = ask_hub(f"http://127.0.0.1:{port}", tmp_path / "hub")
    assert "the Hub cannot be reached" in said


def test_what_is_in_the_cache_is_used_when_the_hub_is_silent(silent_server, tmp_path):
    repo = tmp_path / "hub" / "hub" / "models--org--model"
    snapshot = repo / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("a" * 40)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (snapshot / name).write_text("{}")
    said, _ = ask_hub(silent_server, tmp_path / "hub")
    assert "Error" not in said, said


# --- standard streams


@pytest.mark.parametrize("closed", [(1,), (0, 1, 2)])
def test_streams_that_were_closed_lead_nowhere(closed):
    """Else the next file that is opened gets the number of one, and libraries print into it."""

    def close():
        for number in closed:
            os.close(number)

    words = [sys.executable, "-m", "entailor", "--version"]
    done = subprocess.run(words, env=environment(), preexec_fn=close, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
