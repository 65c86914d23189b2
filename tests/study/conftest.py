"""Quick experiments, and what was started of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import entailor.engine.trainer
import entailor.study.compare
from entailor.config.experiment import Experiment
from entailor.runs.files import write_text
from entailor.runs.record import RunRecord
from entailor.study.trial import run_trial


@pytest.fixture
def out(tmp_path: Path) -> str:
    return str(tmp_path / "runs" / "one")


@pytest.fixture
def quick(nli_experiment: Experiment, out: str) -> Experiment:
    """Two rows without a model: a third of a second."""
    return nli_experiment.model_copy(update={"methods": {"majority": {}, "bag_of_words": {}}, "out": out})


@pytest.fixture
def real_page() -> None:
    """Ask for a page that is drawn."""


@pytest.fixture
def plain_page(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Drawing takes longer than most runs here; the page has tests of its own."""
    if "real_page" not in request.fixturenames:
        monkeypatch.setattr(
            entailor.study.compare, "write_report", lambda folder: write_text(folder.report_file, "page")
        )


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Row and seed of every trial that is run, not taken from the folder."""
    trials: list[tuple[str, int]] = []

    def counted(plan: Any, *rest: Any) -> RunRecord:
        trials.append((plan.candidate, plan.seed))
        return run_trial(plan, *rest)

    monkeypatch.setattr(entailor.study.compare, "run_trial", counted)
    return trials
