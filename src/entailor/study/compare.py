"""The whole path: data in, every trial run that is not yet complete, comparison and report out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from entailor.config.experiment import Experiment, with_settings
from entailor.config.overrides import read_checked_yaml
from entailor.config.parts import Priorities
from entailor.data.in_memory import with_files
from entailor.data.splits import LoadedData
from entailor.engine.stopping import RunContext, StopSwitch
from entailor.errors import RunError
from entailor.evaluation.comparison import compare_records
from entailor.evaluation.resampling import pool as pool_splits
from entailor.events import SILENT, Observer
from entailor.methods import TrainedMethod
from entailor.report.html import write_report
from entailor.runs.documents import well_formed
from entailor.runs.environment import RunEnvironment
from entailor.runs.files import write_checked_json
from entailor.runs.layout import RUN_VERSION, RunFolder
from entailor.runs.record import NO_MODEL, RunRecord
from entailor.study.estimate import Work, estimate_document, estimate_trials, expected_memory
from entailor.study.external import external_rows, score_external
from entailor.study.finished import lost_trial
from entailor.study.jobs import HERE, Executor, Job, Pool, next_comparison
from entailor.study.learning_curve import PointPlan, curve_document, finished_point, plan_points, run_points
from entailor.study.prepare import Prepared, prepare
from entailor.study.resampled import by_split, resampling_of, split_title, to_ship
from entailor.study.results import Comparison
from entailor.study.search import search_candidates, search_document
from entailor.study.test_access import AccessLog, choice_name, choice_of, log_test_access
from entailor.study.trial import discard_leftovers, run_trial
from entailor.study.trial_plan import TrialPlan
from entailor.tracking.sinks import Tracked, check_tracking, tracked

REPORT_SECONDS = 30  # while trials run the page is drawn again this often; comparison.json is right after each


def compare(
    experiment: Experiment | None = None,
    observer: Observer = SILENT,
    stop: StopSwitch | None = None,
    *,
    train: Any = None,
    validation: Any = None,
    test: Any = None,
    executor: Executor = HERE,
    **settings: Any,
) -> Comparison:
    """Run every (model, method, seed) that is not complete in the run folder, then compare all the folder holds.

    >>> from entailor import compare
    >>> texts = [f"{word} film {n}" for n in range(60) for word in ("good", "bad")]
    >>> train = [(text, text.split()[0]) for text in texts]
    >>> run = compare(train=train, test=train[:20], methods=["majority", "bag_of_words"], out="runs/films")
    >>> run.best.method, run.best.accuracy.mean
    ('bag_of_words', 1.0)
    >>> run.best.predictor().predict(["a good one"])[0].label
    'good'

    Args:
        experiment: what to run; every keyword after `stop` goes over it.
        observer: who is told how it goes.
        stop: lets a signal end the run after a training step, with a checkpoint.
        train: labelled texts: a path, a data set id, a DataFrame of pandas or polars, a `datasets.Dataset`, a mapping
            of column name to list, or a list of (text, label), (premise, hypothesis, label), mappings or Examples; or a
            `datasets.DatasetDict` with all the splits. Data in memory is written to ``data/`` in the run folder, the
            columns that are read alone, so that the run can be resumed and made again.
        validation: as `train`; by default taken from it.
        test: as `train`; by default taken from it.
        executor: where trials run: here, one after the other, or :class:`~entailor.scale.RayExecutor`; changes no
            result.
        **settings: keys of :class:`~entailor.Experiment`: `methods`, `models`, `seeds`, `out` and others.

    Raises:
        EntailorError: bad configuration, data or model, or a run folder of another experiment or in use. A trial that
            fails is recorded with its error and the others go on.
        Stopped: `stop` was asked to.
    """
    parts = {"train": train, "validation": validation, "test": test}
    experiment, files = with_files(with_settings(experiment, settings), parts)
    check_tracking(experiment.tracking)
    with prepare(experiment, observer, files) as prepared:
        if experiment.estimate:
            observer.estimate(_estimate(prepared))
        opened = tracked(experiment.tracking, prepared.folder, observer)
        with opened as tracking, executor.open(expected_memory(prepared.folder)) as pool:
            finished = _run(prepared, RunContext(observer, stop), pool, tracking)
            if finished.summary:
                tracking.finish(finished.summary)
        return finished


def estimate(experiment: Experiment, observer: Observer = SILENT) -> Mapping[str, Any]:
    """Tell how long a run will take and how much memory it needs, and run nothing.

    The run folder then holds the resolved experiment and estimate.json, and the run itself does not measure again.

    Args:
        experiment: what would be run.
        observer: who is told of the data and the models.

    Returns:
        What :func:`~entailor.study.estimate.estimate_trials` returns.

    Raises:
        EntailorError: as for :func:`compare`.
    """
    with prepare(experiment, observer) as prepared:
        return _estimate(prepared)


def _run(prepared: Prepared, run_context: RunContext, pool: Pool, tracking: Tracked) -> Comparison:
    """Choose settings, run what is left, and keep comparison and report right while trials end.

    Only the trials are tracked: the settings of a search and the points of a learning curve stand in the run folder.
    """
    experiment, folder, data, records = prepared.experiment, prepared.folder, prepared.data, prepared.records
    observer = run_context.observer
    plans = {number: _chosen(prepared, number, run_context, pool) for number in data.tested}
    first, *_ = plans
    points = plan_points(plans[first], experiment.learning_curve, len(data.split.train), folder)
    # from here on test is read: all that is chosen has been chosen, and the folder says when and what
    log = _log_access(prepared, plans, points)
    # all splits of a candidate after another, so that it can be compared as soon as may be
    jobs = [_job(plans[number][place], prepared, number) for place in range(len(plans[first])) for number in plans]
    told = replace(run_context, observer=tracking.observer)

    def compared() -> Mapping[str, Any]:
        return write_comparison(folder, records, data, prepared.environment, log, experiment.recommend)

    summary: Mapping[str, Any] = {}
    drawn = time.monotonic()
    done = compared_at = 0
    try:
        for batch in chain.from_iterable(pool.run(wave, told) for wave in _waves(jobs)):
            for job, record in batch:
                if job.found is not None:
                    discard_leftovers(job.folder)  # which a kill between a record and the end of its trial leaves
                records[job.folder] = record
                split = RunFolder.split_number(job.folder)
                log = log.with_results(choice_name(record.model, record.name, split=split), record)
            done += len(batch)
            is_new = any(job.found is None for job, _ in batch)
            if done == len(jobs) or (is_new and done >= next_comparison(compared_at)):
                summary, compared_at = compared(), done
            if summary and time.monotonic() - drawn > REPORT_SECONDS:
                write_report(folder)
                drawn = time.monotonic()
            for job, record in batch:
                told.observer.finished(record, reused=job.found is not None, trial=job.title)
        if points:
            run_points(points, prepared.task, data.split, experiment.data.split_seed, run_context, pool)
            for size, record in folder.curve_records():
                log = log.with_results(choice_name(record.model, record.name, size), record)
            summary = compared()
        if data.repeats is not None:
            _fit_on_all(prepared, summary, run_context, pool)
        summary = _with_external(prepared, observer, summary)
    except BaseException:  # the page is right however the run ends
        with suppress(OSError, RunError):  # a disk that is full has been said already
            if summary:
                summary = compared() if done > compared_at else summary
                write_report(folder)
        raise
    if summary:
        write_report(folder)
    return Comparison(folder, summary, tuple(records[job.folder] for job in jobs))


def _chosen(
    prepared: Prepared, number: int, run_context: RunContext, pool: Pool, plans: Sequence[TrialPlan] | None = None
) -> list[TrialPlan]:
    """Return the plans of one split, its settings chosen on its own validation part where there is a budget."""
    experiment, split = prepared.experiment, prepared.data.splits[number]
    plans = prepared.plans if plans is None else plans
    if not experiment.budget.is_set:
        return list(plans)
    folder = prepared.folder.split(number)
    return search_candidates(plans, experiment.budget, prepared.task, split, folder, run_context, pool)


def _log_access(prepared: Prepared, plans: Mapping[int, Sequence[TrialPlan]], points: Sequence[PointPlan]) -> AccessLog:
    """Write down that test is about to be read, and what has been chosen by then."""
    folder, data = prepared.folder, prepared.data
    names = [
        (choice_name(record.model, record.name, split=RunFolder.split_number(place)), record)
        for place, record in prepared.records.items()
    ]
    names += [(choice_name(one.model, one.name, size), one) for size, one in folder.curve_records()]
    made = {name: choice for number in plans for name, choice in choices_made(plans[number], points, number).items()}
    split = replace(data.split, test=data.test_examples())
    return log_test_access(folder.test_access_file, split, made, names)


def _fit_on_all(prepared: Prepared, summary: Mapping[str, Any], run_context: RunContext, pool: Pool) -> None:
    """Fit what a cross-validation recommends once more, on all examples: the classifier that ships."""
    folder, observer = prepared.folder, run_context.observer
    plans = _chosen(prepared, 0, run_context, pool, to_ship(prepared.plans, folder, summary, observer))
    waves = _waves([_job(plan, prepared, 0) for plan in plans])
    for batch in chain.from_iterable(pool.run(wave, run_context) for wave in waves):
        for job, record in batch:
            observer.finished(record, reused=job.found is not None, trial=job.title)
            if record.status == "failed":
                observer.warn(f"{job.title}: {record.error}. Its folds are compared, but there is nothing to ship")


def _job(plan: TrialPlan, prepared: Prepared, number: int) -> Job:
    """Return a trial as what is to be run, or as found where it is complete with the settings that are chosen now."""
    plan = replace(plan, split=number)
    place = prepared.folder.split(number).trial(plan.model, plan.candidate, plan.seed)
    record = prepared.records.get(place)
    return Job(
        title=trial_title(plan, prepared.experiment) + split_title(number, prepared.data),
        work=run_trial,
        plan=plan,
        task=prepared.task,
        split=prepared.data.splits[number],
        folder=place,
        lost=partial(lost_trial, plan, prepared.task, place),
        found=record if is_finished(record, plan) else None,
    )


def _waves(jobs: list[Job]) -> list[list[Job]]:
    """Return the jobs in groups that may run at once: what learns from other candidates waits for them."""
    pupils = [job for job in jobs if job.plan.method.learns_from_others]
    return [wave for wave in ([job for job in jobs if not job.plan.method.learns_from_others], pupils) if wave]


def _with_external(prepared: Prepared, observer: Observer, summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """Score the external test sets of all the folder's runs, and write what came out with the summary."""
    experiment, folder = prepared.experiment, prepared.folder
    written = read_checked_yaml(folder.experiment_file, "Put a copy of it back")
    with well_formed(RunError, folder.experiment_file, "Put a copy of it back"):
        sources = written["data"]["external"]
    if sources:
        trusted = experiment.model.trust_remote_code
        asked = (sources, experiment.data, prepared.records, prepared.task, observer)
        summary = {**summary, "external": score_external(*asked, trust_remote_code=trusted)}
        write_checked_json(folder.comparison_file, summary)
    return summary


def trial_title(plan: TrialPlan, experiment: Experiment) -> str:
    """Return what a trial is called while it runs: the candidate, and model and seed where there are several."""
    model = f" on {plan.model}" if plan.model != NO_MODEL and len(experiment.models) > 1 else ""
    seed = f", seed {plan.seed}" if len(experiment.seeds) > 1 and plan.method.is_seeded else ""
    return f"{plan.candidate}{model}{seed}"


def _estimate(prepared: Prepared) -> Mapping[str, Any]:
    """Estimate the trials, studies and points of learning curves that are not complete."""
    experiment, folder, tested = prepared.experiment, prepared.folder, prepared.data.tested
    split = next(iter(tested.values()))
    done = {place for place, record in prepared.records.items() if record.status == "complete"}
    studies = (search_document(folder) or {"studies": []})["studies"]
    points = plan_points(prepared.plans, experiment.learning_curve, len(split.train), folder)
    work = Work(
        plans=prepared.plans,
        left=[
            plan
            for plan in prepared.plans
            for number in tested
            if folder.split(number).trial(plan.model, plan.candidate, plan.seed) not in done
        ],
        points=[point for point in points if finished_point(point) is None],
        tuned=[(study["model"], study["method"]) for study in studies if study["status"] == "finished"],
        splits=len(tested),
        budget=experiment.budget,
        placement=prepared.environment["placement"],
        num_external=external_rows(experiment.data),
    )
    return estimate_trials(work, split, folder)


def choices_made(plans: Iterable[TrialPlan], points: Iterable[PointPlan], split: int = 0) -> dict[str, str]:
    """Return a hash of the settings of every candidate and every point of a learning curve, by name."""
    made = {choice_name(plan.model, plan.candidate, split=split): choice_of(plan) for plan in plans}
    return made | {
        choice_name(point.plan.model, point.plan.candidate, point.num_train): choice_of(point.plan) for point in points
    }


def is_finished(record: RunRecord | None, plan: TrialPlan) -> bool:
    """Tell whether a trial need not be run: it is complete, with the settings that are chosen now."""
    if record is None or record.status != "complete":
        return False
    tuned = plan.method.search_space() if isinstance(plan.method, TrainedMethod) else {}
    return all(record.hyperparameters.get(name) == getattr(plan.method, name) for name in tuned)


def write_comparison(
    folder: RunFolder,
    records: Mapping[Path, RunRecord],
    data: LoadedData,
    environment: RunEnvironment,
    log: AccessLog,
    priorities: Priorities,
) -> Mapping[str, Any]:
    """Compare what there is and write comparison.json; with several splits nothing, until there is something."""
    tuning = search_document(folder)
    resampling, found = resampling_of(data), by_split(records)
    pooled = pool_splits(found, resampling) if resampling else None
    ordered = pooled.records if pooled else found[0]
    if not ordered:
        return {}
    extra = {
        "sizes": {name: len(rows) for name, rows in next(iter(data.tested.values())).parts()},
        "precision": environment["precision"],
        "data": environment["data"],
        "external": [],
        "test_access": log.document(),
        "tuning": tuning,
        "learning_curve": curve_document(folder, ordered, len(data.split.train), log),
        "estimate": estimate_document(folder, ordered, tuning),
    }
    summary = {"version": RUN_VERSION, **compare_records(ordered, priorities=priorities, extra=extra, pooled=pooled)}
    for candidate in summary["candidates"]:  # what was known when a candidate was added is no part of its records
        name = choice_name(candidate["model"], candidate["method"], split=next(iter(data.tested)))
        candidate["exploratory"] = log.is_exploratory(name)
    write_checked_json(folder.comparison_file, summary)
    return summary
