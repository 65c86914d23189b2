import numpy as np
import pytest
from tests.conftest import make_examples
from tests.methods.conftest import logprobs

from entailor.classifiers.base import FitData
from entailor.methods import build_method


@pytest.fixture
def classifier(load_tiny, nli_task):
    return build_method("knn", {"k": [1, 3], "temperature": [0.1, 1.0]}).adapt(load_tiny("bert"), nli_task, 0)


def test_votes_are_weighted_by_similarity_and_counted_by_hand(classifier):
    angles = np.radians([0.0, 10.0, 80.0, 180.0])
    classifier.mean_F = np.zeros(2, np.float32)
    classifier.unit_EF = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    classifier.targets_E = np.array([0, 1, 1, 2])
    query = np.array([[3.0, 0.0]], np.float32)  # lengths do not count
    near = np.exp(classifier._logprobs(query, 1, 1.0))[0]
    np.testing.assert_allclose(near, [0.999 + 0.001 / 3, 0.001 / 3, 0.001 / 3], atol=1e-6)
    votes = np.exp(np.cos(angles[:3]) / 0.5)
    expected = 0.999 * np.array([votes[0], votes[1] + votes[2], 0]) / votes.sum() + 0.001 / 3
    np.testing.assert_allclose(np.exp(classifier._logprobs(query, 3, 0.5))[0], expected, atol=1e-6)
    np.testing.assert_allclose(np.exp(classifier._logprobs(query, 99, 0.5)).sum(), 1.0)  # more than there are


def test_validation_chooses_and_a_label_without_neighbours_is_possible(classifier):
    rng = np.random.default_rng(0)
    centres = np.array([[5.0, 0], [0, 5], [-5, -5]], np.float32)
    targets = np.repeat([0, 1], 20)
    train = FitData((centres[targets] + rng.normal(size=(40, 2))).astype(np.float32), targets)
    wrong = np.where(rng.random(40) < 0.3, 1 - targets, targets)  # a single neighbour is often wrong
    (event,) = classifier.fit(FitData(train.features, wrong), train)
    assert event.startswith("k=3")
    unseen = FitData(centres[[2]], np.array([2]))
    assert np.isfinite(classifier._logprobs(unseen.features, 3, 0.1)[0, 2])


def test_a_damaged_file_is_refused(classifier, tmp_path):
    rows = make_examples(9, seed=1)
    features = classifier.features(classifier.collate(classifier.encode(rows)))
    classifier.fit(*2 * (FitData(features, np.array(classifier.task.targets(rows))),))
    before = logprobs(classifier, rows)
    classifier.targets_E = classifier.targets_E + 1
    classifier.save(tmp_path)
    with pytest.raises(ValueError, match=r"vectors of \(9, 80\), 9 labels"):
        classifier.load(tmp_path)
    assert before.shape == (9, 3)
