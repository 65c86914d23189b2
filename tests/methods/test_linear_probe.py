import numpy as np
import pytest
import torch
from tests.conftest import make_examples
from tests.methods.conftest import logprobs, teach

from entailor.data.example import Example
from entailor.engine.scorer import collect_features
from entailor.errors import MethodError
from entailor.methods import build_method
from entailor.tasks import Task

ROWS = make_examples(6, seed=3)


@pytest.fixture
def probe(load_tiny, nli_task):
    def make(kind="bert", task=nli_task, **model):
        return build_method("linear_probe", {}).adapt(load_tiny(kind, task, **model), task, 0)

    return make


def features(classifier, rows, max_tokens=10**6):
    inputs = classifier.encode(rows)
    return collect_features(classifier, inputs, [0] * len(rows), max_tokens).features


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_features_are_the_pair_and_both_texts_apart(kind, probe, load_tiny):
    plain = load_tiny(kind)
    body = getattr(plain.model, plain.model.base_model_prefix)

    def pooled(text, pair=None):
        (item,) = plain.text_encoder.encode([Example("x", text, pair)])
        types = {} if item.token_type_ids is None else {"token_type_ids": torch.tensor([item.token_type_ids])}
        with torch.no_grad():
            return body(input_ids=torch.tensor([item.input_ids]), **types).last_hidden_state[0].mean(0)

    found = features(probe(kind), ROWS)
    assert found.shape == (6, 5 * 16)
    for row, example in zip(found, ROWS, strict=True):
        u, v = pooled(example.text), pooled(example.text_pair)
        expected = torch.cat([pooled(example.text, example.text_pair), u, v, (u - v).abs(), u * v])
        np.testing.assert_allclose(row, expected, atol=1e-5)


def test_single_texts_have_their_own_vector_alone(probe):
    task = Task(("x", "y"), is_pair=False)
    rows = make_examples(6, seed=3, pair=False, labels=task.labels)
    assert features(probe(task=task), rows).shape == (6, 16)


def test_features_do_not_depend_on_the_batching(probe):
    classifier = probe()
    np.testing.assert_allclose(features(classifier, ROWS, 1), features(classifier, ROWS), atol=1e-5)


def test_standardisation_is_folded_into_the_weights(probe):
    classifier, method = probe(), build_method("linear_probe", {"C": [0.1]})
    classifier.method = method
    train, validation = make_examples(40, seed=1), make_examples(12, seed=2)
    teach(method, classifier, train, validation)
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features(classifier, train))
    model = LogisticRegression(C=0.1, max_iter=300).fit(
        scaler.transform(features(classifier, train)), classifier.task.targets(train)
    )
    expected = model.predict_log_proba(scaler.transform(features(classifier, ROWS)))
    np.testing.assert_allclose(logprobs(classifier, ROWS), expected, atol=2e-3)


def test_the_encoder_is_not_changed(probe, load_tiny):
    classifier = probe()
    teach(classifier.method, classifier, make_examples(40, seed=1), make_examples(12, seed=2))
    fresh = load_tiny().model.bert.state_dict()
    for name, tensor in classifier.body.state_dict().items():
        assert torch.equal(tensor, fresh[name])


def test_windows_are_refused(probe):
    classifier = probe(long_texts="windows", max_length=24, window_stride=2)
    with pytest.raises(MethodError, match=r"Set model\.long_texts=truncate"):
        classifier.encode([Example("x", "w20 " * 60, "w30")])


def test_a_truncated_text_is_said_to_be(probe):
    classifier = probe(max_length=16)
    long, short = classifier.encode([Example("x", "w20 " * 60, "w30"), Example("y", "w20", "w30")])
    assert (long.truncated, short.truncated) == (True, False)
