"""A run folder meets another experiment: it is refused, or goes on where nothing that counts differs."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub
import pytest
import yaml
from tests.observers import listener
from tests.study.experiments import changed, files_of, with_data

from entailor.config.parts import DataSettings
from entailor.errors import RunError
from entailor.shipping.predictor import Predictor
from entailor.study.compare import compare

pytestmark = pytest.mark.usefixtures("plain_page")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda e: with_data(e, max_train_examples=30), "data.max_train_examples: None there, 30 here"),
        (lambda e: with_data(e, columns={"label": "label"}), "data.columns.label: None there, 'label' here"),
        (
            lambda e: changed(e, model=e.model.model_copy(update={"max_length": 32})),
            "model.max_length: 256 there, 32 here",
        ),
        (lambda e: changed(e, restarts=1), "restarts: 0 there, 1 here"),
        (
            lambda e: changed(e, methods={"bag_of_words": {"max_ngram": 1}}),
            "methods.bag_of_words.max_ngram: 2 there, 1 here",
        ),
        (
            lambda e: changed(e, methods={"majority": {"method": "bag_of_words"}}),
            "methods.majority.method: 'majority' there, 'bag_of_words' here",
        ),
    ],
)
def test_another_experiment_is_refused_by_the_key_that_differs(quick, change, named):
    run = compare(quick)
    before = files_of(run.folder.path)
    with pytest.raises(RunError) as caught:
        compare(change(quick))
    assert named in str(caught.value)
    assert str(run.folder.path) in str(caught.value)
    assert "--out" in str(caught.value)
    assert files_of(run.folder.path) == before


def test_changed_data_are_refused(nli_split, quick, csv_of, tmp_path):
    files = {name: csv_of(tmp_path / f"{name}.csv", rows) for name, rows in nli_split.parts()}
    experiment = changed(quick, data=DataSettings(**files))
    run = compare(experiment)
    before = files_of(run.folder.path)
    csv_of(tmp_path / "train.csv", nli_split.train[1:])
    with pytest.raises(RunError, match=r"the data have changed.*--out"):
        compare(experiment)
    assert files_of(run.folder.path) == before


def test_methods_seeds_and_rows_can_be_added(nli_experiment, out, started):
    lora = {"r": 2, "num_train_epochs": 1}
    compare(changed(nli_experiment, methods={"majority": {}}, seeds=(0,), out=out))
    compare(changed(nli_experiment, methods={"lora": lora}, seeds=(0,), out=out))
    compare(changed(nli_experiment, methods={"lora": lora, "narrow": {"method": "lora", **lora}}, seeds=(2,), out=out))
    assert started == [("majority", 0), ("lora", 0), ("lora", 2), ("narrow", 2)]
    # what was there before stays in the table, whatever the last command asked for
    run = compare(changed(nli_experiment, methods={"majority": {}}, seeds=(0,), out=out))
    assert len(started) == 4
    assert len(run.records) == 1
    rows = {row["method"]: row for row in run.summary["candidates"]}
    assert rows.keys() == {"majority", "lora", "narrow"}
    assert rows["lora"]["seeds"] == [0, 2]
    assert rows["narrow"]["registered_method"] == "lora"
    values = yaml.safe_load(run.folder.experiment_file.read_text())
    assert list(values["methods"]) == ["majority", "lora", "narrow"]
    assert values["seeds"] == [0, 2]


def test_a_damaged_trial_is_run_again_with_a_note(quick, started):
    run = compare(quick)
    started.clear()
    damaged = run.folder.trial("none", "bag_of_words", 0) / "predictions.jsonl"
    damaged.write_text("{")
    notes: list[str] = []
    again = compare(quick, listener(warn=notes.append))
    assert started == [("bag_of_words", 0)]
    assert again.summary["candidates"][0]["accuracy"] == run.summary["candidates"][0]["accuracy"]
    assert any(str(damaged) in note for note in notes)


def test_files_that_are_not_ours_are_left_alone(quick):
    compare(quick)
    other = Path(quick.out) / "trials" / "of mine" / "notes.txt"
    other.parent.mkdir(parents=True)
    other.write_text("keep")
    compare(quick)
    assert other.read_text() == "keep"


def test_a_place_that_cannot_be_written_is_named(quick, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match=r"file.*cannot be written.*--out"):
        compare(changed(quick, out=str(tmp_path / "file" / "run")))


def test_a_hub_model_that_moved_on_is_still_had_by_its_commit(nli_experiment, tiny_model, tmp_path, monkeypatch):
    commits = ("a" * 40, "b" * 40)
    for commit in commits:
        shutil.copytree(tiny_model("bert"), tmp_path / commit)
    weights = tmp_path / commits[1] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    main = [commits[0]]
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, revision, **_: str(tmp_path / (revision or main[0]))
    )
    asked = changed(nli_experiment, methods={"knn": {}}, models=("org/name",), out=str(tmp_path / "run"))
    compare(asked)
    main[0] = commits[1]
    with pytest.raises(RunError, match=f"Set model.revision={commits[0]}, or give another --out"):
        compare(asked)
    methods = {"knn": {}, "probe": {"method": "linear_probe"}}
    pinned = changed(asked, model=asked.model.model_copy(update={"revision": commits[0]}), methods=methods)
    assert len(compare(pinned).records) == 2
    assert Predictor.load(tmp_path / "run" / "trials" / "org--name" / "knn" / "seed-0").predict([("a", "b")])


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_a_model_that_has_changed_since_is_not_compared_with_itself(nli_experiment, tiny_model, tmp_path, file):
    """Else the candidates of one table would read different models, each with its own hash."""
    model = tmp_path / "model"
    shutil.copytree(tiny_model("bert"), model)
    values = {"models": (str(model),), "out": str(tmp_path / "run")}
    compare(changed(nli_experiment, methods={"majority": {}, "knn": {}}, **values))
    sound = (model / file).read_bytes()
    flipped = sound[:-9] + bytes([sound[-9] ^ 1]) + sound[-8:]
    (model / file).write_bytes(flipped if file.startswith("model") else sound + b" ")
    more = changed(nli_experiment, methods={"majority": {}, "knn": {}, "near": {"method": "knn", "k": [3]}}, **values)
    another = "other weights" if file.startswith("model") else "another tokenizer.json"
    with pytest.raises(RunError, match=f"knn was run on .* with {another} than stands there now. Give back the same"):
        compare(more)
    compare(changed(more, out=str(tmp_path / "other")))
    (model / file).write_bytes(sound)
    assert len(compare(more).records) == 3
