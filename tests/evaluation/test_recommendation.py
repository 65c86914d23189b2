from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from entailor.config.parts import Priorities
from entailor.evaluation.comparison import compare_records
from entailor.report.advice import advice
from entailor.runs.layout import RunFolder
from entailor.runs.record import Costs


def answering(record, right):
    """Return a record of 36 examples that is right on those whose places are given, and on no other."""
    predictions = []
    for i, row in enumerate(record.predictions[:36]):
        index = record.labels.index(row.label)
        said = record.labels[index if i in right else (index + 1) % 3]
        predictions.append(replace(row, probabilities={label: float(label == said) for label in record.labels}))
    return replace(record, predictions=tuple(predictions))


def priced(record, name, accuracy, **costs):
    usual = {"latency_p50_ms": 10.0, "stored_bytes": 1000, "peak_memory_bytes": 1000, "train_seconds": 10.0}
    return record(name, accuracy=accuracy, costs=Costs(**{**usual, **costs}))


def like(other, name, **costs):
    """Return the same predictions under another name and at other costs."""
    return replace(other, name=name, costs=replace(other.costs, **costs))


@pytest.fixture
def level(record):
    """Two rows that do not differ significantly, the first more accurate by one example, and one that is worse."""
    dear = priced(record, "dear", 0.8, stored_bytes=90_000)
    wrong = next(i for i, row in enumerate(dear.predictions) if row.predicted == row.label)
    spoilt = list(dear.predictions)
    other = next(label for label in dear.labels if label != spoilt[wrong].label)
    flipped = {label: 0.98 if label == other else 0.01 for label in dear.labels}
    spoilt[wrong] = replace(spoilt[wrong], probabilities=flipped)
    cheap = replace(like(dear, "cheap", stored_bytes=1000), predictions=tuple(spoilt))
    return [dear, cheap, priced(record, "poor", 0.5, latency_p50_ms=0.1, stored_bytes=1)]


def picked(records, **priorities):
    return compare_records(records, priorities=Priorities(**priorities))["recommendation"]


def said(records, **priorities):
    return advice(compare_records(records, priorities=Priorities(**priorities)))


def test_the_cheapest_of_those_shown_to_be_as_good(level):
    found, words = picked(level), said(level)
    assert found["method"] == "cheap"
    assert words.sentence == (
        "cheap is recommended: of 2 candidates shown to be within 2 points of the most accurate "
        "it is the smallest to store."
    )
    assert [one["method"] for one in found["contenders"]] == ["dear", "cheap"]
    assert any(reason.startswith("It was −0.3 points from dear") for reason in words.reasons)
    assert words.runner_up.startswith("dear comes next: +0.3 points (not significantly different)")
    assert "If accuracy alone counted, it would be dear." in words.changes
    assert "then stored, then memory" in words.rule


def test_what_is_merely_not_shown_to_be_worse_is_not_taken_for_equal(record):
    """Two candidates that disagree on a third of 300 examples: no significant difference, and no proof of equality."""
    rows = [priced(record, "dear", 0.72, stored_bytes=10**6), priced(record, "cheaper", 0.7, stored_bytes=1)]
    summary = compare_records(rows)
    found, words = summary["recommendation"], advice(summary)
    leader, other = summary["candidates"]
    assert other["tied_with_best"]
    assert found["method"] == leader["method"] == "dear"
    assert "no other is shown to be within 2 points" in words.sentence
    against = found["against_leader"][0]
    assert not against["non_inferior"]
    assert against["examples_needed"] > 300
    assert any("test examples would show it in 4 of 5 runs" in reason for reason in words.reasons)
    assert picked(rows, margin=0.2)["method"] == "cheaper"


def test_the_margin_and_the_interval_are_of_one_variance(record):
    summary = compare_records([priced(record, "a", 0.75), priced(record, "bb", 0.6)])
    difference, pair = summary["candidates"][1]["difference_to_best"], summary["pairs"][0]
    assert (difference["low"] <= 0 <= difference["high"]) == (difference["p"] >= 0.05)
    assert pair["spread"] == difference["spread"]


def test_a_row_that_is_worse_is_never_picked_for_its_price(level):
    assert picked(level, cheapest=["latency"])["method"] == "cheap"


def test_accuracy_first_takes_the_highest_mean(level):
    words = said(level, ties="most_accurate")
    assert picked(level, ties="most_accurate")["method"] == "dear"
    assert words.rule == "The highest mean accuracy of the candidates that beat the majority baseline."
    assert any("it would be cheap" in change for change in words.changes)


def test_small_differences_in_cost_decide_nothing(level):
    dear, cheap, poor = level
    rows = [like(dear, "dear", stored_bytes=1100), cheap, poor]
    assert picked(rows)["method"] == "dear"
    assert "of the most accurate none costs clearly less" in said(rows).sentence


@pytest.mark.parametrize(
    ("key", "cost", "most", "words"),
    [
        ("max_latency_ms", {"latency_p50_ms": 30.0}, 20, "30.0 ms an answer, where max_latency_ms allows 20.0 ms"),
        ("max_latency_ms", {"latency_p50_ms": 30.04}, 30.01, "30.04, where max_latency_ms allows 30.01"),
        ("max_stored_bytes", {"stored_bytes": 10**9}, 10**6, "1.0 GB stored, where max_stored_bytes allows 1.0 MB"),
        ("max_memory_bytes", {"peak_memory_bytes": 10**9}, 10**6, "1.0 GB of memory, where max_memory_bytes allows"),
        ("max_train_seconds", {"train_seconds": 600.0}, 60, "trained in 10 min, where max_train_seconds allows"),
    ],
)
def test_a_limit_rules_rows_out_and_is_named(record, key, cost, most, words):
    rows = [priced(record, "large", 0.9, **cost), priced(record, "small", 0.7)]
    found, told = picked(rows, **{key: most}), said(rows, **{key: most})
    assert found["method"] == "small"
    assert (found["excluded"][0]["method"], found["excluded"][0]["limits"][0]["limit"]) == ("large", key)
    assert any(words in reason for reason in told.reasons)
    assert any(change.startswith(f"Without the limit {key}") for change in told.changes)
    assert picked(rows)["method"] == "large"


def test_what_was_not_measured_is_within_no_limit(record):
    rows = [priced(record, "lora", 0.8, latency_p50_ms=None)]
    assert picked(rows, max_latency_ms=5)["method"] is None
    assert any("this was not measured" in reason for reason in said(rows, max_latency_ms=5).reasons)


def test_where_no_row_is_within_the_limits_none_is_picked_or_loaded(level, tmp_path):
    summary = compare_records(level, priorities=Priorities(max_stored_bytes=1, max_latency_ms=0.01))
    found = summary["recommendation"]
    assert (found["model"], found["method"]) == (None, None)
    assert found["outcome"] == "none_within_limits"
    assert "No candidate keeps within the limits" in advice(summary).sentence
    assert len(found["excluded"]) == 3
    assert RunFolder(tmp_path).winner(summary) is None
    assert summary["winner"]["method"] == "dear"  # the best row is still said


def test_what_predict_loads_is_what_is_recommended(level, tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.winner(compare_records(level)) == folder.trial("org/tiny", "cheap", 0)
    accurate = compare_records(level, priorities=Priorities(ties="most_accurate"))
    assert folder.winner(accurate) == folder.trial("org/tiny", "dear", 0)


def test_what_does_not_beat_the_majority_baseline_is_never_recommended(record):
    base = priced(record, "lora", 0.7, stored_bytes=10**6)
    lora = answering(base, {*range(0, 36, 3), 1, 2, 4, 5, 7, 8, 10, 11, 13})
    always = {label: float(label == "entailment") for label in base.labels}
    same = [replace(one, probabilities=always) for one in lora.predictions]
    majority = replace(like(base, "majority", stored_bytes=1), predictions=tuple(same))
    summary = compare_records([lora, majority], priorities=Priorities(margin=0.9))
    by_name = {one["method"]: one for one in summary["candidates"]}
    assert by_name["lora"]["p_majority"] < 0.05
    assert not by_name["majority"]["beats_majority"]
    assert summary["recommendation"]["method"] == "lora"
    assert summary["recommendation"]["below_majority"] == ({"model": "org/tiny", "method": "majority"},)
    alone = compare_records([majority])
    assert alone["recommendation"]["outcome"] == "none_beats_majority"
    assert RunFolder(Path("runs")).winner(alone) is None


def test_a_useful_classifier_of_a_rare_class_beats_the_majority_baseline(record):
    """One in twenty is positive; 60 % of them are found at 2 % false alarms: accuracy gains a point, agreement much."""
    rng = np.random.default_rng(3)
    base = record("lora", n=1000, labels=("no", "yes"))
    predictions = []
    for i, one in enumerate(base.predictions):
        gold = i % 20 == 0
        yes = float(rng.random() < (0.6 if gold else 0.02))
        label = "yes" if gold else "no"
        predictions.append(replace(one, label=label, probabilities={"no": 1 - yes, "yes": yes}))
    lora = replace(base, predictions=tuple(predictions))
    never = tuple(replace(one, probabilities={"no": 1.0, "yes": 0.0}) for one in predictions)
    majority = replace(like(lora, "majority"), predictions=never)
    found = compare_records([lora, majority])
    assert found["recommendation"]["method"] == "lora"
    assert [one["beats_majority"] for one in found["candidates"]] == [True, False]


def of_a_rare_label(record, name, yes_N, gold_N):
    base = record(name, n=len(gold_N), labels=("no", "yes"))
    predictions = tuple(
        replace(one, label="yes" if gold else "no", probabilities={"no": 1 - yes, "yes": yes})
        for one, gold, yes in zip(base.predictions, gold_N, yes_N.tolist(), strict=True)
    )
    return replace(base, predictions=predictions, provenance={"deterministic": True})


@pytest.mark.parametrize("with_baseline", [True, False])
@pytest.mark.parametrize(("metric", "ships"), [("accuracy", False), ("log_loss", False), ("macro_f1", True)])
def test_what_is_worse_than_the_majority_baseline_by_the_metric_is_not_recommended(
    record, metric, ships, with_baseline
):
    """Eight of ten rare ones at 12 % false alarms: 87 % right, where 96 % are the other label."""
    rng = np.random.default_rng(0)
    gold_N = rng.random(600) < 0.05
    eager = np.where(rng.random(600) < np.where(gold_N, 0.8, 0.12), 0.999, 0.001)
    rows = [of_a_rare_label(record, "eager", eager, gold_N)]
    if with_baseline:
        rows.append(replace(of_a_rare_label(record, "always", np.full(600, 0.05), gold_N), method="majority"))
    summary = compare_records(rows, priorities=Priorities(metric=metric))
    words = advice(summary)
    assert (summary["recommendation"]["method"] == "eager") == ships
    if ships:
        assert words.sentence.startswith("eager is recommended: it has the highest macro F1")
    else:
        assert words.sentence.startswith("Nothing here is worth shipping yet")
        assert "eager is significantly worse than always naming the most frequent label" in words.reasons[0]
        assert words.reasons[0].endswith("set recommend.metric=macro_f1.")
        if with_baseline:
            assert summary["sentence"].endswith("It is the majority baseline.")


def test_probabilities_that_order_well_beat_the_baseline_where_they_are_what_counts(record):
    """No answer is ever the rare label, and its examples have twice the probability of the others."""
    rng = np.random.default_rng(1)
    gold_N = rng.random(600) < 0.05
    shy = of_a_rare_label(record, "shy", np.where(gold_N, 0.2, 0.1) * rng.uniform(0.5, 1.5, 600), gold_N)
    for metric in ("auroc", "average_precision", "log_loss", "brier"):
        assert picked([shy], metric=metric)["method"] == "shy"
    for metric in ("accuracy", "macro_f1", "mcc"):
        words = said([shy], metric=metric)
        assert words.sentence.startswith("Nothing here is worth shipping yet")
        assert words.reasons[0].startswith("The answers of none agree with the labels more than chance gives")
    nothing = of_a_rare_label(record, "blind", rng.uniform(0.01, 0.2, 600), gold_N)
    assert said([nothing], metric="auroc").reasons[0].startswith("The probabilities of none agree")


def test_highest_is_not_said_where_the_baseline_is_higher(record):
    rng = np.random.default_rng(2)
    gold_N = rng.random(400) < 0.1
    some = of_a_rare_label(record, "some", (rng.random(400) < np.where(gold_N, 0.5, 0.06)).astype(float), gold_N)
    always = replace(of_a_rare_label(record, "always", np.zeros(400), gold_N), method="majority")
    words = said([some, always])
    assert "it has the highest accuracy of those that beat the majority baseline" in words.sentence


def test_a_row_that_reads_one_text_alone_is_no_good_news(level):
    dear, cheap, poor = level
    words = said([dear, replace(cheap, method="hypothesis_only", name="half"), poor])
    assert any("never reads the first text is within the margin of the best" in reason for reason in words.reasons)
    assert not any("never reads" in reason for reason in said(level).reasons)


def test_nothing_above_chance_is_said(record):
    rows = [priced(record, "a", 0.34), priced(record, "bb", 0.33)]
    assert picked(rows)["outcome"] == "none_beats_majority"
    assert said(rows).sentence.startswith(
        "Nothing here is worth shipping yet: no candidate beats the majority baseline"
    )


def test_how_many_examples_would_decide(level):
    """The pick is cheaper and one example of 300 behind: so small a lead asks for very many, or for no advice."""
    told = picked(level)["to_tell_leader"]
    assert told is None or told > 300


def test_one_row_alone(record):
    found = picked([priced(record, "lora", 0.8)])
    assert (found["method"], found["runner_up"], found["changes"]) == ("lora", None, ())


def test_the_pareto_set_by_hand(record):
    best = priced(record, "best", 0.9, train_seconds=100.0)
    rows = [
        best,
        priced(record, "good", 0.7, train_seconds=50.0),
        priced(record, "beaten", 0.6, train_seconds=60.0),
        like(priced(record, "guess", 0.33), "guess", train_seconds=0.0, stored_bytes=0),
    ]
    found = {row["method"]: row for row in compare_records(rows)["candidates"]}
    assert [name for name, row in found.items() if row["pareto"]] == ["best", "good"]
    assert found["best"]["pareto_by"] == ["latency", "stored", "memory", "train_time"]
    assert found["good"]["pareto_by"] == ["train_time"]
    assert found["guess"]["pareto_by"] == []  # no better than the majority baseline


def test_equal_rows_are_both_in_the_pareto_set(level):
    dear = level[0]
    rows = compare_records([dear, like(dear, "twin")])["candidates"]
    assert [row["pareto"] for row in rows] == [True, True]
