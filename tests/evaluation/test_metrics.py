import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as sk

from entailor.errors import RunError
from entailor.evaluation.metrics import evaluate_record
from entailor.runs.record import Prediction, RunRecord


def arrays(record):
    gold = [row.label for row in record.predictions]
    said = [row.predicted for row in record.predictions]
    probabilities = np.array([[row.probabilities[label] for label in record.labels] for row in record.predictions])
    return gold, said, probabilities


def test_figures_agree_with_scikit_learn_and_scipy(record):
    one = record(accuracy=0.63)
    gold, said, probabilities = arrays(one)
    found = evaluate_record(one)
    right = sum(a == b for a, b in zip(gold, said, strict=True))
    wilson = binomtest(right, len(gold)).proportion_ci(method="wilson")
    assert found.accuracy.value == sk.accuracy_score(gold, said)
    assert (found.accuracy.low, found.accuracy.high) == pytest.approx((wilson.low, wilson.high), abs=0.001)
    assert found.macro_f1 == pytest.approx(sk.f1_score(gold, said, average="macro"))
    assert found.mcc == pytest.approx(sk.matthews_corrcoef(gold, said))
    order = sorted(one.labels)
    assert found.log_loss == pytest.approx(
        sk.log_loss(gold, probabilities[:, [one.labels.index(label) for label in order]], labels=order)
    )
    assert np.array_equal(found.confusion, sk.confusion_matrix(gold, said, labels=one.labels))
    report = sk.classification_report(gold, said, output_dict=True)
    for label in one.labels:
        line = found.per_label[label]
        expected = report[label]
        assert (line.precision, line.recall, line.f1) == pytest.approx(
            (expected["precision"], expected["recall"], expected["f1-score"])
        )
        assert line.support == expected["support"]


def test_rows_of_the_confusion_matrix_are_gold(record):
    one = record(n=3)
    always_neutral = tuple(
        replace(row, probabilities={"entailment": 0.1, "neutral": 0.8, "contradiction": 0.1}) for row in one.predictions
    )
    assert evaluate_record(replace(one, predictions=always_neutral)).confusion == ((0, 1, 0), (0, 1, 0), (0, 1, 0))


def test_what_is_undefined_is_none_and_not_zero():
    predictions = tuple(Prediction(str(i), "yes", {"yes": 0.9, "no": 0.1, "maybe": 0.0}) for i in range(5))
    one = RunRecord("m", "majority", "majority", 0, ("yes", "no", "maybe"), predictions=predictions)
    found = evaluate_record(one)
    no = found.per_label["no"]
    assert (no.precision, no.recall, no.f1, no.support) == (None, None, None, 0)
    assert found.mcc is None
    assert found.macro_f1 == 1.0  # of the only label for which it is defined
    assert found.majority_share == 1.0
    assert found.groups == {}


def test_a_label_never_predicted_has_no_precision_and_an_f1_of_zero():
    predictions = tuple(Prediction(str(i), "yn"[i % 2], {"y": 0.9, "n": 0.1}) for i in range(6))
    found = evaluate_record(RunRecord("m", "r", "r", 0, ("y", "n"), predictions=predictions))
    assert found.per_label["n"].precision is None
    assert found.per_label["n"].f1 == 0.0
    assert found.macro_f1 == pytest.approx((2 / 3) / 2)


def test_groups_add_up_to_the_whole(record):
    found = evaluate_record(record(n=301))
    assert list(found.groups) == ["fiction", "travel"]
    assert sum(group.n for group in found.groups.values()) == 301
    weighted = sum(group.n * group.accuracy.value for group in found.groups.values()) / 301
    assert weighted == pytest.approx(found.accuracy.value)


def test_metrics_go_into_json(record):
    found = evaluate_record(record())
    again = json.loads(json.dumps(asdict(found), allow_nan=False))
    assert again["accuracy"]["value"] == found.accuracy.value
    assert again["confusion"][0] == list(found.confusion[0])
    assert again["groups"]["travel"]["accuracy"]["low"] == found.groups["travel"].accuracy.low


def test_a_certain_mistake_costs_a_finite_log_loss():
    one = RunRecord("m", "r", "r", 0, ("y", "n"), predictions=(Prediction("a", "y", {"y": 0.0, "n": 1.0}),))
    assert 30 < evaluate_record(one).log_loss < 40


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"status": "failed", "error": "out of memory"}, "out of memory"),
        ({"predictions": ()}, "no predictions"),
        ({"labels": ("entailment", "neutral")}, "do not fit the labels entailment, neutral"),
        (
            {
                "predictions": (
                    Prediction("a", "neutral", dict.fromkeys(("entailment", "neutral", "contradiction"), np.nan)),
                )
            },
            "no finite numbers",
        ),
    ],
)
def test_records_that_cannot_be_evaluated_say_why(record, change, words):
    with pytest.raises(RunError, match=words):
        evaluate_record(replace(record(n=6), **change))


@pytest.mark.parametrize("said", ["yyyyyyyy", "nnnnnnnn", "yynnyynn", "yynnymyn", "mmmmmmmm"])
def test_figures_cover_the_same_labels_whatever_was_predicted(said):
    """`m` never occurs: one candidate says it, others do not, and all are averaged over `y` and `n`."""
    gold = "yyyynnnn"
    predictions = tuple(
        Prediction(str(i), label, {name: float(name == answer) for name in "ynm"})
        for i, (label, answer) in enumerate(zip(gold, said, strict=True))
    )
    found = evaluate_record(RunRecord("m", "r", "r", 0, ("y", "n", "m"), predictions=predictions))
    expected = sk.f1_score(list(gold), list(said), labels=["y", "n"], average="macro", zero_division=0)
    assert found.macro_f1 == pytest.approx(expected)
    assert found.mcc == pytest.approx(sk.matthews_corrcoef(list(gold), list(said)))
    assert len(found.confusion) == len(found.per_label) == 3
    assert (found.per_label["y"].recall, found.per_label["m"].recall) == (said[:4].count("y") / 4, None)
