"""The estimate: counted in a moment, complete, harmless to what follows, and kept for the comparison with the truth.

How near it comes is measured (docs/guides/budgets.md), not asserted: other work on the machine would decide it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.observers import listener

import entailor.study.compare
import entailor.study.estimate
from entailor.config.experiment import Experiment
from entailor.config.parts import BudgetSettings
from entailor.data.example import Split
from entailor.engine.speed import ModelFacts, Slowdown, measure_slowdown
from entailor.methods import build_method
from entailor.report.effort import effort_lines, estimate_lines
from entailor.runs.files import write_text
from entailor.runs.layout import RunFolder
from entailor.study.compare import Comparison, compare, estimate
from entailor.study.estimate import CandidateCost, Work, cost_of, estimate_candidates, estimate_trials
from entailor.study.trial_plan import TrialPlan

FACTS = ModelFacts(
    tokens=40,
    operations=2e7,
    speed=1e11,
    training_speed=2e11,
    load_bytes=10**8,
    parameters=2 * 10**7,
    layer_floats=60_000,
)


@pytest.fixture(autouse=True)
def plain_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entailor.study.compare, "write_report", lambda folder: write_text(folder.report_file, "page"))


@pytest.fixture
def experiment(nli_experiment: Experiment, tmp_path: Path) -> Experiment:
    rows = {name: nli_experiment.methods[name] for name in ("bag_of_words", "linear_probe", "lora")}
    return nli_experiment.model_copy(update={"methods": rows, "estimate": True, "out": str(tmp_path / "run")})


def plan_of(nli_experiment: Experiment, name: str, **settings: Any) -> TrialPlan:
    method = build_method(name, settings)
    model = nli_experiment.models[0] if method.needs_backbone else "none"
    return TrialPlan(name, method, model, 0, nli_experiment.model)


# --- one candidate


@pytest.mark.parametrize("name", ["linear_probe", "p_tuning", "lora", "full_finetuning"])
def test_every_part_of_a_trial_is_counted(nli_experiment, nli_split: Split, name):
    cost = cost_of(plan_of(nli_experiment, name), nli_split, FACTS)
    assert min(cost.load, cost.train, cost.test) > 0
    assert (cost.evaluate > 0) == (name != "linear_probe")
    assert cost.peak_memory_bytes > FACTS.load_bytes
    assert cost.trial_seconds == pytest.approx(cost.load + cost.train + cost.evaluate + cost.test)


def test_words_cost_by_their_characters(nli_experiment, nli_split):
    plan = plan_of(nli_experiment, "bag_of_words")
    twice = replace(nli_split, train=nli_split.train * 2)
    once, more = (cost_of(plan, split, None).train for split in (nli_split, twice))
    fixed = entailor.study.estimate.WORDS_SECONDS
    assert more - fixed == pytest.approx(2 * (once - fixed))


def test_training_is_counted_in_passes_at_its_own_speed(nli_experiment, nli_split):
    def train(name, **settings):
        return cost_of(plan_of(nli_experiment, name, **settings), nli_split, FACTS).train

    once = train("lora", num_train_epochs=1)
    assert once == pytest.approx(48 * 40 * 2e7 / 2e11 * 2)  # 48 examples forward and back
    assert train("lora", num_train_epochs=2) == pytest.approx(2 * once)
    assert train("full_finetuning", num_train_epochs=1) == pytest.approx(1.5 * once)
    assert train("p_tuning", num_train_epochs=1, num_virtual_tokens=40) == pytest.approx(2 * once)


def test_a_decoder_that_is_asked_has_no_training(nli_experiment, nli_split):
    plain = cost_of(plan_of(nli_experiment, "in_context", fit_temperature=False), nli_split, FACTS)
    fitted = cost_of(plan_of(nli_experiment, "in_context", fit_temperature=True), nli_split, FACTS)
    assert (plain.train, plain.evaluate) == (0, 0)
    assert fitted.evaluate == pytest.approx(len(nli_split.validation) * 40 * 2e7 / 1e11)


def test_training_all_weights_takes_their_memory(nli_experiment, nli_split):
    lora, full = (
        cost_of(plan_of(nli_experiment, name), nli_split, FACTS).peak_memory_bytes
        for name in ("lora", "full_finetuning")
    )
    assert full - lora > 12 * FACTS.parameters


def test_test_is_not_looked_at(nli_experiment, nli_split):
    blank = [replace(example, text="", text_pair="", label="entailment") for example in nli_split.test]
    blind = replace(nli_split, test=tuple(blank))
    for name, facts in (("bag_of_words", None), ("lora", FACTS)):
        seen, unseen = (cost_of(plan_of(nli_experiment, name), split, facts) for split in (nli_split, blind))
        assert seen.trial_seconds == unseen.trial_seconds


SMALL = torch.zeros(1, 1)


class Clocks:
    """Two clocks that go on when they are read: of them one with other work on the machine."""

    def __init__(self, slowdown: float) -> None:
        self.slowdown, self.time = slowdown, 0.0

    def own(self) -> float:
        self.time += 0.001
        return self.time

    def wall(self) -> float:
        self.time += 0.001 * self.slowdown
        return self.time


@pytest.mark.parametrize("models", [False, True])
def test_other_work_on_the_machine_is_measured(monkeypatch, models):
    def found(load, slowdown):
        monkeypatch.setattr("os.getloadavg", lambda: (load, 0, 0))
        clocks = Clocks(slowdown)
        return measure_slowdown(models=models, clock=clocks.wall, own_clock=clocks.own)

    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    monkeypatch.setattr("torch.ones", lambda *shape: SMALL)  # the clocks tell the time, whatever is done meanwhile
    for load, slowdown, expected in (
        (0.1, 1, (1, 1, 1)),
        (8, 6, (6, 4, 6)),
        (15, 1, (1, 1, 7.5)),
        (2, 40, (40, 1, 40)),
    ):
        slow = found(load, slowdown)
        assert (slow.now, slow.low, slow.high) == pytest.approx(expected, rel=0.2)
    monkeypatch.delattr("os.getloadavg")  # Windows has none
    clocks = Clocks(5)
    assert measure_slowdown(models=models, clock=clocks.wall, own_clock=clocks.own).high == pytest.approx(5, rel=0.2)


def test_threads_that_wait_for_each_other_are_slower_than_their_number(monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 4)
    monkeypatch.setattr("torch.ones", lambda *shape: SMALL)
    monkeypatch.setattr("torch.set_num_threads", lambda threads: None)  # or the tests that follow had four
    clocks = Clocks(1)  # four threads take as long as one
    assert measure_slowdown(models=True, clock=clocks.wall, own_clock=clocks.own).now == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize(("slow", "wide"), [(Slowdown(1, 1, 1), 4), (Slowdown(8, 8, 8), 4), (Slowdown(8, 1, 10), 40)])
def test_a_run_of_seconds_has_its_fixed_costs_and_a_range(nli_experiment, nli_split, tmp_path, monkeypatch, slow, wide):
    monkeypatch.setattr(entailor.study.estimate, "measure_slowdown", lambda *, models: slow)
    plans = [plan_of(nli_experiment, name) for name in ("majority", "bag_of_words")]
    found = estimate_trials(Work(plans, plans, (), set(), BudgetSettings(), {}), nli_split, RunFolder(tmp_path))
    trials = sum(candidate["seconds"] for candidate in found["candidates"])
    # a comparison of one candidate, one of both, and the page: more than the trials
    assert found["seconds"] - trials == pytest.approx(slow.now * 1.3)
    assert found["seconds"] == pytest.approx(slow.now * 1.5, rel=0.1)
    assert found["low"] < found["seconds"] < found["high"]
    assert found["high"] / found["low"] == pytest.approx(wide)
    assert found["slowdown"] == slow.now


def test_of_a_gpu_nothing_is_made_up(nli_experiment, nli_split):
    plan = plan_of(nli_experiment, "lora")
    part = {"name": "layers", "place": "cuda:0", "parameters": 10, "bytes": 40}
    placement = {plan.model: [{"candidates": ["lora"], "parts": [part], "load_bytes": 40}]}
    work = Work([plan], [plan], (), set(), BudgetSettings(), placement)
    (found,) = estimate_candidates(work, nli_split)
    assert "speed of this GPU is not known" in found["error"]
    assert found["seconds"] == 0


# --- the whole run


def test_trials_tuning_and_curve_are_counted(nli_experiment, nli_split, monkeypatch):
    plan, bag = plan_of(nli_experiment, "lora"), plan_of(nli_experiment, "bag_of_words")
    known = {"bag_of_words": CandidateCost("none", "bag_of_words", train=2)}
    known["lora"] = CandidateCost(plan.model, "lora", load=2, train=10, evaluate=2, example=0.01)
    monkeypatch.setattr(entailor.study.estimate, "_facts", lambda plan, split, placement: None)
    monkeypatch.setattr(entailor.study.estimate, "cost_of", lambda plan, split, facts: known[plan.candidate])
    plans = [bag, plan, replace(plan, seed=1)]
    work = Work(plans, plans, (), set(), BudgetSettings(trials=4, pruner="none"), {plan.model: []})

    def found(work):
        return {one["method"]: one for one in estimate_candidates(work, nli_split)}

    assert found(work)["bag_of_words"]["seconds"] == 2
    assert found(work)["lora"]["tuning_seconds"] == pytest.approx(4 * 13)
    assert found(work)["lora"]["seconds"] == pytest.approx(2 * 14 + 4 * 13)
    tuned = replace(work, left=plans[:2], tuned={(plan.model, "lora")})
    assert found(tuned)["lora"]["seconds"] == pytest.approx(14)
    elsewhere = found(replace(work, budget=BudgetSettings(), num_external=200))
    assert elsewhere["lora"]["external_seconds"] == pytest.approx(2 * (1 + 200 * 0.01))  # loaded once a trial
    assert elsewhere["lora"]["seconds"] == pytest.approx(2 * 14 + 2 * 3)
    minutes = found(replace(work, budget=BudgetSettings(minutes=3)))
    assert (minutes["lora"]["tuning_seconds"], minutes["bag_of_words"]["tuning_seconds"]) == (180, 0)
    assert estimate_candidates(replace(work, left=()), nli_split) == []


def test_the_estimate_alone_runs_nothing(experiment, tmp_path):
    expected = estimate(experiment)
    trials = {one["method"]: one["trials"] for one in expected["candidates"]}
    assert trials == {"bag_of_words": 1, "linear_probe": 1, "lora": 2}
    assert all(one["error"] is None and one["trial_seconds"] > 0 for one in expected["candidates"])
    assert expected["seconds"] > sum(one["seconds"] for one in expected["candidates"])
    assert expected["low"] < expected["seconds"] < expected["high"]
    assert not list(tmp_path.rglob("record.json"))
    assert not (tmp_path / "run" / "test_access.json").exists()
    lines = estimate_lines(expected)
    assert lines[0].split() == [
        "candidate",
        "trials",
        "one",
        "trial",
        "tuning",
        "curve",
        "external",
        "in",
        "all",
        "memory",
    ]
    assert lines[-1].startswith("estimate: ")
    seen: list[dict[str, Any]] = []
    run = compare(experiment, listener(estimate=seen.append))
    assert [one["method"] for one in seen[0]["candidates"]] == [one["method"] for one in expected["candidates"]]
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


def test_an_estimate_changes_no_result(experiment, finished_run, tmp_path):
    run = compare(experiment)
    for place, _ in run.folder.records():
        earlier = finished_run.folder.path / place.relative_to(run.folder.path)
        now, then = ((one / "predictions.jsonl").read_text() for one in (place, earlier))
        assert now == then, place


def test_what_is_complete_is_not_estimated(experiment):
    quick = experiment.model_copy(update={"methods": {"bag_of_words": {}}})
    compare(quick)
    seen: list[dict[str, Any]] = []
    compare(quick, listener(estimate=seen.append))
    assert (seen[0]["candidates"], seen[0]["seconds"]) == ([], 0)


def test_it_can_be_switched_off(experiment):
    off = experiment.model_copy(update={"methods": {"majority": {}}, "estimate": False})
    assert compare(off).summary["estimate"] is None
