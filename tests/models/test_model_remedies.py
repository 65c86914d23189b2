"""What an error about a model tells the user to do is done, to the letter, and then the model is taken."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from entailor.config.parts import ModelSettings
from entailor.errors import EntailorError, ModelError
from entailor.models.load import open_model, read_config

AGAIN = "Copy or download it again"


@pytest.fixture
def folder(tiny_model: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model("bert"), tmp_path / "model"))


def take(name: str | Path, **settings: Any) -> Any:
    chosen = ModelSettings(**settings)
    return read_config(open_model(str(name), chosen), chosen)


def with_key(**keys: Any) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))

    return change


def written(content: bytes) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-50])


def linked(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.parent / "nothing")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n"


@pytest.mark.parametrize(
    ("name", "damage", "remedy"),
    [
        ("config.json", written(b"{"), AGAIN),
        ("config.json", written(b"[]"), AGAIN),
        ("config.json", linked, AGAIN),
        ("config.json", Path.unlink, "Give the folder that save_pretrained() wrote"),
        ("config.json", written(b"{}"), "Give the folder that save_pretrained() wrote"),
        ("config.json", with_key(id2label=5), AGAIN),
        ("config.json", with_key(architectures=5), AGAIN),
        ("config.json", with_key(num_hidden_layers=20_000), AGAIN),
        ("config.json", with_key(num_hidden_layers=-1), AGAIN),
        ("config.json", with_key(transformers_weights="x.bin"), "save it with save_pretrained() to a new folder"),
        ("config.json", with_key(_attn_implementation="a/b"), "Delete the key"),
        ("tokenizer_config.json", written(b"\xff"), AGAIN),
        ("tokenizer_config.json", with_key(fast_tokenizer_files=["a"]), "save it with save_pretrained() to a new"),
        ("tokenizer.json", Path.unlink, "Save it beside the weights with tokenizer.save_pretrained(FOLDER)"),
        ("model.safetensors", cut, AGAIN),
        ("model.safetensors", written(LFS), "Run `git lfs pull` in its folder"),
        ("model.safetensors", Path.unlink, AGAIN),
        ("model.safetensors", lambda file: file.rename(file.with_name("pytorch_model.bin")), "safetensors"),
    ],
)  # fmt: skip
def test_a_damaged_file_of_a_folder(folder, tiny_model, name, damage, remedy):
    damage(folder / name)
    with pytest.raises(ModelError, match=re.escape(remedy)):
        take(folder)
    (folder / name).unlink(missing_ok=True)
    shutil.copy2(tiny_model("bert") / name, folder / name)  # copied, fetched or saved again
    assert take(folder).model_type == "bert"


def test_an_adapter_beside_a_model_and_alone(folder):
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(folder)}))
    with pytest.raises(ModelError, match=r"Move the adapter_\* files elsewhere"):
        take(folder)
    alone = folder.parent / "alone"
    alone.mkdir()
    (folder / "adapter_config.json").rename(alone / "adapter_config.json")
    assert take(folder)
    with pytest.raises(ModelError, match="Name the model it was trained on") as caught:
        take(alone)
    assert take(re.search(r"trained on \((.*)\)", str(caught.value))[1])


def test_an_index_of_parts(folder, tiny_model):
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    index = folder / "model.safetensors.index.json"
    with pytest.raises(ModelError, match=re.escape(AGAIN)):
        take(folder)
    for names, remedy in (
        ({}, AGAIN),
        ({"x": "a.safetensors"}, "different checkpoints"),
        ({"x": "b.safetensors"}, AGAIN),
    ):
        index.write_text(json.dumps({"weight_map": names}))
        with pytest.raises(ModelError, match=re.escape(remedy)):
            take(folder)
    index.unlink()
    shutil.copy2(tiny_model("bert") / "model.safetensors", folder)
    assert take(folder)


def test_names_and_paths(folder):
    with pytest.raises(ModelError, match="Give a Hub id, a folder, a GGUF file or pypi:NAME==VERSION"):
        take("")
    with pytest.raises(ModelError, match="Did you mean 'model'") as caught:
        take(folder.with_name("modell"))
    assert take(folder.with_name(re.search(r"Did you mean '([^']*)'", str(caught.value))[1]))
    with pytest.raises(ModelError, match="Give its folder: ") as caught:
        take(folder / "model.safetensors")
    assert take(re.search(r"Give its folder: (.*)$", str(caught.value))[1])
    with pytest.raises(ModelError, match="Leave out revision='main'"):
        take(folder, revision="main")
    (folder.parent / "bad.gguf").write_bytes(b"<!doctype html>")
    with pytest.raises(ModelError, match="Download it again; an error page or a Git LFS pointer"):
        take(folder.parent / "bad.gguf")
    (folder / "config.json").rename(folder / "a.gguf")
    with pytest.raises(ModelError, match="Give the file itself: ") as caught:
        take(folder)
    assert str(caught.value).endswith(str(folder / "a.gguf"))


@pytest.mark.parametrize(
    ("kind", "wrong", "remedy", "told"),
    [
        ("bert", {"head": "checkpoint"}, "Set model.head=new", {"head": "new"}),
        ("llama", {"long_texts": "windows"}, "Set model.long_texts=truncate", {"long_texts": "truncate"}),
        ("bert", {"objective": "language_model"}, "Set head=classifier", {"objective": "classify"}),
    ],
)
def test_settings_of_a_model(load_tiny, kind, wrong, remedy, told):
    with pytest.raises(EntailorError, match=re.escape(remedy)):
        load_tiny(kind, **wrong)
    assert load_tiny(kind, **told)
