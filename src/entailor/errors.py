"""The exception tree.

EntailorError
├── ConfigError            an experiment key or value that cannot be used
├── DataError              a file, row or column that cannot be read
│   └── LabelError         a label outside the task's label set
├── ModelError             a checkpoint that cannot be found, fetched or trusted
│   └── HeadMismatchError  a checkpoint whose own head names other labels
├── DownloadError          a file that the package index does not give
├── ApiError               a language model's server that refuses, stays silent or costs more than it may
├── MethodError            a method that does not fit the model or the task
├── TrainingError          training that went wrong in a way that must not pass silently
│   └── DivergedError      a loss, a gradient or a score that is not finite
├── OutputError            a file or folder that may not be written
├── ProcessError           one of several processes that train together failed, and none can go on
└── RunError               a run folder that is missing, damaged or belongs to another experiment
    └── VersionError       one that another release of Entailor wrote

Every failure a user can cause or meet is one of these. Its text names the place, what was found, what was
expected and the next step; the command line prints the text alone, and a traceback only with ``--debug``.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MOST_NAME = 200


class EntailorError(Exception):
    """Base of every error Entailor raises on purpose."""


class ConfigError(EntailorError):
    """An experiment key or value cannot be used."""


class DataError(EntailorError):
    """A file, row or column cannot be read.

    Args:
        problem: what was found and what was expected.
        path: the file or data set it was found in.
        row: the 1-based line of a text file or record of a table.
        column: the column's name.
        remedy: the next step.
    """

    def __init__(
        self,
        problem: str,
        *,
        path: object | None = None,
        row: int | None = None,
        column: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.problem, self.path, self.row, self.column, self.remedy = problem, path, row, column, remedy
        place = ", ".join(
            part
            for part in (
                str(path) if path is not None else "",
                f"row {row}" if row is not None else "",
                f"column {column!r}" if column is not None else "",
            )
            if part
        )
        text = f"{place}: {problem}" if place else problem
        super().__init__(f"{text}. {remedy}" if remedy else text)


class LabelError(DataError):
    """A label is not in the task's label set."""


class ModelError(EntailorError):
    """A checkpoint cannot be found, fetched, read or trusted."""


class HeadMismatchError(ModelError):
    """A checkpoint carries a classification head for other labels."""


class DownloadError(EntailorError):
    """A file of a release cannot be fetched from the package index, or is not the one expected."""


class ApiError(EntailorError):
    """A language model's server refuses, stays silent, or would cost more than it may.

    Args:
        problem: what was found, and the next step.
        status: of the HTTP answer; None where there was none.
        code: the server's own name of the error.
    """

    def __init__(self, problem: str, *, status: int | None = None, code: str = "") -> None:
        self.problem, self.status, self.code = problem, status, code
        super().__init__(problem)


class MethodError(EntailorError):
    """A method does not fit the model or the task."""


class TrainingError(EntailorError):
    """Training went wrong in a way that must not pass silently."""


class DivergedError(TrainingError):
    """A loss, a gradient or a score is not finite.

    Args:
        problem: what was found, at which step, and the next step.
        kept: which weights the classifier still holds, in words; None where none are good.
    """

    def __init__(self, problem: str, kept: str | None = None) -> None:
        self.problem, self.kept = problem, kept
        super().__init__(problem)


class OutputError(EntailorError):
    """An output may not be written where it was asked for."""


class ProcessError(EntailorError):
    """One of several processes that run a trial together failed or is gone, so that none of them can go on."""


class RunError(EntailorError):
    """A run folder is missing, damaged or belongs to another experiment."""


class VersionError(RunError):
    """A run folder, or a file of it, was written by another release of Entailor."""

    def __init__(self, path: object, version: object, expected: int) -> None:
        earlier = isinstance(version, int) and version < expected
        release = "Entailor 0.1" if earlier else "a later release of Entailor"
        super().__init__(
            f"{path}: version {str(version)[:20]} found, expected {expected}: written by {release}, which reads it. "
            "Use that release, or give another --out to run it again with this one"
        )


RENAMED = {
    "tune": "validation",
    "tune_split": "validation_split",
    "tune_size": "validation_size",
    "max_tune_examples": "max_validation_examples",
    "tuning_seed": "search_seed",
    "challenge": "external",
    "forecast": "estimate",
    "forecast_only": "estimate_only",
}
"""Keys and flags of the first release, and what they are called now."""


def one_line(error: BaseException) -> str:
    """Return what another library's error says, on one line of at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def near_miss(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest known name, its new name if it was renamed, or nothing."""
    known = list(known)
    renamed = RENAMED.get(name.rpartition(".")[2])
    if renamed and any(one.rpartition(".")[2] == renamed for one in known):
        return f" It was renamed: write {renamed!r} instead."
    if len(name) > MOST_NAME:  # is none of them, and comparing takes time in the square of its length
        return ""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""
