"""How long a run will take and how much memory it needs, by counting; then how near that was.

Nothing is loaded and nothing is tried: the operations of a trial follow from the sizes of the model and the lengths of
the texts, the speed of the machine was measured when the precision was chosen, in processor time; by how much other
work slows this process down is measured now. What counting cannot know (small kernels, padding, restarts, whether the
other work goes on) makes a range of it. Of test only the size is used.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from entailor.config.parts import BudgetSettings
from entailor.data.example import Split
from entailor.engine.speed import SAMPLE, ModelFacts, Slowdown, facts_of, measure_slowdown
from entailor.errors import RunError
from entailor.methods import TrainedMethod
from entailor.models.memory import resident_bytes
from entailor.runs.files import read_checked_json, write_checked_json
from entailor.runs.layout import RunFolder
from entailor.runs.record import NO_MODEL, RunRecord, by_candidate
from entailor.study.finished import LATENCY_EXAMPLES, RELOAD_EXAMPLES
from entailor.study.jobs import next_comparison
from entailor.study.learning_curve import PointPlan
from entailor.study.prompt_search import ranges_of
from entailor.study.sampler import expected_share
from entailor.study.trial_plan import TrialPlan

ESTIMATE_VERSION = 6
RANGE = 2.0
"""A run is expected to take between its figure divided and multiplied by this, and wider where load changes."""
LIBRARIES_SECONDS = 2.0
"""Of the first model, in any run: what PyTorch and the libraries of models do when they are first used."""
TRIAL_SECONDS = 1.0
"""Of any trial on a model, besides what is counted: saving, loading again, hundreds of small steps."""
COMPARE_SECONDS, PAGE_SECONDS = 0.1, 1.0
"""Of a comparison, for each candidate in it; and of drawing the page."""
LOAD_BYTES_A_SECOND = 400e6
WORDS_SECONDS, WORD_SECONDS = 0.1, 1e-5
"""Of a baseline on words: in any case, and for each character it is trained on."""
SMALL_BATCH = 4.0
"""A token of a single example takes so many times that of a full batch."""


@dataclass(frozen=True)
class CandidateCost:
    """What one trial of a candidate is expected to take.

    Attributes:
        model: as the user named it.
        method: the candidate's name.
        load: seconds of reading and adapting the checkpoint, twice: the saved classifier is proven to load.
        train: seconds of the whole training, or of features and fit.
        evaluate: seconds of all evaluations of validation.
        test: seconds of scoring test once, and what is scored again.
        example: seconds of scoring one example in a full batch.
        peak_memory_bytes: most memory resident at once.
        error: why it cannot be told, or None.
    """

    model: str
    method: str
    load: float = 0.0
    train: float = 0.0
    evaluate: float = 0.0
    test: float = 0.0
    example: float = 0.0
    peak_memory_bytes: int = 0
    error: str | None = None

    @property
    def trial_seconds(self) -> float:
        """One trial."""
        return self.load + self.train + self.evaluate + self.test

    def slowed(self, by: float) -> CandidateCost:
        """Return the same beside other work."""
        parts = {name: by * getattr(self, name) for name in ("load", "train", "evaluate", "test", "example")}
        return replace(self, **parts)


@dataclass(frozen=True)
class Work:
    """What is left to do.

    Attributes:
        plans: every trial of the run.
        left: those that are not complete.
        points: points of learning curves that are not complete.
        tuned: model and candidate of finished studies, once a split and repeat.
        budget: of tuning.
        placement: how each model is loaded, as environment.json holds it.
        splits: on how many every candidate is run.
        num_external: examples of the external test sets.
    """

    plans: Sequence[TrialPlan]
    left: Sequence[TrialPlan]
    points: Sequence[PointPlan]
    tuned: Collection[tuple[str, str]]
    budget: BudgetSettings
    placement: Mapping[str, Sequence[Mapping[str, Any]]]
    splits: int = 1
    num_external: int = 0


def cost_of(plan: TrialPlan, split: Split, facts: ModelFacts | None) -> CandidateCost:
    """Count what one trial takes on this machine with nothing else on it.

    Args:
        plan: the trial.
        split: train and validation are looked at; of test only the size.
        facts: of its model; None for a baseline on words, and for a model on a server.
    """
    sizes = {name: len(part) for name, part in split.parts()}
    if facts is None and plan.method.reads_prompt:
        return CandidateCost(plan.model, plan.candidate, error="how long its server takes is not known")
    if facts is None:
        sample = split.train[:SAMPLE]
        characters = sum(len(one.text) + len(one.text_pair or "") for one in sample) / len(sample)
        seconds = WORDS_SECONDS + WORD_SECONDS * characters * sizes["train"]
        return CandidateCost(plan.model, plan.candidate, train=seconds, peak_memory_bytes=resident_bytes())
    method = plan.method
    tokens = facts.tokens + getattr(method, "num_virtual_tokens", 0)
    forward = tokens * facts.operations / facts.speed  # seconds of one example
    load = TRIAL_SECONDS + 2 * facts.load_bytes / LOAD_BYTES_A_SECOND
    evaluations, train, batch_tokens, kept = 0.0, 0.0, plan.scoring_batch_tokens, 0
    if isinstance(method, TrainedMethod):
        step = tokens * facts.operations / facts.training_speed
        train = method.num_train_epochs * sizes["train"] * step * method.train_passes
        steps = math.ceil(sizes["train"] / method.per_device_train_batch_size) * method.num_train_epochs
        evaluations = method.num_train_epochs if method.eval_strategy == "epoch" else steps / method.eval_steps
        batch_tokens = method.max_batch_tokens or round(method.per_device_train_batch_size * tokens)
        # gradient, two moments and the best weights of all that is trained; adapters are small
        kept = 16 * facts.parameters if method.stores_whole_model else 0
    elif method.train_passes:  # features of train and validation, and a fit
        train = (sizes["train"] + sizes["validation"]) * forward * method.train_passes
    else:
        evaluations = int(method.calibrates_on_validation)
    again = 2 * min(sizes["validation"], RELOAD_EXAMPLES)
    alone = SMALL_BATCH * min(sizes["validation"], LATENCY_EXAMPLES)
    activations = 4 * batch_tokens * facts.layer_floats
    return CandidateCost(
        plan.model,
        plan.candidate,
        load=load,
        train=train,
        evaluate=evaluations * sizes["validation"] * forward,
        test=(sizes["test"] + again + alone) * forward,
        example=forward,
        peak_memory_bytes=resident_bytes() + facts.load_bytes + kept + activations,
    )


def _facts(plan: TrialPlan, split: Split, placement: Sequence[Mapping[str, Any]]) -> ModelFacts:
    sample = [*split.train[:SAMPLE], *split.validation[:SAMPLE]]
    texts = [" ".join(filter(None, (example.text, example.text_pair))) for example in sample]
    prompt = plan.prompt.template if plan.method.objective == "language_model" else None
    placed = next(one for one in placement if plan.candidate in one["candidates"])
    half = plan.precision is not None and plan.precision.precision == "bf16"
    return facts_of(plan.model, plan.settings, placed, texts, prompt, half=half)


def estimate_candidates(work: Work, split: Split, slowdown: float = 1.0) -> list[Mapping[str, Any]]:
    """Return what each candidate with something left to do is expected to take.

    Args:
        work: what is left to do.
        split: as for :func:`cost_of`.
        slowdown: by other work on the machine.

    Returns:
        One mapping a candidate: the fields of :class:`CandidateCost`, `trial_seconds`, `trials`, `tuning_seconds`,
        `curve_seconds`, `external_seconds`, and `seconds` in all.
    """
    documents: list[Mapping[str, Any]] = []
    first: dict[tuple[str, str], TrialPlan] = {}
    for plan in work.plans:
        first.setdefault((plan.model, plan.candidate), plan)
    for name, plan in first.items():
        trials = sum((one.model, one.candidate) == name for one in work.left)
        points = [one for one in work.points if (one.plan.model, one.plan.candidate) == name]
        if not trials and not points:
            continue
        try:
            facts = None if plan.model == NO_MODEL else _facts(plan, split, work.placement[plan.model])
            cost = cost_of(plan, split, facts).slowed(slowdown)
        except RunError as error:
            cost = CandidateCost(plan.model, plan.candidate, error=str(error))
        studies = max(0, work.splits * work.budget.repeats - sum(one == name for one in work.tuned))
        tuning = studies * _tuning_seconds(plan, work.budget, cost, len(split.train)) if studies else 0.0
        curve = sum(_point_seconds(point, cost, split) for point in points)
        external = trials * (cost.load / 2 + work.num_external * cost.example) if work.num_external else 0.0
        documents.append(
            {
                **asdict(cost),
                "trial_seconds": cost.trial_seconds,
                "trials": trials,
                "tuning_seconds": tuning,
                "curve_seconds": curve,
                "external_seconds": external,
                "seconds": trials * cost.trial_seconds + tuning + curve + external,
            }
        )
    return documents


def _tuning_seconds(plan: TrialPlan, budget: BudgetSettings, cost: CandidateCost, num_train: int) -> float:
    if not budget.is_set or not (ranges := ranges_of(plan)) or cost.error:
        return 0.0
    method = plan.method
    if not isinstance(method, TrainedMethod):  # prompts: validation takes about what test takes
        combinations = math.prod(len(one.choices) for one in ranges.values())
        tried = min(budget.trials or combinations, combinations)
        asked = tried * (cost.load / 2 + cost.evaluate + cost.test)
        return asked if budget.minutes is None else 60 * budget.minutes
    training, start = cost.train + cost.evaluate, cost.load / 2
    if budget.minutes is not None:
        return 60 * budget.minutes
    evaluations = max(1, math.ceil(method.num_train_epochs))
    if budget.trials is not None:
        return budget.trials * (start + expected_share(budget, budget.trials, evaluations) * training)
    assert budget.examples is not None
    trainings = budget.examples / (num_train * method.num_train_epochs)
    begun = max(1, round(trainings / expected_share(budget, max(1, round(trainings)), evaluations)))
    return begun * start + trainings * training


def _point_seconds(point: PointPlan, cost: CandidateCost, split: Split) -> float:
    """Scale a trial to a smaller sample; classifiers of a curve are not saved."""
    train = cost.train * point.more_epochs * point.num_train / len(split.train)
    return cost.load / 2 + train + cost.evaluate * point.more_epochs + cost.test


def estimate_trials(work: Work, split: Split, folder: RunFolder) -> Mapping[str, Any]:
    """Estimate what is left to do, keep it in estimate.json for the comparison with what comes, and return it.

    Args:
        work: what is left to do.
        split: as for :func:`cost_of`.
        folder: of the run.

    Returns:
        `candidates`, `seconds` of all, libraries, comparison and page included, with `low` and `high`, the `slowdown`
        by other work that is in them, `peak_memory_bytes`, and `ends`, the local time at `high`.
    """
    slow = measure_slowdown(models=any(plan.model != NO_MODEL for plan in work.left))
    candidates = estimate_candidates(work, split, slow.now)
    now = datetime.now(UTC)
    names = {(candidate["model"], candidate["method"]) for candidate in candidates}
    kept = [one for one in _earlier(folder) if (one["model"], one["method"]) not in names]
    if candidates:
        document = {"version": ESTIMATE_VERSION, "made": now.isoformat(timespec="seconds")}
        write_checked_json(folder.estimate_file, {**document, "candidates": [*kept, *candidates]})
    return {"candidates": candidates, **_whole(candidates, slow, now)}


def _whole(candidates: Sequence[Mapping[str, Any]], slow: Slowdown, now: datetime) -> Mapping[str, Any]:
    known = [candidate for candidate in candidates if not candidate["error"]]
    trials = sum(candidate["trials"] for candidate in known)
    around = COMPARE_SECONDS * _comparisons(trials) * (len(known) + 1) / 2 + PAGE_SECONDS  # candidates come one by one
    around += LIBRARIES_SECONDS * any(candidate["model"] != NO_MODEL for candidate in known)
    seconds = sum(candidate["seconds"] for candidate in known) + (slow.now * around if known else 0.0)
    high = seconds / slow.now * slow.high * RANGE
    return {
        "seconds": seconds,
        "low": seconds / slow.now * slow.low / RANGE,
        "high": high,
        "slowdown": slow.now,
        "peak_memory_bytes": max((candidate["peak_memory_bytes"] for candidate in candidates), default=0),
        "ends": (now + timedelta(seconds=high)).astimezone().isoformat(timespec="seconds"),
    }


def _comparisons(trials: int) -> int:
    count = compared = 0
    while compared < trials:
        count, compared = count + 1, next_comparison(compared)
    return count


def expected_memory(folder: RunFolder) -> dict[tuple[str, str], int]:
    """Return the bytes a trial is expected to need, by model and candidate; none where nothing was estimated."""
    return {(one["model"], one["method"]): one["peak_memory_bytes"] for one in _earlier(folder) if not one["error"]}


def _earlier(folder: RunFolder) -> list[Mapping[str, Any]]:
    """Return the candidates of the estimate in the folder; none where it is missing, damaged or old."""
    try:
        found = read_checked_json(folder.estimate_file, "")
        candidates: list[Mapping[str, Any]] = found["candidates"] if found["version"] == ESTIMATE_VERSION else []
        for candidate in candidates:
            CandidateCost(**{name: candidate[name] for name in CandidateCost.__dataclass_fields__})
    except (RunError, KeyError, TypeError, AttributeError):
        return []
    return candidates


def estimate_document(
    folder: RunFolder, records: Iterable[RunRecord], tuning: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """Return what comparison.json holds under `estimate`: what was expected of each candidate, and what it took.

    Args:
        folder: the run folder.
        records: every trial.
        tuning: the studies, as comparison.json holds them.

    Returns:
        `candidates` with `model`, `method`, and for `trial_seconds`, `tuning_seconds` and `peak_memory_bytes` each what
        was `estimate`, what was `measured` (None where there is nothing yet), and their `ratio`; the same of
        `all_trials`; None where the folder has no estimate.
    """
    candidates = _earlier(folder)
    if not candidates:
        return None
    complete = by_candidate(record for record in records if record.status == "complete")
    studies = (tuning or {"studies": []})["studies"]
    spent: dict[tuple[str, str], float] = {}  # over all splits
    for one in studies:
        if one["status"] == "finished":
            name = one["model"], one["method"]
            spent[name] = spent.get(name, 0.0) + one["seconds"]
    documents, expected, taken = [], 0.0, 0.0
    for candidate in candidates:
        key = candidate["model"], candidate["method"]
        found = complete.get(key, [])
        walls = [record.provenance["wall_seconds"] for record in found if "wall_seconds" in record.provenance]
        if not candidate["error"]:
            expected, taken = expected + candidate["trial_seconds"] * len(walls), taken + sum(walls)
        peaks = [record.costs.peak_memory_bytes for record in found]
        documents.append(
            {
                "model": candidate["model"],
                "method": candidate["method"],
                "error": candidate["error"],
                "trial_seconds": _against(candidate["trial_seconds"], statistics.fmean(walls) if walls else None),
                "tuning_seconds": _against(candidate["tuning_seconds"], spent.get(key)),
                "peak_memory_bytes": _against(candidate["peak_memory_bytes"], max(peaks, default=None)),
            }
        )
    return {"candidates": documents, "all_trials": _against(expected, taken or None)}


def _against(estimate: float, measured: float | None) -> dict[str, float | None]:
    return {"estimate": estimate, "measured": measured, "ratio": estimate / measured if measured else None}
