"""Classifiers over one copy of their base answer as each does by itself."""

import gc
import weakref

import numpy as np
import pytest
import torch

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("prometheus_client", reason="the extra serve is not installed")

from entailor.data.example import Example
from entailor.methods import build_method
from entailor.serving import adapters as module
from entailor.serving.adapters import AdapterLane, NotSharedError, ProofFailedError
from entailor.serving.batching import Job
from entailor.serving.lanes import PredictorLane
from entailor.serving.registry import Registry
from entailor.shipping.predictor import ClassifierScorer, Predictor
from entailor.tasks import Task

TEXTS = ["w1 w2", "w3", "w4 w5 w6 w7 w8 w9 w10 w11", "w12 w13 w14", "w15 " * 30, "w16 w17 w18", "w19"]


def make(load_tiny, kind="bert", labels=2, seed=0, method="lora", **settings):
    """A LoRA classifier of single texts whose updates are not zero."""
    task = Task(tuple(f"label{index}" for index in range(labels)), is_pair=False)
    settings = {"r": 2 + seed % 3, **settings} if method == "lora" else settings
    classifier = build_method(method, settings).adapt(load_tiny(kind, task), task, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in classifier.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return classifier.eval()


def predictor_of(classifier, tmp_path):
    labels = classifier.task.labels
    return Predictor(
        ClassifierScorer(classifier, 256), labels, is_pair=False, name="x", temperature=None, place=tmp_path
    )


def alone(classifier):
    return (
        ClassifierScorer(classifier, 256)
        .score([Example(str(i), text) for i, text in enumerate(TEXTS)])
        .probabilities_EL
    )


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra", "modernbert", "llama"])
def test_a_mixed_batch_gives_what_each_classifier_gives_by_itself(load_tiny, kind):
    counts = (2, 5, 3)
    expected = [alone(make(load_tiny, kind, labels, seed)) for seed, labels in enumerate(counts)]
    first = make(load_tiny, kind, counts[0], 0)
    packs = first.packs()
    lane = AdapterLane(first, 256)
    handles = [lane.begin(), *(lane.add(make(load_tiny, kind, labels, seed)) for seed, labels in ((1, 5), (2, 3)))]
    assert lane._runner.packs() == packs  # the way without padding is still taken where it was
    jobs = [Job(handles[index % 3], Example("0", text)) for index, text in enumerate(TEXTS * 3)]
    found = lane.run(jobs)
    for index, row in enumerate(found):
        np.testing.assert_allclose(row, expected[index % 3][index % len(TEXTS)], atol=1e-5)
    assert max(np.abs(one[:, :2] - two[:, :2]).max() for one in expected for two in expected if one is not two) > 0.05


def test_only_the_layers_one_adapter_names_are_changed_for_it(load_tiny):
    some = {"target_modules": ["query"]}
    expected = [alone(make(load_tiny, labels=2, seed=0, **some)), alone(make(load_tiny, labels=4, seed=1))]
    lane = AdapterLane(make(load_tiny, labels=2, seed=0, **some), 256)
    handles = [lane.begin(), lane.add(make(load_tiny, labels=4, seed=1))]
    found = lane.run([Job(handles[index % 2], Example("0", text)) for index, text in enumerate(TEXTS * 2)])
    for index, row in enumerate(found):
        np.testing.assert_allclose(row, expected[index % 2][index % len(TEXTS)], atol=1e-5)


@pytest.mark.parametrize(
    ("method", "settings"),
    [("lora", {"use_dora": True}), ("p_tuning", {"num_virtual_tokens": 2}), ("full_finetuning", {})],
)
def test_what_is_no_plain_lora_is_served_by_itself(load_tiny, method, settings):
    with pytest.raises(NotSharedError):
        AdapterLane(make(load_tiny, method=method, **settings), 256)


def test_thresholds_that_no_head_keeps_are_served_by_themselves(load_tiny):
    classifier = make(load_tiny, "llama")
    classifier.shift(np.array([1.0, 0.0]))
    with pytest.raises(NotSharedError, match="its thresholds stand beside its weights"):
        AdapterLane(classifier, 256)


def test_a_model_that_mixes_rows_in_adapted_layers_fails_the_proof(load_tiny):
    with pytest.raises(ProofFailedError):
        AdapterLane(make(load_tiny, "deberta-v2"), 256)


def test_another_base_is_not_shared(load_tiny):
    lane = AdapterLane(make(load_tiny), 256)
    other = make(load_tiny, seed=1)
    with torch.no_grad():
        other.model.base_model.model.bert.embeddings.word_embeddings.weight[3, 3] += 1
    with pytest.raises(NotSharedError, match="other weights"):
        lane.add(other)
    with pytest.raises(NotSharedError, match="other parts"):
        lane.add(make(load_tiny, "electra"))


@pytest.fixture
def loader(load_tiny, tmp_path, monkeypatch):
    """A registry, and what lets it load made-up classifiers by name."""
    known: dict[str, dict] = {}
    registry = Registry()

    def load(path, *, trust_remote_code=False):
        return predictor_of(make(load_tiny, **known[str(path)]), tmp_path)

    monkeypatch.setattr(Predictor, "load", staticmethod(load))

    def add(name, **made):
        known[name] = made
        return registry.load(name, name)

    return registry, add


def base_copies():
    gc.collect()
    return sum(type(one).__name__ == "BertEmbeddings" for one in gc.get_objects())


def test_one_copy_of_the_base_is_kept_and_goes_with_its_last_classifier(loader):
    registry, add = loader
    before = base_copies()
    served = [add(f"m{index}", labels=2 + index, seed=index) for index in range(4)]
    assert base_copies() == before + 1
    assert len({one.lane for one in served}) == 1
    gone = weakref.ref(served[0].model)
    registry.unload("m0")
    del served
    gc.collect()
    assert gone() is None
    assert base_copies() == before + 1
    for index in range(1, 4):
        registry.unload(f"m{index}")
    assert base_copies() == before


def test_a_classifier_is_answered_by_while_another_is_unloaded(loader):
    registry, add = loader
    first, second = add("first", labels=3, seed=0), add("second", labels=5, seed=1)
    jobs = [Job(one.model, Example("0", TEXTS[0])) for one in (first, second)]
    expected = first.lane.run(jobs)
    lane = first.lane
    registry.unload("first")
    del first
    np.testing.assert_allclose(lane.run(jobs)[0], expected[0], atol=1e-7)


def test_other_methods_are_served_beside_and_keep_their_own(loader):
    _, add = loader
    add("shared", labels=2)
    own = add("own", method="full_finetuning", seed=3, labels=3)
    assert isinstance(own.lane, PredictorLane)
    assert own.predictor.predict(["w1 w2"])[0].probabilities.keys() == {"label0", "label1", "label2"}


def test_where_the_proof_fails_a_classifier_is_loaded_again_and_served_by_itself(loader, load_tiny, monkeypatch):
    _, add = loader
    expected = alone(make(load_tiny, labels=3, seed=2))
    monkeypatch.setattr(module.GroupedLinear, "forward", lambda self, states: self.layer(states))  # without updates
    served = add("one", labels=3, seed=2)
    assert isinstance(served.lane, PredictorLane)
    found = served.lane.run([Job(None, Example(str(i), text)) for i, text in enumerate(TEXTS)])
    np.testing.assert_allclose(np.array(found), expected, atol=1e-7)
