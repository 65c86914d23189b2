"""Tiny random models of many architectures, and two training steps on each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tests.conftest import FP32, make_decoder_tokenizer, make_examples, make_tokenizer
from tests.methods.conftest import teach

from entailor.config.parts import ModelSettings
from entailor.methods import build_method
from entailor.models.load import Family, load_backbone
from entailor.models.resolve.source import resolve_model
from entailor.tasks import Task

METHODS = ("lora", "full_finetuning", "p_tuning", "prefix_tuning", "linear_probe")
SIZES: dict[str, Any] = {
    "hidden_size": 16, "d_model": 16, "n_embd": 16, "embedding_size": 16, "dim": 16, "word_embed_proj_dim": 16,
    "num_hidden_layers": 2, "num_layers": 2, "n_layer": 2, "n_layers": 2, "encoder_layers": 2, "decoder_layers": 2,
    "num_attention_heads": 2, "n_head": 2, "n_heads": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "num_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "d_kv": 8, "d_head": 8,
    "intermediate_size": 32, "ffn_dim": 32, "d_ff": 32, "d_inner": 32, "n_inner": 32, "hidden_dim": 32,
    "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
    "num_local_experts": 4, "num_experts": 4, "max_position_embeddings": 320, "n_positions": 320,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "funnel": {"block_sizes": [1, 1], "num_decoder_layers": 1, "d_head": 8},
    "mobilebert": {"intra_bottleneck_size": 16, "true_hidden_size": 16},
    "gemma3_text": {"layer_types": ["sliding_attention", "full_attention"]},
}
TASK = Task(("a", "b"), is_pair=True)


def make_model(kind: str, folder: Path, family: Family) -> str:
    """Write a tiny random model with a tokenizer, and return its folder."""
    from transformers import AutoConfig, AutoModel

    tokenizer = make_decoder_tokenizer("llama") if family == "decoder" else make_tokenizer("bert")
    known = AutoConfig.for_model(kind)
    attributes = {*vars(known), *known.attribute_map}
    own = OWN.get(kind, {})
    sizes = {name: size for name, size in {**SIZES, **own}.items() if name in attributes or name in own}
    if kind == "funnel":
        sizes.pop("num_hidden_layers", None)  # the sum of its blocks
    sizes = {name: size for name, size in sizes.items() if known.attribute_map.get(name, "") not in sizes}  # two names
    ends = tokenizer.eos_token_id if family == "decoder" else tokenizer.sep_token_id
    specials = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": ends, "bos_token_id": 0}
    sizes |= {"vocab_size": len(tokenizer)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, **sizes, **specials)
        if kind == "funnel":
            config.architectures = ["FunnelModel"]  # there are two, and nothing else says which
        AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def two_steps(name: str, model: str, **settings: Any) -> tuple[Any, Any]:
    """Adapt, and train for two steps (or fit); return backbone and classifier.

    Raises:
        MethodError: the method does not fit the architecture.
    """
    trained = {"num_train_epochs": 1, "per_device_train_batch_size": 4}
    method = build_method(name, {**(trained if name != "linear_probe" else {}), **settings})
    backbone = load_backbone(resolve_model(model), TASK, ModelSettings(max_length=128), FP32, 0)
    classifier = method.adapt(backbone, TASK, 0)
    train_rows, search_candidates = (make_examples(8, seed=seed, labels=TASK.labels) for seed in (1, 2))
    teach(method, classifier, train_rows, search_candidates)
    return backbone, classifier
