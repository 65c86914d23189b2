"""A chat template that prints the date: a run keeps that of its first day, whenever it goes on or is used."""

import json
import shutil
import time

import pytest
from tests.conftest import make_examples, write_csv

from entailor import verify
from entailor.config.experiment import Experiment
from entailor.config.parts import DataSettings, ModelSettings, PromptSettings
from entailor.shipping.inference import evaluate
from entailor.study.compare import compare

DATED = (
    "Question: {{ strftime_now('%d %B %Y') }} {% for message in messages %}{{ message.content }}{% endfor %} Answer:"
)


@pytest.fixture
def set_zone(monkeypatch):
    """Return what moves the clock to another day for this process, by a time zone of a day to the west or east."""

    def move(hours):
        monkeypatch.setenv("TZ", f"AAA{hours:+d}")
        time.tzset()

    yield move
    monkeypatch.undo()
    time.tzset()


def test_tomorrow_asks_as_today(tiny_model, tmp_path, set_zone):
    model = shutil.copytree(tiny_model("llama"), tmp_path / "model")
    (model / "chat_template.jinja").write_text(DATED)
    files = {
        name: write_csv(tmp_path / f"{name}.csv", make_examples(12, seed=seed, pair=False, labels=("yes", "no")))
        for seed, name in enumerate(("train", "validation", "test"))
    }
    experiment = Experiment(
        data=DataSettings(**files),
        models=(str(model),),
        model=ModelSettings(precision="fp32", max_length=128),
        methods={"in_context": {"num_fewshot": 1}},
        prompt=PromptSettings(chat=True),
        seeds=1,
        estimate=False,
        doctor=False,
        out=str(tmp_path / "run"),
    )
    set_zone(24)
    day = time.strftime("%d %B %Y")
    first = compare(experiment)
    set_zone(-24)
    assert time.strftime("%d %B %Y") != day
    compare(experiment.model_copy(update={"seeds": (0, 1)}))
    trials = sorted((tmp_path / "run" / "trials").glob("*/in_context/seed-*"))
    assert len(trials) == 2
    for trial in trials:
        for prompt in json.loads((trial / "record.json").read_text())["provenance"]["prompts"]:
            assert "".join(prompt["tokens"]).startswith(f"Question: {day} ")
    assert verify(tmp_path / "run").sound
    (record,) = first.records
    found = evaluate(trials[0], files["test"]).predictions
    assert [one.probabilities for one in found] == [one.probabilities for one in record.predictions]
