"""The whole path: data in, every trial run that is not yet complete, comparison and report out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from entailor.config import Experiment
from entailor.data.splits import LoadedData, load_data, split_document
from entailor.environment import describe_environment
from entailor.errors import ConfigError, ModelError, RunError
from entailor.evaluation.comparison import compare_records
from entailor.methods import Method, build_method
from entailor.models.load import open_model
from entailor.models.precision import PrecisionChoice, choose_precision
from entailor.record import RunFolder, RunRecord, read_json, write_json, write_text
from entailor.report.html import write_report
from entailor.tasks import Task
from entailor.trial import NO_MODEL, TrialPlan, run_trial


@dataclass(frozen=True)
class Observer:
    """Who is told how a run goes; the command line shows bars, a program may ignore it.

    Attributes:
        note: one line worth showing.
        trial: number, count, title of the trial that begins.
        stage: stage, steps done, steps in all, a few words.
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
        records: one a trial, complete or failed.
    """

    folder: RunFolder
    summary: dict[str, Any]
    records: tuple[RunRecord, ...]

    @property
    def winner(self) -> Path | None:
        """The trial folder of the best row's first seed, or None where every trial failed."""
        best = self.summary.get("winner")
        if not best:
            return None
        return winner_folder(self.folder, self.records, best["model"], best["method"])


def compare(experiment: Experiment, observer: Observer | None = None) -> Comparison:
    """Run every (model, method, seed) that is not complete in the run folder, then compare.

    Args:
        experiment: what to run.
        observer: who is told how it goes.

    Raises:
        EntailorError: bad configuration, data or model, or a run folder of another experiment. A trial that fails
            is recorded with its error and the others go on.
    """
    observer = observer or Observer()
    folder = RunFolder(experiment.out)
    rows = {name: build_method(name, settings) for name, settings in experiment.methods.items()}
    resolved = resolve(experiment, rows)
    check_same_experiment(folder, resolved)
    data = load_data(experiment.data)
    task = Task(data.labels, data.is_pair)
    for note in (*data.notes, *(f"{found.severity}: {found.message}. {found.remedy}" for found in data.findings)):
        observer.note(note)
    environment = prepare_folder(folder, resolved, data)
    plans = plan_trials(experiment, rows, task, folder, environment, observer)
    records = []
    for number, plan in enumerate(plans, start=1):
        place = folder.trial(plan.model, plan.row, plan.seed)
        observer.trial(number, len(plans), f"{plan.row} seed {plan.seed}")
        earlier = finished_record(place)
        record = earlier or run_trial(plan, task, data.split, place, observer.stage)
        records.append(record)
        observer.finished(record, earlier is not None)
        # the table and the page are there, and right, after every trial
        summary = write_comparison(folder, records, data, environment)
    return Comparison(folder, summary, tuple(records))


def resolve(experiment: Experiment, rows: dict[str, Method]) -> dict[str, Any]:
    """Return the experiment with every default written out, as experiment.yaml holds it."""
    values = experiment.model_dump(mode="json")
    values["methods"] = {
        name: {"method": method.name, **method.model_dump(mode="json")} for name, method in rows.items()
    }
    return values


def check_same_experiment(folder: RunFolder, resolved: dict[str, Any]) -> None:
    """Refuse a folder whose trials were run under other settings; further rows, models and seeds are welcome.

    Raises:
        RunError: the folder belongs to another experiment.
    """
    if not folder.experiment_file.exists():
        return
    earlier = yaml.safe_load(folder.experiment_file.read_text(encoding="utf-8"))
    differing = [key for key in ("data", "model", "restarts") if earlier.get(key) != resolved[key]]
    differing += [
        f"methods.{name}"
        for name, settings in earlier.get("methods", {}).items()
        if name in resolved["methods"] and settings != resolved["methods"][name]
    ]
    if differing:
        details = "; ".join(_difference(key, earlier, resolved) for key in differing)
        raise RunError(
            f"{folder.path} holds another experiment ({details}). "
            "Give another --out, or the settings in its experiment.yaml"
        )


def _difference(key: str, earlier: dict[str, Any], now: dict[str, Any]) -> str:
    for part in key.split("."):
        earlier, now = earlier[part], now[part]
    if not isinstance(earlier, dict):
        return f"{key}: {earlier!r} there, {now!r} here"
    pairs = [
        f"{key}.{name}: {earlier.get(name)!r} there, {value!r} here"
        for name, value in now.items()
        if earlier.get(name) != value
    ]
    return ", ".join(pairs) or key


def prepare_folder(folder: RunFolder, resolved: dict[str, Any], data: LoadedData) -> dict[str, Any]:
    """Write experiment, split and environment; return the environment, keeping choices an earlier run measured.

    Raises:
        RunError: the data have changed since the folder's trials were run, or it cannot be written.
    """
    split = split_document(data.split)
    if folder.split_file.exists() and read_json(folder.split_file)["fingerprint"] != split["fingerprint"]:
        raise RunError(f"{folder.path}: the data have changed since its trials were run. Give another --out")
    environment = describe_environment()
    earlier = read_json(folder.environment_file) if folder.environment_file.exists() else {}
    environment["precision"] = earlier.get("precision", {})
    environment["data"] = {
        "notes": list(data.notes),
        "findings": [asdict(found) for found in data.findings],
        "fingerprint": data.fingerprint,
    }
    if folder.experiment_file.exists():
        merged = yaml.safe_load(folder.experiment_file.read_text(encoding="utf-8"))
        resolved = {**resolved, "methods": {**merged.get("methods", {}), **resolved["methods"]}}
    try:
        write_text(folder.experiment_file, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
        write_json(folder.split_file, split)
        write_json(folder.environment_file, environment)
    except OSError as error:
        raise RunError(f"{folder.path}: cannot be written ({error.strerror}). Give another --out") from None
    return environment


def plan_trials(
    experiment: Experiment,
    rows: dict[str, Method],
    task: Task,
    folder: RunFolder,
    environment: dict[str, Any],
    observer: Observer,
) -> list[TrialPlan]:
    """Return the trials in the order they run: baselines once, deterministic methods once a model, others once a seed.

    Raises:
        ConfigError: no method fits the data.
    """
    fitting = {name: method for name, method in rows.items() if task.is_pair or not method.needs_pair}
    for name in rows.keys() - fitting.keys():
        observer.note(f"{name} is left out: it reads the second text of a pair, and the data have single texts")
    if not fitting:
        raise ConfigError("none of the chosen methods fits single texts. Choose others with --methods")
    precisions = {
        name: choose_model_precision(name, experiment, folder, environment, observer)
        for name in (experiment.models if any(method.needs_backbone for method in fitting.values()) else ())
    }
    plans = []
    for model in (NO_MODEL, *experiment.models):
        for name, method in fitting.items():
            if method.needs_backbone == (model != NO_MODEL):
                plans += [
                    TrialPlan(
                        row=name,
                        method=method,
                        model=model,
                        seed=seed,
                        settings=experiment.model,
                        precision=precisions.get(model),
                        restarts=experiment.restarts,
                        scoring_batch_tokens=experiment.scoring_batch_tokens,
                    )
                    for seed in (experiment.seeds[:1] if method.deterministic else experiment.seeds)
                ]
    return plans


def choose_model_precision(
    model: str, experiment: Experiment, folder: RunFolder, environment: dict[str, Any], observer: Observer
) -> PrecisionChoice:
    """Measure once a run which arithmetic trains fastest, and keep the choice for every trial and every resumption."""
    known = environment["precision"]
    if model not in known:
        observer.note(f"model {model}")
        path = open_model(model, experiment.model).path
        shape = read_json(path / "config.json")
        hidden = shape.get("hidden_size") or shape.get("dim")
        if not isinstance(hidden, int):
            raise ModelError(f"{model}: its config.json has no hidden_size. Is it a transformers checkpoint?")
        inner = shape.get("intermediate_size") or shape.get("hidden_dim") or 4 * hidden
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        known[model] = asdict(choose_precision(experiment.model.precision, hidden, inner, device))
        write_json(folder.environment_file, environment)
        observer.note(f"precision {known[model]['precision']}: {known[model]['reason']}")
    return PrecisionChoice(**known[model])


def finished_record(place: Path) -> RunRecord | None:
    """Return a trial's record where it is complete; a failed or damaged one is run again."""
    if not (place / "record.json").exists():
        return None
    try:
        record = RunRecord.read(place)
    except RunError:
        return None
    return record if record.status == "complete" else None


def write_comparison(
    folder: RunFolder, records: list[RunRecord], data: LoadedData, environment: dict[str, Any]
) -> dict[str, Any]:
    """Compare what there is and write comparison.json and report.html."""
    extra = {
        "sizes": {name: len(rows) for name, rows in data.split.parts()},
        "precision": environment["precision"],
        "data": environment["data"],
    }
    summary = compare_records(records, extra=extra)
    write_json(folder.comparison_file, summary)
    write_report(folder)
    return summary


def winner_folder(folder: RunFolder, records: tuple[RunRecord, ...], model: str, row: str) -> Path:
    """Return the first complete seed of a row: seeds are not chosen by their test score."""
    for record in records:
        if (record.model, record.name, record.status) == (model, row, "complete"):
            return folder.trial(model, row, record.seed)
    raise RunError(f"{folder.path}: no complete trial of {row} on {model}")
