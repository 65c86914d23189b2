"""A table of vectors: what is averaged, and that a classifier is tied to its table."""

import os

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.conftest import make_examples, make_tokenizer
from tests.methods.conftest import logprobs, teach

from entailor.data.example import Example
from entailor.errors import ModelError
from entailor.methods import build_method
from entailor.methods.static_embedding import open_table
from entailor.tasks import Task


@pytest.fixture
def table(tmp_path):
    tokenizer = make_tokenizer("bert")
    folder = tmp_path / "table"
    folder.mkdir()
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    vectors = np.random.default_rng(1).normal(size=(len(tokenizer), 6)).astype(np.float32)
    save_file({"embeddings": vectors}, folder / "model.safetensors")
    return folder, vectors, tokenizer


def test_features_are_means_of_the_table(table, nli_task):
    folder, vectors, tokenizer = table
    classifier = build_method("static_embedding", {"table": str(folder)}).adapt(None, nli_task, 0)
    inputs = classifier.encode([Example("a", "w1 w2 w3", "w4"), Example("b", "", "w5 w6")])
    found = classifier.features(classifier.collate(inputs))

    def mean(*words):
        return vectors[tokenizer.convert_tokens_to_ids(list(words))].mean(0)

    u, v = mean("w1", "w2", "w3"), mean("w4")
    np.testing.assert_allclose(found[0], np.concatenate([u, v, np.abs(u - v), u * v]), atol=1e-6)
    v = mean("w5", "w6")
    np.testing.assert_allclose(found[1], np.concatenate([0 * v, v, np.abs(v), 0 * v]), atol=1e-6)


def test_a_classifier_is_tied_to_its_table(table, nli_task, tmp_path):
    folder, vectors, _ = table
    method = build_method("static_embedding", {"table": str(folder)})
    classifier = method.adapt(None, nli_task, 0)
    teach(method, classifier, make_examples(40, seed=1), make_examples(12, seed=2))
    (tmp_path / "saved").mkdir()
    classifier.save(tmp_path / "saved")
    save_file({"embeddings": vectors + 1}, folder / "model.safetensors")
    with pytest.raises(ModelError, match="fitted on another table"):
        method.adapt(None, nli_task, 0).load(tmp_path / "saved")


def test_half_a_character_is_a_character(table, nli_task):
    classifier = build_method("static_embedding", {"table": str(table[0])}).adapt(None, nli_task, 0)
    half, whole = classifier.encode([Example("a", "w1 \ud83d", "w2"), Example("b", "w1 \ufffd", "w2")])
    assert half.texts == whole.texts


def test_a_table_that_does_not_fit_is_refused(table):
    folder, vectors, _ = table
    task = Task(("x", "y"), is_pair=False)
    save_file({"embeddings": vectors[:5]}, folder / "model.safetensors")
    with pytest.raises(ModelError, match="76 tokens and 5 vectors"):
        build_method("static_embedding", {"table": str(folder)}).adapt(None, task, 0)
    with pytest.raises(ModelError, match=r"No such file.*Give wordllama"):
        build_method("static_embedding", {"table": str(folder / "none")}).adapt(None, task, 0)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_table_of_a_stranger_is_read_within_bounds(table, name):
    folder, _, _ = table
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ModelError, match=rf"a named pipe, a regular file was expected \(.*{name}\)"):
        open_table(str(folder))
    (folder / name).unlink()
    (folder / name).write_text("{}" + " " * 20)
    with pytest.raises(ModelError, match=r"weights cannot be read|the tokenizer cannot be used"):
        open_table(str(folder))


def test_no_text_is_too_short(table):
    folder, _, _ = table
    task = Task(("x", "y"), is_pair=False)
    method = build_method("static_embedding", {"table": str(folder)})
    classifier = method.adapt(None, task, 0)
    rows = make_examples(20, seed=1, pair=False, labels=task.labels)
    teach(method, classifier, rows, rows)
    assert np.isfinite(logprobs(classifier, [Example("a", "")])).all()
