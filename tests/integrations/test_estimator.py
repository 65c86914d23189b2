"""EntailorClassifier keeps scikit-learn's contract, as far as it can be asked of a classifier of texts."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

from entailor import EntailorClassifier
from entailor.errors import DataError, LabelError

TEXTS = [f"{word} film {n}" for n in range(40) for word in ("good", "bad")]
LABELS = ["pos", "neg"] * 40
# The other checks of scikit-learn fit on matrices of numbers.
CHECKS = (
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_mixin_order",
)


@pytest.fixture(autouse=True)
def plain_page(monkeypatch):
    """The page has tests of its own."""
    monkeypatch.setattr("entailor.study.compare.write_report", lambda folder: None)


@pytest.fixture
def classifier(tmp_path):
    return EntailorClassifier(methods="bag_of_words", out=str(tmp_path / "runs"))


@pytest.mark.parametrize("check", CHECKS)
def test_checks_without_data_pass(check):
    function = getattr(estimator_checks, check)
    function("EntailorClassifier", EntailorClassifier())


def test_check_estimator_leaves_texts_to_others():
    with pytest.warns(SkipTestWarning, match="Can't test estimator EntailorClassifier"):
        estimator_checks.check_estimator(EntailorClassifier())


def test_it_learns_and_answers_in_the_order_of_classes(classifier):
    assert classifier.fit(TEXTS, LABELS) is classifier
    assert classifier.classes_.tolist() == ["neg", "pos"]
    probabilities = classifier.predict_proba(["a good one", "bad, bad"])
    assert probabilities.shape == (2, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert probabilities.argmax(axis=1).tolist() == [1, 0]
    assert classifier.predict([]).shape == (0,)
    assert classifier.score(TEXTS, LABELS) == 1.0
    assert classifier.run_.best.method == "bag_of_words"


@pytest.mark.parametrize("kinds", [(5, 3), (1.0, 2.0), (True, False), ("b", "a")])
def test_labels_come_back_as_they_were(classifier, kinds):
    labels = np.array(kinds * 40)
    found = classifier.fit(np.array(TEXTS, dtype=object), labels).predict(pd.Series(TEXTS))
    assert found.dtype == labels.dtype
    assert (found == labels).all()


def test_pairs_are_lists_arrays_or_tables(classifier):
    pairs = [(f"Film {n}.", text) for n, text in enumerate(TEXTS)]
    frame = pd.DataFrame(pairs, columns=["premise", "hypothesis"])
    expected = classifier.fit(pairs, LABELS).predict_proba(pairs)
    assert classifier.is_pair_
    for other in (frame, np.array(pairs, dtype=object), frame.to_numpy()):
        np.testing.assert_array_equal(classifier.predict_proba(other), expected)
    with pytest.raises(DataError, match="the classifier was trained on pairs"):
        classifier.predict(["one text"])


def test_a_fit_again_trains_nothing_and_another_has_its_own_folder(classifier):
    first = classifier.fit(TEXTS, LABELS).run_
    written = first.folder.comparison_file.stat().st_mtime_ns, list(first.folder.path.glob("trials/*/*/*/record.json"))
    again = clone(classifier).fit(TEXTS, LABELS).run_
    assert again.folder.path == first.folder.path
    assert [record.costs for record in again.records] == [record.costs for record in first.records]
    assert written[1]
    assert classifier.fit(TEXTS[:60], LABELS[:60]).run_.folder.path != first.folder.path
    assert classifier.set_params(seeds=[1]).fit(TEXTS, LABELS).run_.folder.path != first.folder.path


def test_it_goes_through_pipelines_searches_and_pickles(classifier):
    pipeline = make_pipeline(FunctionTransformer(lambda texts: [text.upper() for text in texts]), classifier)
    assert cross_val_score(pipeline, TEXTS, LABELS, cv=2).tolist() == [1.0, 1.0]
    search = GridSearchCV(classifier, {"methods": ["majority", "bag_of_words"]}, cv=2).fit(TEXTS, LABELS)
    assert search.best_params_ == {"methods": "bag_of_words"}
    best = search.best_estimator_
    best.predict(TEXTS[:1])
    again = pickle.loads(pickle.dumps(best))
    np.testing.assert_array_equal(again.predict_proba(TEXTS), best.predict_proba(TEXTS))
    assert again.run_.folder.path == best.run_.folder.path
    assert pickle.loads(pickle.dumps(classifier)).get_params() == classifier.get_params()


def test_inputs_that_can_be_gone_through_once_are_not_cut(classifier):
    fitted = classifier.fit(iter(TEXTS), LABELS)
    assert fitted.predict(text for text in TEXTS).tolist() == fitted.predict(TEXTS).tolist()


def test_what_cannot_be_is_refused(classifier):
    with pytest.raises(NotFittedError):
        classifier.predict(TEXTS)
    with pytest.raises(DataError, match=r"y: 3 labels for 80 texts\. Give one label for each text"):
        classifier.fit(TEXTS, LABELS[:3])
    with pytest.raises(DataError, match="X, row 2: no text"):
        classifier.fit(["a", None], ["x", "y"])
    with pytest.raises(DataError, match="X: str found, expected a list of texts"):
        classifier.fit("good", LABELS[:4])
    with pytest.raises(DataError, match="X, row 1: 1 parts found, expected a text, or a pair"):
        classifier.fit(np.array(TEXTS).reshape(-1, 1), LABELS)
    for missing in (np.nan, None, pd.NA):
        with pytest.raises(LabelError, match="y, row 2: no label"):
            classifier.fit(TEXTS, pd.Series(["x", missing] * 40, dtype=object))
    masked = np.ma.array([0, 1] * 40, mask=[False] * 79 + [True])
    for odd, problem in (
        (masked, "y, row 80: no label"),  # what is masked has a number all the same
        (np.array(LABELS)[:, None], r"y, row 1: .*Give one label for each text: y.ravel\(\)"),
        (pd.DataFrame({"label": LABELS}), r"y: DataFrame found, expected one label .* such as y\['label'\]"),
        (pd.Series([1, "a"] * 40), "y: labels that are text and others that are none"),
        ({"a", "b"}, "y: set found, which has no order"),
    ):
        with pytest.raises((DataError, LabelError), match=problem):
            classifier.fit(TEXTS, odd)
    with pytest.raises(LabelError, match="y: an empty label"):
        classifier.fit(TEXTS, ["", "x"] * 40)
    for alike in ("x ", "x"), ("1.0", "1"):
        with pytest.raises(LabelError, match="two labels that read alike"):
            classifier.fit(TEXTS, [*alike] * 40)
    with pytest.raises(
        DataError, match=r"X: no column of texts.* Give a table with a column text, or with premise and"
    ):
        classifier.fit(pd.DataFrame({"foo": TEXTS}), LABELS)
