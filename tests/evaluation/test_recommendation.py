from dataclasses import replace

import pytest

from entailor.config.experiment import Priorities
from entailor.evaluation.comparison import compare_records
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


def test_the_cheapest_of_those_that_cannot_be_told_apart(level):
    found = picked(level)
    assert found["method"] == "cheap"
    assert (
        found["sentence"]
        == "cheap is recommended: of 2 candidates that do not differ significantly it is the smallest to store."
    )
    assert [one["method"] for one in found["contenders"]] == ["dear", "cheap"]
    assert any(reason.startswith("It was −0.3 points from dear") for reason in found["reasons"])
    assert found["runner_up"]["method"] == "dear"
    assert "If accuracy alone counted, it would be dear." in found["changes"]
    assert "then stored, then memory" in found["rule"]


def test_a_row_that_is_worse_is_never_picked_for_its_price(level):
    assert picked(level, cheapest=["latency"])["method"] == "cheap"


def test_accuracy_first_takes_the_highest_mean(level):
    found = picked(level, ties="most_accurate")
    assert found["method"] == "dear"
    assert found["rule"] == "the highest mean accuracy."
    assert any("it would be cheap" in change for change in found["changes"])


def test_small_differences_in_cost_decide_nothing(level):
    dear, cheap, poor = level
    found = picked([like(dear, "dear", stored_bytes=1100), cheap, poor])
    assert found["method"] == "dear"
    assert "none costs clearly less, and it is the most accurate" in found["sentence"]


@pytest.mark.parametrize(
    ("key", "cost", "most", "words"),
    [
        ("max_latency_ms", {"latency_p50_ms": 30.0}, 20, "30.0 ms an answer, where max_latency_ms allows 20.0 ms"),
        ("max_stored_bytes", {"stored_bytes": 10**9}, 10**6, "1.0 GB stored, where max_stored_bytes allows 1.0 MB"),
        ("max_memory_bytes", {"peak_memory_bytes": 10**9}, 10**6, "1.0 GB of memory, where max_memory_bytes allows"),
        ("max_train_seconds", {"train_seconds": 600.0}, 60, "trained in 10 min, where max_train_seconds allows"),
    ],
)
def test_a_limit_rules_rows_out_and_is_named(record, key, cost, most, words):
    rows = [priced(record, "large", 0.9, **cost), priced(record, "small", 0.7)]
    found = picked(rows, **{key: most})
    assert found["method"] == "small"
    assert found["excluded"][0]["method"] == "large"
    assert words in found["excluded"][0]["reason"]
    assert f"Without the limit {key}, it would be large." in [
        change.replace(" or if accuracy alone counted", "") for change in found["changes"]
    ]
    assert picked(rows)["method"] == "large"


def test_what_was_not_measured_is_within_no_limit(record):
    found = picked([priced(record, "lora", 0.8, latency_p50_ms=None)], max_latency_ms=5)
    assert found["method"] is None
    assert "this was not measured" in found["excluded"][0]["reason"]


def test_where_no_row_is_within_the_limits_none_is_picked_or_loaded(level, tmp_path):
    summary = compare_records(level, priorities=Priorities(max_stored_bytes=1, max_latency_ms=0.01))
    found = summary["recommendation"]
    assert (found["model"], found["method"]) == (None, None)
    assert "No candidate keeps within the limits" in found["sentence"]
    assert len(found["excluded"]) == 3
    assert RunFolder(tmp_path).winner(summary) is None
    assert summary["winner"]["method"] == "dear"  # the best row is still said


def test_what_predict_loads_is_what_is_recommended(level, tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.winner(compare_records(level)) == folder.trial("org/tiny", "cheap", 0)
    accurate = compare_records(level, priorities=Priorities(ties="most_accurate"))
    assert folder.winner(accurate) == folder.trial("org/tiny", "dear", 0)
    older = {key: value for key, value in accurate.items() if key != "recommendation"}
    assert folder.winner(older) == folder.trial("org/tiny", "dear", 0)


def test_a_row_at_chance_is_not_picked_beside_one_above_it(record):
    base = priced(record, "lora", 0.7, stored_bytes=10**6)
    # 36 examples, 12 of each label: naming entailment is right 12 times, lora 21 times, the guess 17 times
    lora = answering(base, {*range(0, 36, 3), 1, 2, 4, 5, 7, 8, 10, 11, 13})
    guess = answering(like(base, "guess", stored_bytes=1), {*range(0, 36, 3), 1, 2, 4, 34, 35})
    summary = compare_records([lora, guess])
    leader, other = summary["candidates"]
    assert leader["p_majority"] < 0.05 <= other["p_majority"]
    assert other["tied_with_best"]
    assert summary["recommendation"]["method"] == "lora"


def test_a_row_that_reads_one_text_alone_is_no_good_news(level):
    dear, cheap, poor = level
    found = picked([dear, replace(cheap, method="hypothesis_only", name="half"), poor])
    assert any("never reads the first text and is level with the best" in reason for reason in found["reasons"])
    assert not any("never reads" in reason for reason in picked(level)["reasons"])


def test_nothing_above_chance_is_said(record):
    found = picked([priced(record, "a", 0.34), priced(record, "bb", 0.33)])
    assert any("No candidate is better than the majority baseline" in reason for reason in found["reasons"])


def test_how_many_examples_would_decide(level):
    assert any("test examples would show it in 4 of 5 runs" in change for change in picked(level)["changes"])


def test_one_row_alone(record):
    found = picked([priced(record, "lora", 0.8)])
    assert (found["method"], found["runner_up"], found["changes"]) == ("lora", None, [])


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
