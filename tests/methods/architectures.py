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
    "num_local_experts": 4, "num_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
    "topk_group": 1, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
    "max_position_embeddings": 320, "n_positions": 320,
}  # fmt: skip
MIXED = ["linear_attention", "full_attention"]
OWN: dict[str, dict[str, Any]] = {
    "funnel": {"block_sizes": [1, 1], "num_decoder_layers": 1, "d_head": 8},
    "mobilebert": {"intra_bottleneck_size": 16, "true_hidden_size": 16},
    "gemma3_text": {"layer_types": ["sliding_attention", "full_attention"]},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10_000.0}},
        "layer_types": ["full_attention"] * 2,
    },
    **{kind: {"num_key_value_heads": 2} for kind in ("axk1", "axk2", "deepseek_v2", "deepseek_v3", "minicpm3")},
    "mistral4": {"num_key_value_heads": 2, "head_dim": 16},
    "diffllama": {"num_key_value_heads": 2},
    "esmc": {"num_key_value_heads": 2},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    **{kind: {"layer_types": MIXED} for kind in ("qwen3_5_text", "qwen3_next")},
    "qwen3_5": {"text_config": {"layer_types": MIXED}},
    "layoutlmv3": {"hidden_size": 24, "coordinate_size": 4, "shape_size": 4},
    "lilt": {"hidden_size": 24},
    "longformer": {"attention_window": [16, 16]},
    "t5": {"decoder_start_token_id": 0},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 8},
    "perceiver": {"num_latents": 8, "d_latents": 16, "num_self_attends_per_block": 2, "num_self_attention_heads": 2},
    "reformer": {"axial_pos_embds": False, "attn_layers": ["local", "lsh"], "feed_forward_size": 32},
    "roc_bert": {"pronunciation_vocab_size": 80, "shape_vocab_size": 80, "shape_embed_dim": 8},
    "zamba": {
        "num_hidden_layers": 3,
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "attention_head_dim": 16,
        "mamba_dt_rank": 4,
    },
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"], "mamba_ngroups": 1, "n_mamba_heads": 2},
}
TASK = Task(("a", "b"), is_pair=True)


def make_model(kind: str, folder: Path, family: Family) -> str:
    """Write a tiny random model with a tokenizer, and return its folder."""
    from transformers import AutoConfig, AutoModel

    tokenizer = make_decoder_tokenizer("llama") if family == "decoder" else make_tokenizer("bert")
    ends = tokenizer.eos_token_id if family == "decoder" else tokenizer.sep_token_id
    specials = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": ends, "bos_token_id": 0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = tiny_sizes(AutoConfig.for_model(kind), OWN.get(kind, {}), {"vocab_size": len(tokenizer), **specials})
        config = AutoConfig.for_model(kind, **sizes)
        if kind == "funnel":
            config.architectures = ["FunnelModel"]  # there are two, and nothing else says which
        AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def tiny_sizes(known: Any, own: dict[str, Any], words: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that make a configuration tiny, those of its parts included."""
    attributes = {*vars(known), *known.attribute_map}
    sizes = {name: size for name, size in {**SIZES, **own}.items() if name in attributes or name in own}
    if known.model_type == "funnel":
        sizes.pop("num_hidden_layers", None)  # the sum of its blocks
    sizes = {name: size for name, size in sizes.items() if known.attribute_map.get(name, "") not in sizes}  # two names
    parts = {name: getattr(known, name, None) for name in known.sub_configs}
    sizes |= {name: tiny_sizes(part, own.get(name, {}), words) for name, part in parts.items() if part is not None}
    return {**words, **sizes}


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
