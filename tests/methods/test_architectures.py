"""Each method on each architecture takes two steps, or refuses with the reason before anything is trained."""

import numpy as np
import pytest
import torch
from tests.conftest import make_examples
from tests.methods.architectures import METHODS, TASK, make_model, two_steps
from tests.methods.conftest import logprobs

from entailor.errors import MethodError, ModelError
from entailor.methods import build_method
from entailor.models.load import family_of

KINDS = ("bart", "big_bird", "xlnet", "deberta-v2", "albert", "mobilebert", "funnel", "gpt2", "opt", "bloom")
KINDS += ("gemma3_text", "qwen2", "mixtral", "qwen2_moe", "esm")
REFUSED = {
    ("bart", "p_tuning"): r"does not fit .*\(bart\).*decoder",
    ("bart", "prefix_tuning"): r"does not fit .*\(bart\).*decoder",
    ("bloom", "prefix_tuning"): "no key and value projections of a known name",
    ("funnel", "prefix_tuning"): "no key and value projections of a known name",
    ("xlnet", "prefix_tuning"): "no key and value projections of a known name",
    ("funnel", "p_tuning"): "Set pooling=head",
    ("funnel", "linear_probe"): "gives no state for each token",
    ("ibert", "p_tuning"): r"does not fit .*\(ibert\).*QuantEmbedding",
    ("mt5", "prefix_tuning"): r"does not fit .*\(mt5\)",
    ("gpt_bigcode", "prefix_tuning"): r"does not fit .*\(gpt_bigcode\)",
}
# an encoder and a decoder; a head of several parts; experts of three kinds; a tower for pictures
ONE_METHOD = [("plbart", "lora"), ("modernbert-decoder", "lora"), ("phimoe", "lora"), ("hunyuan_v1_moe", "lora")]
ONE_METHOD += [("deepseek_v2", "lora"), ("gemma3", "prefix_tuning")]
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of libraries, on sizes that no real model has
]


@pytest.fixture(scope="module")
def model_of(tmp_path_factory):
    made: dict[str, str] = {}

    def make(kind):
        if kind not in made:
            made[kind] = make_model(kind, tmp_path_factory.mktemp(kind), family_of(kind))
        return made[kind]

    return make


@pytest.mark.parametrize(("kind", "name"), REFUSED)
def test_what_does_not_fit_is_refused_with_the_reason(kind, name, model_of):
    with pytest.raises(MethodError, match=REFUSED[kind, name]):
        two_steps(name, model_of(kind))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, name)
        for place, kind in enumerate(KINDS)
        for name in METHODS
        # these two change nothing inside a model
        if (kind, name) not in REFUSED and (place % 3 == 0 or name not in ("full_finetuning", "linear_probe"))
    ]
    + ONE_METHOD,
)
def test_two_steps_score_alike_alone_and_in_a_batch(kind, name, model_of):
    _, classifier = two_steps(name, model_of(kind))
    scores = logprobs(classifier, make_examples(4, seed=3, labels=TASK.labels))
    assert np.isfinite(scores).all()
    alone = np.concatenate([logprobs(classifier, [row]) for row in make_examples(4, seed=3, labels=TASK.labels)])
    np.testing.assert_allclose(scores, alone, atol=1e-4)  # padding is read by no head


@pytest.mark.parametrize("name", ["lora", "full_finetuning"])
def test_what_no_head_reads_is_frozen_and_said(name, model_of):
    backbone, classifier = two_steps(name, model_of("big_bird"))
    (event,) = [event for event in backbone.events if event.startswith("not trained")]
    assert "pooler" in event
    poolers = [tensor for path, tensor in classifier.named_parameters() if ".pooler." in path]
    assert poolers
    assert not any(tensor.requires_grad for tensor in poolers)


def test_only_what_was_named_is_refused(model_of):
    with pytest.raises(MethodError, match=r"target_modules names bert\.pooler.*Take bert\.pooler out"):
        two_steps("lora", model_of("big_bird"), target_modules=["query", "bert.pooler"])
    backbone, _ = two_steps("lora", model_of("big_bird"), target_modules=["query"])  # the remedy
    assert any(event.startswith("not trained") for event in backbone.events)  # the new pooler, which nobody named
    config = {"target_modules": ["key", "bert.pooler"], "feedforward_modules": []}
    with pytest.raises(MethodError, match=r"peft IA3: target_modules names bert\.pooler"):
        two_steps("peft", model_of("big_bird"), peft_config=config)


def test_the_head_of_a_model_that_shortens_its_text_is_read(model_of):
    two_steps("p_tuning", model_of("funnel"), pooling="head")  # the remedy of the message


@pytest.mark.parametrize(
    ("kind", "name"),
    [("fnet", "lora"), ("fnet", "full_finetuning"), ("convbert", "linear_probe"), ("yoso", "p_tuning")],
)
def test_a_model_that_reads_padding_runs_without_it_and_says_so(kind, name, model_of):
    backbone, classifier = two_steps(name, model_of(kind))
    assert [event for event in backbone.events if event.startswith("runs without padding")]
    rows = make_examples(6, seed=3, labels=TASK.labels)
    alone = np.concatenate([logprobs(classifier, [row]) for row in rows])
    np.testing.assert_allclose(logprobs(classifier, rows), alone, atol=1e-6)
    assert not [event for event in two_steps(name, model_of("albert"))[0].events if "padding" in event]


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe"])
def test_experts_are_left_out_and_said(kind, model_of):
    backbone, classifier = two_steps("lora", model_of(kind), lora_dropout=0.1)
    assert any("beside the experts, and not down_proj, gate_up_proj" in event for event in backbone.events)
    adapted = {path for path, tensor in classifier.named_parameters() if tensor.requires_grad}
    assert any("q_proj.lora_A" in path for path in adapted)
    assert not any(".experts." in path for path in adapted)


def test_dropout_on_a_router_names_dropout(model_of):
    with pytest.raises(MethodError, match="Set lora_dropout=0"):
        two_steps("lora", model_of("mixtral"), target_modules=["gate"], lora_dropout=0.1)
    two_steps("lora", model_of("mixtral"), target_modules=["gate"], lora_dropout=0)


def test_what_cannot_be_built_is_not_called_damaged(model_of):
    with pytest.raises(ModelError, match=r"cannot be loaded: .*'weight'"):
        two_steps("lora", model_of("perceiver"))


def test_a_decoder_with_a_head_needs_no_list_of_labels(load_tiny, tiny_model):
    from entailor.config.parts import PromptSettings
    from entailor.tasks import Task

    labels = tuple(f"w{number} w{number // 2}" for number in range(200))
    for kind in ("llama", "gpt2"):
        for pair in (True, False):
            backbone = load_tiny(kind, Task(labels, is_pair=pair), max_length=128)
            classifier = build_method("lora", {"r": 2}).adapt(backbone, Task(labels, is_pair=pair), 0)
            rows = make_examples(3, pair=pair, labels=labels)
            batch = classifier.collate(classifier.encode(rows))
            assert torch.isfinite(classifier.logits(batch)).all()
            assert not any(item.truncated for item in classifier.encode(rows))
    few = load_tiny("llama", Task(("yes", "no"), is_pair=False))
    assert "The labels are: yes, no" in few.text_encoder.template.instruction
    own = Task(labels, is_pair=True, prompt=PromptSettings(instruction="{{ labels | join(', ') }}"))
    with pytest.raises(ModelError, match=r"shorter prompt\.instruction"):
        build_method("lora", {"r": 2}).adapt(load_tiny("llama", own, max_length=128), own, 0)
