"""Learning curves: every candidate trained as well on nested samples of train, with the same validation and test.

Runs the points and gathers what they gave; fits and predictions are evaluation's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from entailor.data.example import Split
from entailor.data.stratify import nested_samples
from entailor.engine.stopping import UNATTENDED, RunContext
from entailor.evaluation.learning_curve import CandidateCurve, describe_curves
from entailor.methods import Method, TrainedMethod
from entailor.methods.registry import find_method
from entailor.runs.layout import RunFolder
from entailor.runs.record import RunRecord
from entailor.study.finished import complete_record, lost_trial
from entailor.study.jobs import HERE, Job, Pool
from entailor.study.test_access import AccessLog, choice_name
from entailor.study.trial import discard_leftovers, run_trial
from entailor.study.trial_plan import TrialPlan
from entailor.tasks import Task

# A handful of labels gives a handful of steps an epoch, too few to train anything. Small samples are skipped more
# often, up to so many steps, but never for more steps than the row takes on the whole of train.
LEAST_STEPS = 100


@dataclass(frozen=True)
class PointPlan:
    """One point of a curve with one seed.

    Attributes:
        plan: what is trained.
        num_train: on how many labels.
        folder: where its record stands.
        more_epochs: epochs by those of the row on the whole of train, 1 or more.
    """

    plan: TrialPlan
    num_train: int
    folder: Path
    more_epochs: float = 1.0

    @property
    def title(self) -> str:
        """What it is called while it runs."""
        return f"{self.plan.candidate} on {self.num_train:,} labels, seed {self.plan.seed}"


def plan_points(plans: Sequence[TrialPlan], sizes: Sequence[int], num_train: int, folder: RunFolder) -> list[PointPlan]:
    """Return the points in the order they run, smallest samples first.

    Sizes that train does not exceed are left out, and candidates that are asked rather than trained.

    Args:
        plans: every trial of the run, its settings chosen.
        sizes: numbers of labels.
        num_train: rows of train, at which the trials themselves are the curve's last point.
        folder: the run folder.
    """
    points = []
    for size in sizes:
        for plan in plans:
            if size < num_train and is_learnt(plan.method):
                place = folder.curve_point(plan.model, plan.candidate, size, plan.seed)
                more = _more_epochs(plan.method, size, num_train)
                method = plan.method
                if isinstance(method, TrainedMethod):
                    method = method.model_copy(update={"num_train_epochs": more * method.num_train_epochs})
                points.append(PointPlan(replace(plan, method=method, keep=False), size, place, more))
    return points


def is_learnt(method: Method) -> bool:
    """Tell whether more labels teach a method anything."""
    return not (method.training_free or method.learns_from_others)  # a teacher has learnt from all labels


def _learns_nothing(record: RunRecord) -> bool:
    method = find_method(record.method)  # None where it came with a package that is gone
    return method is not None and method.training_free


def _more_epochs(method: Method, size: int, num_train: int) -> float:
    """Return how many times as many epochs a small sample gets, so that it is trained for enough steps."""
    if not isinstance(method, TrainedMethod):
        return 1.0
    batch = method.per_device_train_batch_size * method.gradient_accumulation_steps
    steps = method.num_train_epochs * size / batch
    wanted = min(LEAST_STEPS, method.num_train_epochs * num_train / batch)
    return max(1.0, math.ceil(10 * wanted / steps) / 10)


def run_points(
    points: Sequence[PointPlan],
    task: Task,
    split: Split,
    seed: int,
    run_context: RunContext = UNATTENDED,
    pool: Pool = HERE,
) -> None:
    """Run the points that are not complete.

    Args:
        points: what to run.
        task: labels and input shape.
        split: the whole split; train is sampled.
        seed: of the samples.
        run_context: as for :func:`run_trial`.
        pool: where they are run.
    """
    samples = nested_samples(split.train, sorted({point.num_train for point in points}), seed)
    parts = {size: Split(sample, split.validation, split.test) for size, sample in samples.items()}
    jobs = [
        Job(
            title=point.title,
            work=run_trial,
            plan=point.plan,
            task=task,
            split=parts[point.num_train],
            folder=point.folder,
            lost=partial(lost_trial, point.plan, task, point.folder),
            found=finished_point(point),
        )
        for point in points
    ]
    for batch in pool.run(jobs, run_context):
        for job, record in batch:
            if job.found is not None:
                discard_leftovers(job.folder)
            run_context.observer.finished(record, reused=job.found is not None, trial=job.title)


def finished_point(point: PointPlan) -> RunRecord | None:
    """Return a point's record where it is complete and was run with these settings."""
    return complete_record(point.plan, point.folder)


def curve_document(
    folder: RunFolder, whole: Iterable[RunRecord], num_train: int, log: AccessLog
) -> Mapping[str, Any] | None:
    """Return what comparison.json holds under `learning_curve`, or None where the folder has no points.

    Args:
        folder: the run folder, whose points of all runs are shown.
        whole: records of trials on the whole of train: each curve's last point.
        num_train: rows of train.
        log: tells which points were added after results were known.
    """
    found = list(folder.curve_records())
    if not found:
        return None
    candidates: dict[tuple[str, str], dict[int, list[RunRecord]]] = {}
    for size, record in [*found, *((num_train, record) for record in whole)]:
        if record.status == "complete":
            candidates.setdefault((record.model, record.name), {}).setdefault(size, []).append(record)
    failed = [
        {
            "model": record.model,
            "method": record.name,
            "n": size,
            "seed": record.seed,
            "error": record.error or "",
            "error_type": record.error_type,
        }
        for size, record in found
        if record.status != "complete"
    ]
    curves = [CandidateCurve(*key, sizes) for key, sizes in candidates.items()]
    document = describe_curves(
        [one for one in curves if len(one.sizes) > 1],
        [one for one in curves if len(one.sizes) == 1 and _learns_nothing(next(iter(one.sizes.values()))[0])],
    )
    for candidate in document["candidates"]:
        for point in candidate["points"]:
            sampled = None if point["n"] == num_train else point["n"]
            point["exploratory"] = log.is_exploratory(choice_name(candidate["model"], candidate["method"], sampled))
    return {**document, "failed": failed}
