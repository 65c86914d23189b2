"""Examples without a gold label: `evaluate` and external test sets report them as train and test do."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.observers import listener
from typer.testing import CliRunner

from entailor.cli.app import app
from entailor.config.experiment import Experiment
from entailor.config.parts import DataSettings
from entailor.data.splits import load_data
from entailor.errors import LabelError
from entailor.study.compare import compare

LABELS = ("no", "yes")


def file_of(path: Path, labels: Sequence[str]) -> str:
    rows = [f"{path.stem} text {number},{label}\n" for number, label in enumerate(labels)]
    path.write_text("text,label\n" + "".join(rows), encoding="utf-8")
    return str(path)


def labelled(path: Path, marker: str, count: int) -> str:
    """A hundred texts with a label, and some with the marker."""
    return file_of(path, [*(LABELS * 50), *([marker] * count)])


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp("gold")
    return Experiment(
        data=DataSettings(train=file_of(folder / "train.csv", LABELS * 30), test=file_of(folder / "t.csv", LABELS * 9)),
        methods={"majority": {}},
        doctor=False,
        estimate=False,
        out=str(folder / "run"),
    )


@pytest.fixture(scope="module")
def run(experiment: Experiment) -> str:
    return str(compare(experiment).folder.path)


def evaluated(run: str, *words: str):
    return CliRunner().invoke(app, ["evaluate", "--run", run, "--json", *words])


def settings_in(message: str) -> list[tuple[str, object]]:
    """Return the data settings that a message proposes."""
    words = [shlex.split(word)[0].partition("=") for word in re.findall(r"'data[^']*'", message)]
    values = [(key.removeprefix("data."), json.loads(value)) for key, _, value in words]
    return [(key, tuple(value) if isinstance(value, list) else value) for key, value in values]


def flags_in(message: str) -> list[str]:
    return [shlex.split(word)[0] for word in re.findall(r"'--[^']*'", message)]


@pytest.mark.parametrize(("count", "severity"), [(1, "info"), (3, "warning")])
def test_evaluate_says_how_many_examples_have_no_label(run: str, tmp_path: Path, count: int, severity: str):
    done = evaluated(run, "--test", labelled(tmp_path / "a.csv", "-1", count), "-q")
    assert f"{severity}: {count} of {100 + count} examples" in done.stderr
    assert "taken for no gold label" in done.stderr
    assert json.loads(done.stdout)["num_examples"] == 100


@pytest.mark.parametrize("marker", ["-1", "-", "", "NaN"])
def test_many_ask_which_is_meant_and_both_answers_work(run: str, tmp_path: Path, marker: str):
    test = labelled(tmp_path / "a.csv", marker, 20)
    done = evaluated(run, "--test", test)
    assert isinstance(done.exception, LabelError)
    assert "may be a class or mean that there is no gold label" in str(done.exception)
    is_class, is_none = flags_in(str(done.exception))
    assert json.loads(evaluated(run, "--test", test, is_class).stdout)["num_examples"] == 120
    assert json.loads(evaluated(run, "--test", test, is_none).stdout)["num_examples"] == 100


def test_what_the_run_declared_holds_for_its_classifiers(experiment: Experiment, tmp_path: Path):
    data = experiment.data.model_copy(update={"no_gold": ("-1",)})
    declared = compare(experiment.model_copy(update={"data": data, "out": str(tmp_path / "run")})).folder.path
    done = evaluated(str(declared), "--test", labelled(tmp_path / "a.csv", "-1", 20))
    assert "info: 20 of 120 examples" in done.stderr
    assert json.loads(done.stdout)["num_examples"] == 100


def test_minus_one_is_a_class_where_the_classifier_has_it(experiment: Experiment, tmp_path: Path):
    data = DataSettings(train=file_of(tmp_path / "train.csv", ["-1", "0", "1"] * 20), labels=("-1", "0", "1"))
    signs = experiment.model_copy(update={"data": data, "out": str(tmp_path / "run")})
    more = file_of(tmp_path / "more.csv", ["-1", "0", "1"] * 5)
    place = compare(signs).folder.path
    assert json.loads(evaluated(str(place), "--test", more).stdout)["num_examples"] == 15
    external = signs.model_copy(update={"data": data.model_copy(update={"external": (more,)})})
    (scored,) = compare(external).summary["external"]
    assert (scored["error"], scored["num_examples"]) == (None, 15)


@pytest.mark.parametrize(("given", "hint"), [("Yes=yes", "Did you mean 'yes'?"), ("1=yes", "")])
def test_a_mapped_label_that_no_example_has_is_told(run: str, tmp_path: Path, given: str, hint: str):
    done = evaluated(run, "--test", labelled(tmp_path / "a.csv", "yes", 1), "--label-names", given)
    assert f"--label-names: no example has the label {given.partition('=')[0]!r}" in done.stderr
    assert hint in done.stderr
    data = DataSettings(train=file_of(tmp_path / "t.csv", LABELS * 20), label_names={"Yes": "yes", "no": "no"})
    (note,) = [note for note in load_data(data).notes if "label_names" in note]
    assert "no example has the label 'Yes', so mapping it does nothing. Did you mean 'yes'?" in note


def test_a_label_that_the_classifier_does_not_know_is_mapped_by_a_flag(run: str, tmp_path: Path):
    test = labelled(tmp_path / "a.csv", "YES, sir", 1)
    Path(test).write_text(Path(test).read_text().replace("YES, sir", '"YES, sir"'))
    (word,) = flags_in(str(evaluated(run, "--test", test).exception))
    assert json.loads(evaluated(run, "--test", test, word).stdout)["num_examples"] == 101


def external(experiment: Experiment, out: Path, source: str, **data: object):
    settings = experiment.data.model_copy(update={"external": (source,), **data})
    told: list[str] = []
    asked = experiment.model_copy(update={"data": settings, "out": str(out)})
    return compare(asked, listener(warn=told.append)).summary["external"][0], told


def test_external_test_sets_say_it_too(experiment: Experiment, tmp_path: Path):
    scored, told = external(experiment, tmp_path / "run", labelled(tmp_path / "a.csv", "-1", 3))
    assert scored["num_examples"] == 100
    (words,) = told
    assert words.startswith("warning: 3 of 103 examples (2.9 %) of external test set")
    assert "data.label_names=" in words
    assert "data.no_gold=" in words


@pytest.mark.parametrize("answer", [0, 1])
def test_both_answers_for_an_external_test_set_work_on_the_finished_run(
    experiment: Experiment, tmp_path: Path, answer: int
):
    source = labelled(tmp_path / "a.csv", "-1", 20)
    scored, (words,) = external(experiment, tmp_path / "run", source)
    assert "may be a class or mean that there is no gold label" in scored["error"]
    assert words == f"external test set left out: {scored['error']}"
    scored, _ = external(experiment, tmp_path / "run", source, **dict([settings_in(words)[answer]]))
    assert (scored["error"], scored["num_examples"]) == (None, (120, 100)[answer])


def test_a_label_of_test_alone_is_mapped_since_train_has_no_such_class(experiment: Experiment, tmp_path: Path):
    data = experiment.data.model_copy(update={"test": labelled(tmp_path / "a.csv", "-1", 20)})
    with pytest.raises(LabelError) as caught:
        load_data(data)
    is_class, is_none = settings_in(str(caught.value))
    for setting, count in ((is_class, 120), (is_none, 100)):
        assert len(load_data(data.model_copy(update=dict([setting]))).split.test) == count
