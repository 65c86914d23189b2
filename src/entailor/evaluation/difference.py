"""What differs between two runs: data, configuration, versions, results. Reads what stands in their folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entailor.config.overrides import read_checked_yaml
from entailor.errors import RunError
from entailor.runs.documents import well_formed
from entailor.runs.files import read_checked_json
from entailor.runs.layout import RunFolder
from entailor.runs.record import RunRecord

AGAIN = "Run the command that made it again"
MACHINE = ("python", "platform", "cpu", "cores", "threads", "gpus", "git_commit")
CHANGES_NOTHING = ("out", "checkpoint_minutes", "checkpoint_steps")


@dataclass(frozen=True)
class RunDifference:
    """What differs, one line each.

    Attributes:
        data: the examples, and which of them stand in which part.
        configuration: keys of experiment.yaml, but for the folder and how often a training is saved.
        versions: packages, and the machine.
        results: trials that only one has, and predictions that differ.
    """

    data: tuple[str, ...]
    configuration: tuple[str, ...]
    versions: tuple[str, ...]
    results: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.data or self.configuration or self.versions or self.results)

    def as_text(self) -> str:
        """Return the differences under their headings."""
        parts = (
            ("data", self.data),
            ("configuration", self.configuration),
            ("versions", self.versions),
            ("results", self.results),
        )
        return "\n".join(
            line
            for name, lines in parts
            for line in (f"{name}: {'the same' if not lines else ''}".rstrip(), *(f"  {one}" for one in lines))
        )


def diff_runs(first: str | Path, second: str | Path) -> RunDifference:
    """Compare two run folders; times and peaks of memory do not count.

    Args:
        first: a run's folder.
        second: another one.

    Raises:
        RunError: a folder is no run, or a file in it is missing or damaged.
    """
    folders = RunFolder(first), RunFolder(second)
    for one in folders:
        one.check_version()
    splits, experiments = [_split(one) for one in folders], [_experiment(one) for one in folders]
    environments, records = [_environment(one) for one in folders], [_records(one) for one in folders]
    with well_formed(RunError, folders[0].path / f"... or {folders[1].path}", AGAIN):
        return RunDifference(
            data=tuple(_data(*splits)),
            configuration=tuple(_keys("", *experiments)),
            versions=tuple(_keys("", *environments)),
            results=tuple(_results(*records)),
        )


def _split(folder: RunFolder) -> Mapping[str, Any]:
    return read_checked_json(folder.split_file, AGAIN)


def _experiment(folder: RunFolder) -> Mapping[str, Any]:
    values = read_checked_yaml(folder.experiment_file, "Put a copy of it back")
    return {key: value for key, value in values.items() if key not in CHANGES_NOTHING}


def _environment(folder: RunFolder) -> Mapping[str, Any]:
    environment = read_checked_json(folder.environment_file, AGAIN)
    with well_formed(RunError, folder.environment_file, AGAIN):
        found = environment.get("precision", {}).items()
        precision = {model: one.get("precision") for model, one in found if isinstance(one, dict)}
        machine = {key: environment.get(key) for key in MACHINE}
        return {**environment.get("versions", {}), **machine, "precision": precision}


def _records(folder: RunFolder) -> dict[tuple[str, str, int, int], RunRecord]:
    """Return records by model, candidate, seed and number of their split."""
    found = ((number, one) for number, split in folder.splits() for _, one in split.records())
    records = {(one.model, one.name, one.seed, number): one for number, one in found}
    if not records:
        raise RunError(f"{folder.path}: no finished trial in it. Is this the folder of a run?")
    return records


def _data(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    if first.get("fingerprint") == second.get("fingerprint"):
        return
    for part in ("train", "validation", "test"):
        one, other = set(first.get(part, ())), set(second.get(part, ()))
        if one != other:
            yield f"{part}: {len(one - other):,} of {len(one):,} only in the first, {len(other - one):,} of " + (
                f"{len(other):,} only in the second"
            )
    yield f"fingerprint: {first.get('fingerprint')} and {second.get('fingerprint')}"


def _keys(key: str, first: Any, second: Any) -> Iterator[str]:
    if isinstance(first, dict) and isinstance(second, dict):
        for name in sorted({*first, *second}, key=str):
            yield from _keys(f"{key}.{name}".removeprefix("."), first.get(name), second.get(name))
    elif first != second:
        yield f"{key}: {first!r} and {second!r}"


def _results(
    first: Mapping[tuple[str, str, int, int], RunRecord], second: Mapping[tuple[str, str, int, int], RunRecord]
) -> Iterator[str]:
    for key in sorted({*first, *second}):
        name = f"{key[1]} on {key[0]}, seed {key[2]}" + (f", split {key[3]}" if key[3] else "")
        if key not in first or key not in second:
            yield f"{name}: only in the {'first' if key in first else 'second'}"
        else:
            yield from (f"{name}: {line}" for line in _trial(first[key], second[key]))


def _trial(first: RunRecord, second: RunRecord) -> Iterator[str]:
    if first.status != second.status:
        yield f"{first.status} and {second.status}"
        return
    by_id = {one.id: one for one in second.predictions}
    common = [(one, by_id[one.id]) for one in first.predictions if one.id in by_id]
    if len(common) < max(len(first.predictions), len(second.predictions)):
        yield f"{len(common):,} test examples in common, of {len(first.predictions):,} and {len(second.predictions):,}"
    flips = sum(one.predicted != other.predicted for one, other in common)
    gap = max((_gap(one.probabilities, other.probabilities) for one, other in common), default=0.0)
    if gap:
        share = f"{flips:,} of {len(common):,} predictions differ" if flips else "the same labels"
        yield f"{share}, probabilities by up to {gap:.2g}"
    if first.curve != second.curve:
        yield "the training curves differ"


def _gap(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    return max(abs(first.get(label, 0.0) - second.get(label, 0.0)) for label in {*first, *second})
