import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import make_examples
from tests.methods.conftest import logprobs, plain_logits, teach

from entailor.errors import ConfigError, MethodError
from entailor.methods import build_method
from entailor.methods.peft_adapter import PeftAdapter
from entailor.tasks import foreign

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
def test_adapters_train_and_load_back_and_with_plain_peft(kind, load_tiny, nli_task, tmp_path):
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
    np.testing.assert_allclose(plain_logits("peft_logits", tmp_path, batch, num_labels=3), logits_BL, atol=1e-5)


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


SOURCES = [
    ("MULTITASK_PROMPT_TUNING", {"num_virtual_tokens": 2, "prompt_tuning_init_state_dict_path": "bomb.pt"}),
    ("PROMPT_TUNING", {"num_virtual_tokens": 2, "tokenizer_name_or_path": "gpt2"}),
    ("PROMPT_TUNING", {"num_virtual_tokens": 2, "tokenizer_kwargs": {"cache_dir": "x"}}),
    ("LORA", {"base_model_name_or_path": "other"}),
    ("LORA", {"revision": "main"}),
    ("LORA", {"megatron_config": {"a": 1}, "megatron_core": "antigravity"}),
    ("LORA", {"init_lora_weights": "someone/weights"}),
    ("LORA", {"corda_config": {"cache_file": "x.pt"}}),
    ("LORA", {"corda_config": {"covariance_file": Path("x.pt")}}),
    ("LORA", {"arrow_config": {"task_adapter_names": ["x"]}}),
    ("SHADOW", {"shadow_model": "someone/model"}),
    ("XLORA", {"adapters": {"one": "someone/adapter"}}),
]


@pytest.mark.parametrize(("kind", "values"), SOURCES)
def test_settings_that_read_a_file_or_name_a_model_are_refused(load_tiny, nli_task, kind, values):
    key = list(values)[-1]
    with pytest.raises(ConfigError, match=rf"{key} is .*Leave out {key}"):
        adapted(load_tiny, nli_task, peft_type=kind, peft_config=values)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("LORA", {"init_lora_weights": "pissa_niter_4", "target_modules": ["query"], "bias": "lora_only"}),
        ("LORA", {"target_modules": "all-linear", "rank_pattern": {"query": 2}}),
        ("LORA", {"target_modules": "all-linear", "init_lora_weights": "gaussian", "exclude_modules": ["value"]}),
        ("BOFT", {"target_modules": ["query"], "boft_block_size": 4, "bias": "all"}),
    ],
)
def test_choices_and_names_of_layers_are_taken(load_tiny, kind, values):
    config = PeftAdapter(peft_type=kind, peft_config=values)._config(load_tiny("bert"))
    assert all(
        getattr(config, key) in (value, set(value) if isinstance(value, list) else value)
        for key, value in values.items()
    )


def test_every_setting_of_every_adapter_that_may_be_a_path_is_refused(load_tiny):
    """Whatever adapters and settings peft comes to have: a text that is no choice and names no layers stays out."""
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    backbone = load_tiny("bert")
    for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items():
        for key in config.__dataclass_fields__:
            if re.search(r"path|file|_core$|shadow_model|revision|auto_mapping", key):
                method = PeftAdapter(peft_type=kind.value, peft_config={key: "a/b"})
                with pytest.raises(ConfigError, match=f"{key} is 'a/b'"):
                    method._config(backbone)


ENDLESS = "(.+.+)+x"
HOSTILE_PATTERNS = {
    "target_modules": {"target_modules": ENDLESS},
    "exclude_modules": {"target_modules": ["query"], "exclude_modules": ENDLESS},
    "rank_pattern": {"target_modules": ["query"], "rank_pattern": {ENDLESS: 2}},
}


@pytest.mark.parametrize("key", HOSTILE_PATTERNS)
def test_a_pattern_of_layers_that_has_no_end_is_one_error(key, load_tiny, nli_task, monkeypatch):
    monkeypatch.setattr(foreign, "SECONDS", 0.3)
    with pytest.raises(MethodError, match=rf"LORA: {key} is .*it takes longer than 0.3 seconds.*Give a list of names"):
        adapted(load_tiny, nli_task, peft_type="LORA", peft_config=HOSTILE_PATTERNS[key])


def test_a_pattern_that_is_none_is_one_error(load_tiny, nli_task):
    with pytest.raises(MethodError, match=r"LORA: target_modules is '\(query', which cannot be matched"):
        build_method("lora", {"target_modules": "(query"}).adapt(load_tiny("bert"), nli_task, 0)
    build_method("lora", {"target_modules": r".*\.(query|key)"}).adapt(load_tiny("bert"), nli_task, 0)
