"""77 classes, some of them missing from validation or test: every method ends, and the report stays small."""

import json

import numpy as np
import pytest
from tests.conftest import write_csv
from tests.intents import INTENTS, make_intents

from entailor.config.experiment import Experiment
from entailor.config.parts import DataSettings, ModelSettings
from entailor.study.compare import compare

REPORT_BYTES = 3_000_000
QUICK = {"num_train_epochs": 1, "per_device_train_batch_size": 32, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def run(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("intents")
    rows = make_intents(7)
    count = len(INTENTS)
    parts = {
        "train": rows[: 4 * count],
        "validation": rows[4 * count : 5 * count - 9],  # nine intents are missing
        "test": rows[5 * count + 5 :],  # two of each, and one of five
    }
    data = DataSettings(**{name: write_csv(folder / f"{name}.csv", part) for name, part in parts.items()})
    methods = {
        "majority": {},
        "bag_of_words": {},
        "knn": {},
        "linear_probe": {"C": [0.1]},
        "zero_shot_embedding": {},
        "lora": {"metric_for_best_model": "macro_f1", **QUICK},
    }
    settings = {"restarts": 0, "seeds": 1, "estimate": False, "out": str(folder / "run")}
    model = ModelSettings(precision="fp32")
    return compare(Experiment(data=data, models=(str(tiny_model("bert")),), model=model, methods=methods, **settings))


def test_every_method_ends(run):
    names = ("majority", "bag_of_words", "knn", "linear_probe", "zero_shot_embedding", "lora")
    ended = [(record.name, record.status, record.error) for record in run.records]
    assert ended == [(name, "complete", None) for name in names]
    for record in run.records:
        assert len(record.labels) == 77
        assert np.isclose(sum(record.predictions[0].probabilities.values()), 1, atol=1e-6)


def test_what_reads_the_words_is_good_at_it(run):
    summary = json.loads(run.folder.comparison_file.read_text())
    accuracy = {one["method"]: one["accuracy"]["mean"] for one in summary["candidates"]}
    assert accuracy["bag_of_words"] > 0.3
    assert accuracy["majority"] < 0.05


def test_the_report_is_small_and_names_every_intent(run):
    report = run.folder.report_file
    assert report.stat().st_size < REPORT_BYTES
    text = report.read_text(encoding="utf-8")
    assert all(intent in text for intent in INTENTS)
