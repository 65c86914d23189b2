import struct

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from entailor.errors import ModelError
from entailor.models.resolve import gguf as gguf_module
from entailor.models.resolve.source import resolve_model

TEMPLATE = "{% for message in messages %}<s>{{ message['content'] }}</s>{% endfor %}"
CONFIG = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
TENSORS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "model.layers.0.input_layernorm.weight": "blk.0.attn_norm.weight",
    "model.layers.0.post_attention_layernorm.weight": "blk.0.ffn_norm.weight",
    "model.layers.0.self_attn.q_proj.weight": "blk.0.attn_q.weight",
    "model.layers.0.self_attn.k_proj.weight": "blk.0.attn_k.weight",
    "model.layers.0.self_attn.v_proj.weight": "blk.0.attn_v.weight",
    "model.layers.0.self_attn.o_proj.weight": "blk.0.attn_output.weight",
    "model.layers.0.mlp.gate_proj.weight": "blk.0.ffn_gate.weight",
    "model.layers.0.mlp.up_proj.weight": "blk.0.ffn_up.weight",
    "model.layers.0.mlp.down_proj.weight": "blk.0.ffn_down.weight",
}


def byte_letters() -> list[str]:
    """The 256 letters of byte-level BPE, as GPT-2 orders them."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) for byte in kept] + [chr(256 + number) for number in range(256 - len(kept))]


VOCABULARY = ["<s>", "</s>", *byte_letters(), "he", "Ġhe"]


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of a query or key matrix as llama.cpp stores them for rotary positions."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path, model, *, architecture="llama", without=()):
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(CONFIG["num_hidden_layers"])
    writer.add_context_length(CONFIG["max_position_embeddings"])
    writer.add_embedding_length(CONFIG["hidden_size"])
    writer.add_feed_forward_length(CONFIG["intermediate_size"])
    writer.add_head_count(CONFIG["num_attention_heads"])
    writer.add_head_count_kv(CONFIG["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_rope_dimension_count(CONFIG["hidden_size"] // CONFIG["num_attention_heads"])
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(VOCABULARY))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(VOCABULARY)
    writer.add_token_types([3, 3] + [1] * (len(VOCABULARY) - 2))
    writer.add_token_merges(["h e", "Ġ he"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template(TEMPLATE)
    heads = {"q_proj": CONFIG["num_attention_heads"], "k_proj": CONFIG["num_key_value_heads"]}
    for name, parameter in model.state_dict().items():
        weight = parameter.numpy()
        projection = name.split(".")[-2]
        if projection in heads:
            weight = interleaved(weight, heads[projection])
        if TENSORS[name] not in without:
            writer.add_tensor(TENSORS[name], np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(vocab_size=len(VOCABULARY), **CONFIG)).eval()


@pytest.fixture
def file(tmp_path, model):
    return write_gguf(tmp_path / "tiny.gguf", model)


@torch.no_grad()
def test_the_converted_model_gives_the_logits_of_the_original(cache, file, model, capfd):
    resolved = resolve_model(str(file))
    assert capfd.readouterr() == ("", "")  # no progress bars where nobody looks
    converted = AutoModelForCausalLM.from_pretrained(resolved.path)
    ids_BT = torch.tensor([[5, 90, 7, 33, 258]])
    torch.testing.assert_close(converted(ids_BT).logits, model(ids_BT).logits)
    assert not hasattr(converted.config, "quantization_config")
    assert converted.dtype == torch.float32

    tokenizer = AutoTokenizer.from_pretrained(resolved.path)
    ids = tokenizer("he, he")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["he", ",", "Ġhe"]
    assert tokenizer.decode(ids) == "he, he"
    assert tokenizer.apply_chat_template([{"role": "user", "content": "he"}], tokenize=False) == "<s>he</s>"
    assert tokenizer.model_max_length == CONFIG["max_position_embeddings"]


def test_a_file_is_converted_once_wherever_it_stands(cache, file, tmp_path, monkeypatch):
    first = resolve_model(str(file))
    monkeypatch.setattr(gguf_module, "write_checkpoint", None)  # a second conversion would fail
    moved = file.rename(tmp_path / "sub.gguf").rename(file)
    assert resolve_model(str(moved)) == first
    assert [folder.name for folder in (cache / "gguf").iterdir()] == [first.path.name]


def test_large_models_are_kept_in_half_precision(cache, file, monkeypatch):
    monkeypatch.setattr(gguf_module, "FLOAT32_UP_TO", 1)
    folder = resolve_model(str(file)).path
    assert AutoModelForCausalLM.from_pretrained(folder, dtype="auto").dtype == torch.float16


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.9])
def test_a_file_cut_short_is_named_before_any_work(cache, file, share):
    size = max(5, int(file.stat().st_size * share))
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ModelError, match=rf"tiny.gguf: cut short or damaged \({size:,} bytes.*Download it again"):
        resolve_model(str(file))
    assert not (cache / "gguf").exists() or not list((cache / "gguf").iterdir())


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>"])
def test_what_is_no_gguf_file_is_named(cache, tmp_path, content):
    (tmp_path / "page.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=r"page.gguf: not a GGUF file \(it starts with"):
        resolve_model(str(tmp_path / "page.gguf"))


@pytest.mark.parametrize("architecture", ["bert", "rwkv6"])
def test_an_architecture_without_a_reader_is_named(cache, tmp_path, model, architecture):
    file = write_gguf(tmp_path / "other.gguf", model, architecture=architecture)
    with pytest.raises(ModelError, match=rf"other.gguf: transformers .* of the architecture '{architecture}'"):
        resolve_model(str(file))


def test_a_file_with_a_tensor_missing_is_refused(cache, tmp_path, model):
    file = write_gguf(tmp_path / "part.gguf", model, without=("blk.0.ffn_up.weight",))
    with pytest.raises(ModelError, match=r"mlp.up_proj.weight' is missing \(1 tensors in all\)"):
        resolve_model(str(file))


def header(keys: bytes, count: int = 1, tensors: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, count) + keys


def entry(name: bytes, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + value


HOSTILE = {
    "a list without an end": header(entry(b"a", 9, struct.pack("<IQ", 0, 2**60))),
    "a list of lists": header(entry(b"a", 9, struct.pack("<IQ", 9, 2**60))),
    "lists in lists": header(entry(b"a", 9, struct.pack("<IQ", 9, 1) * 900)),
    "a text beyond": header(entry(b"a", 8, struct.pack("<Q", 2**63))),
    "a name beyond": header(struct.pack("<Q", 2**63)),
    "very many keys": header(b"", count=2**63),
    "very many tensors": header(b"", count=0, tensors=2**63),
    "a kind that is none": header(entry(b"a", 77, b"1234")),
    "no architecture": header(entry(b"a", 4, b"1234")),
    "the architecture is a number": header(entry(b"general.architecture", 4, b"1234")),
    "a list of many bytes": header(entry(b"a", 9, struct.pack("<IQ", 0, 3_000_000) + bytes(3_000_000))),
    "a long token": header(entry(b"a", 9, struct.pack("<IQQ", 8, 1, 5_000) + bytes(5_000))),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_is_one_error_at_once(cache, tmp_path, name):
    (tmp_path / "bad.gguf").write_bytes(HOSTILE[name])
    with pytest.raises(ModelError, match=r"bad\.gguf: (cut short or damaged|transformers .* cannot make)"):
        resolve_model(str(tmp_path / "bad.gguf"))


@pytest.mark.parametrize(
    ("method", "value", "problem"),
    [
        ("add_block_count", 2**31, r"llama\.block_count is 2,147,483,648, at most 12 were expected"),
        ("add_vocab_size", 2**31, r"llama\.vocab_size is .*at most 16,777,216"),
        (
            "add_feed_forward_length",
            2**23,
            r"its metadata describe [\d,]{13,} parameters, and its tensors hold",
        ),
    ],
)
def test_sizes_that_the_tensors_cannot_fill_take_no_memory(cache, tmp_path, model, monkeypatch, method, value, problem):
    usual = getattr(gguf.GGUFWriter, method)
    monkeypatch.setattr(gguf.GGUFWriter, method, lambda writer, size: usual(writer, value))
    file = write_gguf(tmp_path / "large.gguf", model)
    with pytest.raises(ModelError, match=problem):
        resolve_model(str(file))
