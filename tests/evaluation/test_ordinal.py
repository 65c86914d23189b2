"""Labels that are steps of a scale: their order, and a kappa that knows how far off an answer is."""

import numpy as np
import pytest
from tests.evaluation.conftest import make_record

from entailor import compare
from entailor.engine.choosing import figure_of_choice
from entailor.errors import ConfigError
from entailor.evaluation.metrics import evaluate_record, weighted_kappa
from entailor.methods import build_method
from entailor.report.tables import classification_report_text, plain_table
from entailor.runs.record import Prediction, RunRecord

STARS = {"10": "superb", "9": "fine", "2": "awful"}
ROWS = [(f"{word} film {number}", stars) for number in range(20) for stars, word in STARS.items()]


def test_kappa_is_that_of_cohens_formula():
    gold_N, predicted_N = np.array([0, 0, 1, 2, 3, 3]), np.array([0, 1, 1, 2, 3, 0])
    observed = np.mean((gold_N - predicted_N) ** 2)
    by_chance = np.mean([(one - other) ** 2 for one in gold_N for other in predicted_N])
    assert weighted_kappa(gold_N, predicted_N) == pytest.approx(1 - observed / by_chance)
    assert weighted_kappa(gold_N, gold_N) == 1.0
    assert weighted_kappa(gold_N, np.zeros_like(gold_N)) == 0.0
    assert weighted_kappa(np.zeros(3, int), np.array([0, 1, 2])) is None


def test_two_steps_off_are_worse_than_one():
    gold_N = np.array([0, 1, 2] * 10)
    near_N, far_N = gold_N.copy(), gold_N.copy()
    near_N[0], far_N[0] = 1, 2
    assert weighted_kappa(gold_N, far_N) < weighted_kappa(gold_N, near_N) < 1
    method = build_method("lora", {"metric_for_best_model": "weighted_kappa"})
    assert figure_of_choice(method, near_N, gold_N, ("1", "2", "3")) == weighted_kappa(gold_N, near_N)


def test_only_records_of_a_scale_have_a_kappa():
    assert evaluate_record(make_record()).weighted_kappa is None
    metrics = evaluate_record(make_record(provenance={"ordinal": True}))
    assert 0 < metrics.weighted_kappa < 1
    assert "quadratic weighted kappa" in classification_report_text(metrics)


def test_an_answer_that_never_came_is_wrong_and_in_no_column():
    sure, none = {"a": 0.9, "b": 0.1}, {"a": 0.0, "b": 0.0}
    rows = [("a", sure), ("a", none), ("b", none), ("b", {"a": 0.2, "b": 0.8})]
    predictions = tuple(Prediction(f"p{n}", gold, told) for n, (gold, told) in enumerate(rows))
    assert [one.predicted for one in predictions] == ["a", "", "", "b"]
    metrics = evaluate_record(RunRecord("none", "llm_api", "llm_api", 0, ("a", "b"), predictions=predictions))
    assert metrics.accuracy.value == 0.5
    assert metrics.confusion == ((1, 0), (0, 1))
    assert metrics.log_loss < 1  # of an answer that was not given nobody was sure


def test_a_run_on_a_scale_takes_numbers_by_their_size(tmp_path):
    data = {"ordinal": True}
    run = compare(train=ROWS, methods=["majority", "bag_of_words"], data=data, doctor=False, out=str(tmp_path / "run"))
    document = run.summary
    assert document["labels"] == ["2", "9", "10"]
    kappas = {one["method"]: one["weighted_kappa"] for one in document["candidates"]}
    assert kappas["majority"] == pytest.approx(0)
    assert kappas["bag_of_words"] > 0.5
    assert "quadratic weighted kappa: bag_of_words" in plain_table(document)


LEVELS = [(f"{word} {number}", word) for number in range(20) for word in ("low", "high")]
BY_KAPPA = {"lora": {"metric_for_best_model": "weighted_kappa"}}


@pytest.mark.parametrize(
    ("rows", "more", "said"),
    [
        (LEVELS, {"data": {"ordinal": True}}, "are no numbers .*data.labels="),
        (ROWS, {"methods": BY_KAPPA}, "Set data.ordinal=true"),
    ],
)
def test_a_scale_without_an_order_is_refused(rows, more, said, tmp_path, tiny_model):
    settings = {"methods": ["majority"], "models": (str(tiny_model("bert")),), "doctor": False}
    with pytest.raises(ConfigError, match=said):
        compare(train=rows, out=str(tmp_path / "run"), **{**settings, **more})
