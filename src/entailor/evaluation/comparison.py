"""The comparison of all trials of a run: one row a (model, row name), with costs, intervals and paired tests.

The content of comparison.json is made here; how it is shown is the report's business.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from entailor.errors import RunError
from entailor.evaluation.calibration import reliability_bins
from entailor.evaluation.metrics import Metrics, Outcome, evaluate_record, outcome
from entailor.evaluation.statistics import compare_correctness, holm, wilson_interval
from entailor.record import NO_MODEL, RunRecord

SIGNIFICANCE = 0.05

RowKey = tuple[str, str]
Correct = npt.NDArray[np.bool_]


def compare_records(records: Sequence[RunRecord], *, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the content of comparison.json.

    Rows stand best first. Figures are means over the seeds that finished, peaks of memory the highest of them. Each
    row is tested against the best one on the same examples; p-values are corrected for the number of rows (Holm).

    Args:
        records: every trial, complete or failed; all complete ones over the same test examples and labels.
        extra: further top-level keys, e.g. the run's name; they do not replace those made here.

    Raises:
        RunError: no records, or records over different test examples, gold labels or label sets.
    """
    if not records:
        raise RunError("There is no trial to compare. Run `entailor compare` first")
    complete = _aligned([record for record in records if record.status == "complete"])
    seeds: dict[RowKey, list[RunRecord]] = {}
    for record in complete:
        seeds.setdefault((record.model, record.name), []).append(record)
    outcomes = {key: [outcome(record) for record in row] for key, row in seeds.items()}
    correct = {key: np.array([result.correct_N for result in row]) for key, row in outcomes.items()}
    failed = [
        {"model": record.model, "method": record.name, "seed": record.seed, "error": record.error or "no reason given"}
        for record in records
        if record.status != "complete"
    ]
    rows = [_row(row, outcomes[key], failed) for key, row in seeds.items()]
    rows.sort(key=lambda row: (-row["accuracy"]["mean"], row["train_seconds"]))
    _test_against_best(rows, correct)
    gold = [row.label for row in complete[0].predictions] if complete else []
    chance = max(map(gold.count, set(gold))) / len(gold) if gold else None
    for row in rows:
        row["above_chance"] = row["accuracy"]["low"] > chance
    winner = _winner(rows)
    return {
        **(extra or {}),
        "labels": list((complete or records)[0].labels),
        "num_test": len(gold),
        "chance": chance,
        "rows": rows,
        "winner": winner,
        "sentence": winner["sentence"] if winner else f"No trial finished: {len(failed)} of {len(failed)} failed.",
        "failed": failed,
    }


def hardest_examples(records: Sequence[RunRecord], n: int = 20) -> list[dict[str, Any]]:
    """Return the examples most rows got wrong, hardest first; examples no row got wrong are left out.

    A row with several seeds counts with the share of its seeds that were wrong, and says the label with the highest
    mean probability. Between examples equally often wrong, the one with the less probable gold label is harder.

    Args:
        records: as for :func:`compare_records`; failed ones are passed over.
        n: at most so many.

    Returns:
        One mapping an example: `id`, `text`, `text_pair`, `group`, `gold`, `wrong` (sum over rows), `num_rows`, and
        `said`, one of `model`, `method`, `label`, `probability`, `right` a row.
    """
    complete = _aligned([record for record in records if record.status == "complete"])
    if not complete:
        return []
    seeds: dict[RowKey, list[Outcome]] = {}
    for record in complete:
        seeds.setdefault((record.model, record.name), []).append(outcome(record))
    gold_N = seeds[complete[0].model, complete[0].name][0].gold_N
    means = {key: np.mean([result.probabilities_NL for result in row], axis=0) for key, row in seeds.items()}
    wrong_N = np.sum([1 - np.mean([result.correct_N for result in row], axis=0) for row in seeds.values()], axis=0)
    gold_probability_N = np.mean([mean_NL[np.arange(len(gold_N)), gold_N] for mean_NL in means.values()], axis=0)
    order = [int(i) for i in np.lexsort((gold_probability_N, -np.round(wrong_N, 9)))[:n] if wrong_N[i] > 0]
    labels, examples = complete[0].labels, complete[0].predictions
    return [
        {
            "id": examples[i].id,
            "text": examples[i].text,
            "text_pair": examples[i].text_pair,
            "group": examples[i].group,
            "gold": examples[i].label,
            "wrong": float(wrong_N[i]),
            "num_rows": len(seeds),
            "said": [
                {
                    "model": model,
                    "method": name,
                    "label": labels[int(mean_NL[i].argmax())],
                    "probability": float(mean_NL[i].max()),
                    "right": bool(mean_NL[i].argmax() == gold_N[i]),
                }
                for (model, name), mean_NL in means.items()
            ],
        }
        for i in order
    ]


def short_model_names(models: Sequence[str]) -> dict[str, str]:
    """Return model to last path component without `pypi:` and version; the full names where two would be the same.

    NO_MODEL, under which rows without a model stand, is left out.
    """
    unique = [model for model in dict.fromkeys(models) if model != NO_MODEL]
    short = {model: model.removeprefix("pypi:").split("==")[0].rstrip("/").split("/")[-1] or model for model in unique}
    return short if len(set(short.values())) == len(unique) else {model: model for model in unique}


def _aligned(complete: Sequence[RunRecord]) -> list[RunRecord]:
    """Bring labels and examples of all records into the order of the first, or say what does not match."""
    if not complete:
        return []
    first = complete[0]
    gold = _gold(first)
    aligned = []
    for record in complete:
        where = f"{_place(record)} and {_place(first)}"
        if set(record.labels) != set(first.labels):
            raise RunError(
                f"{where} have different labels ({', '.join(record.labels)}; {', '.join(first.labels)}). "
                "Only trials of one task can be compared"
            )
        own = _gold(record)
        if own.keys() != gold.keys():
            odd = min(own.keys() ^ gold.keys())
            raise RunError(
                f"{where} were tested on different examples ({len(own)} and {len(gold)}; {odd!r} stands in one only). "
                "Run both on the same test split"
            )
        differing = next((id_ for id_, label in own.items() if gold[id_] != label), None)
        if differing is not None:
            raise RunError(
                f"{where} have different gold labels for example {differing!r} "
                f"({own[differing]}; {gold[differing]}). Run both on the same test split"
            )
        by_id = {row.id: row for row in record.predictions}
        aligned.append(replace(record, labels=first.labels, predictions=tuple(by_id[id_] for id_ in gold)))
    return aligned


def _gold(record: RunRecord) -> dict[str, str]:
    gold = {row.id: row.label for row in record.predictions}
    if len(gold) != len(record.predictions):
        raise RunError(f"{_place(record)}: two test examples share an id. Give every example an id of its own")
    return gold


def _place(record: RunRecord) -> str:
    return f"{record.name} on {record.model}, seed {record.seed}"


def _row(
    records: Sequence[RunRecord], outcomes: Sequence[Outcome], failed: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return everything about one (model, row name), still without its test against the best row."""
    first = records[0]
    metrics = [evaluate_record(record) for record in records]
    per_seed = [one.accuracy.value for one in metrics]
    mean = statistics.fmean(per_seed)
    interval = wilson_interval(mean, metrics[0].num_examples)
    return {
        "model": first.model,
        "method": first.name,
        "registered_method": first.method,
        "num_seeds": len(records),
        "seeds": [record.seed for record in records],
        "accuracy": {
            "mean": mean,
            "low": interval.low,
            "high": interval.high,
            "std": statistics.stdev(per_seed) if len(per_seed) > 1 else None,
            "per_seed": per_seed,
        },
        **{
            name: _mean([getattr(one, name) for one in metrics])
            for name in ("macro_f1", "mcc", "log_loss", "ece", "majority_share")
        },
        **_costs(records),
        "per_label": _per_label(metrics),
        "confusion": np.sum([one.confusion for one in metrics], axis=0).tolist(),
        "groups": _groups(metrics),
        "reliability": _reliability(outcomes),
        "hyperparameters": dict(first.hyperparameters),
        "events": [{"seed": record.seed, "text": event} for record in records for event in record.events],
        "failed_seeds": [
            {"seed": one["seed"], "error": one["error"]}
            for one in failed
            if (one["model"], one["method"]) == (first.model, first.name)
        ],
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _highest(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _costs(records: Sequence[RunRecord]) -> dict[str, Any]:
    def over_seeds(name: str, reduce: Callable[[list[Any]], float | None] = _mean) -> float | None:
        return reduce([getattr(record.costs, name) for record in records])

    def whole(name: str, reduce: Callable[[list[Any]], float | None] = _mean) -> int | None:
        value = over_seeds(name, reduce)
        return None if value is None else round(value)

    seconds = ("load_seconds", "tokenize_seconds", "train_seconds", "evaluate_seconds")
    other = ("test_examples_per_second", "latency_p50_ms", "latency_p95_ms", "epochs", "truncated_share")
    sizes = ("trainable_parameters", "stored_parameters", "total_parameters", "stored_bytes")
    return {
        "examples_per_second": over_seeds("train_examples_per_second"),
        **{name: over_seeds(name) for name in (*seconds, *other)},
        **{name: whole(name) for name in sizes},
        **{name: whole(name, _highest) for name in ("peak_memory_bytes", "peak_gpu_memory_bytes")},
    }


def _per_label(metrics: Sequence[Metrics]) -> dict[str, dict[str, float | None]]:
    return {
        label: {
            "precision": _mean([one.per_label[label].precision for one in metrics]),
            "recall": _mean([one.per_label[label].recall for one in metrics]),
            "f1": _mean([one.per_label[label].f1 for one in metrics]),
            "support": metrics[0].per_label[label].support,
        }
        for label in metrics[0].labels
    }


def _groups(metrics: Sequence[Metrics]) -> dict[str, dict[str, Any]]:
    groups = {}
    for group, first in metrics[0].groups.items():
        mean = statistics.fmean(one.groups[group].accuracy.value for one in metrics)
        groups[group] = {"n": first.n, "accuracy": asdict(wilson_interval(mean, first.n))}
    return groups


def _reliability(outcomes: Sequence[Outcome]) -> list[dict[str, float]]:
    confidence = np.concatenate([result.confidence_N for result in outcomes])
    correct = np.concatenate([result.correct_N for result in outcomes])
    return [asdict(one) for one in reliability_bins(confidence, correct)]


def _test_against_best(rows: Sequence[dict[str, Any]], correct: Mapping[RowKey, Correct]) -> None:
    """Give every row `best`, `difference_to_best` and `cannot_tell_apart_from_best`; rows stand best first."""
    if not rows:
        return
    best, others = rows[0], rows[1:]
    best.update(best=True, difference_to_best=None, cannot_tell_apart_from_best=False)
    best_SN = correct[best["model"], best["method"]]
    differences = [compare_correctness(correct[row["model"], row["method"]], best_SN) for row in others]
    corrected = holm([difference.p for difference in differences])
    for row, difference, p_holm in zip(others, differences, corrected, strict=True):
        row["best"] = False
        row["difference_to_best"] = {**asdict(difference), "p_holm": p_holm}
        row["cannot_tell_apart_from_best"] = p_holm >= SIGNIFICANCE


def _winner(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if not rows:
        return None
    best = rows[0]
    tied = [row for row in rows if row["cannot_tell_apart_from_best"]]
    return {
        "model": best["model"],
        "method": best["method"],
        "accuracy": {key: best["accuracy"][key] for key in ("mean", "low", "high")},
        "tied_with": [{"model": row["model"], "method": row["method"]} for row in tied],
        "sentence": _sentence(best, tied, len(rows), short_model_names([row["model"] for row in rows])),
    }


def _sentence(
    best: Mapping[str, Any], tied: Sequence[Mapping[str, Any]], num_rows: int, short: Mapping[str, str]
) -> str:
    mean, low, high = (100 * best["accuracy"][key] for key in ("mean", "low", "high"))
    figure = f"{mean:.1f} % ({low:.1f} to {high:.1f})"
    name = best["method"] + (f" on {short[best['model']]}" if best["model"] in short else "")
    if num_rows == 1:
        return f"{name} reaches {figure}; there is nothing to compare it with."
    named = short if len(short) > 1 else {}
    names = [row["method"] + (f" on {named[row['model']]}" if row["model"] in named else "") for row in tied]
    if names:
        listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
        standing = f"it cannot be told apart from {listed}"
    else:
        standing = "every other row is worse beyond chance (p < 0.05, corrected for the number of rows)"
    chance = "" if best["above_chance"] else " Yet it is not above chance."
    return f"{name} is best with {figure}; {standing}.{chance}"
