"""The whole path: data in, every trial run that is not yet complete, comparison and report out."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from entailor.challenge import check_challenges, known_challenges, score_challenges
from entailor.config import Experiment, Priorities
from entailor.data.splits import LoadedData, load_data, split_document
from entailor.doctor import examine_run
from entailor.environment import describe_environment
from entailor.errors import RunError
from entailor.evaluation.comparison import compare_records
from entailor.evaluation.power import foresight
from entailor.overrides import dump_yaml, read_yaml
from entailor.plan import build_row, plan_trials, resolve
from entailor.record import NO_MODEL, RECORD_FILE, RunFolder, RunRecord, read_json, write_json, write_text
from entailor.report.html import write_report
from entailor.tasks import Task
from entailor.trial import TrialPlan, run_trial

REPORT_SECONDS = 30  # while trials run the page is drawn anew this often; comparison.json is right after each


@dataclass(frozen=True)
class Observer:
    """Who is told how a run goes; the command line shows bars, a program may ignore it.

    Attributes:
        note: one line worth showing.
        trial: number, count, title of the trial that begins.
        stage: stage, steps done, steps in all (0 where that is not known), a few words.
        finished: a trial's record, and whether it was there already.
    """

    note: Callable[[str], None] = lambda text: None
    trial: Callable[[int, int, str], None] = lambda number, count, title: None
    stage: Callable[[str, int, int, str], None] = lambda stage, done, total, words: None
    finished: Callable[[RunRecord, bool], None] = lambda record, reused: None


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
        """The trial folder of the best row's first complete seed, or None where every trial failed."""
        return self.folder.winner(self.summary)


def compare(experiment: Experiment, observer: Observer | None = None) -> Comparison:
    """Run every (model, method, seed) that is not complete in the run folder, then compare all the folder holds.

    Args:
        experiment: what to run.
        observer: who is told how it goes.

    Raises:
        EntailorError: bad configuration, data or model, or a run folder of another experiment. A trial that fails
            is recorded with its error and the others go on.
    """
    observer = observer or Observer()
    folder = RunFolder(experiment.out)
    rows = {name: build_row(name, settings, experiment) for name, settings in experiment.methods.items()}
    resolved = resolve(experiment, rows)
    records = earlier_records(folder, observer)
    check_same_experiment(folder, resolved, {record.name for record in records.values() if record.status == "complete"})
    data = load_data(experiment.data)
    task = Task(data.labels, data.is_pair)
    for note in (*data.notes, *(f"{found.severity}: {found.message}. {found.remedy}" for found in data.findings)):
        observer.note(note.rstrip())
    check_challenges(experiment.data)
    environment = prepare_folder(folder, resolved, data, goes_on=bool(records))
    if experiment.doctor:
        examine_run(folder, data, observer.note)
    plans = plan_trials(experiment, rows, task, folder, environment, observer.note)
    for words in foresight_of(plans, len(data.split.test)):
        observer.note(words)
    places = [folder.trial(plan.model, plan.row, plan.seed) for plan in plans]
    finished = {place for place in places if place in records and records[place].status == "complete"}
    summary: dict[str, Any] = {}
    drawn = time.monotonic()
    try:
        for number, (plan, place) in enumerate(zip(plans, places, strict=True), start=1):
            observer.trial(number, len(plans), trial_title(plan, experiment))
            if place not in finished:
                records[place] = run_trial(plan, task, data.split, place, observer.stage)
            if place not in finished or number == len(plans):
                summary = write_comparison(folder, records.values(), data, environment, experiment.recommend)
            if summary and time.monotonic() - drawn > REPORT_SECONDS:
                write_report(folder)
                drawn = time.monotonic()
            observer.finished(records[place], place in finished)
        if sources := read_yaml(folder.experiment_file)["data"]["challenge"]:
            asked = (sources, experiment.data, records, task, observer.stage, observer.note)
            summary["challenges"] = score_challenges(*asked)
            write_json(folder.comparison_file, summary)
    finally:  # the page is right however the run ends
        if summary:
            write_report(folder)
    return Comparison(folder, summary, tuple(records[place] for place in places))


def earlier_records(folder: RunFolder, observer: Observer) -> dict[Path, RunRecord]:
    """Return what trials of earlier runs gave, by folder; none where not one of them is complete.

    A damaged record is removed, and its trial so counts as not run.
    """
    records = {}
    for place in folder.trial_folders():
        try:
            records[place] = RunRecord.read(place)
        except RunError as error:
            observer.note(f"passed over: {error}")
            (place / RECORD_FILE).unlink()
    return records if any(record.status == "complete" for record in records.values()) else {}


def trial_title(plan: TrialPlan, experiment: Experiment) -> str:
    """Return what a trial is called while it runs: the row, and model and seed where there are several."""
    model = f" on {plan.model}" if plan.model != NO_MODEL and len(experiment.models) > 1 else ""
    seed = f", seed {plan.seed}" if len(experiment.seeds) > 1 and plan.method.is_seeded else ""
    return f"{plan.row}{model}{seed}"


def check_same_experiment(folder: RunFolder, resolved: dict[str, Any], complete_rows: set[str]) -> None:
    """Refuse a folder whose trials were run under other settings; further rows, models and seeds are welcome.

    Args:
        folder: the run folder.
        resolved: the experiment with every default written out.
        complete_rows: rows with a complete trial; the settings of others may change.

    Raises:
        RunError: the folder belongs to another experiment.
    """
    if not complete_rows:
        return
    earlier = read_yaml(folder.experiment_file)
    common = [name for name in earlier.get("methods", {}) if name in complete_rows & resolved["methods"].keys()]
    there, here = (
        {
            **{key: values.get(key) for key in ("model", "prompt", "restarts")},
            # nothing is trained for a challenge, so one may be added to a finished run
            "data": {key: value for key, value in (values.get("data") or {}).items() if key != "challenge"},
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
        for name in sorted({*there, *here}):
            yield from _differences(f"{key}.{name}".removeprefix("."), there.get(name), here.get(name))
    elif there != here:
        yield f"{key}: {there!r} there, {here!r} here"


def prepare_folder(folder: RunFolder, resolved: dict[str, Any], data: LoadedData, *, goes_on: bool) -> dict[str, Any]:
    """Write experiment, split and environment; return the environment, keeping choices an earlier run measured.

    Args:
        folder: the run folder.
        resolved: the experiment with every default written out.
        data: what was read.
        goes_on: whether the folder holds complete trials; if not, what stands in it is replaced.

    Raises:
        RunError: the data have changed since the folder's trials were run, or it cannot be written.
    """
    split = split_document(data.split)
    environment = {**describe_environment(), "precision": {}}
    if goes_on:
        if read_json(folder.split_file).get("fingerprint") != split["fingerprint"]:
            raise RunError(f"{folder.path}: the data have changed since its trials were run. Give another --out")
        earlier = read_json(folder.environment_file)
        environment |= {key: earlier.get(key, {}) for key in ("precision", "placement")}
        resolved = _with_earlier(read_yaml(folder.experiment_file), resolved)
    environment["data"] = {
        "notes": list(data.notes),
        "findings": [asdict(found) for found in data.findings],
        "fingerprint": data.fingerprint,
    }
    environment["command"] = f"entailor compare --config {shlex.quote(str(folder.experiment_file))}"
    try:
        if not goes_on:
            for failed in folder.trial_folders():
                shutil.rmtree(failed)
        write_text(folder.experiment_file, dump_yaml(resolved))
        write_json(folder.split_file, split)
        write_json(folder.environment_file, environment)
    except OSError as error:
        raise RunError(f"{folder.path}: cannot be written ({error.strerror}). Give another --out") from None
    return environment


def _with_earlier(earlier: dict[str, Any], resolved: dict[str, Any]) -> dict[str, Any]:
    """Add the rows, models and seeds the folder was run with before, so that experiment.yaml makes all it holds."""
    both = {key: list(dict.fromkeys([*earlier.get(key, ()), *resolved[key]])) for key in ("models", "seeds")}
    data = {**resolved["data"], "challenge": known_challenges(earlier, resolved)}
    return {**resolved, **both, "data": data, "methods": {**earlier.get("methods", {}), **resolved["methods"]}}


def foresight_of(plans: list[TrialPlan], num_test: int) -> list[str]:
    """Return what the test split and the seeds of these trials can show, before any of them has run."""
    seeds: dict[tuple[str, str], int] = {}
    for plan in plans:
        if not plan.method.deterministic:
            seeds[plan.model, plan.row] = seeds.get((plan.model, plan.row), 0) + 1
    return foresight(num_test, len({(plan.model, plan.row) for plan in plans}), max(seeds.values(), default=0))


def write_comparison(
    folder: RunFolder,
    records: Iterable[RunRecord],
    data: LoadedData,
    environment: dict[str, Any],
    priorities: Priorities,
) -> dict[str, Any]:
    """Compare what there is and write comparison.json."""
    extra = {
        "sizes": {name: len(rows) for name, rows in data.split.parts()},
        "precision": environment["precision"],
        "data": environment["data"],
        "challenges": [],
    }
    ordered = sorted(records, key=lambda one: (one.model, one.name, one.seed))
    summary = compare_records(ordered, priorities=priorities, extra=extra)
    write_json(folder.comparison_file, summary)
    return summary
