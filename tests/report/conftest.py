"""A synthetic run folder with everything a report can meet: seeds, failures, alarms, groups, hostile and RTL text."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from entailor.config.overrides import dump_checked_yaml
from entailor.evaluation.comparison import compare_records
from entailor.evaluation.external import compare_external
from entailor.events import Event
from entailor.report import plots
from entailor.runs.files import write_checked_json, write_text
from entailor.runs.layout import RunFolder
from entailor.runs.record import NO_MODEL, Costs, CurvePoint, Prediction, RunRecord

DRAWS = plots._svg
LABELS = ("entailment", "neutral", "contradiction")
GROUPS = ("negation", "quantifiers", "numbers and comparatives", "time and place", "passives")
MODEL = "pypi:tiny-encoder==0.1.0"
# name, accuracy, train seconds, trained parameters, stored bytes, epochs
ROWS = (
    ("full_finetuning", 0.74, 212.0, 22_700_000, 90_900_000, 5),
    ("lora", 0.73, 158.0, 297_000, 1_240_000, 6),
    ("prefix_tuning", 0.62, 131.0, 92_000, 380_000, 6),
    ("p_tuning", 0.58, 164.0, 310_000, 1_300_000, 6),
    ("linear_probe", 0.55, 2.1, 1_155, 5_200, 0),
    ("bag_of_words", 0.44, 0.4, 24_000, 96_000, 0),
    ("hypothesis_only", 0.37, 0.3, 9_000, 36_000, 0),
    ("majority", 0.0, 0.0, 0, 120, 0),
)
TEXTS = (
    ("All of the dogs near the old harbour barked at three sailors.", "Some animals barked."),
    ("<script>document.title = 'owned'</script> Nobody <b>left</b> early.", '"Quoted" & <img src=x onerror=alert(1)>'),
    ("كل الطلاب الذين حضروا الدرس قرأوا الكتاب كاملا قبل نهاية الأسبوع.", "قرأ بعض الطلاب الكتاب."),
    ("The committee met on Tuesday, not on Friday, " * 20, "The committee met."),
    ("昨日の会議には誰も参加しなかった。", "会議には参加者がいた。"),
)


@pytest.fixture(scope="package", autouse=True)
def _drawing():
    """Draw the figures, as other tests do not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "_svg", DRAWS)
        yield


def make_predictions(accuracy: float, seed: int, n: int) -> tuple[Prediction, ...]:
    """Return predictions that share their mistakes between rows, as real ones do."""
    difficulty = np.random.default_rng(7).random(n)
    difficulty[: 2 * len(TEXTS)] = 1.1  # every text stands among the hardest
    generator = np.random.default_rng([seed, round(1000 * accuracy)])
    predictions = []
    for i in range(n):
        gold = (i * 7) % 3
        right = 0.7 * difficulty[i] + 0.3 * generator.random() < accuracy
        said = 0 if accuracy == 0 else gold if right else (gold + 1 + int(generator.random() < 0.3)) % 3
        weights = generator.random(3) * 0.5
        weights[said] += 0.9 + generator.random()
        text, pair = TEXTS[i % len(TEXTS)]
        predictions.append(
            Prediction(
                id=f"ex-{i}",
                label=LABELS[gold],
                probabilities=dict(zip(LABELS, (weights / weights.sum()).tolist(), strict=True)),
                group=GROUPS[i % 11 % len(GROUPS)],
                text=f"{text} ({i})",
                text_pair=pair,
            )
        )
    return tuple(predictions)


def make_record(row: tuple, seed: int, n: int, model: str = MODEL) -> RunRecord:
    """Return one trial of one of ROWS."""
    name, accuracy, seconds, parameters, stored, epochs = row
    generator = np.random.default_rng([seed, len(name)])
    curve = []
    for i in range(1, epochs * 10 + 1):
        progress = 1 - np.exp(-3 * i / (epochs * 10))
        loss = float(1.1 - (0.2 + 0.7 * accuracy) * progress + 0.05 * generator.standard_normal())
        tuned = i % 10 == 0
        curve.append(
            CurvePoint(
                step=i * 8,
                epoch=i / 10,
                train_loss=loss,
                validation_loss=loss + 0.04 if tuned else None,
                validation_accuracy=float(0.33 + (accuracy - 0.33) * progress) if tuned else None,
            )
        )
    return RunRecord(
        model=NO_MODEL if name in ("majority", "bag_of_words", "hypothesis_only") else model,
        name=name,
        method=name,
        seed=seed,
        labels=LABELS,
        hyperparameters={"learning_rate": 2e-4, "num_train_epochs": epochs, "target_modules": ["query", "value"]},
        costs=Costs(
            load_seconds=0.8,
            tokenize_seconds=0.3,
            train_seconds=seconds,
            evaluate_seconds=6.1,
            train_examples_per_second=2100 * epochs / seconds if epochs else None,
            test_examples_per_second=410.0,
            latency_p50_ms=7.9,
            latency_p95_ms=12.4,
            peak_memory_bytes=700_000_000 + 25 * parameters,
            trainable_parameters=parameters,
            stored_parameters=parameters,
            total_parameters=22_700_000,
            stored_bytes=stored,
            epochs=float(epochs),
            truncated_share=0.012,
        ),
        events=(Event("restart", "warning", "predictions collapsed to one label; started again with seed 1001"),)
        if name == "p_tuning"
        else (),
        curve=tuple(curve),
        predictions=make_predictions(accuracy, seed, n),
        temperature=1.3 if accuracy else 1.0,
        provenance={"deterministic": name in ("majority", "bag_of_words", "hypothesis_only", "linear_probe")},
    )


def make_external_test_sets(records: list[RunRecord]) -> list[dict]:
    """Return one external test set that was scored, with hostile names, and one that could not be read."""
    scored = [replace(one, predictions=one.predictions[:120]) for one in records if one.status == "complete"]
    return [
        compare_external("<b>hans</b>", "data/<b>hans</b>.jsonl", "labels as trained", scored),
        {"name": "gone", "source": "gone.csv", "error": "gone.csv: no such file", "candidates": []},
    ]


def make_folder(path: Path, records: list[RunRecord]) -> RunFolder:
    """Write a finished run folder without its report."""
    folder = RunFolder(path)
    for record in records:
        record.write(folder.trial(record.model, record.name, record.seed))
    write_checked_json(
        folder.comparison_file, compare_records(records, extra={"external": make_external_test_sets(records)})
    )
    values = {"models": [MODEL], "seeds": [0, 1], "note": "<script>alert(1)</script>"}
    write_text(folder.experiment_file, dump_checked_yaml(values))
    write_checked_json(
        folder.environment_file,
        {
            "versions": {"entailor": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
            "platform": "Linux x86_64",
            "cpu": "a processor with a rather long name @ 2.60GHz",
            "threads": 2,
            "data": {
                "notes": ["12 rows without a gold label were dropped."],
                "findings": [
                    {"severity": "warning", "message": "3 rows of train stand in test", "remedy": "Drop them"}
                ],
                "fingerprint": "0f3a" * 8,
            },
            "git_commit": None,
            "command": "entailor compare --seeds 2",
        },
    )
    ids = [row.id for row in records[0].predictions]
    write_checked_json(
        folder.split_file,
        {"train": [f"t{i}" for i in range(2100)], "validation": ids[:10], "test": ids, "hash": "ab12"},
    )
    return folder


def make_records(n: int = 300, seeds: int = 2) -> list[RunRecord]:
    """Return trials of every row, and one that failed."""
    records = [make_record(row, seed, n) for row in ROWS for seed in range(1 if row[1] == 0 else seeds)]
    error = "out of memory: 9.1 GB needed, 8.0 GB there. Lower per_device_train_batch_size"
    failed = RunRecord(MODEL, "lora_r256", "lora", 0, LABELS, status="failed", error=error)
    return [*records, failed]


@pytest.fixture(scope="session")
def records() -> list[RunRecord]:
    return make_records()


@pytest.fixture(scope="session")
def comparison(records) -> dict:
    return compare_records(records)


@pytest.fixture(scope="session")
def folder(records, tmp_path_factory) -> RunFolder:
    return make_folder(tmp_path_factory.mktemp("runs") / "nli-demo", records)


@pytest.fixture(scope="session")
def new_folder() -> Callable[[Path, list[RunRecord]], RunFolder]:
    return make_folder


@pytest.fixture(scope="session")
def new_record() -> Callable[..., RunRecord]:
    return make_record
