"""SIGKILL at random instants, and signals that ask: the same command goes on and gives the same."""

import random
import signal
import subprocess
import time

import pytest
from tests.conftest import make_examples, write_csv
from tests.kill import command, differences, environment, kill_until_done, undisturbed

from entailor.config import DataSettings, Experiment, ModelSettings

KILLS = 5
SETTINGS = {"r": 2, "num_train_epochs": 40, "per_device_train_batch_size": 4, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, tiny_model):
    """A training of about two seconds, with a checkpoint every ten steps."""
    folder = tmp_path_factory.mktemp("data")
    parts = {"train": 24, "tune": 9, "test": 9}
    files = {name: write_csv(folder / f"{name}.csv", make_examples(n, seed=n)) for name, n in parts.items()}
    return Experiment(
        data=DataSettings(**files),
        models=(str(tiny_model("bert")),),
        model=ModelSettings(precision="fp32"),
        methods={"lora": SETTINGS},
        checkpoint_steps=10,
        restarts=0,
        out="set by each test",
    )


@pytest.fixture(scope="module")
def whole(experiment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, undisturbed(experiment, folder)


def test_five_kills_cost_nothing_but_time(experiment, whole, tmp_path):
    folder, seconds = whole
    killed = kill_until_done(experiment, tmp_path / "run", KILLS, random.Random(0), 0.1 * seconds, 0.7 * seconds)
    assert killed.kills == KILLS, killed
    assert differences(folder, tmp_path / "run") == []
    assert not list((tmp_path / "run").rglob("*.tmp")) or killed.kills  # what a kill leaves is never read
    assert not list((tmp_path / "run").rglob("checkpoint"))


def test_a_signal_ends_the_step_and_says_how_to_go_on(experiment, tmp_path):
    run = tmp_path / "run"
    for signum, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        before = set(run.rglob("step-*.safetensors"))
        process = subprocess.Popen(
            command(experiment, run), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        while set(run.rglob("step-*.safetensors")) <= before:  # it trains, so its handlers are there
            time.sleep(0.02)
            assert process.poll() is None, process.stderr.read()
        process.send_signal(signum)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == code, said
        assert "stopping after this step, with a checkpoint; once more stops at once" in said
        assert "a checkpoint is written; the same command goes on where it stopped" in said
