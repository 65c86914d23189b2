"""The layout of a run folder: where things stand, not what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from entailor.errors import RunError, VersionError
from entailor.runs.files import read_json, write_checked_json
from entailor.runs.ownership import MARKER_FILE
from entailor.runs.record import _NAME, _SEED, DATA, RunRecord, _trial_order
from entailor.runs.trial_folder import RECORD_FILE, folder_name

RUN_VERSION = 2
SPLITS = "splits"
MOVE_AWAY = "Move it out of the run's folder, and run the command again that made the run"


def _is_split(folder: Path) -> bool:
    """Tell whether a folder is one of several splits, and not a run that is called so."""
    return folder.parent.name == SPLITS and folder.name.isdecimal() and not (folder / MARKER_FILE).is_file()


class RunFolder:
    """The layout of ``runs/<name>/``; knows where things stand, not what they mean."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.marker_file = self.path / MARKER_FILE  # says that Entailor may write and delete its files here
        self.experiment_file = self.path / "experiment.yaml"  # as resolved, every default written out
        self.environment_file = self.path / "environment.json"  # versions, machine, git commit, data fingerprints
        self.split_file = self.path / "split.json"  # ids of train, validation and test with a hash
        self.comparison_file = self.path / "comparison.json"  # what the report shows
        self.doctor_file = self.path / "doctor.json"  # what the data doctor found in the split
        self.report_file = self.path / "report.html"  # one self-contained page
        self.test_access_file = self.path / "test_access.json"  # when test was read, and with which choices made
        self.estimate_file = self.path / "estimate.json"  # of time and memory of each candidate, made before the run

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    def mark(self) -> None:
        """Write the marker, before any other file."""
        write_checked_json(self.marker_file, {"version": RUN_VERSION, "what": "the folder of an Entailor run"})

    def check_version(self) -> None:
        """Refuse the folder of another release before anything in it is read or written.

        Raises:
            VersionError: another release wrote it.
        """
        version: Any = None
        with suppress(RunError, AttributeError):
            version = read_json(self.marker_file).get("version")
        if isinstance(version, int) and version != RUN_VERSION:
            raise VersionError(self.path, version, RUN_VERSION)
        with suppress(OSError, ValueError):  # a path that cannot be is an error where it is read
            # version 1 had no marker, and this name for the log of test
            if (self.path / "test_reads.json").is_file():
                raise VersionError(self.path, 1, RUN_VERSION)

    @classmethod
    def of_trial(cls, trial: Path) -> RunFolder | None:
        """Return the run a trial's folder stands in, or None where it stands in none."""
        found = cls.split_of_trial(trial)
        return cls(found.path.parents[1]) if found is not None and _is_split(found.path) else found

    @classmethod
    def split_of_trial(cls, trial: Path) -> RunFolder | None:
        """Return the trial's own split of the run, as :meth:`split` gives it, or None where it stands in no run."""
        above = list(trial.resolve().parents)
        return cls(above[3]) if len(above) > 3 and above[2].name == "trials" else None

    @staticmethod
    def split_number(trial: Path) -> int:
        """Return the number of the split that a trial's folder belongs to."""
        above = trial.parents
        return int(above[3].name) if len(above) > 3 and _is_split(above[3]) else 0

    def split(self, number: int) -> RunFolder:
        """Return where the trials and searches of one split stand: 0 in the run's folder, others below ``splits/``.

        Of cross-validation the folds are 1 and up, and 0 is what is fitted on all examples.
        """
        return self if number == 0 else RunFolder(self.path / SPLITS / str(number))

    def splits(self) -> list[tuple[int, RunFolder]]:
        """Return the splits that are there, with their numbers; 0 is the run's own folder."""
        found = [path.name for path in self.path.glob(f"{SPLITS}/*") if path.name.isdecimal()]
        return [(number, self.split(number)) for number in (0, *sorted(map(int, found)))]

    def study(self, model: str, name: str, repeat: int = 1) -> Path:
        """Return the folder of the settings that were tried for a candidate, in the first search or a repeat of it."""
        first = self.path / "tuning" / folder_name(model) / self._checked(_NAME, name)
        return first if repeat == 1 else first / f"search-{repeat}"

    def curve_point(self, model: str, name: str, num_train: int, seed: int) -> Path:
        """Return the folder of one point of a candidate's learning curve."""
        return self.path / "curve" / folder_name(model) / self._checked(_NAME, name) / f"n-{num_train}" / f"seed-{seed}"

    def trial(self, model: str, name: str, seed: int) -> Path:
        """Return the folder of one trial; the model's name is made safe as a folder name."""
        return (
            self.path
            / "trials"
            / folder_name(model)
            / self._checked(_NAME, name)
            / f"seed-{self._checked(_SEED, seed)}"
        )

    def _checked(self, kind: TypeAdapter[Any], part: object) -> str:
        """Return a part of a path as it is where it leads to no other place than one inside the run folder."""
        try:
            return str(kind.validate_python(part))
        except ValidationError:
            problem = f"{str(part)[:80]!r} can be neither a candidate nor a seed of a run"
            raise RunError(
                f"{self.path}: {problem}. Do not use this folder; run the command with another --out"
            ) from None

    def trial_folders(self) -> list[Path]:
        """Return the folders of finished trials, complete or failed, by model, candidate and seed."""
        return [file.parent for file in sorted(self.path.glob(f"trials/*/*/seed-*/{RECORD_FILE}"), key=_trial_order)]

    def records(self) -> Iterator[tuple[Path, RunRecord]]:
        """Yield every finished trial's folder and record, by model, candidate and seed.

        Raises:
            RunError: one is missing, damaged, or of another run.
        """
        yield from self.own((place, RunRecord.read(place)) for place in self.trial_folders())

    def own(self, found: Iterable[tuple[Path, RunRecord]]) -> Iterator[tuple[Path, RunRecord]]:
        """Yield folders and records of this run or split as they come.

        Raises:
            RunError: a folder that was copied here: it holds another candidate, model or seed, or was trained or
                tested on other examples than those before it.
        """
        first: tuple[Path, str] | None = None
        for place, record in found:
            if place != self.trial(record.model, record.name, record.seed):
                what = f"{record.name} on {record.model} with seed {record.seed}"
                raise RunError(f"{place}: holds the trial of {what}. {MOVE_AWAY}")
            data = record.provenance.get(DATA)
            if isinstance(data, str):
                first = first or (place, data)
                if data != first[1]:
                    raise RunError(f"{place}: its examples are not those of {first[0]}: of another run. {MOVE_AWAY}")
            yield place, record

    def point_folders(self) -> list[Path]:
        """Return the folders of the points of learning curves, by model, candidate and seed."""
        found = sorted(self.path.glob(f"curve/*/*/n-*/seed-*/{RECORD_FILE}"), key=_trial_order)
        return [file.parent for file in found]

    def curve_records(self) -> Iterator[tuple[int, RunRecord]]:
        """Yield number of labels and record of every whole point of a learning curve, by model and candidate."""
        for place in self.point_folders():
            size = place.parent.name.removeprefix("n-")
            with suppress(RunError):  # a damaged point is run again when its curve is asked for
                if size.isdecimal():
                    yield int(size), RunRecord.read(place)

    def winner(self, comparison: Mapping[str, Any]) -> Path | None:
        """Return the folder of the recommended candidate's first complete seed: no seed is chosen by its score.

        Args:
            comparison: the content of comparison.json.

        Returns:
            The folder, or None where no trial is complete or no candidate is within the limits of `recommend`.
        """
        candidates = comparison.get("candidates", ())
        picked = comparison.get("recommendation") or {}
        names = picked.get("model"), picked.get("method")
        candidate = next((one for one in candidates if (one["model"], one["method"]) == names), None)
        return self._first_trial(candidate) if candidate else None

    def only_trial(self, comparison: Mapping[str, Any]) -> Path | None:
        """Return the folder of the only candidate's first complete seed; None where there are several."""
        candidates = comparison.get("candidates", ())
        return self._first_trial(candidates[0]) if len(candidates) == 1 and not comparison.get("failed") else None

    def _first_trial(self, candidate: Mapping[str, Any]) -> Path:
        return self.trial(candidate["model"], candidate["method"], min(candidate["seeds"]))
