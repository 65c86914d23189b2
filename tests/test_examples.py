"""Every example can be read and built, and those of the origin run from end to end on a tiny model."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import make_examples

from entailor import compare
from entailor.config.experiment import Experiment, parse_settings
from entailor.config.overrides import read_yaml
from entailor.data.example import Example
from entailor.methods import Method, TrainedMethod, build_method
from entailor.study.compare import Comparison

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.yaml"))


def build(values: dict[str, Any]) -> tuple[Experiment, dict[str, Method]]:
    experiment = parse_settings(Experiment, values)
    return experiment, {row: build_method(row, settings) for row, settings in experiment.methods.items()}


def write_rows(path: Path, rows: Sequence[Example]) -> str:
    lines = [{"premise": row.text, "hypothesis": row.text_pair, "label": row.label} for row in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return str(path)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_read_and_built(path: Path) -> None:
    experiment, methods = build(read_yaml(path))
    assert set(methods) == set(experiment.methods)
    assert str(experiment.out).startswith("runs/")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_heads_say_what_a_recipe_must_say(path: Path) -> None:
    head = path.read_text("utf-8").partition("\ndata:")[0]
    assert f"entailor compare --config examples/{path.name}" in head
    assert "Time" in head
    assert "core" in head


def test_the_origin_is_as_it_was_run() -> None:
    experiment, methods = build(read_yaml(FOLDER / "mnli_roberta_large_origin.yaml"))
    loops = [method for method in methods.values() if isinstance(method, TrainedMethod)]
    assert {(loop.learning_rate, loop.head_learning_rate) for loop in loops} == {(2e-5, None)}
    shared = {(loop.num_train_epochs, loop.per_device_train_batch_size, loop.warmup_ratio) for loop in loops}
    assert shared == {(3, 8, 0)}
    assert experiment.data.validation_split == experiment.data.test_split == "validation_matched"
    lora = methods["lora"].model_dump()
    assert {key: lora[key] for key in ("r", "lora_alpha", "lora_dropout", "bias")} == {
        "r": 16,
        "lora_alpha": 8,
        "lora_dropout": 0.1,
        "bias": "none",
    }


def run_on_tiny_model(name: str, model: Path, place: Path) -> Comparison:
    """Run an example from end to end on a tiny model: its methods and settings, one seed, one epoch, few examples."""
    place.mkdir(parents=True, exist_ok=True)
    values = read_yaml(FOLDER / f"{name}.yaml")
    sizes = (24, 9, 9) if "llama" in name else (48, 18, 18)  # prompts are long
    parts = {
        part: make_examples(size, seed=seed)
        for seed, (part, size) in enumerate(zip(("train", "validation", "test"), sizes, strict=True), 1)
    }
    values["models"] = [str(model)]
    values["data"] = {part: write_rows(place / f"{part}.jsonl", rows) for part, rows in parts.items()}
    values["model"] |= {"max_length": 320 if "llama" in name else 48, "precision": "fp32"}
    values |= {"seeds": [0], "restarts": 0, "out": str(place / "run")}
    for settings in values["methods"].values():
        if "num_train_epochs" in settings:
            settings["num_train_epochs"] = 1
    experiment, _ = build(values)
    return compare(experiment)


@pytest.mark.parametrize("name", ["mnli_roberta_large_origin", "mnli_roberta_large_sound", "llama3_8b_origin"])
def test_examples_of_the_origin_run_from_end_to_end(
    name: str, tmp_path: Path, tiny_model: Callable[[str], Path]
) -> None:
    run = run_on_tiny_model(name, tiny_model("llama" if "llama" in name else "roberta"), tmp_path)
    assert {record.name for record in run.records} == set(read_yaml(FOLDER / f"{name}.yaml")["methods"])
    assert [record.error for record in run.records] == [None] * len(run.records)
    assert {record.status for record in run.records} == {"complete"}
    assert run.folder.report_file.exists()
    assert run.best is not None
