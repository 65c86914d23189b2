"""Pitfall 22: hypothesis-only or overlap artefacts pass for understanding."""

from entailor import DataSettings, validate
from entailor.config.experiment import DEFAULT_METHODS


def test_usual_accuracy_says_nothing_about_where_it_comes_from():
    """A classifier that never sees a premise, on data that give labels away: nearly perfect."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from tests.conftest import make_examples

    train, test = make_examples(90, seed=1), make_examples(60, seed=2)
    words = CountVectorizer().fit([row.text_pair for row in train])
    model = LogisticRegression().fit(words.transform([row.text_pair for row in train]), [row.label for row in train])
    assert model.score(words.transform([row.text_pair for row in test]), [row.label for row in test]) > 0.9


def test_ours_finds_the_words_that_give_labels_away(csv_of, tmp_path):
    from tests.conftest import make_examples

    found = validate(DataSettings(train=csv_of(tmp_path / "train.csv", make_examples(90, seed=1))))
    kinds = {one.kind: one for one in found.findings}
    assert kinds["hypothesis_only"].severity == "warning"
    assert "premise_only" not in kinds
    words = {one.figures["words"]: one.figures["label"] for one in found.findings if one.kind == "giveaway_word"}
    assert words == {"w0": "entailment", "w1": "neutral", "w2": "contradiction"}


def test_ours_has_the_baselines_in_every_comparison():
    assert {"majority", "hypothesis_only", "bag_of_words"} <= set(DEFAULT_METHODS)
