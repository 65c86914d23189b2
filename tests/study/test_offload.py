"""A model that does not fit into memory, scored from the disk: the same answers, and nothing written elsewhere."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.observers import listener

from entailor.config.experiment import Experiment
from entailor.config.parts import ModelSettings
from entailor.runs.cache_place import cache_folder
from entailor.runs.layout import RunFolder
from entailor.runs.record import RunRecord
from entailor.study.compare import compare


def files_of(*folders: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for one in folders for path in one.rglob("*") if path.is_file()}


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU would take it all")
@pytest.mark.parametrize(
    ("kind", "methods", "most"),  # what must stay in memory is embeddings and heads
    [
        ("bert", {"linear_probe": {"C": [1.0]}}, 20_000),
        ("llama", {"in_context": {}}, 58_000),
        ("mixtral", {"in_context": {}}, 58_000),
    ],
)
def test_an_oversize_model_answers_from_the_disk_as_from_memory(
    kind: str,
    methods: dict[str, dict[str, object]],
    most: int,
    nli_experiment: Experiment,
    tiny_model: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, here = tiny_model(kind), tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    before = files_of(here, model)
    found: dict[str, RunRecord] = {}
    said: list[str] = []
    for name, settings in (("memory", {}), ("disk", {"device_map": "auto", "max_memory": {"cpu": most}})):
        experiment = nli_experiment.model_copy(
            update={
                "models": (str(model),),
                "methods": methods,
                "seeds": (0,),
                "model": ModelSettings(precision="fp32", **settings),
                "out": str(tmp_path / name),
            }
        )
        compare(experiment, listener(note=said.append))
        ((_, found[name]),) = RunFolder(experiment.out).records()
        assert found[name].error is None
    assert any("are read from the disk again for every batch" in text for text in said)
    parts = found["disk"].provenance["placement"]["parts"]
    assert sum(part["bytes"] for part in parts if part["place"] == "disk") > 0
    for ours, gold in zip(found["disk"].predictions, found["memory"].predictions, strict=True):
        assert ours.probabilities == pytest.approx(gold.probabilities, abs=1e-5)
    assert files_of(here, model) == before
    gc.collect()
    assert not files_of(cache_folder() / "offload")
