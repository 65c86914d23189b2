"""Several splits in one run: what they are called, whose records are whose, and the classifier that ships.

Every split has a folder of its own with trials and searches, laid out as the run's own.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from entailor.data.splits import LoadedData
from entailor.evaluation.resampling import Resampling
from entailor.events import Observer
from entailor.runs.layout import RunFolder
from entailor.runs.record import RunRecord
from entailor.runs.trial_folder import RECORD_FILE
from entailor.study.plan import ANY_SEED
from entailor.study.trial_plan import TrialPlan


def resampling_of(data: LoadedData) -> Resampling | None:
    """Return how the splits of a run were made; None where there is one."""
    if not data.further:
        return None
    tested = data.tested
    shares = [len(one.test) / (len(one.train) + len(one.validation)) for one in tested.values()]
    return Resampling(
        kind="splits" if data.repeats is None else "cv",
        numbers=tuple(tested),
        repeats=data.repeats or 1,
        same_test=len({tuple(example.id for example in one.test) for one in tested.values()}) == 1,
        test_share=statistics.fmean(shares),
        num_test=len(data.test_examples()),
    )


def split_title(number: int, data: LoadedData) -> str:
    """Return what a split is called in the title of a trial, with a comma in front; nothing where there is one."""
    if not data.further:
        return ""
    if data.repeats is None:
        return f", split {number}"
    return f", fold {number} of {len(data.tested)}" if number else ", all examples"


def by_split(records: Mapping[Path, RunRecord]) -> dict[int, list[RunRecord]]:
    """Return records by the number of their split, in the order of candidates and seeds.

    Args:
        records: by the trial's folder.
    """
    found: dict[int, list[RunRecord]] = {}
    for place, record in sorted(records.items(), key=lambda item: (item[1].model, item[1].name, item[1].seed)):
        found.setdefault(RunFolder.split_number(place), []).append(record)
    return found


def to_ship(
    plans: Sequence[TrialPlan], folder: RunFolder, summary: Mapping[str, Any], observer: Observer
) -> list[TrialPlan]:
    """Return what a cross-validation fits again on all examples: the recommended candidate, or the only one.

    What learns from other candidates needs them there as well.

    Args:
        plans: every trial on one split.
        folder: of the run.
        summary: the content of comparison.json.
        observer: told where the candidate is none of this command's.
    """
    place = folder.winner(summary) or folder.only_trial(summary)
    pick = next((plan for plan in plans if folder.trial(plan.model, plan.candidate, plan.seed) == place), None)
    if pick is None:
        if place is not None and not (place / RECORD_FILE).exists():
            name = place.parent.name
            observer.warn(f"{name} is recommended and not fitted on all examples: add it to --methods and run again")
        return []
    if not pick.method.learns_from_others:
        return [pick]
    first = min((plan.seed for plan in plans if plan.method.is_seeded), default=0)
    teachers = [plan for plan in plans if not plan.method.learns_from_others and plan.seed in (*ANY_SEED, first)]
    return [*teachers, pick]
