"""Every file a run writes is as the reference says: its type takes it, and nothing in it is left undescribed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from entailor.config.parts import BudgetSettings
from entailor.study.compare import compare

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def documented():
    spec = importlib.util.spec_from_file_location("file_schemas", DOCS / "file_schemas.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["file_schemas"] = module  # its annotations are read there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(nli_experiment, nli_files, tmp_path_factory) -> Path:
    """A run with a budget, an external test set, an estimate and a trial that fails."""
    out = tmp_path_factory.mktemp("files") / "run"
    changed = {
        "methods": {"lora": {"num_train_epochs": 1}, "cut_off": {"method": "lora", "target_modules": ["nowhere"]}},
        "data": nli_files.model_copy(update={"external": (nli_files.validation,)}),
        "budget": BudgetSettings(trials=1),
        "seeds": (0,),
        "estimate": True,
        "out": str(out),
    }
    compare(nli_experiment.model_copy(update=changed))
    return out


def test_files_are_as_described(documented, folder):
    seen = set()
    for path in folder.rglob("*.json*"):
        name = "external.json" if path.parent.name == "external" else path.name
        if name not in documented.FILES:
            assert path.parent.name in ("adapter", "model")  # the formats of others, or of a method
            continue
        seen.add(name)
        for text in path.read_text("utf-8").splitlines() if name.endswith("l") else [path.read_text("utf-8")]:
            documented.adapter(name).validate_json(text)
    assert documented.FILES.keys() - seen == {
        "manifest.json",
        "verification.json",
    }  # of exports, whose types write them


def test_a_key_that_is_not_described_is_noticed(documented, folder):
    split = json.loads((folder / "split.json").read_text("utf-8"))
    with pytest.raises(ValidationError, match="order"):
        documented.adapter("split.json").validate_python({**split, "order": []})
    del split["test"]
    with pytest.raises(ValidationError, match="test"):
        documented.adapter("split.json").validate_python(split)
