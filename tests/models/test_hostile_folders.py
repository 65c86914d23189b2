"""Model folders of strangers: one clear error, at once, and nothing read that is not hashed."""

import json
import os
import shutil
import struct
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from entailor.engine.precision import measure_gflops
from entailor.errors import ModelError
from entailor.models import sizes
from entailor.models.resolve import folder as folder_module
from entailor.models.resolve.source import resolve_model


@pytest.fixture
def folder(tiny_model, tmp_path) -> Path:
    return shutil.copytree(tiny_model("bert"), tmp_path / "model")


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


# nothing but regular files of a sensible size

FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "adapter_config.json")


@pytest.mark.parametrize("name", [*FILES, "chat_template.jinja", "generation_config.json"])
def test_a_pipe_is_not_waited_for(folder, name):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(ModelError, match=rf"{name}: a device or a pipe, a regular file was expected"):
        resolve_model(str(folder))


@pytest.mark.parametrize("name", FILES)
def test_a_link_to_an_endless_device_is_not_read(folder, name):
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("/dev/zero")
    with pytest.raises(ModelError, match="a device or a pipe"):
        resolve_model(str(folder))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "vocab.txt", "spiece.model"])
def test_a_huge_file_beside_the_weights_is_not_read(folder, name):
    with (folder / name).open("wb") as file:
        file.truncate(10**10)
    with pytest.raises(ModelError, match=rf"{name}: 10,000,000,000 bytes, at most"):
        resolve_model(str(folder))


MAPPINGS = ("config.json", "tokenizer_config.json", "generation_config.json", "special_tokens_map.json")


@pytest.mark.parametrize("name", [*MAPPINGS, "added_tokens.json", "chat_template.json", "processor_config.json"])
@pytest.mark.parametrize("levels", [101, 200_000])
def test_deep_nesting_is_an_error(folder, name, levels):
    (folder / name).write_text('{"model_type": "bert", "a": ' + "[" * levels + "]" * levels + "}")
    with pytest.raises(ModelError, match=rf"{name}: not JSON that is taken .nested more than 100 deep"):
        resolve_model(str(folder))


def test_a_file_whose_values_would_fill_the_memory_is_not_parsed(folder):
    (folder / "special_tokens_map.json").write_text('{"a": [' + "[]," * 6_000_000 + "[]]}")
    with pytest.raises(ModelError, match=r"special_tokens_map.json: .*its values would take about"):
        resolve_model(str(folder))


# sizes


@pytest.mark.parametrize("value", [-1, 0, 20_000, 10**6, "12", None, 1.5, [2]])
def test_layers_that_the_weights_cannot_fill_are_refused(folder, value):
    change(folder / "config.json", num_hidden_layers=value)
    with pytest.raises(ModelError, match=r"num_hidden_layers is .*the weights are \d+ tensors"):
        resolve_model(str(folder))


@pytest.mark.parametrize(("kind", "key"), [("distilbert", "n_layers"), ("gpt2", "n_layer")])
def test_layers_are_found_by_what_the_architecture_calls_them(tiny_model, tmp_path, kind, key):
    folder = shutil.copytree(tiny_model(kind), tmp_path / "model")
    change(folder / "config.json", **{key: 20_000})
    with pytest.raises(ModelError, match=rf"{key} is 20000"):
        resolve_model(str(folder))


@pytest.mark.parametrize("values", [{"decoder_layers": -1}, {"num_decoder_layers": 20_000}, {"num_labels": 10**9}])
def test_other_counts_are_held_as_well(folder, values):
    change(folder / "config.json", text_config=values)
    with pytest.raises(ModelError, match=next(iter(values))):
        resolve_model(str(folder))


@pytest.mark.parametrize(
    "values",
    [{"hidden_size": -16}, {"hidden_size": 10**9}, {"vocab_size": 0}, {"vocab_size": -5}, {"vocab_size": 10**15}],
)
def test_sizes_that_are_none_end_in_one_error(folder, load_tiny, values):
    change(folder / "config.json", **values)
    with pytest.raises(ModelError):
        load_tiny(folder)


@pytest.mark.parametrize("key", ["intermediate_size", "max_position_embeddings", "vocab_size", "type_vocab_size"])
def test_sizes_that_the_weights_cannot_fill_take_no_memory(folder, load_tiny, key):
    change(folder / "config.json", **{key: 10**7})  # 0.6 GB each
    with pytest.raises(ModelError, match=r"describes [\d,]{11,} parameters, and the weights are [\d,]{5,7} numbers"):
        load_tiny(folder)


@pytest.mark.parametrize("widths", [(10**9, 32), (32, 10**12), (10**9, 10**12)])
def test_speed_is_measured_without_memory_for_absurd_widths(widths):
    assert measure_gflops("fp32", *widths) > 0


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("architectures", [5], "no list of names"),
        ("architectures", {"a": 1}, "no list of names"),
        ("id2label", ["a", "b"], "no mapping"),
        ("label2id", 5, "no mapping"),
        ("id2label", {str(number): str(number) for number in range(70_000)}, "names 70,000 labels, at most"),
        ("num_labels", 70_000, "num_labels is 70000, at most"),
    ],
)
def test_names_of_labels_and_classes_are_what_they_must_be(folder, key, value, problem):
    change(folder / "config.json", **{key: value})
    with pytest.raises(ModelError, match=f"config.json: {key} .*{problem}|config.json: {problem}"):
        resolve_model(str(folder))


def test_a_model_of_too_many_modules_is_not_built(folder, load_tiny, monkeypatch):
    monkeypatch.setattr(sizes, "MOST_MODULES", 10)
    with pytest.raises(ModelError, match="describes more than 10 modules"):
        load_tiny(folder)


# headers of safetensors


def test_a_header_of_very_many_tensors_is_not_parsed(folder, monkeypatch):
    monkeypatch.setattr(folder_module, "MOST_HEADER_BYTES", 100)
    with pytest.raises(ModelError, match=r"list of tensors takes [\d,]+ bytes, at most 100"):
        resolve_model(str(folder))


@pytest.mark.parametrize("length", [0, 1, 2**40, 2**64 - 1])
def test_a_header_with_a_false_length_is_an_error(folder, length):
    file = folder / "model.safetensors"
    file.write_bytes(struct.pack("<Q", length) + file.read_bytes()[8:])
    with pytest.raises(ModelError, match="cut short or not safetensors"):
        resolve_model(str(folder))


def test_an_index_may_name_weights_alone(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "training_args.bin"}}))
    with pytest.raises(ModelError, match=r"'training_args\.bin'"):
        resolve_model(str(folder))


# what transformers would read beside the weights


def test_an_adapter_beside_a_model_is_refused(folder, load_tiny, tmp_path):
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "x"}')
    with pytest.raises(ModelError, match=r"adapter_config.json.*Move the adapter_\* files elsewhere"):
        load_tiny(folder)
    (folder / "adapter_config.json").rename(tmp_path / "adapter_config.json")  # as advised
    assert load_tiny(folder)


def test_other_weights_that_a_configuration_names_are_refused(folder, load_tiny):
    tensors = {name: tensor + 1 for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "other.safetensors", metadata={"format": "pt"})
    change(folder / "config.json", transformers_weights="other.safetensors")
    with pytest.raises(ModelError, match=r"transformers_weights names 'other\.safetensors'"):
        load_tiny(folder)


def test_a_tokenizer_chosen_by_version_is_refused(folder):
    change(folder / "tokenizer_config.json", fast_tokenizer_files=["tokenizer.4.0.0.json"])
    with pytest.raises(ModelError, match="fast_tokenizer_files"):
        resolve_model(str(folder))


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "experts_implementation"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_kernel_of_the_hub_is_not_asked_for(folder, key, nested):
    value = {"": "eager", "text_config": "someone/kernel:forward"} if nested else "someone/kernel@main"
    change(folder / "config.json", **({"text_config": {key: value}} if nested else {key: value}))
    with pytest.raises(ModelError, match=rf"{key} names .*code on the Hub, which is never run. Delete the key"):
        resolve_model(str(folder))


def test_every_file_that_decides_answers_is_hashed(folder):
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "default.jinja").write_text("a")
    for name in ("chat_template.jinja", "added_tokens.json", "special_tokens_map.json", "code.py", "README.md"):
        (folder / name).write_text("{}")
    names = set(resolve_model(str(folder)).files_sha256)
    assert names >= {"config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert names >= {"added_tokens.json", "special_tokens_map.json", "additional_chat_templates/default.jinja"}
    assert not names & {"README.md", "code.py", "generation_config.json", "model.safetensors"}
    assert "code.py" in resolve_model(str(folder), remote_code=True).files_sha256
