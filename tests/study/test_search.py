"""Tuning under equal budgets: what is tried, what is stopped, what is chosen, and that nothing is done twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.observers import listener
from tests.scale.stand_in import StandIn, WorkerCrashedError

import entailor.study.compare
import entailor.study.search
from entailor.config.experiment import Experiment, parse_settings
from entailor.config.parts import BudgetSettings
from entailor.data.example import Split
from entailor.engine.stopping import RunContext, Stopped, StopSwitch
from entailor.engine.training import TrainingResult
from entailor.errors import ConfigError, DivergedError, MethodError, RunError, TrainingError
from entailor.methods import build_method
from entailor.runs.files import read_checked_json, write_checked_json, write_text
from entailor.runs.layout import RunFolder
from entailor.runs.record import CurvePoint
from entailor.scale import RayExecutor
from entailor.study.attempts import train_only
from entailor.study.compare import compare
from entailor.study.jobs import HERE, Pool
from entailor.study.sampler import expected_share, search_ranges
from entailor.study.search import search_candidates, search_document, with_settings
from entailor.study.trial_plan import TrialPlan
from entailor.tasks import Task


@pytest.fixture(autouse=True)
def plain_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entailor.study.compare, "write_report", lambda folder: write_text(folder.report_file, "page"))


@pytest.fixture
def plan(nli_experiment: Experiment) -> TrialPlan:
    method = build_method("lora", {"r": 2, "num_train_epochs": 3, "learning_rate": 0.03})
    return TrialPlan("lora", method, nli_experiment.models[0], 0, nli_experiment.model)


@pytest.fixture
def validation(plan: TrialPlan, nli_task: Task, nli_split: Split, tmp_path: Path) -> Any:
    """Return what tunes the plan, or others, in a folder of its own and gives the chosen plans."""

    def run(
        budget: BudgetSettings,
        *plans: TrialPlan,
        around: RunContext = RunContext(),  # noqa: B008 - frozen
        pool: Pool = HERE,
    ) -> list[TrialPlan]:
        return search_candidates(plans or (plan,), budget, nli_task, nli_split, RunFolder(tmp_path), around, pool)

    return run


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """Settings of every training that tuning begins, in order."""
    begun: list[dict[str, float]] = []

    def train(plan: TrialPlan, *rest: Any) -> Any:
        begun.append({name: getattr(plan.method, name) for name in plan.method.search_space()})
        return train_only(plan, *rest)

    monkeypatch.setattr(entailor.study.search, "train_only", train)
    return begun


def study_of(folder: Path) -> dict[str, Any]:
    document = search_document(RunFolder(folder))
    assert document is not None
    (study,) = document["studies"]
    return study


# --- the budget itself


def test_a_budget_is_one_measure():
    with pytest.raises(ConfigError, match="budget: a budget is one of trials, minutes and examples, found trials and"):
        parse_settings(Experiment, {"budget": {"trials": 3, "minutes": 2}})
    assert not BudgetSettings().is_set
    assert BudgetSettings(minutes=0.5).is_set


def test_every_row_with_a_search_space_tries_as_many_settings(validation, plan, tmp_path, counted):
    other = replace(plan, candidate="full", method=build_method("full_finetuning", {"num_train_epochs": 1}))
    chosen = validation(BudgetSettings(trials=3), plan, replace(plan, seed=1), other)
    assert len(counted) == 6  # both seeds of lora share one study
    assert chosen[0].method == chosen[1].method
    assert [one.seed for one in chosen] == [0, 1, 0]
    document = search_document(RunFolder(tmp_path))
    assert {study["method"]: len(study["trials"]) for study in document["studies"]} == {"lora": 3, "full": 3}


def test_the_rows_own_settings_are_tried_first_and_the_others_lie_in_the_range(validation, plan, counted):
    validation(BudgetSettings(trials=4))
    rates = [settings["learning_rate"] for settings in counted]
    assert rates[0] == pytest.approx(plan.method.learning_rate)
    assert len(set(rates)) == 4
    found = search_ranges(plan.method)["learning_rate"]
    assert found.high == plan.method.learning_rate  # widened to hold the row's own
    assert all(found.low <= rate <= found.high for rate in rates[1:])


def test_the_best_on_validation_is_chosen(validation, tmp_path):
    (chosen,) = validation(BudgetSettings(trials=4, pruner="none"))
    study = study_of(tmp_path)
    best = max(study["trials"], key=lambda one: (one["validation_accuracy"], -one["validation_loss"]))
    assert study["best"] == best["number"]
    assert chosen.method.learning_rate == best["settings"]["learning_rate"]
    assert {one["state"] for one in study["trials"]} == {"complete"}


def test_settings_that_fall_behind_are_stopped_early(validation, plan, tmp_path, monkeypatch):
    def learn_by_rate(
        plan: TrialPlan, task: Task, split: Any, folder: Path, is_enough: Any, around: Any
    ) -> TrainingResult:
        """A training whose accuracy is decided by its learning rate: noise as a model learns nothing in nine steps."""
        accuracy = min(0.9, 0.3 + 20 * plan.method.learning_rate)
        result = TrainingResult(best_step=1, best_accuracy=accuracy, best_loss=1 - accuracy)
        for epoch in (1, 2, 3):
            result.examples_seen, result.epochs = 48 * epoch, float(epoch)
            result.curve.append(
                CurvePoint(3 * epoch, epoch, validation_loss=1 - accuracy, validation_accuracy=accuracy)
            )
            if is_enough(result.curve[-1], result.examples_seen):
                break
        return result

    monkeypatch.setattr(entailor.study.search, "train_only", learn_by_rate)
    validation(BudgetSettings(trials=9))
    trials = study_of(tmp_path)["trials"]
    pruned = [one for one in trials if one["state"] == "pruned"]
    assert pruned
    assert all(one["epochs"] < plan.method.num_train_epochs for one in pruned)
    whole = 48 * plan.method.num_train_epochs
    assert all(one["examples_seen"] == (whole if one["state"] == "complete" else 48) for one in trials)
    assert study_of(tmp_path)["best"] not in [one["number"] for one in pruned]


def test_a_budget_of_examples_is_not_exceeded(validation, tmp_path):
    validation(BudgetSettings(examples=400))
    study = study_of(tmp_path)
    assert 300 < study["examples_seen"] <= 400
    assert len(study["trials"]) > 2


def test_a_budget_too_small_for_one_training_cuts_it_and_takes_what_there_is(validation, plan, tmp_path):
    (chosen,) = validation(BudgetSettings(examples=60))
    (only,) = study_of(tmp_path)["trials"]
    assert (only["state"], only["epochs"]) == ("cut", 1.0)
    assert chosen.method.learning_rate == pytest.approx(plan.method.learning_rate)


def test_a_budget_of_minutes_ends(validation, tmp_path, monkeypatch):
    clock = iter(range(0, 100_000, 10))  # ten seconds between any two looks at the clock
    monkeypatch.setattr(entailor.study.search.time, "perf_counter", lambda: float(next(clock)))
    validation(BudgetSettings(minutes=4))
    study = study_of(tmp_path)
    assert len(study["trials"]) >= 1
    assert study["trials"][-1]["state"] in ("cut", "complete", "pruned")


def test_random_draws_and_hyperband_work_as_well(validation, tmp_path, counted):
    validation(BudgetSettings(trials=3, sampler="random", pruner="hyperband"))
    assert len(counted) == 3


# --- test is out of reach


def test_tuning_never_holds_the_test_split(validation, monkeypatch, nli_split):
    seen: list[Split] = []

    def train(plan: TrialPlan, task: Task, split: Split, *rest: Any) -> Any:
        seen.append(split)
        return train_only(plan, task, split, *rest)

    monkeypatch.setattr(entailor.study.search, "train_only", train)
    validation(BudgetSettings(trials=2))
    assert [split.test for split in seen] == [(), ()]
    assert seen[0].validation == nli_split.validation


def test_all_tuning_is_done_before_test_is_read(nli_experiment, tmp_path):
    rows = {"majority": {}, "lora": {"r": 2, "num_train_epochs": 1}, "other": {"method": "lora", "num_train_epochs": 1}}
    stages: list[str] = []
    experiment = nli_experiment.model_copy(
        update={"methods": rows, "budget": BudgetSettings(trials=2), "seeds": (0,), "out": str(tmp_path / "run")}
    )
    run = compare(experiment, listener(stage=lambda stage, *rest: stages.append(stage)))
    tuned = [place for place, stage in enumerate(stages) if stage.startswith("tuning")]
    tested = [place for place, stage in enumerate(stages) if stage == "test"]
    assert tuned
    assert max(tuned) < min(tested)
    assert run.summary["tuning"]["budget"]["trials"] == 2
    for study in run.summary["tuning"]["studies"]:
        record = next(record for record in run.records if record.name == study["method"])
        assert record.hyperparameters["learning_rate"] == study["chosen"]["learning_rate"]
        (read,) = run.summary["test_access"]["reads"]
        assert all(one["ended"] <= read["time"] <= record.provenance["started"] for one in study["trials"])


# --- going on


def test_a_finished_study_is_not_redone(validation, counted, tmp_path):
    first = validation(BudgetSettings(trials=3))
    before = study_of(tmp_path)
    counted.clear()
    assert validation(BudgetSettings(trials=3)) == first
    assert counted == []
    assert study_of(tmp_path) == before


def test_a_study_that_was_broken_off_goes_on_as_if_it_had_not_been(validation, counted, tmp_path):
    def break_off(text: str) -> None:
        if ", 3 of 7" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        validation(BudgetSettings(trials=7), around=RunContext(listener(note=break_off)))
    assert study_of(tmp_path)["status"] == "running"
    assert len(counted) == 3
    validation(BudgetSettings(trials=7))
    assert len(counted) == 7
    rates, broken_off = [one["learning_rate"] for one in counted], study_of(tmp_path)
    (tmp_path / "tuning").rename(tmp_path / "aside")
    counted.clear()
    validation(BudgetSettings(trials=7))
    assert [one["learning_rate"] for one in counted] == rates
    whole = study_of(tmp_path)
    kept = ("number", "settings", "state", "validation_accuracy", "validation_loss", "examples_seen", "epochs")
    assert [[one[key] for key in kept] for one in whole["trials"]] == [
        [one[key] for key in kept] for one in broken_off["trials"]
    ]


def test_a_study_of_other_settings_or_data_is_begun_anew(validation, plan, counted, tmp_path):
    validation(BudgetSettings(trials=2))
    validation(BudgetSettings(trials=3))
    assert len(counted) == 5
    validation(BudgetSettings(trials=3), with_settings(plan, {"learning_rate": 0.01}))
    assert len(counted) == 8


def test_a_damaged_study_is_begun_anew_or_named(validation, counted, tmp_path):
    validation(BudgetSettings(trials=2))
    (place,) = tmp_path.glob("tuning/*/lora")
    write_text(place / "study.json", "{")
    validation(BudgetSettings(trials=2))
    assert len(counted) == 4
    write_checked_json(place / "study.json", {"trials": [{"number": 0}]})
    with pytest.raises(RunError, match=r"study\.json: not what Entailor writes"):
        search_document(RunFolder(tmp_path))


def test_another_budget_is_refused_in_a_folder_with_results(nli_experiment, tmp_path):
    experiment = nli_experiment.model_copy(update={"methods": {"majority": {}}, "out": str(tmp_path / "run")})
    compare(experiment)
    with pytest.raises(RunError, match=r"budget\.trials: None there, 2 here"):
        compare(experiment.model_copy(update={"budget": BudgetSettings(trials=2)}))


# --- failures


def test_a_setting_that_diverges_is_recorded_and_the_others_go_on(validation, plan, tmp_path, monkeypatch):
    def train(plan: TrialPlan, *rest: Any) -> Any:
        if plan.method.learning_rate < 0.02:
            raise DivergedError("step 3: loss nan")
        return train_only(plan, *rest)

    monkeypatch.setattr(entailor.study.search, "train_only", train)
    (chosen,) = validation(BudgetSettings(trials=4))
    trials = study_of(tmp_path)["trials"]
    failed = [one for one in trials if one["state"] == "failed"]
    assert failed
    assert failed[0]["error"] == "DivergedError: step 3: loss nan"
    assert len(trials) == 4
    assert chosen.method.learning_rate >= 0.02


def test_a_row_that_no_setting_mends_keeps_its_own_and_costs_one_attempt(validation, plan, tmp_path, monkeypatch):
    def train(*rest: Any) -> Any:
        raise MethodError("target_modules: nowhere")

    monkeypatch.setattr(entailor.study.search, "train_only", train)
    assert validation(BudgetSettings(trials=5)) == [plan]
    study = study_of(tmp_path)
    assert (len(study["trials"]), study["best"], study["chosen"]) == (1, None, {})
    assert study["trials"][0]["failure"] == "refused"


FAILURES = [
    (DivergedError("step 1: loss nan"), "diverged"),
    (TrainingError("out of memory with one example at a time"), "crashed"),
    (MemoryError("no room"), "crashed"),
    (RuntimeError("CUDA error"), "crashed"),
    (KeyError("a model's own code"), "crashed"),
]


@pytest.mark.parametrize(("error", "kind"), FAILURES, ids=lambda one: type(one).__name__)
def test_a_first_setting_that_fails_does_not_end_the_search(validation, tmp_path, monkeypatch, error, kind):
    calls: list[int] = []

    def train(*rest: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise error
        return train_only(*rest)

    monkeypatch.setattr(entailor.study.search, "train_only", train)
    validation(BudgetSettings(trials=2))
    study = study_of(tmp_path)
    assert [one["state"] == "failed" for one in study["trials"]] == [True, False]
    assert study["trials"][0]["failure"] == kind
    assert study["best"] == 1


def test_a_search_in_which_every_setting_diverges_spends_its_budget_and_ends(validation, plan, tmp_path, monkeypatch):
    def train(*rest: Any) -> Any:
        raise DivergedError("step 1: loss nan")

    monkeypatch.setattr(entailor.study.search, "train_only", train)
    notes: list[str] = []
    assert validation(BudgetSettings(examples=100), around=RunContext(listener(note=notes.append))) == [plan]
    study = study_of(tmp_path)
    assert 1 < len(study["trials"]) <= 100
    assert study["best"] is None
    assert "none of" in notes[-1]
    assert "the candidate keeps its own settings" in notes[-1]


def test_a_search_that_only_crashes_is_given_up_after_a_few(validation, tmp_path, monkeypatch):
    def train(*rest: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(entailor.study.search, "train_only", train)
    validation(BudgetSettings(trials=20))
    assert len(study_of(tmp_path)["trials"]) == 3


def test_a_real_divergence_in_the_first_setting_lets_the_others_be_tried(validation, plan, tmp_path):
    wild = with_settings(plan, {"learning_rate": 1e30})
    validation(BudgetSettings(trials=4), wild)
    study = study_of(tmp_path)
    assert len(study["trials"]) == 4
    assert study["trials"][0]["failure"] == "diverged"


# --- files of others, and signals


def test_a_search_touches_nothing_in_the_working_directory(validation, plan, tmp_path, monkeypatch):
    here = tmp_path / "here"
    (here / "checkpoint").mkdir(parents=True)
    own = [here / "checkpoint" / f"step-{number:09d}.safetensors" for number in (1, 2, 3)]
    for file in own:
        file.write_text("mine")
    monkeypatch.chdir(here)
    validation(BudgetSettings(trials=2), replace(plan, checkpoint_steps=1))
    assert sorted(here.rglob("*")) == [here / "checkpoint", *own]
    assert not list((tmp_path / "tuning").rglob("step-*"))


@pytest.mark.parametrize("out", ["", " "])
def test_no_run_folder_is_not_the_working_directory(out):
    with pytest.raises(ConfigError, match="out: an empty path would be the working directory; give a folder"):
        parse_settings(Experiment, {"out": out})


@pytest.mark.parametrize(
    ("budget", "step"), [({"trials": 4}, 4), ({"trials": 4, "pruner": "hyperband"}, 6), ({"examples": 300}, 9)], ids=str
)
def test_a_signal_during_a_setting_goes_on_from_its_checkpoint(budget, step, validation, tmp_path):
    stop, notes = StopSwitch(), []

    def ask(stage: str, done: int, *rest: Any) -> None:
        if "setting 2: train" in stage and done == min(step, 9):
            stop.request(15)

    with pytest.raises(Stopped, match=f"step {step} of 9, a checkpoint is written"):
        validation(BudgetSettings(**budget), around=RunContext(listener(stage=ask), stop))
    assert len(study_of(tmp_path)["trials"]) == 1
    validation(BudgetSettings(**budget), around=RunContext(listener(note=notes.append)))
    assert notes[0] == f"lora, setting 2: goes on from the checkpoint at step {step}"
    broken_off = study_of(tmp_path)
    (tmp_path / "tuning").rename(tmp_path / "aside")
    validation(BudgetSettings(**budget))
    times = ("seconds", "ended")
    assert [{key: one[key] for key in one if key not in times} for one in study_of(tmp_path)["trials"]] == [
        {key: one[key] for key in one if key not in times} for one in broken_off["trials"]
    ]
    assert not list((tmp_path / "tuning").rglob("checkpoint"))


def test_a_repeated_search_shows_another_choice_and_the_first_one_counts(validation, plan, counted, tmp_path):
    budget = BudgetSettings(trials=2, repeats=2)
    first = validation(budget)
    assert len(counted) == 4  # the whole budget for each
    document = search_document(RunFolder(tmp_path))
    assert [(study["method"], study["repeat"], len(study["trials"])) for study in document["studies"]] == [
        ("lora", 1, 2),
        ("lora", 2, 2),
    ]
    assert document["budget"]["repeats"] == 2
    own, other = ([one["settings"]["learning_rate"] for one in study["trials"]] for study in document["studies"])
    assert own[0] == other[0]  # the candidate's own settings
    assert own[1] != other[1]
    assert first[0].method.learning_rate == document["studies"][0]["chosen"]["learning_rate"]
    counted.clear()
    assert validation(budget) == first == validation(BudgetSettings(trials=2))
    assert counted == []  # neither repeats nor the first search is done again


def test_repeated_searches_on_ray_are_the_same_though_a_worker_dies(validation, plan, monkeypatch, tmp_path):
    budget, studies, notes = BudgetSettings(trials=1, repeats=2), [], []
    short = with_settings(plan, {"num_train_epochs": 1})
    times = ("seconds", "ended")

    def done() -> None:
        found = search_document(RunFolder(tmp_path))["studies"]
        kept = [[{key: one[key] for key in one if key not in times} for one in study["trials"]] for study in found]
        studies.append([found[0]["chosen"], kept])
        (tmp_path / "tuning").rename(tmp_path / f"aside-{len(studies)}")

    validation(budget, short)
    done()
    ray = StandIn().install(monkeypatch)
    ray.deaths.extend([None, WorkerCrashedError()])
    around = RunContext(listener(note=notes.append))
    with RayExecutor().open({}) as pool:
        validation(budget, short, around=around, pool=pool)
    done()
    assert studies[0] == studies[1]
    assert len(studies[0][1]) == 2
    assert any("search 2: its worker died" in note for note in notes), notes


# --- what pruning is expected to save


def test_the_expected_share_is_between_a_third_and_all():
    assert expected_share(BudgetSettings(trials=4, pruner="none"), 4, 3) == 1.0
    share = expected_share(BudgetSettings(trials=4), 4, 3)
    assert 1 / 3 < share < 1
    assert share == expected_share(BudgetSettings(trials=4), 4, 3)


def test_records_and_files_agree(validation, tmp_path):
    validation(BudgetSettings(trials=2))
    (file,) = tmp_path.glob("tuning/*/lora/study.json")
    assert [row["number"] for row in read_checked_json(file, "")["trials"]] == [0, 1]
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list(tmp_path.rglob("record.json"))
