import numpy as np
import pytest
import torch
from tests.conftest import FP32, make_examples
from tests.methods.conftest import logprobs, teach

from entailor.config.parts import ModelSettings
from entailor.data.example import Example
from entailor.errors import MethodError, ModelError
from entailor.methods import build_method
from entailor.shipping.restoring import load_classifier
from entailor.study.trial import run_trial
from entailor.study.trial_plan import TrialPlan
from entailor.tasks import Task

ROWS = make_examples(6, seed=3)


def nli(load_tiny, folder, task, **settings):
    method = build_method("zero_shot_nli", settings)
    return method.adapt(load_tiny(folder, task, objective="entailment"), task, 0)


def head_logprobs(classifier, pairs):
    reader = classifier.reader
    with torch.inference_mode():
        batch = reader.collate(reader.encode([Example("x", text, pair) for text, pair in pairs]))
        return torch.log_softmax(reader.logits(batch), dim=1)


def test_each_label_has_a_hypothesis_and_the_row_of_entailment_counts(load_tiny, tiny_nli):
    task = Task(("red", "cat_dog"), is_pair=False)
    classifier = nli(load_tiny, tiny_nli("bert"), task, hypothesis="some {}", descriptions={"red": "yes w1"})
    expected = [head_logprobs(classifier, [(row.text, "yes w1"), (row.text, "some cat dog")])[:, 2] for row in ROWS]
    expected = torch.log_softmax(torch.stack(expected), dim=1).numpy()
    found = logprobs(classifier, [Example(row.id, row.text) for row in ROWS])
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("labels", [("neutral", "entailment", "contradiction"), ("not_entailment", "entailment")])
def test_a_task_of_inference_is_answered_by_the_head_its_labels_matched_by_name(labels, load_tiny, tiny_nli):
    classifier = nli(load_tiny, tiny_nli("bert"), Task(labels, is_pair=True))
    contradiction, neutral, entailment = head_logprobs(classifier, [(row.text, row.text_pair) for row in ROWS]).exp().T
    of = {"neutral": neutral, "entailment": entailment, "contradiction": contradiction}
    of["not_entailment"] = neutral + contradiction
    expected = torch.stack([of[label] for label in labels], dim=1).numpy()
    np.testing.assert_allclose(np.exp(logprobs(classifier, ROWS)), expected, atol=1e-5)


def test_a_checkpoint_without_an_entailment_head_is_refused(load_tiny, nli_task):
    with pytest.raises(ModelError, match=r"entailment head was expected, and its head is missing.*--model"):
        load_tiny("bert", nli_task, objective="entailment")


def test_similarity_to_the_description_decides(load_tiny):
    task = Task(("red", "cat_dog"), is_pair=False)
    settings = {"template": "some {}", "descriptions": {"red": "yes w1"}, "temperature": 0.5}
    classifier = build_method("zero_shot_embedding", settings).adapt(load_tiny("bert", task), task, 0)
    texts = ["yes w1", "some cat dog", "w40 w41"]
    with torch.inference_mode():
        batch = classifier.collate(classifier.encode([Example(text, text) for text in texts]))
        unit = torch.nn.functional.normalize(classifier.reader.mean_states(batch), dim=1)
    found = logprobs(classifier, [Example(text, text) for text in texts])
    np.testing.assert_allclose(found, torch.log_softmax(unit @ unit[:2].T / 0.5, dim=1).numpy(), atol=1e-5)
    assert found[:2].argmax(axis=1).tolist() == [0, 1]


@pytest.mark.parametrize("name", ["zero_shot_embedding", "zero_shot_nli"])
def test_descriptions_of_other_labels_are_refused(name, load_tiny, tiny_nli):
    task, method = Task(("red", "blue"), is_pair=False), build_method(name, {"descriptions": {"reed": "x"}})
    with pytest.raises(MethodError, match=f"{name}: descriptions names reed; the data has red, blue"):
        method.adapt(load_tiny(tiny_nli("bert"), task, objective="entailment"), task, 0)


@pytest.mark.parametrize("name", ["zero_shot_embedding", "zero_shot_nli"])
def test_batch_calibration_balances_validation_and_is_kept(name, load_tiny, tiny_nli, tmp_path):
    def fresh(labels=("red", "blue"), **settings):
        task, method = Task(labels, is_pair=True), build_method(name, settings)
        return method.adapt(load_tiny(tiny_nli("bert"), task, objective="entailment"), task, 0)

    rows = make_examples(20, seed=5, labels=("red", "blue"))
    plain, calibrated = logprobs(fresh(), rows), fresh(calibration="batch")
    teach(build_method(name, {}), calibrated, rows, rows)
    mean = np.log(np.exp(plain).mean(0))
    expected = plain - mean
    expected -= np.logaddexp.reduce(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(logprobs(calibrated, rows), expected, atol=1e-5)
    calibrated.save(tmp_path)
    again = fresh(calibration="batch")
    again.load(tmp_path)
    np.testing.assert_allclose(logprobs(again, rows), expected, atol=1e-5)
    with pytest.raises(ValueError, match="a bias for red, blue, expected one for a, b"):
        fresh(labels=("a", "b")).load(tmp_path)


@pytest.mark.parametrize("name", ["zero_shot_embedding", "zero_shot_nli", "knn"])
def test_a_trial_ends_and_its_classifier_is_loaded_from_the_folder(name, tiny_nli, nli_split, tmp_path):
    task = Task(("entailment", "neutral", "contradiction"), is_pair=True)
    settings = {} if name == "knn" else {"calibration": "batch"}
    model = ModelSettings(head="auto" if name == "zero_shot_nli" else "new")
    plan = TrialPlan(name, build_method(name, settings), str(tiny_nli("bert")), 0, model, FP32)
    record = run_trial(plan, task, nli_split, tmp_path / "trial")
    assert record.status == "complete", record.error
    expected = [[one.probabilities[label] for label in task.labels] for one in record.predictions]
    found = np.exp(logprobs(load_classifier(tmp_path / "trial"), nli_split.test))
    np.testing.assert_allclose(found, expected, atol=1e-5)
