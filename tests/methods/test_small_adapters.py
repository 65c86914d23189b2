"""ia3, bitfit and prompt_tuning: what each of them moves, and nothing else."""

import pytest
import torch
from tests.conftest import make_examples
from tests.methods.conftest import logprobs, plain_logits, teach

from entailor.errors import MethodError
from entailor.methods import build_method


def trainable(classifier):
    return {
        name: tensor
        for name, tensor in classifier.named_parameters()
        if tensor.requires_grad and not classifier.is_head(name)
    }


@pytest.mark.parametrize(
    ("kind", "factors"),
    [("bert", 3), ("distilbert", 3), ("deberta-v2", 3), ("modernbert", 2), ("llama", 3), ("gpt2", 2), ("phi", 3)],
)
def test_ia3_stretches_keys_values_and_the_inner_states_of_every_layer(kind, factors, load_tiny, nli_task):
    moved = trainable(build_method("ia3", {}).adapt(load_tiny(kind), nli_task, 0))
    assert len(moved) == 2 * factors, sorted(moved)  # two layers
    assert all(name.rpartition(".")[2] == "default" and "ia3_l" in name for name in moved)
    assert all(bool((factor == 1).all()) for factor in moved.values())
    assert {32} <= {factor.numel() for factor in moved.values()} or kind == "gpt2"  # the inner states


def test_ia3_starts_as_the_checkpoint_and_names_unknown_layers(load_tiny, nli_task):
    rows = make_examples(4)
    plain = build_method("bitfit", {}).adapt(load_tiny("bert"), nli_task, 0)
    torch.testing.assert_close(
        logprobs(build_method("ia3", {}).adapt(load_tiny("bert"), nli_task, 0), rows), logprobs(plain, rows)
    )
    with pytest.raises(MethodError, match=r"ia3: no layer of this model is called keys.*key"):
        build_method("ia3", {"target_modules": ["keys"]}).adapt(load_tiny("bert"), nli_task, 0)


def test_bitfit_moves_biases_alone(load_tiny, nli_task):
    classifier = build_method("bitfit", {}).adapt(load_tiny("bert"), nli_task, 0)
    moved = trainable(classifier)
    assert moved
    assert all(name.endswith("bias") and tensor.ndim == 1 for name, tensor in moved.items())
    below_head = [name for name, _ in classifier.named_parameters() if name.endswith("bias") and ".encoder." in name]
    assert set(below_head) <= set(moved)


@pytest.mark.parametrize("head", ["classifier", "verbalizer"])
def test_a_prompt_starts_at_the_label_names(head, load_tiny, nli_task):
    objective = "classify" if head == "classifier" else "language_model"
    method = build_method("prompt_tuning", {"num_virtual_tokens": 60, "head": head})
    classifier = method.adapt(load_tiny("llama", objective=objective), nli_task, 0)
    tokenizer = classifier.text_encoder.tokenizer
    names = tokenizer("entailment", add_special_tokens=False)["input_ids"]
    table = classifier.model.get_input_embeddings().weight
    assert torch.equal(classifier.prompt_NE[: len(names)], table[names])
    assert classifier.prompt_NE.shape == (60, 16)


def test_random_prompts_have_the_size_of_embeddings_and_come_from_the_seed(load_tiny, nli_task):
    method = build_method("prompt_tuning", {"init": "random", "num_virtual_tokens": 40})
    one, same, other = (method.adapt(load_tiny("bert"), nli_task, seed) for seed in (0, 0, 1))
    assert torch.equal(one.prompt_NE, same.prompt_NE)
    assert not torch.equal(one.prompt_NE, other.prompt_NE)
    spread = one.model.get_input_embeddings().weight.std().item()
    assert 0.8 < one.prompt_NE.std().item() / spread < 1.25


def test_lora_plus_speeds_up_b_alone(load_tiny, nli_task):
    method = build_method("lora", {"loraplus_lr_ratio": 16, "learning_rate": 1e-3, "head_learning_rate": 5e-4})
    classifier = method.adapt(load_tiny("bert"), nli_task, 0)
    names = {id(tensor): name for name, tensor in classifier.named_parameters()}
    rates = {
        names[id(tensor)]: group.learning_rate
        for group in method.parameter_groups(classifier)
        for tensor in group.parameters
    }
    assert set(rates) == {name for name, tensor in classifier.named_parameters() if tensor.requires_grad}
    for name, rate in rates.items():
        assert rate == pytest.approx(5e-4 if classifier.is_head(name) else 16e-3 if ".lora_B." in name else 1e-3), name


def test_pissa_starts_as_the_checkpoint_trains_and_loads_with_plain_peft(load_tiny, nli_task, tmp_path):
    rows = make_examples(5, seed=3)
    method = build_method("lora", {"init_lora_weights": "pissa", "r": 4, "lora_alpha": 4, "num_train_epochs": 1})
    classifier, plain = (
        method.adapt(load_tiny("bert"), nli_task, 0),
        build_method("bitfit", {}).adapt(load_tiny("bert"), nli_task, 0),
    )
    torch.testing.assert_close(logprobs(classifier, rows), logprobs(plain, rows), atol=1e-5, rtol=0)
    teach(method, classifier, make_examples(24, seed=1), make_examples(9, seed=2))
    classifier.save(tmp_path)
    fresh = method.adapt(load_tiny("bert", seed=1), nli_task, 1)
    fresh.load(tmp_path)
    torch.testing.assert_close(logprobs(fresh, rows), logprobs(classifier, rows), atol=1e-5, rtol=0)
    batch = classifier.collate(classifier.encode(rows))
    with torch.inference_mode():
        logits_BL = classifier.logits(batch)
    plainly = torch.tensor(plain_logits("peft_logits", tmp_path, batch, num_labels=3), dtype=torch.float32)
    torch.testing.assert_close(plainly, logits_BL, atol=1e-5, rtol=0)


def test_pissa_on_four_bits_is_refused(load_tiny, nli_task):
    with pytest.raises(MethodError, match=r"init_lora_weights=pissa moves part of each weight.*=default"):
        build_method("lora", {"init_lora_weights": "pissa"}).adapt(load_tiny("bert", load_in_4bit=True), nli_task, 0)
