"""The log of accesses to the test split: when it was read, with which choices made, and which of them came later.

Written before the first trial is scored and after all tuning. A choice that is added once results of the same test
split are known cannot be undone from having known them: it is exploratory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entailor.data.example import Split
from entailor.errors import RunError
from entailor.runs.documents import well_formed
from entailor.runs.environment import utc_now
from entailor.runs.files import read_checked_json, write_checked_json
from entailor.runs.record import RunRecord
from entailor.study.trial_plan import TrialPlan

ACCESS_LOG_VERSION = 2


@dataclass(frozen=True)
class AccessLog:
    """The content of test_access.json, and where it stands.

    Attributes:
        path: the file.
        test: number of test examples and the hash of their ids, texts and labels.
        reads: one a time the test split was read with choices that had not been there before: `time`, `split` (its
            hash), `choices` (what was chosen, by name, as a hash of its settings), `sha256` over all of it,
            `exploratory`, and `results`, whether a trial of it was finished.
    """

    path: Path
    test: Mapping[str, Any]
    reads: tuple[Mapping[str, Any], ...]

    def document(self) -> Mapping[str, Any]:
        """Return what comparison.json shows."""
        return {"test": dict(self.test), "reads": [dict(read) for read in self.reads]}

    def is_exploratory(self, name: str) -> bool:
        """Tell whether a choice was made after results of the test split were known; the latest read decides."""
        found = [read["exploratory"] for read in self.reads if name in read["choices"]]
        return bool(found and found[-1])

    def with_results(self, name: str, record: RunRecord) -> AccessLog:
        """Write down that results of the last read can be known, where a complete record is one of its choices.

        Args:
            name: what :func:`choice_name` calls it.
            record: of a trial or of a point of a learning curve.
        """
        if not self.reads or self.reads[-1]["results"] or not _is_result(self.reads[-1], _known([(name, record)])):
            return self
        log = AccessLog(self.path, self.test, (*self.reads[:-1], {**self.reads[-1], "results": True}))
        log.write()
        return log

    def write(self) -> None:
        """Write the file."""
        write_checked_json(self.path, {"version": ACCESS_LOG_VERSION, **self.document()})


def choice_name(model: str, candidate: str, num_train: int | None = None, split: int = 0) -> str:
    """Return what a choice is called: model and candidate, the size of a point on a learning curve, and the split."""
    size = f" n={num_train}" if num_train is not None else ""
    return f"{model} {candidate}{size}" + (f" split={split}" if split else "")


def choice_of(plan: TrialPlan) -> str:
    """Return a hash of the settings a plan is run with."""
    return _settings_hash(plan.method.name, plan.method.model_dump(mode="json"))


def log_test_access(
    path: Path, split: Split, choices: Mapping[str, str], earlier: Iterable[tuple[str, RunRecord]]
) -> AccessLog:
    """Write down that the test split is about to be read with these choices made.

    A read that gave no result is replaced: nothing can have been learnt from it. Choices that were there before are no
    new read. Seeds are no choice: a candidate is judged by all of them.

    Args:
        path: test_access.json.
        split: what will be read.
        choices: name to hash, of every trial the run asks for.
        earlier: name and record of all that stands in the folder. A read whose first result was written just before a
            kill is known by them; where the file is missing, the first read is taken from them.
    """
    earlier = list(earlier)
    found = _known(earlier)
    test = {"examples": len(split.test), "sha256": Split((), (), split.test).fingerprint()}
    reads: list[Mapping[str, Any]] = [
        {**read, "results": True} for read in _earlier_reads(path, test) if read["results"] or _is_result(read, found)
    ]
    if not reads and found:
        time = min(str(record.provenance.get("started", "")) for _, record in earlier if record.status == "complete")
        reads = [_read(time, split, found, exploratory=False, results=True)]
    known: dict[str, str] = {}
    for read in reads:
        known.update(read["choices"])
    new = {name: settings for name, settings in choices.items() if known.get(name) != settings}
    if new:
        reads.append(_read(utc_now(), split, new, exploratory=bool(reads), results=False))
    log = AccessLog(path, test, tuple(reads))
    log.write()
    return log


def _known(records: Iterable[tuple[str, RunRecord]]) -> dict[str, str]:
    """Return a hash of the settings of every choice that has a result, by name."""
    return {
        name: _settings_hash(record.method, record.hyperparameters)
        for name, record in records
        if record.status == "complete"
    }


def _is_result(read: Mapping[str, Any], known: Mapping[str, str]) -> bool:
    return any(read["choices"].get(name) == settings for name, settings in known.items())


def _read(
    time: str, split: Split, choices: Mapping[str, str], *, exploratory: bool, results: bool
) -> Mapping[str, Any]:
    what = {"time": time, "split": split.fingerprint(), "choices": dict(choices)}
    return {**what, "sha256": _hash(what), "exploratory": exploratory, "results": results}


def _earlier_reads(path: Path, test: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the reads of the same test split that are written down and whole."""
    if not path.exists():
        return []
    found = read_checked_json(path, "Give another --out")
    with well_formed(RunError, path, "Give another --out"):
        if found["version"] != ACCESS_LOG_VERSION or found["test"] != test:
            return []
        reads: list[Mapping[str, Any]] = found["reads"]
        for read in reads:
            if read["sha256"] != _hash({key: read[key] for key in ("time", "split", "choices")}):
                raise RunError(f"{path}: its content does not match its hash. Was it edited? Give another --out")
            if not isinstance(read["choices"], dict):
                raise TypeError("choices: a mapping was expected")
            _ = read["exploratory"], read["results"]
    return reads


def _settings_hash(method: str, settings: Mapping[str, Any]) -> str:
    return _hash({"method": method, **settings})


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
