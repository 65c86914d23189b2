import numpy as np
import pytest
import torch
from tests.conftest import make_examples
from tests.methods.conftest import logprobs, teach

from entailor.errors import ConfigError, MethodError
from entailor.methods import build_method

ROWS = make_examples(5, seed=3)
FAST = {"num_train_epochs": 1, "per_device_train_batch_size": 8, "learning_rate": 0.05}
TYPES = {
    "IA3": {},
    "VERA": {"r": 4},
    "LN_TUNING": {"target_modules": ["LayerNorm"]},
    "OFT": {"oft_block_size": 4},
    "LOHA": {"r": 2},
    "ADALORA": {"total_step": 5},
    "PROMPT_TUNING": {"num_virtual_tokens": 4},
    "PREFIX_TUNING": {"num_virtual_tokens": 4},
}


def adapted(load_tiny, nli_task, seed=0, **settings):
    method = build_method("peft", {**FAST, **settings})
    return method, method.adapt(load_tiny("bert", seed=seed), nli_task, seed)


@pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning")  # peft's own word on its LN_TUNING
@pytest.mark.parametrize("kind", TYPES)
def test_adapters_train_and_load_back_and_with_plain_peft(kind, load_tiny, nli_task, plain_logits, tmp_path):
    settings = {"peft_type": kind, "peft_config": TYPES[kind]}
    method, classifier = adapted(load_tiny, nli_task, **settings)
    before = logprobs(classifier, ROWS)
    teach(method, classifier, make_examples(40, seed=1), make_examples(9, seed=2))
    after = logprobs(classifier, ROWS)
    assert np.abs(after - before).max() > 1e-3
    classifier.save(tmp_path)
    _, fresh = adapted(load_tiny, nli_task, seed=1, **settings)
    fresh.load(tmp_path)
    np.testing.assert_allclose(logprobs(fresh, ROWS), after, atol=1e-5)
    batch = classifier.collate(classifier.encode(ROWS))
    with torch.inference_mode():
        logits_BL = classifier.logits(batch).numpy()
    np.testing.assert_allclose(plain_logits("peft", tmp_path, batch, num_labels=3), logits_BL, atol=1e-5)


@pytest.mark.parametrize("head", ["classifier", "verbalizer"])
@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "PREFIX_TUNING"])
def test_a_decoder_with_a_soft_prompt_reads_its_last_token_whatever_the_batch(kind, head, load_tiny, nli_task):
    # keys and values in front take no positions, embeddings do
    objective = "classify" if head == "classifier" else "language_model"
    settings = {"peft_type": kind, "peft_config": TYPES[kind], "head": head}
    method = build_method("peft", settings)
    classifier = method.adapt(load_tiny("llama", nli_task, objective=objective), nli_task, 0).eval()
    together = logprobs(classifier, ROWS)
    alone = np.concatenate([logprobs(classifier, [row]) for row in ROWS])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_near_miss_of_the_type_is_named(load_tiny, nli_task):
    with pytest.raises(ConfigError, match=r"peft_type 'IA33' is not known\. Did you mean 'IA3'\? Known: .*VERA"):
        adapted(load_tiny, nli_task, peft_type="IA33")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_config": {"rank": 4}}, r"peft_config of IA3: .*unexpected keyword argument 'rank'"),
        ({"peft_type": "ADALORA"}, r"peft_config of ADALORA: .*total_step"),
        ({"peft_type": "CPT"}, r"peft_config of CPT: .*CAUSAL_LM"),
    ],
)
def test_a_wrong_configuration_is_a_config_error(settings, message, load_tiny, nli_task):
    with pytest.raises(ConfigError, match=message):
        adapted(load_tiny, nli_task, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "LN_TUNING"}, r"peft LN_TUNING does not fit .*specify `target_modules`"),
        ({"peft_config": {"target_modules": ["q_proj"], "feedforward_modules": []}}, r"does not fit"),
        ({"peft_type": "POLY"}, r"peft POLY does not fit .*task_ids"),  # shows in use only
        ({"peft_type": "TRAINABLE_TOKENS"}, r"cannot save a classification head"),
    ],
)
def test_an_adapter_that_does_not_fit_is_a_method_error(settings, message, load_tiny, nli_task):
    with pytest.raises(MethodError, match=message):
        adapted(load_tiny, nli_task, **settings)


def test_prompts_are_searched_at_ten_times_the_rates():
    assert build_method("peft", {"peft_type": "IA3"}).search_space()["learning_rate"].high == 1e-2
    assert build_method("peft", {"peft_type": "prompt_tuning"}).search_space()["learning_rate"].low == 1e-3
