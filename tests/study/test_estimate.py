"""The estimate: cheap, complete, harmless to what follows, and kept for the comparison with the truth.

How near it comes is measured (docs/guides/budgets.md), not asserted: other work on the machine would decide it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import entailor.engine.probe
import entailor.study.compare
import entailor.study.estimate
from entailor.config.experiment import BudgetSettings, Experiment
from entailor.data.example import Split
from entailor.engine.probe import ScoringCost, probe_scoring, scoring_tokens
from entailor.methods import build_method
from entailor.report.effort import effort_lines, estimate_lines
from entailor.runs.record import write_text
from entailor.study.compare import Comparison, Observer, compare, estimate
from entailor.study.estimate import CandidateCost, Work, estimate_candidates, probe_candidate
from entailor.study.trial import TrialPlan
from entailor.tasks import Task

PARTS = ("load", "tokenize", "train", "test", "finish")


@pytest.fixture(autouse=True)
def plain_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entailor.study.compare, "write_report", lambda folder: write_text(folder.report_file, "page"))


@pytest.fixture
def experiment(nli_experiment: Experiment, tmp_path: Path) -> Experiment:
    rows = {name: nli_experiment.methods[name] for name in ("bag_of_words", "linear_probe", "lora")}
    return nli_experiment.model_copy(update={"methods": rows, "estimate": True, "out": str(tmp_path / "run")})


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Rows that are probed, in order."""
    rows: list[str] = []

    def counted(plan: TrialPlan, *rest: Any) -> CandidateCost:
        rows.append(plan.candidate)
        return probe_candidate(plan, *rest)

    monkeypatch.setattr(entailor.study.estimate, "probe_candidate", counted)
    return rows


def plan_of(nli_experiment: Experiment, name: str, **settings: Any) -> TrialPlan:
    method = build_method(name, settings)
    model = nli_experiment.models[0] if method.needs_backbone else "none"
    return TrialPlan(name, method, model, 0, nli_experiment.model)


# --- one row


@pytest.mark.parametrize("name", ["majority", "bag_of_words", "linear_probe", "p_tuning", "lora", "full_finetuning"])
def test_every_part_of_a_trial_is_found_out(nli_experiment, nli_task: Task, nli_split: Split, name):
    cost = probe_candidate(plan_of(nli_experiment, name), nli_task, nli_split)
    assert cost.error is None
    assert all(getattr(cost, part) > 0 for part in PARTS)
    assert (cost.evaluate > 0) == (name in ("p_tuning", "lora", "full_finetuning"))
    assert cost.peak_memory_bytes > 10**8
    assert cost.trial_seconds == pytest.approx(sum(getattr(cost, part) for part in (*PARTS, "evaluate")))


def test_a_decoder_that_is_asked_has_no_training(nli_experiment, nli_task, nli_split, tiny_model):
    plan = replace(plan_of(nli_experiment, "in_context", num_fewshot=2), model=str(tiny_model("llama")))
    cost = probe_candidate(plan, nli_task, nli_split)
    assert cost.error is None
    assert cost.train == 0
    assert min(cost.load, cost.tokenize, cost.evaluate, cost.test, cost.finish) > 0


def test_what_prompts_share_is_not_counted_for_each(nli_experiment, nli_task, nli_split, tiny_model, monkeypatch):
    monkeypatch.setattr("entailor.study.estimate.probe_scoring", lambda *what: ScoringCost(1.0, 0.0, 0))
    model = str(tiny_model("llama"))
    none, eight = (
        probe_candidate(
            replace(plan_of(nli_experiment, "in_context", num_fewshot=shots), model=model), nli_task, nli_split
        )
        for shots in (0, 8)
    )
    assert eight.test == pytest.approx(none.test, rel=0.2)  # a second for each token of a row


def test_twice_the_epochs_take_twice_the_training(nli_experiment, nli_task, nli_split, monkeypatch):
    monkeypatch.setattr("entailor.engine.probe.single_steps", lambda *what: iter([0.5] * 10))
    once, twice = (
        probe_candidate(plan_of(nli_experiment, "lora", r=2, num_train_epochs=epochs), nli_task, nli_split)
        for epochs in (1, 2)
    )
    assert once.train == pytest.approx(3 * 0.5)  # 48 rows in batches of 16
    assert twice.train == pytest.approx(2 * once.train)


def test_the_longest_text_of_many_is_seen(nli_split, monkeypatch):
    monkeypatch.setattr("entailor.study.estimate.SAMPLE", 8)
    rows = list(nli_split.train)
    rows[5] = replace(rows[5], text="word " * 99)
    sample = entailor.study.estimate._of_all_lengths(rows)
    assert len(sample) == 8
    assert rows[5] in sample
    lengths = [len(row.text) + len(row.text_pair) for row in sample]
    assert np.median(lengths) == pytest.approx(np.median([len(row.text) + len(row.text_pair) for row in rows]), rel=0.3)


def test_what_the_trial_will_fail_on_is_said(nli_experiment, nli_task, nli_split):
    cost = probe_candidate(plan_of(nli_experiment, "lora", target_modules=["nowhere"]), nli_task, nli_split)
    assert "nowhere" in (cost.error or "")
    assert cost.trial_seconds == 0


def test_test_is_not_looked_at(nli_experiment, nli_task, nli_split):
    blank = [replace(row, text="", text_pair="", label="entailment") for row in nli_split.test]
    blind = Split(nli_split.train, nli_split.validation, tuple(blank))
    plan = plan_of(nli_experiment, "bag_of_words")
    assert probe_candidate(plan, nli_task, blind).error is None
    assert probe_candidate(plan, nli_task, blind).key == probe_candidate(plan, nli_task, nli_split).key


# --- batches


def test_the_largest_batch_is_met_where_steps_are_slow(nli_experiment, nli_task, nli_split, monkeypatch):
    taken = []

    def slow(classifier, method, data, runtime, groups):
        for group in groups:
            taken.append(max(len(data.train[row]) for batch in group for row in batch))
            yield 100.0

    monkeypatch.setattr("entailor.engine.probe.single_steps", slow)
    monkeypatch.setattr("entailor.study.estimate.STEPS_ALLOWANCE", 0.0)
    rows = list(nli_split.train)
    rows[5] = replace(rows[5], text="word " * 40)
    probe_candidate(plan_of(nli_experiment, "lora", r=2), nli_task, replace(nli_split, train=tuple(rows)))
    assert len(taken) == 2
    assert max(taken) > 40


class Item:
    truncated = False

    def __init__(self, row: int, length: int) -> None:
        self.candidate, self.length = row, length

    def __len__(self) -> int:
        return self.length


def test_a_whole_batch_is_extrapolated_from_smaller_ones():
    sizes: list[int] = []
    items = [Item(row, 10) for row in range(5)]
    cost = probe_scoring(lambda members: sizes.append(len(members)), items, 16_000, 10.0)
    assert sizes == [1, 50, 200, 200]  # one to warm up, a few, an eighth for memory, and again for time
    assert cost.token_seconds > 0
    assert ScoringCost(0.0, 100.0, 1000).peak_bytes(80) == 9000
    assert scoring_tokens(items, 12, 80) == (120, 80)
    sizes.clear()
    probe_scoring(lambda members: sizes.append(len(members)), items, 16_000, 0.0)
    assert sizes == [1, 50, 50]


def test_inputs_longer_than_half_a_batch_are_no_measure_of_its_growth(monkeypatch):
    peaks = iter([1000, 900_000])
    monkeypatch.setattr(entailor.engine.probe, "resident_bytes", lambda: 400)
    monkeypatch.setattr(
        entailor.engine.probe, "_peak_of", lambda run, members: (len(members) * len(members[0]), next(peaks))
    )
    cost = probe_scoring(lambda members: None, [Item(row, 600) for row in range(5)], 1024, 10.0)
    assert cost.token_bytes == 1.0  # (1000 - 400) / 600, and not the difference between two runs of one input


@pytest.mark.parametrize("max_tokens", [1024, 800])
def test_a_small_batch_is_timed_whole(max_tokens):
    """An eighth of the usual batch on a CPU takes three times as long a token as the batch itself."""
    sizes: list[int] = []
    items = [Item(row, 10) for row in range(5)]
    probe_scoring(lambda members: sizes.append(len(members)), items, max_tokens, 10.0)
    assert sizes[-1] == max_tokens // 10


# --- the whole run


def test_trials_tuning_and_curve_are_counted(nli_experiment, nli_task, nli_split):
    plan = plan_of(nli_experiment, "lora")
    bag = plan_of(nli_experiment, "bag_of_words")
    key = entailor.study.estimate._key(plan, nli_split)
    known = {
        ("none", "bag_of_words"): CandidateCost(
            "none", "bag_of_words", entailor.study.estimate._key(bag, nli_split), train=2
        )
    }
    known[plan.model, "lora"] = CandidateCost(plan.model, "lora", key, load=1, train=10, evaluate=2)
    plans = [bag, plan, replace(plan, seed=1)]
    budget = BudgetSettings(trials=4, pruner="none")
    work = Work(plans, plans, (), set(), budget)
    rows = {row["method"]: row for row in estimate_candidates(work, nli_task, nli_split, known)}
    assert rows["bag_of_words"]["seconds"] == 2
    assert rows["lora"]["tuning_seconds"] == pytest.approx(4 * 13)
    assert rows["lora"]["seconds"] == pytest.approx(2 * 13 + 4 * 13)
    tuned = replace(work, left=plans[:2], tuned={(plan.model, "lora")})
    rows = {row["method"]: row for row in estimate_candidates(tuned, nli_task, nli_split, known)}
    assert rows["lora"]["seconds"] == pytest.approx(13)
    minutes = replace(work, budget=BudgetSettings(minutes=3))
    rows = {row["method"]: row for row in estimate_candidates(minutes, nli_task, nli_split, known)}
    assert (rows["lora"]["tuning_seconds"], rows["bag_of_words"]["tuning_seconds"]) == (180, 0)
    assert estimate_candidates(replace(work, left=()), nli_task, nli_split, known) == []


def test_the_forecast_alone_runs_nothing_and_the_run_does_not_measure_again(experiment, probed, tmp_path):
    expected = estimate(experiment)
    assert probed == ["bag_of_words", "linear_probe", "lora"] or sorted(probed) == sorted(experiment.methods)
    assert {row["method"]: row["trials"] for row in expected["candidates"]} == {
        "bag_of_words": 1,
        "linear_probe": 1,
        "lora": 2,
    }
    assert expected["seconds"] == pytest.approx(sum(row["seconds"] for row in expected["candidates"]))
    assert not list(tmp_path.rglob("record.json"))
    assert not (tmp_path / "run" / "test_access.json").exists()
    lines = estimate_lines(expected)
    assert lines[0].split() == ["candidate", "trials", "one", "trial", "tuning", "curve", "in", "all", "memory"]
    assert lines[-1].startswith("estimate: about ")
    probed.clear()
    seen: list[dict[str, Any]] = []
    run = compare(experiment, Observer(estimate=seen.append))
    assert probed == []
    assert seen[0]["seconds"] == pytest.approx(expected["seconds"])
    check_truth(run)


def check_truth(run: Comparison) -> None:
    found = run.summary["estimate"]
    for row in found["candidates"]:
        for key in ("trial_seconds", "peak_memory_bytes"):
            assert row[key]["ratio"] == pytest.approx(row[key]["estimate"] / row[key]["measured"])
    walls = [record.provenance["wall_seconds"] for record in run.records]
    assert found["all_trials"]["measured"] == pytest.approx(sum(walls))
    assert json.loads((run.folder.path / "estimate.json").read_text())["candidates"]
    assert any(line.startswith("estimate against truth") for line in effort_lines(run.summary))


def test_a_forecast_changes_no_result(experiment, finished_run, tmp_path):
    run = compare(experiment)
    for place, _ in run.folder.records():
        earlier = finished_run.folder.path / place.relative_to(run.folder.path)
        assert (place / "predictions.jsonl").read_bytes() == (earlier / "predictions.jsonl").read_bytes()


def test_what_is_complete_is_not_estimate(experiment, probed):
    quick = experiment.model_copy(update={"methods": {"bag_of_words": {}}})
    compare(quick)
    probed.clear()
    seen: list[dict[str, Any]] = []
    compare(quick, Observer(estimate=seen.append))
    assert probed == []
    assert (seen[0]["candidates"], seen[0]["seconds"]) == ([], 0)


def test_it_can_be_switched_off(experiment, probed):
    off = experiment.model_copy(update={"methods": {"majority": {}}, "estimate": False})
    assert compare(off).summary["estimate"] is None
    assert probed == []
