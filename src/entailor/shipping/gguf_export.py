"""GGUF for llama.cpp: a decoder that answers by label words, as the plain language model it is.

Names and layout are those of llama.cpp's own converter; rows of query and key stand in pairs, as ggml rotates them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entailor.classifiers.readout import LabelWords
from entailor.models.load import quiet_libraries

GGUF_FILE = "model.gguf"
GGUF_TYPES = {"gguf": "F32", "gguf-f16": "F16"}
"""Format to the type of its matrices; vectors stay in 32 bits."""
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2"}
"""Kind of transformers to llama.cpp's; other kinds have weights or steps of their own."""
PRE_TOKENIZERS = {
    "smollm": ["Digits", "ByteLevel"],
    "gpt-2": ["ByteLevel"],
}
"""llama.cpp's name to the parts of a pre-tokenizer; anything else is `default`, and only predict.py's ids are right."""


def why_no_gguf(classifier: Any) -> str | None:
    """Return why a classifier cannot be written as GGUF; None where it can."""
    if not isinstance(classifier.readout, LabelWords):
        return (
            "llama.cpp keeps no classification head (of BERT it leaves out the pooler as well), so only decoders that "
            "answer by label words can be written. Train with head=verbalizer, or use in_context"
        )
    model = classifier.model.get_base_model() if hasattr(classifier.model, "get_base_model") else classifier.model
    config = model.config
    if config.model_type not in ARCHITECTURES:
        return f"{config.model_type} is none of {', '.join(ARCHITECTURES)}, whose weights can be laid out for llama.cpp"
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return "its attention looks at a window"
    if (config.rope_parameters or {}).get("rope_type", "default") != "default":
        return "its positions are scaled"
    bpe = json.loads(classifier.text_encoder.tokenizer.backend_tokenizer.to_str())
    if bpe["model"]["type"] != "BPE" or "ByteLevel" not in json.dumps(bpe["pre_tokenizer"]):
        return "its tokenizer is no byte-level BPE"
    return None


def write_model(classifier: Any, model: Any, file: Path, kind: str) -> None:
    """Write weights, tokenizer and chat template.

    Args:
        classifier: gives tokenizer and limits.
        model: a plain causal language model.
        file: where to.
        kind: F32 or F16, of matrices.
    """
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(file, ARCHITECTURES[config.model_type])
    with quiet_libraries():
        writer.add_name(f"classifier of {len(classifier.task.labels)} labels")
        writer.add_file_type(gguf.LlamaFileType.ALL_F32 if kind == "F32" else gguf.LlamaFileType.MOSTLY_F16)
        _add_sizes(writer, config)
        _add_tokenizer(writer, classifier.text_encoder, config.vocab_size)
        for name, values in _tensors(model):
            writer.add_tensor(name, values.astype(np.float16 if kind == "F16" and values.ndim > 1 else np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _add_sizes(writer: Any, config: Any) -> None:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])


def _add_tokenizer(writer: Any, encoder: Any, vocabulary: int) -> None:
    from gguf import TokenType

    tokenizer = encoder.tokenizer
    saved = json.loads(tokenizer.backend_tokenizer.to_str())
    by_id = {index: token for token, index in tokenizer.get_vocab().items()}
    added = {index: token.special for index, token in tokenizer.added_tokens_decoder.items()}
    kinds = [
        TokenType.UNUSED
        if index not in by_id
        else {True: TokenType.CONTROL, False: TokenType.USER_DEFINED, None: TokenType.NORMAL}[added.get(index)]
        for index in range(vocabulary)
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(saved["pre_tokenizer"]))
    writer.add_token_list([by_id.get(index, f"[PAD{index}]") for index in range(vocabulary)])
    writer.add_token_types(kinds)
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in saved["model"]["merges"]])
    ids = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id}
    for name, index in ids.items():
        if index is not None:
            getattr(writer, f"add_{name}_token_id")(index)
    writer.add_add_bos_token(bool(encoder.first_ids))
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _pre_tokenizer(saved: Mapping[str, Any]) -> str:
    parts = [one["type"] for one in saved.get("pretokenizers", [saved])]
    return next((name for name, known in PRE_TOKENIZERS.items() if parts == known), "default")


def _tensors(model: Any) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Give every tensor under llama.cpp's name; an output layer that is the embeddings' is left out, as it expects."""
    import gguf

    config = model.config
    architecture = ARCHITECTURES[config.model_type]
    number = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for key, tensor in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise KeyError(f"{key}: llama.cpp's {architecture} has no such tensor")
        values: NDArray[np.float32] = tensor.detach().float().cpu().numpy()
        part = key.split(".")[-2]
        if architecture == "llama" and part in heads:
            values = _in_pairs(values, heads[part])
        yield name, values


def _in_pairs(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Bring each head's rows from halves (transformers) into pairs (ggml): what is rotated together stands together."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)
