"""Sizes are asked of the configuration by one name, whatever an architecture calls them and wherever they lie."""

import re
from pathlib import Path

import pytest
import torch
from tests.conftest import make_decoder_tokenizer
from transformers import AutoConfig, AutoModel

import entailor
from entailor.errors import ModelError
from entailor.models.sizes import required_size, text_size, unused_positions


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("gpt2", {"n_embd": 24, "n_layer": 3, "n_positions": 99}),
        ("distilbert", {"dim": 24, "n_layers": 3, "max_position_embeddings": 99}),
        ("bart", {"d_model": 24, "encoder_layers": 3, "max_position_embeddings": 99}),
        ("gemma3", {"text_config": {"hidden_size": 24, "num_hidden_layers": 3, "max_position_embeddings": 99}}),
        ("dbrx", {"d_model": 24, "n_layers": 3, "max_seq_len": 99}),
    ],
)
def test_sizes_by_any_spelling(kind, sizes):
    config = AutoConfig.for_model(kind, **sizes)
    names = ("hidden_size", "num_hidden_layers", "max_position_embeddings")
    assert [text_size(config, name) for name in names] == [24, 3, 99]


def test_a_size_that_is_none_is_an_error_where_it_is_needed():
    config = AutoConfig.for_model("xlnet")
    assert text_size(config, "max_position_embeddings") is None
    with pytest.raises(ModelError, match="gives no max_position_embeddings"):
        required_size(config, "max_position_embeddings")


def test_positions_before_the_padding_index_are_never_used():
    sizes = {"num_hidden_layers": 1, "pad_token_id": 4}
    assert unused_positions(AutoConfig.for_model("roberta", **sizes)) == 5
    assert unused_positions(AutoConfig.for_model("bert", **sizes)) == 0


def test_no_list_of_spellings_stands_in_the_source():
    spelled = re.compile(
        r"\b(n_embd|d_model|n_layer|n_layers|n_positions|n_ctx|n_inner|max_seq_len|OFFSET_POSITIONS)\b"
    )
    for file in Path(entailor.__file__).parent.rglob("*.py"):
        if file.name == "gguf_runtime.py":
            continue  # n_ctx is a word of llama.cpp
        assert not spelled.findall(file.read_text(encoding="utf-8")), file


@pytest.fixture(scope="module")
def gemma3(tmp_path_factory):
    """A tiny Gemma 3: the sizes of its text model lie in text_config."""
    tokenizer = make_decoder_tokenizer("gemma")
    text = {"vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 32}
    text |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 320}
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    vision |= {"image_size": 8, "patch_size": 4}
    config = AutoConfig.for_model("gemma3", text_config=text, vision_config=vision, mm_tokens_per_image=1)
    folder = tmp_path_factory.mktemp("gemma3")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("method", ["linear_probe", "p_tuning"])
def test_a_model_whose_sizes_lie_in_a_part_is_compared(gemma3, tmp_path, method):
    from tests.conftest import make_examples, write_csv

    from entailor import Experiment, compare

    train, test = (write_csv(tmp_path / f"{n}.csv", make_examples(24, seed=n)) for n in (1, 2))
    data = {"train": train, "test": test, "validation_size": 6}
    methods = {method: {} if method == "linear_probe" else {"num_train_epochs": 1}}
    run = compare(
        Experiment(data=data, models=str(gemma3), methods=methods, seeds=1, out=str(tmp_path / "run"), doctor=False)
    )
    assert [record.status for record in run.records] == ["complete"], [record.error for record in run.records]
