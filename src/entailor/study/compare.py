"""The whole path: data in, every trial run that is not yet complete, comparison and report out."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from entailor.config.experiment import Experiment, Priorities
from entailor.config.overrides import dump_checked_yaml, read_checked_yaml
from entailor.config.plain import shown
from entailor.data.bundled import with_bundled
from entailor.data.splits import LoadedData, load_data, split_document
from entailor.diagnostics.doctor import examine_run
from entailor.engine.stopping import RunContext, StopSwitch
from entailor.errors import RunError, VersionError
from entailor.evaluation.comparison import compare_records
from entailor.evaluation.power import power_lines
from entailor.methods import TrainedMethod
from entailor.models.precision import PrecisionChoice
from entailor.report.html import write_report
from entailor.runs.documents import well_formed
from entailor.runs.environment import describe_environment
from entailor.runs.integrity import disk_trouble
from entailor.runs.layout import RUN_VERSION, RunFolder
from entailor.runs.lock import lock_run
from entailor.runs.ownership import belongs_to_run
from entailor.runs.record import NO_MODEL, RunRecord, clear_trial, read_checked_json, write_checked_json, write_text
from entailor.study.estimate import Work, estimate_document, estimate_trials
from entailor.study.external import check_external, known_external, score_external
from entailor.study.learning_curve import PointPlan, curve_document, finished_point, plan_points, run_points
from entailor.study.plan import Candidate, build_candidate, plan_trials, resolve
from entailor.study.search import search_candidates, search_document
from entailor.study.test_access import AccessLog, choice_name, choice_of, log_test_access
from entailor.study.trial import TrialPlan, discard_leftovers, run_trial
from entailor.tasks import Task

HOW_FILES_ARE_READ = frozenset(
    ("external", "label_names", "no_gold", "delimiter", "encoding", "max_bytes", "max_rows", "max_labels")
)
REPORT_SECONDS = 30  # while trials run the page is drawn again this often; comparison.json is right after each


@dataclass(frozen=True)
class Observer:
    """Who is told how a run goes; the command line shows bars, a program may ignore it.

    Attributes:
        note: one line worth showing.
        warn: one line to show even where nothing else is: rows of the user that are left out.
        trial: number, count, title of the trial that begins.
        stage: stage, steps done, steps in all (0 where that is not known), a few words.
        finished: a trial's record, and whether it was there already.
        estimate: what is expected of the run, before it begins; see :func:`estimate`.
    """

    note: Callable[[str], None] = lambda text: None
    warn: Callable[[str], None] = lambda text: None
    trial: Callable[[int, int, str], None] = lambda number, count, title: None
    stage: Callable[[str, int, int, str], None] = lambda stage, done, total, words: None
    finished: Callable[[RunRecord, bool], None] = lambda record, reused: None
    estimate: Callable[[dict[str, Any]], None] = lambda expected: None


@dataclass(frozen=True)
class Comparison:
    """A finished run.

    Attributes:
        folder: the run folder.
        summary: the content of comparison.json.
        records: one a trial that was asked for, complete or failed, in the order they ran. The summary also holds what
            stood in the folder before.
    """

    folder: RunFolder
    summary: dict[str, Any]
    records: tuple[RunRecord, ...]

    @property
    def winner(self) -> Path | None:
        """The trial folder of the recommended candidate's first complete seed; None where there is none."""
        return self.folder.winner(self.summary)


def compare(experiment: Experiment, observer: Observer | None = None, stop: StopSwitch | None = None) -> Comparison:
    """Run every (model, method, seed) that is not complete in the run folder, then compare all the folder holds.

    Args:
        experiment: what to run.
        observer: who is told how it goes.
        stop: lets a signal end the run after a training step, with a checkpoint.

    Raises:
        EntailorError: bad configuration, data or model, or a run folder of another experiment or in use. A trial that
            fails is recorded with its error and the others go on.
        Stopped: `stop` was asked to.
    """
    observer = observer or Observer()
    experiment = experiment.model_copy(update={"data": with_bundled(experiment.data)})
    folder = RunFolder(experiment.out)
    candidates = {name: build_candidate(name, settings, experiment) for name, settings in experiment.methods.items()}
    resolved = resolve(experiment, candidates)
    with lock_run(folder.path):  # before anything in it is looked at
        try:
            return _compare(experiment, candidates, resolved, folder, observer, stop)
        except OSError as error:
            if problem := disk_trouble(error):
                raise RunError(
                    f"{folder.path}: cannot be written: {problem}. Then run the same command again"
                ) from error
            raise


def _compare(
    experiment: Experiment,
    candidates: dict[str, Candidate],
    resolved: dict[str, Any],
    folder: RunFolder,
    observer: Observer,
    stop: StopSwitch | None,
) -> Comparison:
    folder.check_version()
    refuse_inputs_in(folder, experiment)
    records = earlier_records(folder, observer)
    check_same_experiment(folder, resolved, {record.name for record in records.values() if record.status == "complete"})
    data = load_data(experiment.data)
    task = Task(data.labels, data.is_pair)
    check_external(experiment.data)
    needs_models = any(candidate.method.needs_backbone for candidate in candidates.values())
    environment = prepare_folder(folder, resolved, data, observer, records, needs_models=needs_models)
    tell_of_data(experiment, data, folder, observer)
    around = RunContext(stop, observer.note)
    plans = plan_trials(experiment, candidates, task, folder, environment, observer.note)
    foresee(experiment, plans, records, task, data, observer)
    if experiment.budget.is_set:
        plans = search_candidates(plans, experiment.budget, task, data.split, folder, observer.stage, around)
    points = plan_points(plans, experiment.learning_curve, len(data.split.train), folder)
    # from here on test is read: all that is chosen has been chosen, and the folder says when and what
    there = [*((None, record) for record in records.values()), *folder.curve_records()]
    log = log_test_access(folder.test_access_file, data.split, choices_made(plans, points), there)
    places = [folder.trial(plan.model, plan.candidate, plan.seed) for plan in plans]
    finished = {place for place, plan in zip(places, plans, strict=True) if is_finished(records.get(place), plan)}

    def compared() -> dict[str, Any]:
        return write_comparison(folder, records.values(), data, environment, log, experiment.recommend)

    summary: dict[str, Any] = {}
    drawn = time.monotonic()
    try:
        for number, (plan, place) in enumerate(zip(plans, places, strict=True), start=1):
            observer.trial(number, len(plans), trial_title(plan, experiment))
            if place not in finished:
                records[place] = run_trial(plan, task, data.split, place, observer.stage, around)
            else:
                discard_leftovers(place)  # which a kill between a record and the end of its trial leaves behind
            log = log.with_results(records[place])
            if place not in finished or number == len(plans):
                summary = compared()
            if summary and time.monotonic() - drawn > REPORT_SECONDS:
                write_report(folder)
                drawn = time.monotonic()
            observer.finished(records[place], place in finished)
        if points:
            tell = (observer.trial, observer.stage, observer.finished)
            run_points(points, task, data.split, experiment.data.split_seed, tell, around)
            for size, record in folder.curve_records():
                log = log.with_results(record, size)
            summary = compared()
        _external(folder, experiment, records, task, observer, summary)
    except BaseException:  # the page is right however the run ends
        if summary:
            with suppress(OSError, RunError):  # a disk that is full has been said already
                write_report(folder)
        raise
    if summary:
        write_report(folder)
    return Comparison(folder, summary, tuple(records[place] for place in places))


class _EstimateMade(Exception):
    """Ends a run that was only to be estimate."""


def estimate(experiment: Experiment, observer: Observer | None = None) -> dict[str, Any]:
    """Tell how long a run will take and how much memory it needs, and run nothing.

    The run folder then holds the resolved experiment and estimate.json, and the run itself does not measure again.

    Args:
        experiment: what would be run.
        observer: who is told of the data and the models.

    Returns:
        `candidates`, one a candidate with something left to do; `seconds` and `peak_memory_bytes` of all;
        `probe_seconds`; and
        `ends`, the local time at which a run begun now would end.

    Raises:
        EntailorError: as for :func:`compare`.
    """
    made: list[dict[str, Any]] = []

    def stop(expected: dict[str, Any]) -> None:
        made.append(expected)
        raise _EstimateMade

    with suppress(_EstimateMade):
        compare(experiment.model_copy(update={"estimate": True}), replace(observer or Observer(), estimate=stop))
    return made[0]


def _external(
    folder: RunFolder,
    experiment: Experiment,
    records: dict[Path, RunRecord],
    task: Task,
    observer: Observer,
    summary: dict[str, Any],
) -> None:
    """Score the external test set of all the folder's runs, and add what came out to the summary."""
    written = read_checked_yaml(folder.experiment_file, "Put a copy of it back")
    with well_formed(RunError, folder.experiment_file, "Put a copy of it back"):
        sources = written["data"]["external"]
    if sources:
        asked = (sources, experiment.data, records, task, observer.stage, observer.warn)
        trusted = experiment.model.trust_remote_code
        summary["external"] = score_external(*asked, trust_remote_code=trusted)
        write_checked_json(folder.comparison_file, summary)


def earlier_records(folder: RunFolder, observer: Observer) -> dict[Path, RunRecord]:
    """Return what trials of earlier runs gave, by folder; none where not one of them is complete.

    A damaged record is removed, and its trial so counts as not run.
    """
    records = {}
    for place in folder.trial_folders():
        try:
            records[place] = RunRecord.read(place)
        except VersionError:
            raise
        except RunError as error:
            observer.note(f"skipped: {error}")
            clear_trial(place)
    return records if any(record.status == "complete" for record in records.values()) else {}


def refuse_inputs_in(folder: RunFolder, experiment: Experiment) -> None:
    """Refuse data and models that the run could overwrite or delete.

    Raises:
        RunError: one lies where the run writes.
    """
    data = experiment.data
    for source in (data.train, data.validation, data.test, *data.external, *experiment.models):
        if source and belongs_to_run(Path(source).expanduser(), folder.path):
            raise RunError(
                f"{source}: read by this run, and lies where it writes. Copy it elsewhere, or give another --out"
            )


def trial_title(plan: TrialPlan, experiment: Experiment) -> str:
    """Return what a trial is called while it runs: the candidate, and model and seed where there are several."""
    model = f" on {plan.model}" if plan.model != NO_MODEL and len(experiment.models) > 1 else ""
    seed = f", seed {plan.seed}" if len(experiment.seeds) > 1 and plan.method.is_seeded else ""
    return f"{plan.candidate}{model}{seed}"


def check_same_experiment(folder: RunFolder, resolved: dict[str, Any], complete_candidates: set[str]) -> None:
    """Refuse a folder whose trials were run under other settings; further candidates, models and seeds are welcome.

    Args:
        folder: the run folder.
        resolved: the experiment with every default written out.
        complete_candidates: candidates with a complete trial; the settings of others may change.

    Raises:
        RunError: the folder belongs to another experiment.
    """
    if not complete_candidates:
        return
    earlier = read_checked_yaml(folder.experiment_file, "Put a copy of it back, or give another --out")
    with well_formed(RunError, folder.experiment_file, "Put a copy of it back, or give another --out"):
        common = [
            name for name in earlier.get("methods", {}) if name in complete_candidates & resolved["methods"].keys()
        ]
        there, here = (
            {
                **{key: values.get(key) for key in ("model", "prompt", "restarts", "budget")},
                # Nothing is trained for an external test set, so one may be added to a finished run; how files are
                # read may change with it, for the split is compared by its content.
                "data": {
                    key: value for key, value in (values.get("data") or {}).items() if key not in HOW_FILES_ARE_READ
                },
                "methods": {name: values["methods"][name] for name in common},
            }
            for values in (earlier, resolved)
        )
        differing = list(_differences("", there, here))
    if differing:
        raise RunError(
            f"{folder.path} holds another experiment ({'; '.join(differing)}). "
            "Give another --out, or the settings in its experiment.yaml"
        )


def _differences(key: str, there: Any, here: Any) -> Iterator[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        for name in sorted({*there, *here}, key=str):
            yield from _differences(f"{key}.{name}".removeprefix("."), there.get(name), here.get(name))
    elif there != here:
        yield f"{key}: {shown(there)} there, {shown(here)} here"


def prepare_folder(
    folder: RunFolder,
    resolved: dict[str, Any],
    data: LoadedData,
    observer: Observer,
    records: dict[Path, RunRecord],
    *,
    needs_models: bool = True,
) -> dict[str, Any]:
    """Write experiment, split and environment; return the environment, keeping choices an earlier run measured.

    Args:
        folder: the run folder.
        resolved: the experiment with every default written out.
        data: what was read.
        observer: who is told of a file that is written again because it is damaged.
        records: of earlier trials; where there are none, what stands in the folder is replaced.
        needs_models: whether a candidate runs on a model.

    Raises:
        RunError: the data have changed since the folder's trials were run, or it cannot be written.
    """
    split = split_document(data.split)
    environment = {**describe_environment(models=needs_models), "precision": {}}
    earlier = _earlier_environment(folder, observer)
    if records:
        check_same_data(folder, split["fingerprint"], earlier, observer)
        environment["precision"] = earlier.get("precision") or _precision_in(records.values())
        environment["placement"] = earlier.get("placement", {})
        written = read_checked_yaml(folder.experiment_file, "Give another --out")
        with well_formed(RunError, folder.experiment_file, "Give another --out"):
            resolved = _with_earlier(written, resolved)
    elif earlier.get("model_settings") == resolved["model"]:
        # broken off before a trial was complete: another measurement could make its checkpoints useless
        environment["precision"] = earlier.get("precision", {})
    environment["model_settings"] = resolved["model"]
    environment["data"] = {
        "notes": list(data.notes),
        "findings": [asdict(found) for found in data.findings],
        "fingerprint": data.fingerprint,
    }
    environment["command"] = f"entailor compare --config {shlex.quote(str(folder.experiment_file))}"
    try:
        folder.mark()
        if not records:
            for failed in folder.trial_folders():
                clear_trial(failed)
        write_text(folder.experiment_file, dump_checked_yaml(resolved))
        write_checked_json(folder.split_file, split)
        write_checked_json(folder.environment_file, environment)
    except OSError as error:
        problem = disk_trouble(error) or error.strerror
        raise RunError(f"{folder.path}: cannot be written: {problem}, or give another --out") from None
    return environment


def check_same_data(folder: RunFolder, fingerprint: str, environment: dict[str, Any], observer: Observer) -> None:
    """Refuse data that are not those of the folder's trials; where split.json is damaged the environment knows them.

    Raises:
        RunError: the data have changed, or nothing tells whether they have.
    """
    try:
        earlier = read_checked_json(folder.split_file, "Give another --out").get("fingerprint")
    except RunError as error:
        earlier = environment.get("data", {}).get("fingerprint")
        if earlier is None:
            raise
        observer.note(f"written again: {error}")
    if earlier != fingerprint:
        raise RunError(f"{folder.path}: the data have changed since its trials were run. Give another --out")


def _earlier_environment(folder: RunFolder, observer: Observer) -> dict[str, Any]:
    if not folder.environment_file.exists():
        return {}
    try:
        found = read_checked_json(folder.environment_file, "It is written again")
        with well_formed(RunError, folder.environment_file, "It is written again"):
            _Environment.model_validate(found)
    except RunError as error:
        observer.note(str(error))
        return {}
    return found


class _Environment(BaseModel):
    """What is taken from the environment.json of an earlier run."""

    precision: dict[str, PrecisionChoice] = {}
    placement: dict[str, Any] = {}
    data: dict[str, Any] = {}


def _precision_in(records: Iterable[RunRecord]) -> dict[str, Any]:
    """Return the precision each model was trained in, from records, where environment.json is lost."""
    return {
        record.model: {"precision": record.provenance.get("precision"), "reason": record.provenance["precision_reason"]}
        for record in records
        if record.curve and record.status == "complete" and "precision_reason" in record.provenance
    }


def _with_earlier(earlier: dict[str, Any], resolved: dict[str, Any]) -> dict[str, Any]:
    """Add candidates, models and seeds the folder was run with before: experiment.yaml makes all it holds."""
    added = ("models", "seeds", "learning_curve")
    both = {key: list(dict.fromkeys([*earlier.get(key, ()), *resolved[key]])) for key in added}
    data = {**resolved["data"], "external": known_external(earlier, resolved)}
    return {**resolved, **both, "data": data, "methods": {**earlier.get("methods", {}), **resolved["methods"]}}


def tell_of_data(experiment: Experiment, data: LoadedData, folder: RunFolder, observer: Observer) -> None:
    """Tell what was read and what is odd about it, and let the doctor look."""
    for note in data.notes:
        observer.note(note.rstrip())
    for found in data.findings:
        say = observer.warn if found in data.reading else observer.note
        say(f"{found.severity}: {found.message}. {found.remedy}".rstrip())
    if experiment.doctor:
        examine_run(folder, data, observer.note)


def foresee(
    experiment: Experiment,
    plans: Sequence[TrialPlan],
    records: Mapping[Path, RunRecord],
    task: Task,
    data: LoadedData,
    observer: Observer,
) -> None:
    """Tell, before any trial, what the test split and the seeds can show, and how long the run will take."""
    seeds = Counter((plan.model, plan.candidate) for plan in plans if plan.method.is_seeded)
    num_candidates = len({(plan.model, plan.candidate) for plan in plans})
    for words in power_lines(len(data.split.test), num_candidates, max(seeds.values(), default=0)):
        observer.note(words)
    if experiment.estimate:
        folder = RunFolder(experiment.out)
        work = work_left(experiment, plans, records, folder, len(data.split.train))
        observer.estimate(estimate_trials(work, task, data.split, folder))


def work_left(
    experiment: Experiment,
    plans: Sequence[TrialPlan],
    records: Mapping[Path, RunRecord],
    folder: RunFolder,
    candidates: int,
) -> Work:
    """Return the trials, studies and points of learning curves that are not complete; `rows` are those of train."""
    done = {place for place, record in records.items() if record.status == "complete"}
    studies = (search_document(folder) or {"studies": []})["studies"]
    points = plan_points(plans, experiment.learning_curve, candidates, folder)
    return Work(
        plans=plans,
        left=[plan for plan in plans if folder.trial(plan.model, plan.candidate, plan.seed) not in done],
        points=[point for point in points if finished_point(point) is None],
        tuned={(study["model"], study["method"]) for study in studies if study["status"] == "finished"},
        budget=experiment.budget,
    )


def choices_made(plans: Iterable[TrialPlan], points: Iterable[PointPlan]) -> dict[str, str]:
    """Return a hash of the settings of every candidate and every point of a learning curve, by name."""
    made = {choice_name(plan.model, plan.candidate): choice_of(plan) for plan in plans}
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
    records: Iterable[RunRecord],
    data: LoadedData,
    environment: dict[str, Any],
    log: AccessLog,
    priorities: Priorities,
) -> dict[str, Any]:
    """Compare what there is and write comparison.json."""
    tuning = search_document(folder)
    ordered = sorted(records, key=lambda one: (one.model, one.name, one.seed))
    extra = {
        "sizes": {name: len(rows) for name, rows in data.split.parts()},
        "precision": environment["precision"],
        "data": environment["data"],
        "external": [],
        "test_access": log.document(),
        "tuning": tuning,
        "learning_curve": curve_document(folder, ordered, len(data.split.train), log),
        "estimate": estimate_document(folder, ordered, tuning),
    }
    summary = {"version": RUN_VERSION, **compare_records(ordered, priorities=priorities, extra=extra)}
    for candidate in summary["candidates"]:  # what was known when a candidate was added is no part of its records
        candidate["exploratory"] = log.is_exploratory(choice_name(candidate["model"], candidate["method"]))
    if summary["candidates"] and summary["candidates"][0]["exploratory"]:
        name = summary["candidates"][0]["method"]
        summary["sentence"] += f" {name} is exploratory: it was added when results on the same test split were known."
    write_checked_json(folder.comparison_file, summary)
    return summary
