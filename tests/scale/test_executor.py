"""What a driver does with trials that run elsewhere: told by a Ray that stands in for the real one."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import make_examples, write_csv
from tests.kill import outcome
from tests.observers import listener
from tests.scale.outcomes import differing_results
from tests.scale.stand_in import RayTaskError, StandIn, TaskCancelledError, WorkerCrashedError

import entailor.study.compare
from entailor.cli.compare import _executor as executor_of
from entailor.config.experiment import Experiment
from entailor.config.parts import DataSettings, ModelSettings
from entailor.engine.stopping import RunContext, Stopped, StopSwitch
from entailor.errors import ConfigError, RunError
from entailor.events import Event, Observer, StageProgress
from entailor.methods import build_method
from entailor.runs.files import write_json
from entailor.runs.lock import OWNER_FILE, FileLock
from entailor.runs.record import RunRecord
from entailor.scale import RayExecutor, ray_pool, ray_worker
from entailor.scale.ray_worker import Assignment, Mailbox, run_job
from entailor.study.compare import compare
from entailor.study.jobs import HERE, Job
from entailor.study.trial import run_trial
from entailor.study.trial_plan import TrialPlan

METHODS = {"majority": {}, "words": {"method": "bag_of_words"}, "pairs": {"method": "bag_of_words", "max_ngram": 2}}


@pytest.fixture(scope="module", autouse=True)
def _no_page():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entailor.study.compare, "write_report", lambda folder: None)
        yield


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    parts = {"train": 36, "validation": 9, "test": 12}
    files = {name: write_csv(folder / f"{name}.csv", make_examples(size, seed=size)) for name, size in parts.items()}
    return Experiment(
        data=DataSettings(**files), methods=METHODS, out=str(folder / "here"), doctor=False, learning_curve=(18,)
    )


@pytest.fixture(scope="module")
def here(experiment):
    """What the same experiment leaves behind in one process."""
    compare(experiment)
    return outcome(Path(experiment.out))


@pytest.fixture
def ray(monkeypatch):
    return StandIn().install(monkeypatch)


@pytest.fixture
def elsewhere(experiment, tmp_path):
    return experiment.model_copy(update={"out": str(tmp_path / "run")})


def test_the_run_folder_is_that_of_one_process(ray, here, elsewhere):
    begun, ended = [], []
    observer = listener(
        trial=lambda number, count, title: begun.append((number, count, title)),
        finished=lambda record, reused: ended.append((record.name, reused)),
    )
    compare(elsewhere, observer, executor=RayExecutor(num_cpus=2))
    assert differing_results(here, outcome(Path(elsewhere.out))) == []
    assert begun[:3] == [(1, 3, "majority"), (2, 3, "words"), (3, 3, "pairs")]
    assert ended[:3] == [("majority", False), ("words", False), ("pairs", False)]
    assert not list(Path(elsewhere.out).rglob("seed-*/.lock"))
    assert set(ray.calls) == {0}  # one import of torch for all trials of a worker
    tasks = [one for one in ray.options if "num_cpus" in one]
    assert len(tasks) == len(begun) == len(ended)
    assert {one["num_cpus"] for one in tasks} == {2}
    assert all(0 < one["memory"] <= 1e9 for one in tasks)

    ray.options.clear()
    compare(elsewhere, observer, executor=RayExecutor())
    assert ray.options == []  # nothing is left, so Ray is not asked
    assert ended[len(tasks) :] == [(name, True) for name, _ in ended[: len(tasks)]]


def test_files_come_back_from_nodes_that_do_not_see_the_run_folder(ray, here, elsewhere, monkeypatch):
    monkeypatch.setattr(ray_worker, "_sees_the_run", lambda assignment: False)
    compare(elsewhere, executor=RayExecutor())
    assert differing_results(here, outcome(Path(elsewhere.out))) == []
    assert compare(elsewhere).best.predictor().predict([("some cat", "red dog")])


def test_a_worker_that_dies_is_replaced_and_costs_no_result(ray, here, elsewhere):
    ray.deaths.extend([WorkerCrashedError(), None, TaskCancelledError()])
    notes = []
    compare(elsewhere, listener(note=notes.append), executor=RayExecutor())
    assert differing_results(here, outcome(Path(elsewhere.out))) == []
    assert not [note for note in notes if "its worker" in note]  # both had written their records before


def test_a_trial_whose_workers_keep_dying_is_recorded_as_failed(ray, elsewhere, monkeypatch):
    def dies(*_):
        raise WorkerCrashedError

    monkeypatch.setattr("entailor.study.compare.run_trial", dies)
    notes = []
    run = compare(
        elsewhere.model_copy(update={"methods": {"majority": {}}, "learning_curve": ()}),
        listener(note=notes.append),
        executor=RayExecutor(),
    )
    (record,) = run.records
    assert record.status == "failed"
    assert record.error_type == "WorkerDied"
    assert "died (WorkerCrashedError) 5 times without a new checkpoint. If memory ran out, set more" in record.error
    died = "majority: its worker died (WorkerCrashedError); goes on from its last checkpoint"
    assert [note for note in notes if "its worker" in note] == [died] * 4
    assert RunRecord.read(run.folder.trial("none", "majority", 0)) == record


def test_deaths_are_counted_anew_after_each_checkpoint(ray, elsewhere, monkeypatch, tmp_path):
    calls = []

    def dies_and_writes(plan, task, split, folder, run_context):
        calls.append(plan)
        if len(calls) <= 8:
            checkpoint = folder / "checkpoint"
            checkpoint.mkdir(parents=True, exist_ok=True)
            (checkpoint / f"step-{len(calls)}").touch()
            raise WorkerCrashedError
        for file in (folder / "checkpoint").iterdir():
            file.unlink()
        return run_trial(plan, task, split, folder, run_context)

    monkeypatch.setattr("entailor.study.compare.run_trial", dies_and_writes)
    only = elsewhere.model_copy(update={"methods": {"majority": {}}, "learning_curve": ()})
    assert compare(only, executor=RayExecutor()).records[0].status == "complete"
    assert len(calls) == 9


def test_a_folder_that_cannot_be_written_ends_the_run(ray, elsewhere):
    ray.deaths.append(RayTaskError(RunError("/full: cannot be written: no space left")))
    with pytest.raises(RunError, match="no space left"):
        compare(elsewhere, executor=RayExecutor())
    assert ray.cancelled == 2


def test_a_signal_cancels_what_runs_and_the_same_command_goes_on(ray, here, elsewhere):
    stop, ended = StopSwitch(), []

    def finished(record, reused):
        ended.append(record.name)
        stop.request(signal.SIGTERM)

    with pytest.raises(Stopped):
        compare(elsewhere, listener(finished=finished), stop, executor=RayExecutor())
    assert ended == ["majority"]
    assert ray.cancelled == 1  # one more was done before the request was seen
    compare(elsewhere, executor=RayExecutor())
    assert differing_results(here, outcome(Path(elsewhere.out))) == []


def test_more_than_this_machine_has_is_refused_and_a_cluster_may_grow(ray, elsewhere):
    with pytest.raises(ConfigError, match=r"--gpus-per-trial 1: more than this machine has \(2 cores, 0 GPUs\)"):
        compare(elsewhere, executor=RayExecutor(num_gpus=1))
    warnings = []
    compare(elsewhere, listener(warn=warnings.append), executor=RayExecutor("auto", num_cpus=8))
    text = "--cpus-per-trial 8, --gpus-per-trial 0: no node has so much yet (2 cores, 0 GPUs); the trials wait for one"
    assert text in warnings


def test_a_gpu_goes_to_trials_with_a_model_where_there_is_one(ray, nli_task, nli_split, tmp_path):
    ray.there = [{"CPU": 2.0, "GPU": 1.0, "memory": 1e9}]
    jobs = []
    for name, device in (("majority", None), ("lora", None), ("linear_probe", "cpu")):
        plan = TrialPlan(name, build_method(name, {}), "m", 0, ModelSettings(device_map=device))
        folder = tmp_path / name
        jobs.append(Job(name, lambda *_: "done", plan, nli_task, nli_split, folder, lost=str))
    with RayExecutor().open({("m", "lora"): 5, ("m", "majority"): 10**12}) as pool:
        assert [result for batch in pool.run(jobs, RunContext()) for _, result in batch] == ["done"] * 3
    assert ray.calls == [1]  # the memory of a GPU is free when its process has ended
    tasks = {one["name"]: one for one in ray.options if "name" in one}
    assert {name: one["num_gpus"] for name, one in tasks.items()} == {"majority": 0, "lora": 1, "linear_probe": 0}
    # no more than there is: an estimate that is too high must not keep a trial from running
    assert {name: one["memory"] for name, one in tasks.items()} == {"majority": 1e9, "lora": 5, "linear_probe": 0}


def test_a_cluster_that_is_not_there(ray, elsewhere, monkeypatch):
    def nobody(**_):
        raise ConnectionError("no route to 10.0.0.9:6379")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", nobody, raising=False)
    with pytest.raises(ConfigError, match=r"--address 10.0.0.9:6379: no cluster of Ray there .* `ray start --head`"):
        compare(elsewhere, executor=RayExecutor("10.0.0.9:6379"))
    monkeypatch.undo()
    StandIn().install(monkeypatch)
    assert compare(elsewhere, executor=RayExecutor()).records  # or leave --address out


def test_a_machine_too_busy_to_start_ray(ray, elsewhere, monkeypatch):
    def late(**_):
        raise Exception("The current node timed out during startup.")  # what Ray raises

    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", late, raising=False)
    with pytest.raises(RunError, match=r"could not be started on this machine \(The current node timed out"):
        compare(elsewhere, executor=RayExecutor())
    assert compare(elsewhere).records  # or leave --executor out


def test_without_ray_and_with_numbers_that_cannot_be(monkeypatch):
    monkeypatch.setattr(ray_pool.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"--executor ray: ray is missing. pip install 'entailor\[cluster\]'"):
        RayExecutor()
    monkeypatch.undo()
    StandIn().install(monkeypatch)
    with pytest.raises(ConfigError, match="--cpus-per-trial: a number above 0 was expected, found 0"):
        RayExecutor(num_cpus=0)
    with pytest.raises(ConfigError, match="--gpus-per-trial: 0 or more was expected, found -1"):
        RayExecutor(num_gpus=-1)


def test_flags_of_ray_belong_to_ray(monkeypatch):
    with (
        pytest.raises(ConfigError, match="--address: does nothing here"),
        executor_of(Experiment(), "local", "auto", None, None),
    ):
        pass
    with executor_of(Experiment(), "local", None, None, None) as here:
        assert here is HERE
    StandIn().install(monkeypatch)
    with executor_of(Experiment(), "ray", "auto", None, 0.5) as ray:
        assert ray == RayExecutor("auto", num_cpus=1, num_gpus=0.5)


@pytest.fixture
def assignment(nli_task, tmp_path):
    plan = TrialPlan("majority", build_method("majority", {}), "none", 0, Experiment().model)
    write_json(tmp_path / OWNER_FILE, {"pid": 1})
    return Assignment(0, run_trial, plan, nli_task, tmp_path / "trial", Path.cwd(), tmp_path, {"pid": 1})


@pytest.fixture
def mailbox(ray):
    return ray.remote(num_cpus=0)(Mailbox).remote()


def test_a_worker_says_what_keeps_it_from_working(assignment, mailbox, nli_split, monkeypatch):
    with pytest.raises(RunError, match=rf"Entailor {ray_worker.installed_release()} found, expected 9.9"):
        run_job(replace(assignment, release="9.9"), nli_split, mailbox)
    with pytest.raises(RunError, match=r"/not/there: cannot be reached on .*\(No such file or directory\)"):
        run_job(replace(assignment, directory=Path("/not/there")), nli_split, mailbox)
    monkeypatch.setattr(ray_worker, "LOCK_SECONDS", 0.01)
    assignment.folder.mkdir()
    with (
        FileLock(assignment.folder / ".lock"),
        pytest.raises(RunError, match="another process works there"),
    ):
        run_job(assignment, nli_split, mailbox)
    assert run_job(assignment, nli_split, mailbox).status == "complete"


@pytest.mark.parametrize("changes", [{"owner": {"pid": 2}}, {"run": Path("/not/there")}], ids=["another run", "no run"])
def test_a_worker_sends_its_files_where_it_does_not_see_the_run(changes, assignment, mailbox, nli_split):
    carried = run_job(replace(assignment, **changes), nli_split, mailbox)
    assert not assignment.folder.exists()
    assert carried.files[-1][0] != "record.json"  # which is written last all the same
    assert carried.unpack(assignment.folder) == RunRecord.read(assignment.folder)


def test_a_mailbox_keeps_every_remark_and_the_last_word_on_a_stage(ray, mailbox):
    observer = Observer(ray_worker._Posting(mailbox, 7))
    observer.note("first")
    observer.stage("load")
    for step in range(100):
        observer.stage("train", step, 100)
    observer.note("second")
    events = ray.get(mailbox.take.remote())
    assert events[:2] == [(7, Event("note", text="first")), (7, Event("note", text="second"))]
    assert [event.data for _, event in events[2:]] == [StageProgress("train", 0, 100)]  # the others came too soon
    assert ray.get(mailbox.take.remote()) == []


def test_folds_are_further_trials(ray, experiment, tmp_path):
    data = DataSettings(train=experiment.data.train, cv=2)
    crossed = experiment.model_copy(
        update={
            "data": data,
            "methods": {"words": METHODS["words"]},
            "learning_curve": (),
            "out": str(tmp_path / "here"),
        }
    )
    compare(crossed)
    elsewhere = crossed.model_copy(update={"out": str(tmp_path / "there")})
    begun = []
    compare(elsewhere, listener(trial=lambda *what: begun.append(what)), executor=RayExecutor())
    assert sorted(title for _, _, title in begun) == ["words, all examples", "words, fold 1 of 2", "words, fold 2 of 2"]
    assert differing_results(outcome(Path(crossed.out)), outcome(Path(elsewhere.out))) == []
