"""The report: one self-contained page that shows comparison.json and what a reader needs to trust it.

Only reads the run folder and fills the templates beside this file. The page asks the network for nothing and runs no
script but its own, whose hash its content security policy names; every text of the user's is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

from entailor.errors import RunError
from entailor.evaluation.pairs import SIGNIFICANCE
from entailor.evaluation.resampling import Resampling, compared_records
from entailor.evaluation.targets import METRICS
from entailor.evaluation.wording import percent
from entailor.report import examples, plots, sections, tables
from entailor.report.advice import correction
from entailor.report.doctor import doctor_section
from entailor.report.effort import effort_section
from entailor.report.page import filled, safe
from entailor.runs.documents import read_bytes, well_formed
from entailor.runs.files import read_checked_json, write_text
from entailor.runs.integrity import BLANK_CHECKSUM, verify_checksum, with_checksum
from entailor.runs.layout import RunFolder
from entailor.runs.ownership import is_run_folder
from entailor.runs.record import NO_MODEL, CurvePoint, RunRecord
from entailor.runs.trial_folder import RECORD_FILE

COPY_BACK = "Put a copy of it back"
AGAIN = "Run the command that made it again: it redoes what is damaged"
MOST_LABELS = 16  # a larger confusion matrix cannot be read; its most frequent confusions are listed instead
MOST_GROUPS = 40
MOST_ABSENT = 5
RINGS = "upper left is better; rings: the Pareto front"


def write_report(folder: RunFolder) -> Path:
    """Write report.html from what stands in the run folder, and return its path.

    comparison.json is needed; trials, experiment.yaml, environment.json and split.json are shown where they are there.

    Raises:
        RunError: comparison.json or a trial is missing, damaged or of another version.
    """
    folder.check_version()
    comparison = read_comparison(folder.comparison_file)
    check_report_is_ours(folder)
    with well_formed(RunError, folder.comparison_file, AGAIN):
        check_trials_are_there(folder, comparison)
    with well_formed(RunError, folder.comparison_file, AGAIN):
        records = compared_records(folder, Resampling.of(comparison))
    experiment = _optional_text(folder.experiment_file)
    environment, split, doctor = (
        read_checked_json(file, AGAIN) if file.exists() else None
        for file in (folder.environment_file, folder.split_file, folder.doctor_file)
    )
    with well_formed(RunError, folder.path, AGAIN), _undefined_is_missing():
        page = render(
            name=folder.path.resolve().name,
            comparison=comparison,
            records=records,
            experiment=experiment,
            environment=environment,
            split=split,
            doctor=doctor,
        )
    write_text(folder.report_file, with_checksum(f"{page}\n<!-- checksum {BLANK_CHECKSUM} -->\n"))
    return folder.report_file


@contextmanager
def _undefined_is_missing() -> Iterator[None]:
    """Turn what a template asks for in vain into the LookupError that it is."""
    from jinja2 import UndefinedError

    try:
        yield
    except UndefinedError as missing:
        raise LookupError(str(missing)) from missing


def check_report_is_ours(folder: RunFolder) -> None:
    """Refuse to write over a page of somebody else, where a comparison alone was handed on.

    Raises:
        RunError: report.html is none of Entailor's.
    """
    if folder.report_file.exists() and not is_run_folder(folder.path):
        content = folder.report_file.read_bytes()
        verify_checksum(folder.report_file, content, "Entailor did not write it: move it elsewhere, and run again")


def check_trials_are_there(folder: RunFolder, comparison: Mapping[str, Any]) -> None:
    """Refuse a page whose figures rest on trials that are gone.

    Raises:
        RunError: a trial that comparison.json counts has no record.
    """
    if not (folder.path / "trials").is_dir():  # a comparison alone was handed on
        return
    numbers = (comparison.get("resampling") or {"numbers": (0,)})["numbers"]
    for candidate in comparison["candidates"]:
        for seed, number in product(candidate.get("seeds", ()), numbers):
            place = folder.split(number).trial(candidate["model"], candidate["method"], seed)
            if not (place / RECORD_FILE).exists():
                raise RunError(
                    f"{place}: {RECORD_FILE} is missing, which {folder.comparison_file.name} counts. {AGAIN}"
                )


def read_comparison(path: Path) -> Mapping[str, Any]:
    """Read comparison.json.

    Raises:
        RunError: it is missing, damaged, or something else.
    """
    comparison = read_checked_json(path, AGAIN)
    needed = {"candidates", "labels", "num_test", "majority_accuracy", "sentence", "winner", "failed", "metric"}
    if not needed <= comparison.keys():
        raise RunError(f"{path}: no comparison of trials. Delete it and run the command that made it again")
    return comparison


def render(
    *,
    name: str,
    comparison: Mapping[str, Any],
    records: Sequence[RunRecord],
    experiment: str | None = None,
    environment: Mapping[str, Any] | None = None,
    split: Mapping[str, Any] | None = None,
    doctor: Mapping[str, Any] | None = None,
) -> str:
    """Return the page.

    Args:
        name: of the run.
        comparison: the content of comparison.json.
        records: the trials, for curves and the hardest examples.
        experiment: the text of experiment.yaml.
        environment: the content of environment.json; every key is optional.
        split: the content of split.json.
        doctor: the content of doctor.json.
    """
    environment = environment or {}
    page = filled(
        "report.html.j2",
        comparison["metric"],
        name=name,
        **_of_comparison(comparison, records, doctor),
        **_own_files(),
        data_notes=_data_notes(environment.get("data")),
        doctor=doctor_section(doctor) if doctor else None,
        split=_split_sizes(split or {}),
        command=environment.get("command"),
        experiment=experiment,
        environment=json.dumps(environment, indent=2, ensure_ascii=False) if environment else None,
    )
    # Half of a surrogate pair, as broken files hold, has no UTF-8 and would spoil the whole page.
    return str(page).encode("utf-8", "replace").decode("utf-8")


def _of_comparison(
    comparison: Mapping[str, Any], records: Sequence[RunRecord], doctor: Mapping[str, Any] | None
) -> dict[str, object]:
    """Return what the template shows of a comparison, by name."""
    candidates = _candidates(comparison)
    recommended = sections.recommended(comparison, candidates)
    picked = recommended["candidate"]["index"] if recommended and recommended["candidate"] else None
    found = examples.errors(records, candidates, comparison["labels"], picked or 0)
    return {
        "comparison": comparison,
        "metric": METRICS[comparison["metric"]].title,
        "headline": tables.headline(comparison),
        "candidates": candidates,
        "swatches": [safe(plots.swatch(i)) for i in range(len(candidates))],
        "scale": _scale(candidates, comparison["majority_accuracy"]),
        "picked": picked,
        "notices": sections.notices(comparison, candidates, doctor),
        "errors": found,
        "errors_json": safe(examples.as_script_data(found)),
        "figures": _figures(comparison, records),
        "remarks": _remarks(comparison, candidates),
        "recommended": recommended,
        "matrix": sections.pair_matrix(comparison, candidates),
        "calibrations": sections.calibrations(candidates),
        "external": sections.external(comparison, candidates),
        "limit": sections.limit_of_test(comparison),
        "variances": sections.variances(comparison, candidates),
        "crossed": (comparison.get("resampling") or {}).get("kind") == "cv",
        "effort": effort_section(comparison),
        "groups": sections.by_group(candidates, MOST_GROUPS),
        "hardest": examples.hardest(records, candidates),
        "prompts": examples.prompts(records, candidates),
        "no_model": NO_MODEL,
        "parts": ("premise", "hypothesis") if "entailment" in comparison["labels"] else ("first text", "second text"),
    }


def _own_files() -> dict[str, object]:
    """Return style and script of the page, and the script's hash for its policy."""
    style, script = (
        files("entailor.report").joinpath("templates", name).read_text(encoding="utf-8")
        for name in ("report.css", "report.js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"style": safe(style), "script": safe(script), "script_hash": f"sha256-{digest}"}


def _candidates(comparison: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the candidates with what the template shows beside them: a title, and the confusions fit to be read."""
    titles = tables.candidate_names(comparison)
    return [
        {
            **candidate,
            "index": index,
            "title": title,
            "short_model": title.removeprefix(candidate["method"]).removeprefix(" · "),
            "matrix": _matrix(comparison["labels"], candidate["confusion"]),
            "shown_groups": sorted(candidate["groups"].items(), key=lambda item: -item[1]["n"])[:MOST_GROUPS],
        }
        for index, (title, candidate) in enumerate(zip(titles, comparison["candidates"], strict=True))
    ]


def _matrix(labels: Sequence[str], confusion: Sequence[Sequence[int]]) -> list[Mapping[str, Any]] | None:
    """Return the matrix row by row, each cell with its share of the gold label for shading; None when too large."""
    if len(labels) > MOST_LABELS:
        return None
    return [
        {
            "label": label,
            "cells": [
                {"count": count, "share": count / max(1, sum(counts)), "right": i == j}
                for j, count in enumerate(counts)
            ],
        }
        for i, (label, counts) in enumerate(zip(labels, confusion, strict=True))
    ]


def _scale(candidates: Sequence[Mapping[str, Any]], majority: float | None) -> Callable[[float | None], str]:
    """Return what turns an accuracy into its place, 0 to 1, in the column of intervals."""
    ends = [candidate["accuracy"][end] for candidate in candidates for end in ("low", "high")]
    low, high = min([*ends, majority or 1.0], default=0.0), max(ends, default=1.0)
    return lambda value: f"{((value if value is not None else low) - low) / ((high - low) or 1.0):.3f}"


def _figures(comparison: Mapping[str, Any], records: Sequence[RunRecord]) -> list[Mapping[str, Any]]:
    candidates = comparison["candidates"]
    if not candidates:
        return []
    names = tables.candidate_names(comparison)
    curves: list[list[tuple[CurvePoint, ...]]] = [
        [
            record.curve
            for record in records
            if (record.model, record.name) == (candidate["model"], candidate["method"]) and record.status == "complete"
        ]
        for candidate in candidates
    ]
    forest = plots.accuracy_with_intervals(names, candidates, comparison["majority_accuracy"])
    drawn = (
        ("Test accuracy", "dotted: majority baseline; who shares a letter does not differ significantly", forest),
        ("Loss by epoch", "thin: training, thick: validation", plots.loss_by_epoch(names, curves)),
        ("Validation accuracy by epoch", "mean over seeds", plots.validation_accuracy_by_epoch(names, curves)),
        ("Accuracy and training time", RINGS, plots.accuracy_by_train_time(names, candidates)),
        ("Accuracy and memory", RINGS, plots.accuracy_by_memory(names, candidates)),
        ("Accuracy and latency", RINGS, plots.accuracy_by_latency(names, candidates)),
        ("Accuracy and stored size", RINGS, plots.accuracy_by_stored(names, candidates)),
        ("Is the confidence earned?", "on the dotted line it is", plots.reliability(names, candidates)),
        (
            "After temperature scaling",
            "fitted on validation, shown on test",
            plots.reliability_calibrated(names, candidates),
        ),
        ("When the model may abstain", "to the right: fewer answers", plots.accuracy_by_coverage(names, candidates)),
    )
    return [{"title": title, "note": note, "svg": safe(svg)} for title, note, svg in drawn if svg is not None]


def _remarks(comparison: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the summary says besides the winner, as sentences."""
    remarks = [f"{words}." for words in tables.resampling_words(comparison)]
    if corrected := correction(comparison):
        remarks.append(corrected)
    if absent := _absent_labels(candidates):
        remarks.append(absent)
    if comparison["majority_accuracy"] is not None:
        above = sum(candidate["p_majority"] < SIGNIFICANCE for candidate in candidates)
        remarks.append(
            f"Always naming the most frequent label would be right "
            f"{percent(comparison['majority_accuracy'])} of the time; "
            f"{above} of {len(candidates)} {'candidate agrees' if len(candidates) == 1 else 'candidates agree'} with "
            "the labels more than chance gives."
        )
    if hanging := sections.hanging_together(comparison):
        remarks.append(hanging)
    if comparison.get("claims") == "classifiers":
        remarks.append(
            "Methods with randomness ran with one seed: what is said of differences holds for these classifiers, and "
            "another seed may turn it around. Give --seeds 3 or more to compare methods."
        )
    return remarks


def _absent_labels(candidates: Sequence[Mapping[str, Any]]) -> str | None:
    """Say which labels no test example has: nothing is known of them, and macro F1 leaves them out."""
    lines = candidates[0]["per_label"] if candidates else {}
    absent = [label for label, line in lines.items() if not line["support"]]
    if not absent:
        return None
    shown = ", ".join(absent[:MOST_ABSENT]) + (", ..." if len(absent) > MOST_ABSENT else "")
    return (
        f"{len(absent)} of {len(lines)} labels have no test example ({shown}): nothing is known of them, and "
        "macro F1 is the mean over the others."
    )


def _data_notes(data: Mapping[str, Any] | None) -> list[str]:
    """Return notes and findings about the data as lines."""
    if not data:
        return []
    found = [f"{one['severity']}: {one['message']}. {one['remedy']}".rstrip() for one in data["findings"]]
    return [*data["notes"], *found, f"fingerprint: {data['fingerprint']}"]


def _split_sizes(split: Mapping[str, Any]) -> dict[str, int]:
    return {part: len(split[part]) for part in ("train", "validation", "test") if part in split}


def _optional_text(path: Path) -> str | None:
    if not path.exists():
        return None
    try:
        content = read_bytes(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}). {COPY_BACK}") from None
    verify_checksum(path, content, COPY_BACK)
    return content.decode("utf-8", "replace").rstrip().rpartition("\n")[0] + "\n"  # without the checksum
