"""What stands before the first trial: data read and looked at, the run folder written, every trial planned.

A folder that holds trials of another experiment or other data is refused here, before any work.
"""

from __future__ import annotations

import datetime
import os
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from entailor.config.experiment import Experiment
from entailor.config.overrides import dump_checked_yaml, read_checked_yaml
from entailor.config.parts import Priorities
from entailor.config.plain import shown
from entailor.data.bundled import with_bundled
from entailor.data.splits import LoadedData, load_data, split_document
from entailor.diagnostics.doctor import examine_run
from entailor.errors import ConfigError, RunError, VersionError
from entailor.evaluation.power import power_lines
from entailor.evaluation.targets import NEED_TWO_LABELS, TARGETS, undefined
from entailor.events import Observer
from entailor.models.precision import PrecisionChoice
from entailor.runs.documents import well_formed
from entailor.runs.environment import RunEnvironment, describe_environment
from entailor.runs.files import read_checked_json, write_checked_json, write_text
from entailor.runs.integrity import disk_trouble, verify_checksum
from entailor.runs.layout import RunFolder
from entailor.runs.lock import lock_run
from entailor.runs.ownership import DATA_FOLDER, belongs_to_run
from entailor.runs.paths import user_path
from entailor.runs.record import RunRecord
from entailor.runs.trial_folder import clear_trial
from entailor.study.external import check_external, known_external
from entailor.study.plan import build_candidate, plan_trials, resolve
from entailor.study.resampled import resampling_of
from entailor.study.trial_plan import TrialPlan
from entailor.tasks import Task

HOW_FILES_ARE_READ = frozenset(
    ("external", "label_names", "no_gold", "delimiter", "encoding", "max_bytes", "max_rows", "max_labels")
)


@dataclass(frozen=True)
class Prepared:
    """An experiment whose data are read and whose trials are planned.

    Attributes:
        experiment: as it was given, with the bundled data where no file is.
        folder: its run folder, which is locked.
        data: what was read.
        task: labels and input shape.
        environment: what environment.json holds.
        records: complete and failed trials of earlier runs by folder; trials that are run now are added.
        plans: every trial of the run in the order they run.
    """

    experiment: Experiment
    folder: RunFolder
    data: LoadedData
    task: Task
    environment: RunEnvironment
    records: dict[Path, RunRecord]
    plans: list[TrialPlan]


@contextmanager
def prepare(
    experiment: Experiment, observer: Observer, files: Mapping[Path, str] = MappingProxyType({})
) -> Iterator[Prepared]:
    """Read data, write the run folder and plan every trial; the folder is locked until the end.

    Args:
        experiment: what to run.
        observer: who is told of data, models and candidates that are left out.
        files: data of the experiment that was in memory: path in the run folder to content.

    Raises:
        EntailorError: bad configuration, data or model, or a run folder of another experiment or in use.
        RunError: also where the disk is full or the folder cannot be written, whatever runs inside.
    """
    experiment = experiment.model_copy(update={"data": with_bundled(experiment.data)})
    folder = RunFolder(experiment.out)
    candidates = {name: build_candidate(name, settings, experiment) for name, settings in experiment.methods.items()}
    resolved = resolve(experiment, candidates)
    with lock_run(folder.path):  # before anything in it is looked at
        try:
            folder.check_version()
            refuse_inputs_in(folder, experiment)
            records = earlier_records(folder, observer)
            complete = {record.name for record in records.values() if record.status == "complete"}
            free = {name: candidate.method.changes_no_answer for name, candidate in candidates.items()}
            check_same_experiment(folder, resolved, complete, free)
            write_data(folder, files, observer, has_trials=bool(records))
            data = load_data(experiment.data)
            task = Task(data.labels, data.is_pair, ordinal=experiment.data.ordinal)
            check_metric(experiment.recommend, data)
            check_external(experiment.data)
            needs_models = any(candidate.method.needs_backbone for candidate in candidates.values())
            environment = prepare_folder(folder, resolved, data, observer, records, needs_models=needs_models)
            task = replace(task, day=datetime.date.fromisoformat(environment["date"]))
            tell_of_data(experiment, data, folder, observer)
            for name in sorted(candidates.keys() - complete):
                candidates[name].method.check(task)
            plans = plan_trials(experiment, candidates, task, folder, environment, observer)
            check_same_models(folder, plans, records.values())
            seeds = Counter((plan.model, plan.candidate) for plan in plans if plan.method.is_seeded)
            num_candidates = len({(plan.model, plan.candidate) for plan in plans})
            found = resampling_of(data)
            for text in power_lines(len(data.test_examples()), num_candidates, max(seeds.values(), default=0), found):
                observer.note(text)
            yield Prepared(experiment, folder, data, task, environment, records, plans)
        except OSError as error:
            if problem := disk_trouble(error):
                raise RunError(
                    f"{folder.path}: cannot be written: {problem}. Then run the same command again"
                ) from error
            raise


def earlier_records(folder: RunFolder, observer: Observer) -> dict[Path, RunRecord]:
    """Return what trials of earlier runs gave, by folder; none where not one of them is complete.

    A damaged record is removed, and its trial so counts as not run.

    Raises:
        RunError: a trial is of another run; nothing of it is touched.
    """
    records: dict[Path, RunRecord] = {}
    for _, split in folder.splits():
        found = {}
        for place in split.trial_folders():
            try:
                found[place] = RunRecord.read(place)
            except VersionError:
                raise
            except RunError as error:
                observer.warn(f"skipped: {error}")
                clear_trial(place)
        records |= dict(split.own(found.items()))
    return records if any(record.status == "complete" for record in records.values()) else {}


def check_same_models(folder: RunFolder, plans: Iterable[TrialPlan], records: Iterable[RunRecord]) -> None:
    """Refuse a model that has changed since trials were run on it: the candidates of one table read the same one.

    Raises:
        RunError: its weights, its configuration or its tokenizer are others now.
    """
    settings = {(plan.model, plan.candidate): plan.settings for plan in plans}
    for (model, candidate), found in {(record.model, record.name): record.provenance for record in records}.items():
        if "weights_sha256" not in found or (model, candidate) not in settings:
            continue
        from entailor.models.load import open_model  # only here: words alone need no library of models

        source = open_model(model, settings[model, candidate])
        then, now = found.get("model_files") or {}, source.files_sha256
        odd = [name for name in sorted({*then, *now}) if then and then.get(name) != now.get(name)]
        if found["weights_sha256"] != source.weights_sha256 or odd:
            commit = found.get("model_commit")
            back = f"Set model.revision={commit}" if commit else "Give back the same checkpoint"
            raise RunError(
                f"{folder.path}: {candidate} was run on {model} with {f'another {odd[0]}' if odd else 'other weights'} "
                f"than stands there now. {back}, or give another --out"
            )


def _trial_folders(folder: RunFolder) -> list[Path]:
    return [place for _, split in folder.splits() for place in split.trial_folders()]


def refuse_inputs_in(folder: RunFolder, experiment: Experiment) -> None:
    """Refuse data and models that the run could overwrite or delete; it keeps what it was given in memory itself.

    Raises:
        RunError: one lies where the run writes.
    """
    for source in experiment.sources():
        place = user_path(source)
        if not os.path.exists(place):  # noqa: PTH110 - Path.exists can raise
            continue
        if belongs_to_run(place, folder.path) and place.resolve().parent != (folder.path / DATA_FOLDER).resolve():
            raise RunError(
                f"{source}: read by this run, and lies where it writes. Copy it elsewhere, or give another --out"
            )


def check_same_experiment(
    folder: RunFolder,
    resolved: Mapping[str, Any],
    complete_candidates: set[str],
    free: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> None:
    """Refuse a folder whose trials were run under other settings; further candidates, models and seeds are welcome.

    Args:
        folder: the run folder.
        resolved: the experiment with every default written out.
        complete_candidates: candidates with a complete trial; the settings of others may change.
        free: candidate to its settings that may differ all the same.

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
                "methods": {
                    name: {key: own for key, own in values["methods"][name].items() if key not in free.get(name, ())}
                    for name in common
                },
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
    if isinstance(there, dict | None) and isinstance(here, dict | None):
        there, here = there or {}, here or {}
        for name in sorted({*there, *here}, key=str):
            yield from _differences(f"{key}.{name}".removeprefix("."), there.get(name), here.get(name))
    elif there != here and not key.endswith("model.revision"):  # files are compared: `check_same_models`
        yield f"{key}: {shown(there)} there, {shown(here)} here"


def write_data(folder: RunFolder, files: Mapping[Path, str], observer: Observer, *, has_trials: bool) -> None:
    """Write data that was in memory, unless it stands there already.

    Args:
        folder: the run folder.
        files: path in it to content.
        observer: who is told of a file that is written again because it is damaged.
        has_trials: whether trials rest on what stands there.

    Raises:
        RunError: the data have changed since the folder's trials were run.
    """
    for path, text in files.items():
        content = text.encode("utf-8", "surrogatepass")
        if path.is_file() and path.read_bytes() == content:
            continue
        if has_trials and path.is_file():
            try:
                verify_checksum(path, path.read_bytes(), "It is written again")
            except RunError as error:
                observer.warn(str(error))
            else:
                raise RunError(f"{folder.path}: the data have changed since its trials were run. Give another --out")
        folder.mark()
        write_text(path, text)


def prepare_folder(
    folder: RunFolder,
    resolved: Mapping[str, Any],
    data: LoadedData,
    observer: Observer,
    records: dict[Path, RunRecord],
    *,
    needs_models: bool = True,
) -> RunEnvironment:
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
    split = split_document(data.split, data.further)
    earlier = _earlier_environment(folder, observer)
    precision: Mapping[str, Any] = {}
    placement: Mapping[str, Any] = {}
    if records:
        check_same_data(folder, split["fingerprint"], earlier, observer)
        precision = earlier.get("precision") or _precision_in(records.values())
        placement = earlier.get("placement", {})
        written = read_checked_yaml(folder.experiment_file, "Give another --out")
        with well_formed(RunError, folder.experiment_file, "Give another --out"):
            resolved = _with_earlier(written, resolved)
    elif earlier.get("model_settings") == resolved["model"]:
        # broken off before a trial was complete: another measurement could make its checkpoints useless
        precision = earlier.get("precision", {})
    # a chat template may print it: what is run later, or goes on, is asked as what was run first
    kept = earlier.get("date") if records or earlier.get("model_settings") == resolved["model"] else None
    environment: RunEnvironment = {
        **describe_environment(models=needs_models),
        "precision": dict(precision),
        "placement": dict(placement),
        "date": kept or datetime.date.today().isoformat(),
        "model_settings": resolved["model"],
        "data": {
            "notes": list(data.notes),
            "findings": [asdict(found) for found in data.findings],
            "fingerprint": data.fingerprint,
        },
        "command": f"entailor compare --config {shlex.quote(str(folder.experiment_file))}",
    }
    try:
        folder.mark()
        if not records:
            for failed in _trial_folders(folder):
                clear_trial(failed)
        write_text(folder.experiment_file, dump_checked_yaml(resolved))
        write_checked_json(folder.split_file, split)
        write_checked_json(folder.environment_file, environment)
    except OSError as error:
        problem = disk_trouble(error) or error.strerror
        raise RunError(f"{folder.path}: cannot be written: {problem}, or give another --out") from None
    return environment


def check_same_data(folder: RunFolder, fingerprint: str, environment: Mapping[str, Any], observer: Observer) -> None:
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
        observer.warn(f"written again: {error}")
    if earlier != fingerprint:
        raise RunError(f"{folder.path}: the data have changed since its trials were run. Give another --out")


def _earlier_environment(folder: RunFolder, observer: Observer) -> Mapping[str, Any]:
    if not folder.environment_file.exists():
        return {}
    try:
        found = read_checked_json(folder.environment_file, "It is written again")
        with well_formed(RunError, folder.environment_file, "It is written again"):
            _Environment.model_validate(found)
    except RunError as error:
        observer.warn(str(error))
        return {}
    return found


class _Environment(BaseModel):
    """What is taken from the environment.json of an earlier run."""

    precision: dict[str, PrecisionChoice] = {}
    placement: Mapping[str, Any] = {}
    data: Mapping[str, Any] = {}
    date: datetime.date | None = None


def _precision_in(records: Iterable[RunRecord]) -> Mapping[str, Any]:
    """Return the precision each model was trained in, from records, where environment.json is lost."""
    return {
        record.model: {"precision": record.provenance.get("precision"), "reason": record.provenance["precision_reason"]}
        for record in records
        if record.curve and record.status == "complete" and "precision_reason" in record.provenance
    }


def _with_earlier(earlier: Mapping[str, Any], resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Add candidates, models and seeds the folder was run with before: experiment.yaml makes all it holds."""
    added = ("models", "seeds", "learning_curve")
    both = {key: list(dict.fromkeys([*earlier.get(key, ()), *resolved[key]])) for key in added}
    data = {**resolved["data"], "external": known_external(earlier, resolved)}
    return {**resolved, **both, "data": data, "methods": {**earlier.get("methods", {}), **resolved["methods"]}}


def check_metric(priorities: Priorities, data: LoadedData) -> None:
    """Refuse a metric that test cannot have, before anything is trained.

    Raises:
        ConfigError: all test examples have one label, and the metric needs two.
    """
    if priorities.metric in NEED_TWO_LABELS and len({row.label for row in data.test_examples()}) == 1:
        raise ConfigError(undefined(TARGETS[priorities.metric]))


def tell_of_data(experiment: Experiment, data: LoadedData, folder: RunFolder, observer: Observer) -> None:
    """Tell what was read and what is odd about it, and let the doctor look."""
    for note in data.notes:
        observer.note(note.rstrip())
    for found in data.findings:
        say = observer.warn if found in data.reading else observer.note
        say(f"{found.severity}: {found.message}. {found.remedy}".rstrip())
    if experiment.doctor:
        examine_run(folder, data, observer)
