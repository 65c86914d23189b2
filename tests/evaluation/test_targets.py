"""Metrics as means over examples: the figures are scikit-learn's, the variances those of a bootstrap."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from sklearn import metrics as sk

from entailor.config.experiment import parse_settings
from entailor.config.parts import MetricName, Priorities
from entailor.errors import ConfigError, RunError
from entailor.evaluation.comparison import compare_records
from entailor.evaluation.metrics import Outcome
from entailor.evaluation.targets import METRICS, TARGETS
from entailor.evaluation.variance import spread_of_mean
from entailor.report.advice import advice
from entailor.report.tables import plain_table
from entailor.runs.record import Prediction, RunRecord


def drawn(num_labels: int, n: int = 240) -> Outcome:
    rng = np.random.default_rng(num_labels)
    gold_N = np.where(rng.random(n) < 0.3, 0, rng.integers(num_labels, size=n))
    logits_NL = rng.standard_normal((n, num_labels)) + np.eye(num_labels)[gold_N]
    weights_NL = np.exp(np.round(logits_NL, 1))  # rounded, so that some scores are equal
    return outcome_of(gold_N, weights_NL / weights_NL.sum(axis=1, keepdims=True))


def outcome_of(gold_N: np.ndarray, probabilities_NL: np.ndarray) -> Outcome:
    return Outcome(gold_N, probabilities_NL.argmax(axis=1), probabilities_NL)


def by_scikit_learn(one: Outcome) -> dict[str, float]:
    gold_N, said_N, p_NL = one.gold_N, one.predicted_N, one.probabilities_NL
    labels = range(p_NL.shape[1])
    return {
        "accuracy": sk.accuracy_score(gold_N, said_N),
        "macro_f1": sk.f1_score(gold_N, said_N, average="macro"),
        "mcc": sk.matthews_corrcoef(gold_N, said_N),
        "log_loss": sk.log_loss(gold_N, p_NL, labels=list(labels)),
        "brier": np.mean([((p - np.eye(len(p))[g]) ** 2).sum() for g, p in zip(gold_N, p_NL, strict=True)]),
        "auroc": np.mean([sk.roc_auc_score(gold_N == k, p_NL[:, k]) for k in labels]),
        "average_precision": np.mean([sk.average_precision_score(gold_N == k, p_NL[:, k]) for k in labels]),
    }


def test_every_metric_that_can_be_asked_for_is_there():
    assert tuple(METRICS) == get_args(MetricName)
    assert tuple(TARGETS) == tuple(METRICS)[:-1]  # costs are given with the experiment


@pytest.mark.parametrize("num_labels", [2, 4])
def test_the_mean_is_the_figure_of_scikit_learn(num_labels):
    one, expected = drawn(num_labels), by_scikit_learn(drawn(num_labels))
    for name, target in TARGETS.items():
        assert np.mean(target.values_N(one)) == pytest.approx(expected[name], abs=1e-12), name


def test_the_deviation_is_that_of_a_bootstrap():
    one, rng = drawn(3), np.random.default_rng(0)
    places = [rng.integers(len(one.gold_N), size=len(one.gold_N)) for _ in range(150)]
    for name, target in TARGETS.items():
        again = [np.mean(target.values_N(outcome_of(one.gold_N[at], one.probabilities_NL[at]))) for at in places]
        deviation = spread_of_mean(target.gain([one], False, None)).variance ** 0.5
        assert deviation == pytest.approx(np.std(again), rel=0.2), name  # 150 resamples know it to 6 %


def test_what_is_not_defined_is_not_a_number():
    one = outcome_of(np.zeros(6, dtype=int), np.tile([0.7, 0.3], (6, 1)))
    found = {name: float(np.mean(target.values_N(one))) for name, target in TARGETS.items()}
    assert {name for name, value in found.items() if np.isnan(value)} == {"mcc", "auroc", "average_precision"}
    collapsed = outcome_of(np.array([0, 1, 0, 1]), np.tile([0.7, 0.3], (4, 1)))
    assert np.mean(TARGETS["mcc"].values_N(collapsed)) == 0.0


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("macro_f1", 0, 1), ("mcc", -1, 1), ("auroc", 0, 1), ("average_precision", 0, 1), ("brier", 2, 0)],
)
def test_all_right_on_twenty_examples_has_an_interval_by_every_metric(name, low, high):
    """As wide as that of accuracy, to scale: it ended where it began."""
    one = outcome_of(np.arange(20) % 2, np.eye(2)[np.arange(20) % 2])
    accuracy = TARGETS["accuracy"].interval(TARGETS["accuracy"].gain([one], False, None))
    found = TARGETS[name].interval(TARGETS[name].gain([one], False, None))
    assert accuracy.low == pytest.approx(0.861, abs=0.001)
    assert found.value == high
    assert sorted((found.low, found.high)) == pytest.approx(sorted((high, low + (high - low) * accuracy.low)))


def rare(name: str, found: float, false: float, n: int = 600) -> RunRecord:
    """One in ten is positive; a share of them is found, and a share of the others is taken for one."""
    rng = np.random.default_rng(len(name))
    lines = []
    for i in range(n):
        gold = "yes" if i % 10 == 0 else "no"
        said = rng.random() < (found if gold == "yes" else false)
        p = (0.6 if said else 0.1) + 0.3 * rng.random()
        lines.append(Prediction(str(i), gold, {"yes": p, "no": 1 - p}, text=str(i)))
    provenance = {"deterministic": True}
    return RunRecord("m", name, name, 0, ("yes", "no"), predictions=tuple(lines), provenance=provenance)


def test_the_metric_orders_tests_and_recommends():
    """Accuracy takes the one that hardly finds a positive, macro F1 the one that finds most of them."""
    records = [rare("shy", 0.1, 0.0), rare("bold", 0.8, 0.09)]
    by_accuracy = compare_records(records)
    by_f1 = compare_records(records, priorities=Priorities(metric="macro_f1"))
    assert by_accuracy["recommendation"]["method"] == by_accuracy["winner"]["method"] == "shy"
    assert by_f1["recommendation"]["method"] == by_f1["winner"]["method"] == "bold"
    assert by_f1["metric"] == "macro_f1"
    (pair,) = by_f1["pairs"]
    assert pair["significant"]
    assert pair["p_mcnemar"] is None
    best = by_f1["candidates"][0]
    assert best["intervals"]["macro_f1"]["value"] == pytest.approx(best["macro_f1"])
    assert best["intervals"]["macro_f1"]["low"] < best["macro_f1"] < best["intervals"]["macro_f1"]["high"]
    assert by_f1["sentence"].startswith(f"bold on m is best with macro F1 {best['macro_f1']:.3f} (")
    said = advice(by_f1)
    assert said.sentence == "bold is recommended: it has the highest macro F1, and no other is shown to be within 0.02."
    assert "macro F1 (95 %)" in plain_table(by_f1)


def test_less_is_better_where_the_metric_is_a_loss():
    records = [rare("shy", 0.6, 0.0), rare("bold", 0.8, 0.3)]
    found = compare_records(records, priorities=Priorities(metric="log_loss"))
    losses = [one["intervals"]["log_loss"]["value"] for one in found["candidates"]]
    assert losses == sorted(losses)
    assert losses == pytest.approx([one["log_loss"] for one in found["candidates"]])
    assert found["candidates"][1]["difference_to_best"]["value"] == pytest.approx(losses[0] - losses[1])
    assert found["winner"]["corrected"]["value"] >= losses[0]
    assert "lowest log loss" in advice(found).sentence


def test_a_metric_that_test_does_not_define_is_refused_with_what_helps():
    one = rare("only", 1.0, 0.0)
    negatives = [line for line in one.predictions if line.label == "no"]
    record = RunRecord("m", "only", "only", 0, one.labels, predictions=tuple(negatives))
    with pytest.raises(RunError, match=r"recommend\.metric=mcc.*Set recommend\.metric=accuracy"):
        compare_records([record], priorities=Priorities(metric="mcc"))


COSTS = {"yes": {"no": 20.0}, "no": {"yes": 1.0}}


def test_costs_order_test_and_recommend():
    """A missed positive costs twenty times a false one: who finds most of them is best, whatever accuracy says."""
    records = [rare("shy", 0.1, 0.0), rare("bold", 0.8, 0.3)]
    by_accuracy = compare_records(records, priorities=Priorities(costs=COSTS))
    assert by_accuracy["winner"]["method"] == "shy"
    found = compare_records(records, priorities=Priorities(metric="cost", costs=COSTS, margin=0.05))
    assert found["winner"]["method"] == found["recommendation"]["method"] == "bold"
    for one, record in zip(found["candidates"], (records[1], records[0]), strict=True):
        paid = [COSTS[line.label].get(line.predicted, 0.0) for line in record.predictions]
        assert one["intervals"]["cost"]["value"] == pytest.approx(np.mean(paid))
        half = 1.96 * np.std(paid, ddof=1) / len(paid) ** 0.5
        assert one["intervals"]["cost"]["high"] - np.mean(paid) == pytest.approx(half, rel=0.05)
    (pair,) = found["pairs"]
    assert pair["significant"]
    assert found["detectable"]["difference"] > 0
    assert found["sentence"].startswith("bold on m is best with mean cost 0.")
    assert "lowest mean cost" in advice(found).sentence
    assert "mean cost (95 %)" in plain_table(found)
    # beside accuracy it is a figure like any other
    assert by_accuracy["candidates"][1]["intervals"]["cost"] == found["candidates"][0]["intervals"]["cost"]
    assert "cost" not in compare_records(records)["candidates"][0]["intervals"]


@pytest.mark.parametrize(
    ("costs", "said"),
    [
        ({"yes": {"nope": 1}}, r"recommend\.costs: 'nope' is none of the labels 'yes', 'no'\."),
        ({"maybe": {"no": 1}}, r"recommend\.costs: 'maybe' is none of the labels"),
        ({"yes": {"no": 1}}, r"1 of 2 mistakes have no cost, e\.g\. 'no' answered as 'yes'\. Write one for each"),
        ({"yes": {"no": 0}, "no": {"yes": 0}}, "every cost is 0"),
    ],
)
def test_costs_that_are_not_those_of_the_labels_are_refused(costs, said):
    with pytest.raises(ConfigError, match=said):
        compare_records([rare("shy", 0.1, 0.0)], priorities=Priorities(costs=costs))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"metric": "cost"}, r"metric=cost needs costs\. Give recommend\.costs, gold label"),
        ({"costs": {"yes": {"no": -1}}}, r"recommend\.costs\.yes\.no: .*greater than or equal to 0, found -1"),
        ({"costs": {True: {"no": 1}}}, "put the label in quotes"),
        ({"costs": 3}, r"recommend\.costs: .*dictionary, found 3"),
    ],
)
def test_what_can_be_no_cost_is_refused_where_it_stands(values, said):
    with pytest.raises(ConfigError, match=said):
        parse_settings(Priorities, values, "recommend")


def test_labels_that_yaml_reads_as_numbers_are_text():
    assert Priorities(costs={0: {1: 2}, 1: {0: 1.5}}).costs == {"0": {"1": 2.0}, "1": {"0": 1.5}}
