"""What a finished run gives a program: candidates, the best, the recommended, each with its predictor.

Only reads comparison.json, whose content stays at hand as `summary` and `figures`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from entailor.errors import RunError
from entailor.report.advice import advice
from entailor.report.html import read_comparison
from entailor.report.notebook import notebook_html
from entailor.runs.documents import well_formed
from entailor.runs.layout import RunFolder
from entailor.runs.record import RunRecord
from entailor.shipping.predictor import Predictor


class Accuracy(NamedTuple):
    """Accuracy on test, 0 to 1: the mean over seeds with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class CandidateResult:
    """A line of the table: one method on one model, over its seeds.

    Attributes:
        folder: the run folder.
        model: as the experiment names it.
        method: the candidate's name.
        seeds: those that finished.
        accuracy: on test.
        macro_f1: on test, the mean over seeds; None where it is not defined.
        group: letters; candidates that share one do not differ significantly.
        tied_with_best: whether it is another than the best and does not differ significantly from it.
        figures: all that comparison.json holds of it, costs among them.
        cross_validated: whether the trials that were tested are folds, none of which ships.
    """

    folder: RunFolder = field(repr=False, compare=False)
    model: str
    method: str
    seeds: tuple[int, ...]
    accuracy: Accuracy
    macro_f1: float | None
    group: str
    tied_with_best: bool
    figures: Mapping[str, Any] = field(repr=False)
    cross_validated: bool = False

    @property
    def trial(self) -> Path:
        """The folder of its first complete seed: no seed is chosen by its score."""
        return self.folder.trial(self.model, self.method, min(self.seeds))

    def predictor(self, *, trust_remote_code: bool = False) -> Predictor:
        """Return what answers for new texts, from the first complete seed.

        Args:
            trust_remote_code: run code that comes with the base model, where it was trained so.

        Raises:
            RunError: the trial is damaged, or its base model is no longer the one it was trained on; or after a
                cross-validation, which fits the recommended candidate alone on all examples.
        """
        if self.cross_validated and not self.trial.exists():
            raise RunError(
                f"{self.trial}: {self.method} is not fitted on all examples, as a cross-validation does with what it "
                "recommends alone. Train it with `entailor train`, or set `recommend` so that it is recommended"
            )
        return Predictor.load(self.trial, trust_remote_code=trust_remote_code)


@dataclass(frozen=True)
class RecommendationResult:
    """What to ship.

    Attributes:
        candidate: the recommended one; None where none is, and `sentence` says why.
        sentence: for a reader.
        figures: what comparison.json holds of it.
    """

    candidate: CandidateResult | None
    sentence: str
    figures: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Comparison:
    """A finished run; in a notebook it shows its table, the recommendation and a link to the report.

    Attributes:
        folder: the run folder.
        summary: the content of comparison.json.
        records: one a trial that was asked for, complete or failed, in the order they ran. The summary also holds what
            stood in the folder before.
    """

    folder: RunFolder
    summary: Mapping[str, Any] = field(repr=False)
    records: tuple[RunRecord, ...] = field(repr=False)

    @classmethod
    def read(cls, run: str | Path) -> Self:
        """Return a run that finished earlier.

        Raises:
            RunError: the folder holds none, or it is damaged.
        """
        folder = RunFolder(run)
        folder.check_version()
        return cls(folder, read_comparison(folder.comparison_file), tuple(record for _, record in folder.records()))

    @property
    def candidates(self) -> tuple[CandidateResult, ...]:
        """Every candidate with a complete trial, the most accurate first."""
        with well_formed(RunError, self.folder.comparison_file, "Run the command that made it again"):
            return tuple(self._candidate(one) for one in self.summary["candidates"])

    @property
    def best(self) -> CandidateResult | None:
        """The most accurate candidate; None where no trial finished."""
        return next(iter(self.candidates), None)

    @property
    def recommendation(self) -> RecommendationResult | None:
        """What to ship; None where no trial finished."""
        found, said = self.summary["recommendation"], advice(self.summary)
        if said is None:
            return None
        wanted = found["model"], found["method"]
        candidate = next((one for one in self.candidates if (one.model, one.method) == wanted), None)
        return RecommendationResult(candidate, said.sentence, found)

    @property
    def winner(self) -> Path | None:
        """The trial folder of the recommended candidate's first complete seed; None where there is none."""
        return self.folder.winner(self.summary)

    def _candidate(self, figures: Mapping[str, Any]) -> CandidateResult:
        return CandidateResult(
            folder=self.folder,
            seeds=tuple(figures["seeds"]),
            accuracy=Accuracy(*(figures["accuracy"][name] for name in Accuracy._fields)),
            **{name: figures[name] for name in ("model", "method", "macro_f1", "group", "tied_with_best")},
            figures=figures,
            cross_validated=(self.summary.get("resampling") or {}).get("kind") == "cv",
        )

    def _repr_html_(self) -> str:
        return notebook_html(self.summary, self.recommendation.sentence if self.recommendation else "", self.folder)
