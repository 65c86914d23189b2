"""One object answers for a finished classifier: texts, pairs, tables, from any thread, with the recorded scores."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from entailor import Predictor
from entailor.data.example import Split
from entailor.errors import ConfigError, DataError
from entailor.runs.record import RunRecord
from entailor.study.compare import Comparison


@pytest.fixture(scope="module")
def trial(finished_run: Comparison) -> Path:
    record = next(record for record in finished_run.records if record.name == "lora")
    return finished_run.folder.trial(record.model, record.name, record.seed)


@pytest.fixture(scope="module")
def predictor(trial: Path) -> Predictor:
    return Predictor.load(trial)


@pytest.fixture(scope="module")
def pairs(nli_split: Split) -> list[tuple[str, str]]:
    return [(one.text, one.text_pair or "") for one in nli_split.test]


def test_the_answers_are_those_of_the_record(predictor, trial, pairs):
    record = RunRecord.read(trial)
    answers = predictor.predict(pairs)
    assert [one.label for one in answers] == [one.predicted for one in record.predictions]
    for answer, recorded in zip(answers, record.predictions, strict=True):
        assert answer.probabilities == pytest.approx(recorded.probabilities, abs=1e-5)
        assert tuple(answer.probabilities) == predictor.labels == record.labels
    assert predictor.is_pair
    assert predictor.name == "lora"


def test_a_run_gives_its_recommended_candidate(finished_run):
    winner = finished_run.summary["winner"]
    assert Predictor.load(finished_run.folder.path).place == finished_run.winner
    assert winner is None or Predictor.load(finished_run.folder.path).name


def test_tables_of_every_kind_give_the_same(predictor, pairs):
    import datasets

    columns = {
        "premise": [one for one, _ in pairs],
        "hypothesis": [other for _, other in pairs],
        "n": range(len(pairs)),
    }
    expected = predictor.predict(pairs)
    assert predictor.predict(pd.DataFrame(columns)) == expected
    assert predictor.predict(datasets.Dataset.from_dict({**columns, "n": list(columns["n"])})) == expected
    polars = pytest.importorskip("polars", reason="the extra `export` is not installed")
    assert predictor.predict(polars.DataFrame(columns)) == expected
    for table in (columns, datasets.Dataset.from_dict({**columns, "n": list(columns["n"])}).data.table):
        assert predictor.predict(table) == expected, type(table)  # of a mapping its names are no texts
    for listed in (np.array(pairs), np.array(pairs, dtype="S"), pd.DataFrame(columns).to_numpy()[:, :2]):
        assert predictor.predict(listed) == expected


def test_what_has_no_text_has_no_answer(predictor, pairs):
    answers = predictor.predict([pairs[0], (pd.NaT, np.float32("nan")), pairs[1]])
    assert answers[1].label is None
    assert not answers[1].probabilities
    assert [answers[0], answers[2]] == predictor.predict(pairs[:2])
    assert predictor.predict([]) == []


def test_it_abstains_below_the_least_confidence(predictor, pairs):
    answers = predictor.predict(pairs, calibrated=True)
    middle = sorted(max(one.probabilities.values()) for one in answers)[9]
    unsure = predictor.predict(pairs, calibrated=True, min_confidence=middle + 1e-6)
    assert sum(one.label is None for one in unsure) == 10
    assert [one.probabilities for one in unsure] == [one.probabilities for one in answers]
    with pytest.raises(ConfigError, match="from 0 to 1"):
        predictor.predict(pairs, min_confidence=2)


@pytest.mark.parametrize(
    ("inputs", "problem", "told"),
    [
        (
            ["one text"],
            r"input 0: .* trained on pairs, these are single texts. Give \(premise, hypothesis\) for each input",
            [("a premise", "a hypothesis")],
        ),
        ([("a", "b"), ("a", 3)], "input 1: int found, a text was expected", [("a", "b"), ("a", "3")]),
        ("a text", r"Write predict\(\[\(premise, hypothesis\)\]\)", [("premise", "hypothesis")]),
        (
            pd.DataFrame({"body": ["a"], "other": ["b"]}),
            "Give a table with columns of the names premise and hypothesis",
            pd.DataFrame({"premise": ["a"], "hypothesis": ["b"]}),
        ),
        (
            pd.DataFrame({"text": ["a"]}),
            "these are single texts. Give a table with columns of the names premise and hypothesis",
            pd.DataFrame({"premise": ["a"], "hypothesis": ["b"]}),
        ),
        ({("a", "b"), ("c", "d")}, r"set found, which has no order.*Give a list", sorted({("a", "b"), ("c", "d")})),
        (
            pd.DataFrame([["a", "b", "c"]], columns=["premise", "premise", "hypothesis"]),
            "column 'premise': two columns have one name. Rename one",
            pd.DataFrame([["a", "b", "c"]], columns=["premise", "other", "hypothesis"]),
        ),
        ({"premise": ["a", "b"], "hypothesis": ["b"]}, r"different lengths \(premise 2, hypothesis 1\)", []),
    ],
    ids=range(8),
)
def test_other_shapes_are_refused(predictor, inputs, problem, told):
    with pytest.raises(DataError, match=problem):
        predictor.predict(inputs)
    assert len(predictor.predict(told)) == len(told)


def test_threads_get_their_own_answers(predictor, pairs):
    expected = [predictor.predict([pair])[0].label for pair in pairs]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda pair: predictor.predict([pair])[0].label, pairs * 4))
    assert found == expected * 4
