"""The comparison of all trials of a run: candidates with costs, intervals and tests, and what to ship.

The content of comparison.json is made here; how it is shown is the report's business.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from entailor.config.parts import Priorities
from entailor.errors import RunError
from entailor.evaluation.alignment import aligned
from entailor.evaluation.confidence import confidence_of
from entailor.evaluation.metrics import (
    Metrics,
    Outcome,
    beyond_chance,
    clusters,
    evaluate_record,
    most_frequent,
    outcome,
)
from entailor.evaluation.pairs import SIGNIFICANCE, Pairs, compare_all, compare_scored
from entailor.evaluation.power import POWER, detectable_difference, freedom_of_usual, usual_of
from entailor.evaluation.recommendation import CandidateKey, key_of, mark_pareto, recommend
from entailor.evaluation.resampling import Pooled, components
from entailor.evaluation.selection import corrected_best
from entailor.evaluation.statistics import accuracy_interval, clustering, holm
from entailor.evaluation.targets import OF_PROBABILITIES, Target, targets_of, undefined
from entailor.evaluation.variance import Folds, Scored, spread_of_mean
from entailor.evaluation.wording import interval, percent, short_model_names
from entailor.runs.record import SPLIT, RunRecord, by_candidate

MOST_IN_MATRIX = 100  # labels of a confusion matrix: of 1,000 it would fill ten megabytes for each candidate
MOST_CONFUSIONS = 20


def compare_records(
    records: Sequence[RunRecord],
    *,
    priorities: Priorities | None = None,
    extra: Mapping[str, Any] | None = None,
    pooled: Pooled | None = None,
) -> Mapping[str, Any]:
    """Return the content of comparison.json.

    Candidates stand best first. Figures are means over the seeds that finished, peaks of memory the highest of them.
    Every two candidates are tested on the same examples; p-values are corrected for the number of pairs (Holm), and
    those tied with the best for the number of comparisons with it.

    Args:
        records: every trial, complete or failed; all complete ones over the same test examples and labels.
        priorities: what counts when one candidate is recommended.
        extra: further top-level keys, e.g. the run's name; they do not replace those made here.
        pooled: where `records` are those of several splits brought together.

    Raises:
        RunError: no records, or records over different test examples, gold labels or label sets.
        ConfigError: costs that are not those of the labels.
    """
    if not records:
        raise RunError("There is no trial to compare. Run `entailor compare` first")
    complete = aligned([record for record in records if record.status == "complete"])
    seeds = by_candidate(complete)
    outcomes = {key: [outcome(record) for record in candidate] for key, candidate in seeds.items()}
    failed = [_failure(record) for record in records if record.status != "complete"]
    priorities = priorities or Priorities()
    targets = targets_of(priorities, (complete or records)[0].labels)
    target = targets[priorities.metric]
    folds = pooled.folds if pooled else None
    candidates, scored, pairs = _tested(seeds, outcomes, failed, folds, targets, target)
    gold_N = next(iter(outcomes.values()))[0].gold_N if outcomes else np.array([], dtype=np.int64)
    chance = float(np.bincount(gold_N).max() / len(gold_N)) if len(gold_N) else None
    num_test = pooled.resampling.num_test if pooled else len(gold_N)
    claims = "methods" if _holds_seeds(scored.values()) else "classifiers"
    winner = _winner(candidates, scored, target, claims)
    return {
        **(extra or {}),
        "labels": list((complete or records)[0].labels),
        "num_test": num_test,
        "resampling": asdict(pooled.resampling) if pooled else None,
        "majority_accuracy": chance,
        "metric": target.name,
        "candidates": candidates,
        "pairs": _pair_lines(pairs),
        "claims": claims,
        "clustering": (found := clustering(list(scored.values()))) and asdict(found),
        "detectable": _detectable(pairs, candidates),
        "winner": winner,
        "sentence": winner["sentence"] if winner else f"No trial finished: {len(failed)} of {len(failed)} failed.",
        "recommendation": recommend(candidates, pairs, priorities, num_test),
        "failed": failed,
    }


def _tested(
    seeds: Mapping[CandidateKey, Sequence[RunRecord]],
    outcomes: Mapping[CandidateKey, Sequence[Outcome]],
    failed: Sequence[Mapping[str, Any]],
    folds: Folds | None,
    targets: Mapping[str, Target],
    target: Target,
) -> tuple[list[dict[str, Any]], dict[CandidateKey, Scored], Pairs[CandidateKey]]:
    """Return the candidates with what the tests say of each, best first, and what was tested."""
    by_key = {key: scored_by(target, candidate, outcomes[key], folds) for key, candidate in seeds.items()}
    # the name settles what is equal: measured times would differ
    scored = dict(sorted(by_key.items(), key=lambda item: (-round(item[1].mean, 12), *item[0])))
    candidates = [
        _candidate(seeds[key], outcomes[key], failed, folds, targets) | {"variance": components(one)}
        for key, one in scored.items()
    ]
    pairs = compare_all(scored)
    _mark_groups(candidates, pairs)
    _test_against_majority(candidates, outcomes, scored, target)
    mark_pareto(candidates, target)
    return candidates, scored, pairs


def _failure(record: RunRecord) -> Mapping[str, Any]:
    named = {"model": record.model, "method": record.name, "seed": record.seed, "error_type": record.error_type}
    split = {SPLIT: record.provenance[SPLIT]} if SPLIT in record.provenance else {}
    return {**named, "error": record.error or "no reason given", **split}


def scored_by(
    target: Target, records: Sequence[RunRecord], outcomes: Sequence[Outcome], folds: Folds | None = None
) -> Scored:
    """Return what each seed of a candidate gives for each example by a metric; more is better.

    Raises:
        RunError: test has no such figure.
    """
    found = _by(target, outcomes, scored_candidate(records, outcomes, folds))
    if np.isnan(found.mean):
        raise RunError(undefined(target))
    return found


def _by(target: Target, outcomes: Sequence[Outcome], like: Scored) -> Scored:
    return replace(like, values_SN=target.gain(outcomes, like.varies, like.cluster_N).values_SN)


def scored_candidate(records: Sequence[RunRecord], outcomes: Sequence[Outcome], folds: Folds | None = None) -> Scored:
    """Return which examples each seed of a candidate gets right, and whether seeds matter to it at all."""
    varies = not all(record.provenance.get("deterministic", False) for record in records)
    found = [record.provenance.get(SPLIT) for record in records]
    split_S = None if None in found else np.array(found, dtype=np.int64)
    return Scored(np.array([result.correct_N for result in outcomes]), varies, clusters(records[0]), split_S, folds)


def _holds_seeds(scored: Iterable[Scored]) -> bool:
    """Return whether what is found is about methods: every one that varies has several seeds."""
    return all(len(one.values_SN) > 1 or not one.varies or one.folds is not None for one in scored)


def _candidate(
    records: Sequence[RunRecord],
    outcomes: Sequence[Outcome],
    failed: Sequence[Mapping[str, Any]],
    folds: Folds | None,
    targets: Mapping[str, Target],
) -> dict[str, Any]:
    """Return everything about one (model, candidate name), still without its test against the best candidate."""
    first = records[0]
    metrics = [evaluate_record(record) for record in records]
    by_seed: dict[int, list[float]] = {}
    for record, one in zip(records, metrics, strict=True):
        by_seed.setdefault(record.seed, []).append(one.accuracy.value)
    per_seed = [*map(statistics.fmean, by_seed.values())]
    scored = scored_candidate(records, outcomes, folds)
    found = accuracy_interval(scored)
    shipped = accuracy_interval(replace(scored, values_SN=scored.values_SN[:1], split_S=None))
    return {
        "model": first.model,
        "method": first.name,
        "registered_method": first.method,
        "num_seeds": len(by_seed),
        "seeds": list(by_seed),
        "accuracy": {
            "mean": statistics.fmean(per_seed),
            "low": found.low,
            "high": found.high,
            "worst": min(per_seed),
            "std": statistics.stdev(per_seed) if len(per_seed) > 1 else None,
            "per_seed": per_seed,
        },
        # of the first seed's classifier, without the chance of seeds; with folds no single one was tested
        "shipped_accuracy": asdict(shipped) if folds is None else None,
        "intervals": _intervals(outcomes, scored, targets),
        **{
            name: _mean([getattr(one, name) for one in metrics])
            for name in ("macro_f1", "mcc", "weighted_kappa", "log_loss", "ece", "majority_share")
        },
        **_costs(records),
        "per_label": label_means(metrics),
        **_confusions(first.labels, np.sum([one.confusion for one in metrics], axis=0)),
        "groups": accuracy_by_group(records, outcomes),
        **confidence_of(records, outcomes),
        "hyperparameters": dict(first.hyperparameters),
        "events": [
            {"seed": record.seed, "kind": event.kind, "severity": event.severity, "text": event.text}
            for record in records
            for event in record.events
        ],
        "failed_seeds": [
            {"seed": one["seed"], "error": one["error"], "error_type": one["error_type"]}
            for one in failed
            if (one["model"], one["method"]) == (first.model, first.name)
        ],
    }


def _confusions(labels: Sequence[str], counts_LL: npt.NDArray[np.int64]) -> Mapping[str, Any]:
    """Return the confusion matrix, which of many labels would be too large to be read back, and the usual mistakes."""
    rows, columns = np.nonzero(counts_LL * ~np.eye(len(labels), dtype=bool))
    most = np.argsort(-counts_LL[rows, columns], kind="stable")[:MOST_CONFUSIONS]
    return {
        "confusion": counts_LL.tolist() if len(labels) <= MOST_IN_MATRIX else None,
        "confusions": [
            {
                "gold": labels[gold],
                "predicted": labels[predicted],
                "count": int(counts_LL[gold, predicted]),
                "share": float(counts_LL[gold, predicted] / counts_LL[gold].sum()),
            }
            for gold, predicted in zip(rows[most].tolist(), columns[most].tolist(), strict=True)
        ],
    }


def _intervals(outcomes: Sequence[Outcome], scored: Scored, targets: Mapping[str, Target]) -> Mapping[str, Any]:
    """Return every metric with its 95 % interval; None where test does not define it."""
    values = {name: _by(target, outcomes, scored) for name, target in targets.items()}
    return {name: None if np.isnan(one.mean) else asdict(targets[name].interval(one)) for name, one in values.items()}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _highest(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _costs(records: Sequence[RunRecord]) -> Mapping[str, Any]:
    def over_seeds(name: str, reduce: Callable[[list[Any]], float | None] = _mean) -> float | None:
        return reduce([getattr(record.costs, name) for record in records])

    def whole(name: str, reduce: Callable[[list[Any]], float | None] = _mean) -> int | None:
        value = over_seeds(name, reduce)
        return None if value is None else round(value)

    seconds = ("load_seconds", "tokenize_seconds", "train_seconds", "evaluate_seconds", "cost_per_thousand")
    other = ("test_examples_per_second", "latency_p50_ms", "latency_p95_ms", "epochs", "truncated_share")
    sizes = ("trainable_parameters", "stored_parameters", "total_parameters", "stored_bytes")
    return {
        "examples_per_second": over_seeds("train_examples_per_second"),
        **{name: over_seeds(name) for name in (*seconds, *other)},
        **{name: whole(name) for name in sizes},
        **{name: whole(name, _highest) for name in ("peak_memory_bytes", "peak_gpu_memory_bytes")},
    }


def label_means(metrics: Sequence[Metrics]) -> dict[str, dict[str, float | None]]:
    """Return label to precision, recall and F1, means over the seeds for which they are defined, and support."""
    return {
        label: {
            "precision": _mean([one.per_label[label].precision for one in metrics]),
            "recall": _mean([one.per_label[label].recall for one in metrics]),
            "f1": _mean([one.per_label[label].f1 for one in metrics]),
            "support": metrics[0].per_label[label].support,
        }
        for label in metrics[0].labels
    }


class GroupAccuracy(TypedDict):
    """Examples of a group, and the accuracy on them: the fields of `Proportion`."""

    n: int
    accuracy: Mapping[str, float]


def accuracy_by_group(records: Sequence[RunRecord], outcomes: Sequence[Outcome]) -> dict[str, GroupAccuracy]:
    """Return group to its number of examples and its accuracy with an interval, in order of first appearance."""
    members: dict[str, list[int]] = {}
    for i, one in enumerate(records[0].predictions):
        if one.group is not None:
            members.setdefault(one.group, []).append(i)
    whole = scored_candidate(records, outcomes)
    return {
        group: {"n": len(places), "accuracy": asdict(accuracy_interval(whole.among(places)))}
        for group, places in members.items()
    }


def _mark_groups(candidates: Sequence[dict[str, Any]], pairs: Pairs[CandidateKey]) -> None:
    """Give every candidate `group`, `best`, `difference_to_best`, `p_best` and `tied_with_best`; best stands first."""
    letters = pairs.letters
    for i, candidate in enumerate(candidates):
        against = pairs.between(key_of(candidate), key_of(candidates[0])) if i else None
        candidate["best"] = i == 0
        candidate["group"] = letters[key_of(candidate)]
        candidate["difference_to_best"] = against and asdict(against)
        candidate["p_best"] = pairs.p_best(key_of(candidate))
        candidate["tied_with_best"] = against is not None and pairs.may_be_best(key_of(candidate))


def _test_against_majority(
    candidates: Sequence[dict[str, Any]],
    outcomes: Mapping[CandidateKey, Sequence[Outcome]],
    scored: Mapping[CandidateKey, Scored],
    target: Target,
) -> None:
    """Give every candidate `beats_majority` and `p_majority`: do its answers agree with gold beyond what chance gives?

    Accuracy alone does not see a useful classifier of a rare class, and the majority baseline agrees with gold no more
    than chance does. Where the metric is of probabilities, these stand for the answers. A candidate that agrees and is
    significantly worse than the baseline by the metric does not beat it: the metric is what was asked for.
    One-sided, with clusters and seeds, corrected for the number of candidates.
    """
    agreeing, worse = [], []
    by_probability = target.name in OF_PROBABILITIES
    for candidate in candidates:
        own, results = scored[key_of(candidate)], outcomes[key_of(candidate)]
        agreement = replace(
            own, values_SN=np.array([beyond_chance(one, by_probability=by_probability) for one in results])
        )
        agreeing.append(spread_of_mean(agreement).p_below(-agreement.mean))
        always = replace(_by(target, [most_frequent(results[0])], own), varies=False, split_S=None)
        worse.append(compare_scored(own, always).p_worse)
    for candidate, p, p_worse in zip(candidates, holm(agreeing), holm(worse), strict=True):
        candidate["p_majority"] = p
        candidate["beats_majority"] = p < SIGNIFICANCE <= p_worse


def _pair_lines(pairs: Pairs[CandidateKey]) -> list[Mapping[str, Any]]:
    return [
        {
            "a": {"model": a[0], "method": a[1]},
            "b": {"model": b[0], "method": b[1]},
            **asdict(one),
            "significant": one.significant,
        }
        for (a, b), one in pairs.differences.items()
    ]


def _detectable(pairs: Pairs[CandidateKey], candidates: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the least lead of the best this test shows, at the variances of this run (medians over the pairs)."""
    if not pairs.differences:
        return None
    spread = usual_of([one.spread for one in pairs.differences.values()])
    known = freedom_of_usual(spread, len(candidates))
    return {
        "difference": detectable_difference(spread, len(candidates) - 1, known),
        "one_pair": detectable_difference(spread, known=known),
        "discordant": statistics.median(one.discordant for one in pairs.differences.values()),
        "comparisons": len(candidates) - 1,
        "seed_share": spread.seeds / spread.variance if spread.variance else 0.0,
        "power": POWER,
    }


def _winner(
    candidates: Sequence[Mapping[str, Any]], scored: Mapping[CandidateKey, Scored], target: Target, claims: str
) -> Mapping[str, Any] | None:
    if not candidates:
        return None
    best = candidates[0]
    corrected = corrected_best(list(scored.values()), target)
    tied = [candidate for candidate in candidates if candidate["tied_with_best"]]
    return {
        "model": best["model"],
        "method": best["method"],
        "accuracy": {key: best["accuracy"][key] for key in ("mean", "low", "high")},
        "corrected": asdict(corrected),
        "tied_with": [{"model": candidate["model"], "method": candidate["method"]} for candidate in tied],
        "sentence": _sentence(
            best, tied, len(candidates), short_model_names([one["model"] for one in candidates]), target, claims
        ),
    }


def _figure(target: Target, found: Mapping[str, float]) -> str:
    """Return the metric with its interval; accuracy in percent and without its name."""
    if target.name == "accuracy":
        return f"{percent(found['value'])} ({interval(found['low'], found['high'])})"
    return f"{target.title} {found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _sentence(
    best: Mapping[str, Any],
    tied: Sequence[Mapping[str, Any]],
    num_candidates: int,
    short: Mapping[str, str],
    target: Target,
    claims: str,
) -> str:
    figure = _figure(target, best["intervals"][target.name])
    name = best["method"] + (f" on {short[best['model']]}" if best["model"] in short else "")
    if num_candidates == 1:
        return f"{name} reaches {figure}; there is nothing to compare it with."
    named = short if len(short) > 1 else {}
    names = [
        candidate["method"] + (f" on {named[candidate['model']]}" if candidate["model"] in named else "")
        for candidate in tied
    ]
    classifiers = claims == "classifiers"
    if names:
        listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
        standing = f"{listed} may be the best as well (95 % confidence)"
    else:
        worse = "classifier" if classifiers else "candidate"
        standing = f"every other {worse} is significantly worse (p < 0.05, corrected for their number)"
    if classifiers:
        standing += "; with one seed this holds for these classifiers, not for the methods"
    chance = "" if best["beats_majority"] else " Yet it is not better than the majority baseline."
    if best["registered_method"] == "majority":
        chance = " It is the majority baseline."
    return f"{name} is best with {figure}; {standing}.{chance}"
