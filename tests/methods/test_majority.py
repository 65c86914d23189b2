import json

import numpy as np
import pytest
from tests.methods.conftest import logprobs, teach

from entailor.data.example import Example
from entailor.methods import build_method
from entailor.tasks import Task

TASK = Task(("a", "b", "c"), is_pair=False)


@pytest.fixture
def classifier():
    method = build_method("majority", {})
    made = method.adapt(None, TASK, 0)
    train = [Example(f"{index}", "text", None, label) for index, label in enumerate("bbbbba")]
    teach(method, made, train, train[:1])
    return made


def test_every_example_gets_the_frequencies_of_train(classifier):
    scores = logprobs(classifier, [Example("x", "one"), Example("y", "two"), Example("z", "")])
    np.testing.assert_allclose(np.exp(scores), [[2 / 9, 6 / 9, 1 / 9]] * 3, atol=1e-6)


def test_a_label_missing_in_train_keeps_a_finite_log_loss(classifier):
    assert np.isfinite(logprobs(classifier, [Example("x", "one")])).all()


def test_what_is_saved_can_be_read_by_eye(classifier, tmp_path):
    classifier.save(tmp_path)
    saved = json.loads((tmp_path / "frequencies.json").read_text())
    assert list(saved) == ["a", "b", "c"]
    assert np.exp(saved["b"]) == pytest.approx(6 / 9)
