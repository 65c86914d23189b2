"""What a program may import, and the example in the package's own docstring."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import entailor
from entailor.config.experiment import Experiment
from entailor.config.parts import DataSettings, ModelSettings
from entailor.data.example import Split

ROOT = Path(__file__).parent.parent
PUBLIC = {
    "AcrossRuns": "entailor.evaluation.across_runs",
    "BudgetSettings": "entailor.config.parts",
    "CandidateResult": "entailor.study.results",
    "Classifier": "entailor.classifiers.base",
    "Comparison": "entailor.study.results",
    "DataSettings": "entailor.config.parts",
    "EntailorClassifier": "entailor.integrations.estimator",
    "EntailorError": "entailor.errors",
    "DoctorReport": "entailor.diagnostics.doctor",
    "Example": "entailor.data.example",
    "Experiment": "entailor.config.experiment",
    "Method": "entailor.methods.base",
    "ModelSettings": "entailor.config.parts",
    "Event": "entailor.events",
    "Observer": "entailor.events",
    "Predictor": "entailor.shipping.predictor",
    "RecommendationResult": "entailor.study.results",
    "RunRecord": "entailor.runs.record",
    "Split": "entailor.data.example",
    "compare": "entailor.study.compare",
    "compare_runs": "entailor.evaluation.across_runs",
    "diff_runs": "entailor.evaluation.difference",
    "evaluate": "entailor.shipping.inference",
    "estimate": "entailor.study.compare",
    "export": "entailor.shipping.export",
    "load_classifier": "entailor.shipping.restoring",
    "predict": "entailor.shipping.inference",
    "validate": "entailor.diagnostics.doctor",
    "verify": "entailor.study.verification",
}


def test_these_are_the_public_names():
    assert entailor.__all__ == sorted(PUBLIC)
    assert set(PUBLIC) <= set(dir(entailor))


@pytest.mark.parametrize(("name", "home"), PUBLIC.items())
def test_every_name_is_what_its_module_calls_so(name, home):
    found = getattr(entailor, name)
    assert found is getattr(importlib.import_module(home), name)
    assert found.__module__ == home
    assert found.__doc__


def test_other_names_are_no_attributes():
    with pytest.raises(AttributeError, match="'entailor' has no attribute 'comapre'"):
        entailor.comapre  # noqa: B018


@pytest.mark.parametrize("statement", ["import entailor", "from entailor import EntailorError, Experiment, RunRecord"])
def test_the_package_and_its_settings_come_without_torch(statement):
    code = f"{statement}; import sys; print(sorted({{'torch', 'transformers', 'sklearn', 'numpy'}} & set(sys.modules)))"
    paths = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_the_version_is_that_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert entailor.__version__ == project["version"]


def test_the_example_of_the_docstring_runs(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny_model: Callable[[str], Path],
    nli_files: DataSettings,
    nli_split: Split,
):
    """As it stands there, but on a tiny model and data, and with one seed."""
    _, _, example = (entailor.__doc__ or "").partition("\n\n")
    assert len(re.findall(r"^\S", example, flags=re.MULTILINE)) == 4
    small = {"data": nli_files, "models": [str(tiny_model("bert"))], "model": ModelSettings(precision="fp32")}

    def on_tiny(**values: object) -> Experiment:
        assert values.pop("seeds") == 3
        return Experiment(**values, **small, seeds=1, estimate=False)

    monkeypatch.chdir(tmp_path)
    # a tiny model on tiny data beats no baseline, so that nothing would be recommended and loaded
    beaten = {"p_majority": 0.0, "beats_majority": True}
    monkeypatch.setattr(
        "entailor.evaluation.comparison._test_against_majority", lambda found, *_: [one.update(beaten) for one in found]
    )
    monkeypatch.setattr("entailor.config.experiment.Experiment", on_tiny)
    lines = [f"{row.text},{row.text_pair}" for row in nli_split.test]
    (tmp_path / "new.csv").write_text("\n".join(["premise,hypothesis", *lines]))
    exec(example, {})
    assert len((tmp_path / "labelled.csv").read_text().splitlines()) == 1 + len(lines)
    assert (tmp_path / "runs" / "mine" / "report.html").exists()
