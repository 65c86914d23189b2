"""Trials of several splits brought together: folds of a cross-validation, or cuts into train, validation and test.

Records go in, and what comparison.py takes for one split comes out: a candidate's folds become one record.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np

from entailor.evaluation.variance import Folds, Scored, cluster_sums
from entailor.runs.layout import RunFolder
from entailor.runs.record import SPLIT, Costs, RunRecord


@dataclass(frozen=True)
class Resampling:
    """How a run's splits were made, as comparison.json holds it.

    Attributes:
        kind: `cv`, or `splits`.
        numbers: of the splits that candidates are tested on.
        repeats: how often a cross-validation tests each example; 1 without one.
        same_test: whether all splits have the same test examples.
        test_share: test examples for each example of train and validation, mean over the splits.
        num_test: different examples that are tested.
    """

    kind: Literal["cv", "splits"]
    numbers: tuple[int, ...]
    repeats: int
    same_test: bool
    test_share: float
    num_test: int

    @classmethod
    def of(cls, comparison: Mapping[str, Any]) -> Resampling | None:
        """Return what comparison.json says of several splits; None of one."""
        found = comparison.get("resampling")
        return cls(**{**found, "numbers": tuple(found["numbers"])}) if found else None


@dataclass(frozen=True)
class Pooled:
    """What candidates gave over all splits.

    Attributes:
        records: of each candidate and seed that is complete on every split, one; where all splits have the same test
            examples, one a split. Then those that failed.
        folds: which fold each prediction is of; None where all splits have the same test examples.
        resampling: how the splits were made.
    """

    records: tuple[RunRecord, ...]
    folds: Folds | None
    resampling: Resampling


def pool(records: Mapping[int, Sequence[RunRecord]], resampling: Resampling) -> Pooled:
    """Bring the trials of all splits together.

    A candidate with a seed that lacks a split is left out with this seed: on other examples it would be compared with
    nobody.

    Args:
        records: by the number of their split.
        resampling: how the splits were made.
    """
    found: dict[tuple[str, str, int], dict[int, RunRecord]] = {}
    failed = []
    for number in resampling.numbers:
        for record in records.get(number, ()):
            named = replace(record, provenance={**record.provenance, SPLIT: number})
            if record.status == "complete":
                found.setdefault((record.model, record.name, record.seed), {})[number] = named
            else:
                failed.append(named)
    whole = [list(one.values()) for one in found.values() if len(one) == len(resampling.numbers)]
    if resampling.same_test:
        # another split gives another classifier, also where another seed does not
        rows = [replace(one, provenance={**one.provenance, "deterministic": False}) for each in whole for one in each]
        return Pooled((*rows, *failed), None, resampling)
    folds = None
    if whole:
        sizes = [len(one.predictions) for one in whole[0]]
        folds = Folds(np.repeat(np.arange(len(sizes)), sizes), resampling.test_share)
    again = resampling.kind != "cv" or resampling.repeats > 1
    return Pooled((*(_joined(parts, again=again) for parts in whole), *failed), folds, resampling)


def compared_records(folder: RunFolder, resampling: Resampling | None) -> Sequence[RunRecord]:
    """Return the records that comparison.json is made of.

    Raises:
        RunError: one is missing or damaged.
    """
    if resampling is None:
        return [record for _, record in folder.records()]
    return read_pooled(folder, resampling).records


def read_pooled(folder: RunFolder, resampling: Resampling) -> Pooled:
    """Read the trials of all splits of a run folder, and bring them together."""
    found = {number: [record for _, record in folder.split(number).records()] for number in resampling.numbers}
    return pool(found, resampling)


def _joined(parts: Sequence[RunRecord], *, again: bool) -> RunRecord:
    """Return one record for those of a candidate and seed on all splits.

    Args:
        parts: in the order of the splits.
        again: whether an example is tested more than once, so that its id does not name one answer.
    """
    first = parts[0]
    temperatures = [one.temperature for one in parts if one.temperature is not None]
    predictions = [
        replace(one, id=f"{one.id} (split {part.provenance[SPLIT]})") if again else one
        for part in parts
        for one in part.predictions
    ]
    events = {event.text: event for part in parts for event in part.events}
    walls = [part.provenance["wall_seconds"] for part in parts if "wall_seconds" in part.provenance]
    provenance = {key: value for key, value in first.provenance.items() if key != SPLIT}
    return replace(
        first,
        costs=_mean_costs([part.costs for part in parts]),
        events=tuple(events.values()),
        provenance={**provenance, **({"wall_seconds": statistics.fmean(walls)} if walls else {})},
        predictions=tuple(predictions),
        temperature=statistics.geometric_mean(temperatures) if len(temperatures) == len(parts) else None,
        validation_predictions=tuple(one for part in parts for one in part.validation_predictions),
    )


def _mean_costs(costs: Sequence[Costs]) -> Costs:
    """Return the mean of each cost; of peaks the highest, and counts stay whole."""
    values: dict[str, Any] = {}
    for field in fields(Costs):
        known = [value for one in costs if (value := getattr(one, field.name)) is not None]
        if not known:
            values[field.name] = None
        elif field.name.startswith("peak_"):
            values[field.name] = max(known)
        else:
            mean = statistics.fmean(known)
            values[field.name] = round(mean) if all(isinstance(value, int) for value in known) else mean
    return Costs(**values)


@dataclass(frozen=True, slots=True)
class Components:
    """Standard deviations of one classifier's figure, by where they come from.

    Attributes:
        test: from another test sample of the size of one split's.
        seed: from another seed on the same split; None where there is one seed, or seeds change nothing.
        split: from other train and validation parts, and from the seed where that is None; None with one split.
    """

    test: float
    seed: float | None
    split: float | None


def components(candidate: Scored) -> dict[str, float | None]:
    """Return the standard deviations of a candidate's figure; variances are without bias, and 0 where that is below."""
    if candidate.folds is not None:
        parts = [_columns(candidate, number) for number in range(int(candidate.folds.fold_N.max()) + 1)]
        between = float(candidate.folds.means(candidate.mean_N).var(ddof=1))
    elif candidate.split_S is not None:
        parts = [
            replace(candidate, values_SN=candidate.values_SN[candidate.split_S == number], split_S=None)
            for number in np.unique(candidate.split_S)
        ]
        own = candidate.seed_variance
        between = own.between - own.disagreement if own else 0.0
    else:
        parts, between = [candidate], None
    test = statistics.fmean(_test_variance(one) for one in parts)
    known = [own for one in parts if (own := one.seed_variance) is not None and candidate.varies]
    seed = statistics.fmean(one.between - one.disagreement for one in known) if known else None
    split = None
    if between is not None:
        noise = seed / known[0].seeds if seed is not None else 0.0
        split = between - noise - (test if candidate.folds is not None else 0.0)
    values = Components(*(None if one is None else math.sqrt(max(0.0, one)) for one in (test, seed, split)))  # type: ignore[arg-type]
    return asdict(values)


def _columns(candidate: Scored, fold: int) -> Scored:
    assert candidate.folds is not None
    return candidate.among(np.flatnonzero(candidate.folds.fold_N == fold).tolist())


def _test_variance(part: Scored) -> float:
    sums_G = cluster_sums(part.mean_N - part.mean, part.cluster_N)
    return float((sums_G**2).sum()) * len(sums_G) / max(1, len(sums_G) - 1) / len(part.mean_N) ** 2
