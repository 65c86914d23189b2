import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from entailor.errors import ModelError
from entailor.models.resolve.folder import check_folder


@pytest.fixture
def folder(tmp_path: Path, write_tiny_checkpoint) -> Path:
    return write_tiny_checkpoint(tmp_path / "model")


def shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for number, tensor in enumerate(("a", "b"), start=1):
        name = f"model-0000{number}-of-00002.safetensors"
        save_file({tensor: np.zeros(4, dtype=np.float32)}, folder / name)
        weight_map[tensor] = name
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_a_whole_folder_gives_its_weight_files(folder):
    assert check_folder(folder) == (folder / "model.safetensors",)


def test_parts_are_all_given(folder):
    shard(folder)
    assert [file.name[:11] for file in check_folder(folder)] == ["model-00001", "model-00002"]


def test_a_missing_part_is_named(folder):
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model-00002-of-00002.safetensors: missing, though .*index.json names it"):
        check_folder(folder)


def test_a_part_of_another_checkpoint_is_named(folder):
    shard(folder)
    save_file({"other": np.zeros(4, dtype=np.float32)}, folder / "model-00002-of-00002.safetensors")
    with pytest.raises(ModelError, match=r"00002.safetensors: does not hold 'b' .*different checkpoints"):
        check_folder(folder)


def test_an_index_cannot_point_outside_the_folder(folder):
    shard(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(ModelError, match="outside the folder"):
        check_folder(folder)


@pytest.mark.parametrize("kept_bytes", [0, 5, 40, 200])
def test_weights_cut_short_are_named_with_their_size(folder, kept_bytes):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept_bytes])
    with pytest.raises(ModelError, match=rf"model.safetensors: cut short .*\({kept_bytes} bytes.*download it again"):
        check_folder(folder)


def test_weights_whose_link_leads_nowhere_are_named(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("moved-away")
    with pytest.raises(ModelError, match=r"model.safetensors: a link to nothing"):
        check_folder(folder)


def test_a_git_lfs_pointer_is_recognised(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ModelError, match="git lfs pull"):
        check_folder(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "last.ckpt"])
def test_pickled_weights_are_refused_with_the_way_out(folder, name):
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(ModelError, match=rf"only {name}, .*never loaded.*model.save_pretrained"):
        check_folder(folder)


def test_pickled_weights_beside_safetensors_do_not_matter(folder):
    (folder / "pytorch_model.bin").write_bytes(b"")
    assert check_folder(folder) == (folder / "model.safetensors",)


def test_no_weights_and_weights_of_another_name_are_told_apart(folder):
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    with pytest.raises(ModelError, match=r"was expected, found model.fp16.safetensors"):
        check_folder(folder)
    (folder / "model.fp16.safetensors").unlink()
    with pytest.raises(ModelError, match="was expected, no weights at all"):
        check_folder(folder)


def test_a_missing_tokenizer_is_an_error(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer .*tokenizer.save_pretrained"):
        check_folder(folder)


@pytest.mark.parametrize("name", ["vocab.txt", "spiece.model", "vocab.json"])
def test_older_tokenizer_files_are_enough(folder, name):
    (folder / "tokenizer.json").rename(folder / name)
    assert check_folder(folder)


def test_a_byte_tokenizer_needs_no_vocabulary(folder):
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    assert check_folder(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "not JSON"), ("[]", "a mapping was expected, found a list"), ("{}", "no key 'model_type'")],
)
def test_a_config_that_is_none_is_named(folder, text, words):
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match=f"config.json: {words}"):
        check_folder(folder)


def test_folders_of_another_kind_get_the_next_step(tmp_path):
    with pytest.raises(ModelError, match=r"no config.json, found an empty folder"):
        check_folder(tmp_path)
    (tmp_path / "model.Q4_0.gguf").touch()
    with pytest.raises(ModelError, match=r"Give the file itself: .*model.Q4_0.gguf"):
        check_folder(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    with pytest.raises(ModelError, match=r"an adapter, not a model.*org/base"):
        check_folder(tmp_path)
