import json

import numpy as np
import pytest
import torch
from tests.conftest import ENCODERS, make_examples
from tests.methods.conftest import plain_logits, teach

from entailor.methods import build_method


@pytest.fixture
def classifier(request, load_tiny, nli_task):
    method = build_method("full_finetuning", {"num_train_epochs": 1, "learning_rate": 0.01})
    made = method.adapt(load_tiny(request.param), nli_task, 0)
    teach(method, made, make_examples(40, seed=1), make_examples(9, seed=2))
    return made


@pytest.mark.parametrize("classifier", ENCODERS, indirect=True)
def test_plain_transformers_gives_the_same_logits_in_a_fresh_process(classifier, tmp_path):
    classifier.save(tmp_path)
    batch = classifier.collate(classifier.encode(make_examples(5, seed=3)))
    with torch.inference_mode():
        logits_BL = classifier.logits(batch).numpy()
    np.testing.assert_allclose(plain_logits("transformers_logits", tmp_path, batch), logits_BL, atol=1e-5)


@pytest.mark.parametrize("classifier", ["bert"], indirect=True)
def test_the_saved_checkpoint_names_the_labels_in_order(classifier, tmp_path):
    classifier.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["id2label"] == {"0": "entailment", "1": "neutral", "2": "contradiction"}
    assert config["architectures"] == ["BertForSequenceClassification"]


@pytest.mark.parametrize("classifier", ["bert"], indirect=True)
def test_saving_shows_no_bars_and_no_warnings(classifier, tmp_path, capfd):
    classifier.save(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_every_weight_is_trained(load_tiny, nli_task):
    classifier = build_method("full_finetuning", {}).adapt(load_tiny("roberta"), nli_task, 0)
    trained, stored, total = classifier.parameter_counts()
    assert trained == stored == total
