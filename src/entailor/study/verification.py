"""Is a run what it says? Every file against its checksum, the figures against the records, classifiers scored again."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from entailor.config.experiment import parse_settings
from entailor.config.overrides import read_checked_yaml
from entailor.config.parts import Priorities
from entailor.data.example import Example
from entailor.data.splits import joined_fingerprint
from entailor.engine.scorer import score
from entailor.errors import EntailorError, RunError
from entailor.evaluation.comparison import compare_records
from entailor.evaluation.resampling import Resampling, compared_records, read_pooled
from entailor.runs.documents import read_bytes, well_formed
from entailor.runs.files import read_checked_json
from entailor.runs.integrity import verify_checksum
from entailor.runs.layout import RunFolder
from entailor.runs.ownership import DATA_FOLDER
from entailor.runs.record import DATA, SPLIT, Prediction, RunRecord, check_trial_files
from entailor.runs.trial_folder import RECORD_FILE
from entailor.shipping.restoring import load_classifier, read_saved
from entailor.study.finished import SCORE_TOLERANCE

CHECKED_WHERE_THERE = (
    ".entailor.json",
    "estimate.json",
    "tuning/*/*/study.json",
    "tuning/*/*/search-*/study.json",
    "trials/*/*/*/external/*.json",
    "splits/*/tuning/*/*/study.json",
    "splits/*/tuning/*/*/search-*/study.json",
)
SAME_DATA = "Give `compare` the same data again"

Verified = Literal["sound", "damaged", "differs", "not scored"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        what: a file or a trial.
        outcome: sound; damaged: not what was written; differs: other scores or figures than recorded; not scored: the
            classifier cannot be scored here, e.g. since its base model is another one now.
        words: what was found.
    """

    what: str
    outcome: Verified
    words: str


@dataclass(frozen=True)
class Verification:
    """What was looked at, in order."""

    checks: tuple[Check, ...]

    @property
    def sound(self) -> bool:
        """Whether everything was looked at, and nothing is damaged or differs."""
        return all(check.outcome == "sound" for check in self.checks)

    def as_text(self) -> str:
        """Return one line a check."""
        return "\n".join(f"{check.outcome:10}  {check.what}: {check.words}" for check in self.checks)


def verify(run: str | Path, *, sample: int = 64, trust_remote_code: bool = False) -> Verification:
    """Check a run folder.

    Args:
        run: its path.
        sample: test examples that each saved classifier scores again; drawn with a fixed seed.
        trust_remote_code: run code that comes with a base model, where it was trained so.

    Raises:
        RunError: the folder holds no trials.
    """
    folder = RunFolder(run)
    folder.check_version()
    places = [place for _, split in folder.splits() for place in split.trial_folders()]
    if not places:
        raise RunError(f"{folder.path}: no finished trial in it. Is this the folder of a run?")
    checks = list(_run_files(folder))
    records = []
    for place in places:
        try:
            check_trial_files(place)
            records.append(RunRecord.read(place))
        except RunError as error:
            checks.append(Check(str(place.relative_to(folder.path)), "damaged", str(error)))
            continue
        checks.append(_scored_again(folder, place, records[-1], sample, trust_remote_code=trust_remote_code))
    checks += [_file(place, lambda place=place: _read_point(place), folder.path) for place in folder.point_folders()]
    checks += _same_examples(folder, records)
    if len(records) == len(places):
        checks.append(_figures(folder, len(records)))
    return Verification(tuple(checks))


def _run_files(folder: RunFolder) -> Iterator[Check]:
    doctor = (folder.doctor_file,) if folder.doctor_file.exists() or _was_examined(folder) else ()
    always = (folder.split_file, folder.environment_file, folder.comparison_file, folder.test_access_file)
    others = [path for pattern in CHECKED_WHERE_THERE for path in sorted(folder.path.glob(pattern))]
    for path in (*always, *doctor, *others):
        yield _file(path, lambda path=path: read_checked_json(path, "Run the command that made it again"), folder.path)
    yield _file(folder.experiment_file, lambda: read_checked_yaml(folder.experiment_file, "Put a copy of it back"))
    remedy = "Write it again with `entailor report`"
    yield _file(folder.report_file, lambda: verify_checksum(folder.report_file, read_bytes(folder.report_file), remedy))
    for path in sorted(folder.path.glob(f"{DATA_FOLDER}/*.json")):  # as large as the user's data
        yield _file(path, lambda path=path: verify_checksum(path, path.read_bytes(), SAME_DATA), folder.path)


def _read_point(place: Path) -> None:
    check_trial_files(place)
    RunRecord.read(place)


def _was_examined(folder: RunFolder) -> bool:
    try:
        return bool(read_checked_yaml(folder.experiment_file, "").get("doctor"))
    except RunError:
        return False  # said of that file


def _file(path: Path, read: Any, run: Path | None = None) -> Check:
    what = path.name if run is None else path.relative_to(run).as_posix()
    try:
        read()
    except (RunError, OSError) as error:
        return Check(what, "damaged", str(error))
    return Check(what, "sound", "its checksum fits")


def _scored_again(folder: RunFolder, place: Path, record: RunRecord, sample: int, *, trust_remote_code: bool) -> Check:
    what = str(place.relative_to(folder.path))
    if record.status == "failed":
        return Check(
            what, "sound", "its files fit their checksums; the trial failed, so there is no classifier to score"
        )
    recorded = list(record.predictions)
    chosen = random.Random(0).sample(recorded, min(sample, len(recorded)))
    try:
        classifier = load_classifier(place, trust_remote_code=trust_remote_code)
        limit = read_saved(place).scoring_batch_tokens
        examples = [Example(one.id, one.text, one.text_pair, one.label, one.group) for one in chosen]
        logprobs_EL = score(classifier, classifier.encode(examples), limit)
    except EntailorError as error:
        return Check(what, "not scored", f"its files fit their checksums, but: {error}")
    gap = _gap(chosen, np.exp(logprobs_EL), record.labels)
    words = f"{len(chosen)} of {len(recorded)} test examples scored again, probabilities within {gap:.1g}"
    if gap > SCORE_TOLERANCE:
        return Check(what, "differs", f"{words}; at most {SCORE_TOLERANCE:.0e} was expected")
    return Check(what, "sound", words)


def _gap(examples: Sequence[Prediction], probabilities_EL: Any, labels: Sequence[str]) -> float:
    recorded_EL = np.array([[example.probabilities[label] for label in labels] for example in examples])
    return float(np.abs(recorded_EL - probabilities_EL).max())


def _same_examples(folder: RunFolder, records: Sequence[RunRecord]) -> Iterator[Check]:
    """Hold split.json against the examples the trials were run on, where all splits have one that says so."""
    hashes = {
        record.provenance.get(SPLIT, 0): str(record.provenance[DATA]) for record in records if DATA in record.provenance
    }
    try:
        held = read_checked_json(folder.split_file, "")
    except RunError:
        return  # said of that file
    found = [hashes.get(number) for number in range(1 + len(held.get("splits", ())))]
    if None not in found and held.get("fingerprint") != joined_fingerprint([one for one in found if one]):
        problem = "its examples are not those of the trials. Delete it and run the command that made it again"
        yield Check(folder.split_file.name, "differs", problem)


def _figures(folder: RunFolder, num_records: int) -> Check:
    """Compute comparison.json again from the records."""
    name = folder.comparison_file.name
    again = "Run the command that made it again"
    try:
        held = read_checked_json(folder.comparison_file, again)
        priorities = _priorities(folder)
        with well_formed(RunError, folder.comparison_file, again):
            for candidate in held["candidates"]:  # what was known when one was added is no part of the records
                candidate.pop("exploratory", None)
        with well_formed(RunError, folder.path / "trials", again):
            resampling = Resampling.of(held)
            pooled = read_pooled(folder, resampling) if resampling else None
            records = pooled.records if pooled else compared_records(folder, None)
            again = json.loads(json.dumps(compare_records(records, priorities=priorities, pooled=pooled)))
    except EntailorError as error:
        return Check("figures", "damaged", str(error))
    if problem := next((key for key, value in again.items() if held.get(key) != value), None):
        return Check(
            "figures", "differs", f"{name}: {problem} is not what the records give. Run the command that made it again"
        )
    return Check("figures", "sound", f"{name} is what the {num_records} records give ({RECORD_FILE})")


def _priorities(folder: RunFolder) -> Priorities:
    values = read_checked_yaml(folder.experiment_file, "Put a copy of it back")
    with well_formed(RunError, folder.experiment_file, "Put a copy of it back"):
        return parse_settings(Priorities, values.get("recommend") or {}, "recommend")
