"""What every registered method keeps, on every architecture it runs on. A new method is tested here unasked."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import DECODERS, ENCODERS, NLI_LABELS, make_examples
from tests.methods.conftest import ALL_AT_ONCE, logprobs, teach

from entailor.classifiers.base import PromptedClassifier
from entailor.engine.scorer import log_softmax
from entailor.errors import MethodError
from entailor.methods import Classifier, FittedClassifier, Method, TrainedMethod, build_method, registered_methods
from entailor.methods.base import AdapterMethod
from entailor.tasks import Task

# IA3, the default of `peft`, knows the layers of bert and deberta; elsewhere they are named.
LAYERS = {"modernbert": ["Wqkv"]}
NOT_FITTING = {("bitfit", kind) for kind in ("modernbert", "llama", "mistral", "qwen3", "gemma")}  # without biases
# a method of an extra is looked at where the extra is installed
MISSING = {name for name in ("setfit",) if find_spec(name) is None}
METHODS = {name: kind for name, kind in registered_methods().items() if name not in MISSING}
FAST = {
    "num_fewshot": 2,
    "calibration": "batch",
    "fit_temperature": True,
    "num_virtual_tokens": 4,
    "per_device_train_batch_size": 8,
    "num_train_epochs": 1.0,
    "learning_rate": 0.01,
    "api_model": "made-up",
    "num_iterations": 1,
    "body_learning_rate": 0.01,
}
TRAIN, TUNE = make_examples(40, seed=1), make_examples(12, seed=2)
TEST = make_examples(13, seed=3)


def fast_method(name: str, architecture: str | None = "bert", **more: Any) -> Method:
    fields = registered_methods()[name].model_fields
    settings: dict[str, Any] = {key: value for key, value in FAST.items() if key in fields} | more
    if name == "peft" and architecture in LAYERS:
        settings["peft_config"] = {"target_modules": LAYERS[architecture], "feedforward_modules": []}
    return build_method(name, settings)


@dataclass(frozen=True)
class Case:
    name: str
    architecture: str | None
    head: str | None = None

    def __str__(self) -> str:
        return "-".join(part for part in (self.name, self.architecture, self.head) if part)

    @property
    def method(self) -> Method:
        more: dict[str, Any] = {"head": self.head} if self.head else {}
        if self.name == "zero_shot_embedding":  # the label names are no words of the tiny vocabulary
            more["descriptions"] = {label: f"w{number}" for number, label in enumerate(NLI_LABELS)}
        return fast_method(self.name, self.architecture, **more)


# what these do inside a model, lora, p_tuning and linear_probe do too, and those are tried on every architecture
LIKE_ANOTHER = {"ia3", "peft", "bitfit", "prompt_tuning", "knn", "zero_shot_embedding", "zero_shot_nli"}
FEW = ("bert", "deberta-v2", "modernbert", "llama", "gpt2")


def architectures(kind: type[Method]) -> tuple[str | None, ...]:
    if not kind.needs_backbone:
        return (None,)
    if any(base.name for base in kind.__bases__ if issubclass(base, Method)):  # a variant: the same layers are adapted
        return ("bert", "llama", "gpt2")
    every = (*(ENCODERS if "encoder" in kind.families else ()), *(DECODERS if "decoder" in kind.families else ()))
    return tuple(one for one in every if one in FEW) if kind.name in LIKE_ANOTHER else every


CASES = [
    Case(name, architecture)
    for name, kind in METHODS.items()
    for architecture in architectures(kind)
    if (name, architecture) not in NOT_FITTING
] + [
    Case(name, architecture, "verbalizer")
    for name, kind in METHODS.items()
    if issubclass(kind, AdapterMethod)
    for architecture in ("llama", "gpt2")
    if (name, architecture) not in NOT_FITTING
]
USUAL = {name: architectures(kind)[0] for name, kind in METHODS.items()}
# the scope keeps the tests of a case together, so that one process trains it and not each
every_case = pytest.mark.parametrize("case", CASES, ids=str, scope="session")
TRAINED = [case for case in CASES if issubclass(METHODS[case.name], TrainedMethod)]
trained_case = pytest.mark.parametrize("case", TRAINED, ids=str, scope="session")
LEARNING = [name for name, kind in METHODS.items() if name != "majority" and not kind.training_free]
PAIRS_ONLY = [name for name, kind in METHODS.items() if kind.needs_pair]
# what does not depend on the architecture is tested on one
every_method = pytest.mark.parametrize("name", METHODS)


@dataclass
class Taught:
    """A classifier after training, what it started from, and where it was saved."""

    method: Method
    classifier: Any
    start: dict[str, torch.Tensor]
    folder: Path


@pytest.fixture(scope="session")
def adapt(load_tiny: Callable[..., Any], nli_task: Task, tiny_nli: Callable[[str], Path]) -> Callable[..., Classifier]:
    def make(
        method: Method, architecture: Any, task: Task = nli_task, seed: int = 0, saved: Path | None = None
    ) -> Classifier:
        backbone = None
        if saved is not None and method.stores_whole_model:
            backbone = load_tiny(saved, task, seed, head="checkpoint")
        elif method.needs_backbone:
            architecture = architecture or "bert"
            if method.objective == "entailment":
                architecture = tiny_nli(architecture)
            backbone = load_tiny(architecture, task, seed, method.objective)
        return method.adapt(backbone, task, seed)

    return make


@pytest.fixture(scope="session")
def taught(adapt: Callable[..., Classifier], tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], Taught]:
    """Return every case's classifier, trained once a session; tests look at it and change nothing."""
    made: dict[Case, Taught] = {}

    def get(case: Case) -> Taught:
        if case not in made:
            method = case.method
            classifier: Any = adapt(method, case.architecture)
            start = {}
            if isinstance(classifier, torch.nn.Module):
                start = {name: tensor.detach().clone() for name, tensor in classifier.named_parameters()}
            teach(method, classifier, TRAIN, TUNE)
            folder = tmp_path_factory.mktemp("saved")
            classifier.save(folder)
            made[case] = Taught(method, classifier, start, folder)
        return made[case]

    return get


@every_method
def test_settings_are_documented_and_have_defaults(name):
    kind = registered_methods()[name]
    method = kind()  # every field has a default
    assert kind.summary
    assert kind.__doc__
    for field, info in kind.model_fields.items():
        assert info.description, f"{name}.{field} has no docstring"
    for field, span in method.search_space().items():
        assert field in kind.model_fields
        assert 0 < span.low < span.high
        for value in (span.low, span.high):
            assert getattr(build_method(name, {field: value}), field) == value
        assert span.low <= getattr(method, field) <= span.high, f"{name}.{field}: the default is not searched"


@every_case
def test_one_input_an_example_in_order(case, taught):
    classifier = taught(case).classifier
    inputs = classifier.encode(TEST)
    assert [item.example_index for item in inputs] == list(range(len(TEST)))
    assert all(len(item) >= 1 for item in inputs)
    assert not any(item.truncated for item in inputs)
    assert len(classifier.encode([])) == 0


@every_case
def test_logits_are_finite_float32_one_a_label(case, taught):
    classifier = taught(case).classifier
    inputs = classifier.encode(TEST)
    for members in (inputs, inputs[:1]):
        with torch.inference_mode():
            logits_BL = torch.as_tensor(classifier.logits(classifier.collate(members)))
        assert logits_BL.shape == (len(members), 3)
        assert logits_BL.dtype == torch.float32
        assert torch.isfinite(logits_BL).all()


@every_case
def test_scores_do_not_depend_on_the_batching(case, taught):
    classifier = taught(case).classifier
    whole = logprobs(classifier, TEST)
    np.testing.assert_allclose(logprobs(classifier, TEST, max_tokens=1), whole, atol=1e-4)  # one by one
    np.testing.assert_allclose(logprobs(classifier, TEST, max_tokens=60), whole, atol=1e-4)
    np.testing.assert_allclose(logprobs(classifier, TEST[::-1])[::-1], whole, atol=1e-4)
    if not isinstance(classifier, FittedClassifier) or case.name != "majority":
        assert np.ptp(whole, axis=0).max() > 1e-6, "all examples score alike, so this test would see nothing"


@pytest.mark.parametrize("case", [case for case in CASES if case not in TRAINED], ids=str, scope="session")
def test_what_is_not_trained_by_gradients_has_no_parameter_groups(case, taught):
    made = taught(case)
    assert isinstance(made.classifier, (FittedClassifier, PromptedClassifier))
    assert made.method.parameter_groups(made.classifier) == []


@trained_case
def test_parameter_groups_hold_each_trainable_tensor_once(case, taught):
    made = taught(case)
    groups = made.method.parameter_groups(made.classifier)
    ids = [id(tensor) for group in groups for tensor in group.parameters]
    names = {id(tensor): name for name, tensor in made.classifier.named_parameters()}
    trainable = {id(tensor) for tensor in made.classifier.parameters() if tensor.requires_grad}
    assert len(ids) == len(set(ids))
    assert set(ids) == trainable
    for group in groups:
        for tensor in group.parameters:
            name = names[id(tensor)]
            plain = tensor.ndim < 2 or "bias" in name.rpartition(".")[2]
            assert group.weight_decay == (0.0 if plain else made.method.weight_decay), name
            is_head = made.classifier.is_head(name)
            assert group.learning_rate == ((is_head and made.method.head_learning_rate) or made.method.learning_rate)


@every_case
def test_saved_loads_into_a_fresh_one_and_scores_the_same(case, taught, adapt):
    made = taught(case)
    before = logprobs(made.classifier, TEST)
    # another seed: nothing that counts may be left to a lucky start
    fresh = adapt(made.method, case.architecture, seed=1, saved=made.folder)
    if isinstance(made.method, TrainedMethod) and not made.method.stores_whole_model:
        assert np.abs(logprobs(fresh, TEST) - before).max() > 1e-5
    fresh.load(made.folder)
    np.testing.assert_allclose(logprobs(fresh, TEST), before, atol=1e-5)


SHIFT_L = np.array([0.5, -1.0, 2.0])
WITH_THRESHOLDS = [
    case
    for case in CASES
    if "thresholds" in METHODS[case.name].model_fields and case.architecture in (USUAL[case.name], "llama")
]


@pytest.mark.parametrize("case", WITH_THRESHOLDS, ids=str, scope="session")
def test_thresholds_move_every_logit_and_are_saved(case, taught, adapt, tmp_path):
    made = taught(case)
    expected = log_softmax(logprobs(made.classifier, TEST) + SHIFT_L)
    moved = adapt(made.method, case.architecture, saved=made.folder)
    moved.load(made.folder)
    moved.shift(SHIFT_L)
    np.testing.assert_allclose(logprobs(moved, TEST), expected, atol=1e-5)
    moved.save(tmp_path)
    fresh = adapt(made.method, case.architecture, seed=1, saved=tmp_path)
    fresh.load(tmp_path)
    # what has no bias to keep them in is the one that classifier.json keeps them for
    assert (moved.offset_L is not None) == (case in TRAINED and case.architecture in DECODERS)
    fresh.offset_L = moved.offset_L
    np.testing.assert_allclose(logprobs(fresh, TEST), expected, atol=1e-5)


@every_case
def test_parameter_counts_agree_with_the_files(case, taught):
    made = taught(case)
    trained, stored, total = made.classifier.parameter_counts()
    assert (0 < trained <= total) or isinstance(made.classifier, PromptedClassifier)
    assert (0 < stored <= total) or isinstance(made.classifier, PromptedClassifier)
    groups = made.method.parameter_groups(made.classifier)
    if groups:
        assert trained == sum(tensor.numel() for group in groups for tensor in group.parameters)
    assert stored == numbers_in(made.folder)


def numbers_in(folder: Path) -> int:
    """Count the numbers that were learned in what a classifier saved."""
    count = sum(tensor.numel() for file in folder.glob("*.safetensors") for tensor in load_file(file).values())
    for vocabulary in json.loads((folder / "vocabulary.json").read_text()) if _has(folder, "vocabulary.json") else []:
        count += len(vocabulary["idf"])
    if _has(folder, "frequencies.json"):
        count += len(json.loads((folder / "frequencies.json").read_text()))
    return count


def _has(folder: Path, name: str) -> bool:
    return (folder / name).exists()


@pytest.mark.parametrize("case", [case for case in TRAINED if case.head != "verbalizer"], ids=str, scope="session")
def test_the_head_is_trained_and_saved(case, taught):
    made = taught(case)
    heads = {
        name: tensor
        for name, tensor in made.classifier.named_parameters()
        if tensor.requires_grad and made.classifier.is_head(name)
    }
    assert heads
    assert any(tensor.shape[0] == 3 for tensor in heads.values()), "the layer that gives the labels is not among them"
    saved = [tensor for file in made.folder.glob("*.safetensors") for tensor in load_file(file).values()]
    for name, tensor in heads.items():
        assert not torch.equal(tensor, made.start[name]), f"{name} has not moved"
        assert any(torch.equal(tensor, other) for other in saved), f"{name} is not saved"


@every_case
def test_what_is_frozen_stays_as_it_was(case, taught):
    made = taught(case)
    for name, start in made.start.items():
        parameter = made.classifier.get_parameter(name)
        if not parameter.requires_grad:
            assert torch.equal(parameter, start), name


@every_method
def test_a_seed_decides_everything(name, taught, adapt):
    made = taught(Case(name, USUAL[name]))
    scores = logprobs(made.classifier, TEST)

    def again(seed: int) -> np.ndarray:
        classifier = adapt(made.method, USUAL[name], seed=seed)
        teach(made.method, classifier, TRAIN, TUNE, seed)
        return logprobs(classifier, TEST)

    np.testing.assert_array_equal(again(0), scores)
    assert np.array_equal(again(1), scores) != made.method.is_seeded


@pytest.mark.parametrize("name", PAIRS_ONLY)
def test_a_method_for_pairs_refuses_single_texts(name, adapt):
    with pytest.raises(MethodError, match="pair"):
        adapt(fast_method(name), USUAL[name], Task(("yes", "no"), is_pair=False))


TWO, SIX = ("yes", "no"), ("a", "b", "c", "d", "e", "f")


@pytest.mark.parametrize(
    ("name", "labels", "pair"),
    [(name, *other) for name in METHODS for other in ((SIX, True), (TWO, name in PAIRS_ONLY))],
    ids=lambda value: len(value) if isinstance(value, tuple) else str(value),
)
def test_other_tasks_work_as_well(name, labels, pair, adapt, tmp_path):
    task, method = Task(labels, is_pair=pair), fast_method(name)
    classifier = adapt(method, USUAL[name], task)
    train_rows, search_candidates, test_rows = (
        make_examples(count, seed=seed, pair=pair, labels=labels) for seed, count in enumerate((36, 12, 12), 1)
    )
    teach(method, classifier, train_rows, search_candidates)
    scores = logprobs(classifier, test_rows)
    assert scores.shape == (12, len(labels))
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1.0)
    classifier.save(tmp_path)
    fresh = adapt(method, USUAL[name], task, seed=1, saved=tmp_path)
    fresh.load(tmp_path)
    np.testing.assert_allclose(logprobs(fresh, test_rows), scores, atol=1e-5)


@pytest.mark.parametrize(("name", "architecture"), sorted(NOT_FITTING), ids="-".join)
def test_an_architecture_a_method_does_not_fit_is_refused(name, architecture, adapt):
    with pytest.raises(MethodError, match=f"{name} does not fit .*{architecture} has no biases.*choose lora"):
        adapt(fast_method(name), architecture)


@every_method
def test_a_method_without_its_model_says_so(name, nli_task):
    if registered_methods()[name].needs_backbone:
        with pytest.raises(MethodError, match=f"{name} needs a model. Give one with --model"):
            fast_method(name).adapt(None, nli_task, 0)
    else:
        assert fast_method(name).adapt(None, nli_task, 0).task == nli_task


@pytest.fixture(scope="session")
def taught_encoder(adapt: Callable[..., Classifier], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder that knows the task: noise, frozen, is something no method could learn on."""
    method = build_method("full_finetuning", {"learning_rate": 0.01, "num_train_epochs": 20})
    classifier = adapt(method, "bert", seed=6)  # from noise, about half of the seeds stay at two of the three labels
    result = teach(method, classifier, make_examples(96, seed=1), make_examples(30, seed=2), seed=6)
    assert result is not None
    assert result.best_accuracy >= 0.9
    folder = tmp_path_factory.mktemp("taught")
    classifier.model.bert.save_pretrained(folder)
    classifier.text_encoder.tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", LEARNING)
def test_every_method_learns_what_its_model_can_tell(name, taught_encoder, adapt):
    is_trained = issubclass(registered_methods()[name], TrainedMethod)
    method = build_method(name, {"num_train_epochs": 8, "learning_rate": 0.01} if is_trained else {})
    classifier = adapt(method, taught_encoder)
    teach(method, classifier, make_examples(96, seed=4), make_examples(30, seed=5))
    rows = make_examples(60, seed=6)
    predicted = logprobs(classifier, rows, ALL_AT_ONCE).argmax(axis=1)
    assert np.mean(predicted == classifier.task.targets(rows)) >= 0.9
