import sys

import numpy as np
import pytest
import torch
from tests.conftest import make_examples
from tests.methods.conftest import logprobs, teach

from entailor.errors import MethodError
from entailor.methods import build_method
from entailor.tasks import Task

LABELS = ("a", "b")
TRAIN, TUNE = (make_examples(count, seed=seed, pair=False, labels=LABELS) for count, seed in ((16, 1), (8, 2)))


def test_without_the_library_it_says_what_to_install(load_tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "setfit", None)
    method, task = build_method("setfit", {}), Task(LABELS, is_pair=False)
    with pytest.raises(MethodError, match=r"setfit: setfit is not installed"):  # before anything is trained
        method.check(task)
    classifier = method.adapt(load_tiny("bert"), task, 0)
    with pytest.raises(MethodError, match=r"setfit: setfit is not installed\. pip install 'entailor\[setfit\]'"):
        teach(classifier.method, classifier, TRAIN, TUNE)


def test_texts_of_one_label_come_closer_together(load_tiny):
    pytest.importorskip("setfit")
    method = build_method("setfit", {"num_iterations": 10, "body_learning_rate": 0.01})
    classifier = method.adapt(load_tiny("bert", Task(LABELS, is_pair=False)), Task(LABELS, is_pair=False), 0)

    def apart() -> float:
        with torch.no_grad():
            unit = torch.nn.functional.normalize(classifier._states(classifier.encode(TRAIN)), dim=1)
        cosines, same = (unit @ unit.T).numpy(), np.equal.outer(*[classifier.task.targets(TRAIN)] * 2)
        return float(cosines[same].mean() - cosines[~same].mean())

    before = apart()
    teach(method, classifier, make_examples(96, seed=1, pair=False, labels=LABELS), TUNE)
    assert apart() > before + 0.2
    rows = make_examples(40, seed=3, pair=False, labels=LABELS)
    assert np.mean(logprobs(classifier, rows).argmax(axis=1) == classifier.task.targets(rows)) >= 0.9


def test_one_label_alone_is_refused(load_tiny):
    classifier = build_method("setfit", {}).adapt(load_tiny("bert"), Task(LABELS, is_pair=False), 0)
    with pytest.raises(MethodError, match="the same label, so there are no pairs"):
        teach(classifier.method, classifier, [row for row in TRAIN if row.label == "a"], TUNE)
