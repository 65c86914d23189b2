import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from entailor.classifiers.linear_model import LinearModel
from entailor.errors import MethodError


def blobs(labels, count=40, seed=0):
    """Return points around one corner for each label."""
    rng = np.random.default_rng(seed)
    targets = np.resize(labels, count)
    corners = np.eye(6)[targets] * 3
    return corners + rng.normal(size=(count, 6)), targets


def probabilities(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("labels", [(0, 1), (0, 1, 2), (0, 1, 2, 3, 4, 5)], ids=len)
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_it_gives_the_probabilities_of_scikit_learn(labels, sparse):
    (train_x, train_y), (validation_x, validation_y) = blobs(labels), blobs(labels, seed=1)
    wrap = csr_matrix if sparse else np.asarray
    model = LinearModel(len(labels))
    model.fit((wrap(train_x), train_y), (wrap(validation_x), validation_y), [1.0], 300)
    expected = LogisticRegression(C=1.0, max_iter=300).fit(train_x, train_y).predict_proba(validation_x)
    np.testing.assert_allclose(probabilities(model.logits(wrap(validation_x))), expected, atol=1e-6)
    assert model.size == 6 * len(labels) + len(labels)


def test_the_strength_with_the_least_log_loss_on_validation_is_kept():
    # labels by chance: the more regularisation, the better
    rng = np.random.default_rng(0)
    train, validation = ((rng.normal(size=(40, 6)), rng.integers(0, 2, 40)) for _ in range(2))
    model = LinearModel(2)
    (event,) = model.fit(train, validation, [100.0, 0.001, 1.0], 300)
    assert event.startswith("C=0.001 chosen on validation (log loss 0.6")
    only = LinearModel(2)
    only.fit(train, validation, [0.001], 300)
    np.testing.assert_array_equal(model.weight_FL, only.weight_FL)


def test_a_label_missing_in_train_is_never_predicted():
    (train_x, train_y), (validation_x, validation_y) = blobs((0, 2)), blobs((0, 1, 2), seed=1)
    model = LinearModel(3)
    model.fit((train_x, train_y), (validation_x, validation_y), [1.0], 300)
    logits = model.logits(validation_x)
    assert logits.shape == (40, 3)
    assert (logits[:, 1] == -10.0).all()
    assert set(logits.argmax(axis=1)) == {0, 2}
    seen = validation_y != 1
    assert (logits.argmax(axis=1) == validation_y)[seen].mean() > 0.9


def test_what_cannot_be_fitted_is_said_in_words():
    x, y = blobs((0, 1))
    with pytest.raises(MethodError, match="all training examples have the same label"):
        LinearModel(2).fit((x, np.zeros(40, dtype=int)), (x, y), [1.0], 300)
    with pytest.raises(MethodError, match="validation has none of the labels that train has"):
        LinearModel(3).fit((x, y), (x, np.full(40, 2)), [1.0], 300)
    with pytest.raises(MethodError, match="Give at least one value of C"):
        LinearModel(2).fit((x, y), (x, y), [], 300)


def test_a_fit_that_stops_early_is_no_warning():
    LinearModel(2).fit(blobs((0, 1)), blobs((0, 1), seed=1), [1e6], 1)


def test_it_is_saved_as_plain_numbers(tmp_path):
    model = LinearModel(3)
    model.fit(blobs((0, 1, 2)), blobs((0, 1, 2), seed=1), [1.0], 300)
    model.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["linear.safetensors"]
    again = LinearModel(3)
    again.load(tmp_path)
    x, _ = blobs((0, 1, 2), seed=2)
    np.testing.assert_array_equal(again.logits(x), model.logits(x))


def test_balanced_weights_are_those_of_scikit_learn_in_fit_and_choice():
    (train_x, _), (validation_x, _) = blobs((0, 1)), blobs((0, 1), seed=1)
    rare = (np.arange(40) % 10 == 0).astype(int)
    model = LinearModel(3)  # a label that train lacks
    (event,) = model.fit((train_x, rare), (validation_x, rare), [1e-3, 1.0], 300, "balanced")
    fits = {C: LogisticRegression(C=C, max_iter=300, class_weight="balanced").fit(train_x, rare) for C in (1e-3, 1.0)}
    of_gold = {C: fit.predict_proba(validation_x)[np.arange(40), rare] for C, fit in fits.items()}
    losses = {C: -np.mean([np.log(p[rare == label]).mean() for label in (0, 1)]) for C, p in of_gold.items()}
    best = min(losses, key=losses.get)
    assert event == f"C={best:g} chosen on validation (log loss {losses[best]:.4f})"
    found = model.logits(validation_x)
    np.testing.assert_allclose(probabilities(found[:, :2]), fits[best].predict_proba(validation_x), atol=1e-6)
