"""A candidate taught by another: who teaches, what is taught, and that it comes last."""

import json

import numpy as np
import pytest
from tests.conftest import make_examples, write_csv
from tests.observers import listener

import entailor.study.compare
from entailor import compare
from entailor.config.parts import ModelSettings
from entailor.data.example import Split
from entailor.methods import build_method
from entailor.runs.files import write_text
from entailor.study.distillation import lesson_of
from entailor.study.trial_plan import TrialPlan
from entailor.tasks import Task

LABELS = ("a", "b")


@pytest.fixture(autouse=True)
def plain_page(monkeypatch):
    monkeypatch.setattr(entailor.study.compare, "write_report", lambda folder: write_text(folder.report_file, "page"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    rows = {name: make_examples(n, seed=n, pair=False, labels=LABELS) for name, n in (("train", 40), ("test", 24))}
    rows["further"] = make_examples(30, seed=9, pair=False, labels=LABELS)
    return {name: write_csv(folder / f"{name}.csv", part) for name, part in rows.items()}


def run(files, out, tiny_model, methods, **more):
    settings = {"models": (str(tiny_model("bert")),), "seeds": 1, "doctor": False, "estimate": False, "restarts": 0}
    model = ModelSettings(precision="fp32")
    return compare(
        train=files["train"], test=files["test"], methods=methods, model=model, out=str(out), **{**settings, **more}
    )


def test_the_best_on_validation_teaches_and_the_pupil_comes_last(files, tmp_path, tiny_model):
    pupil = {"num_train_epochs": 2, "teacher": "bag_of_words", "unlabelled": files["further"]}
    methods = {"distilled": pupil, "majority": {}, "bag_of_words": {}, "linear_probe": {"C": [0.1]}}
    comparison = run(files, tmp_path / "run", tiny_model, methods)
    assert [record.name for record in comparison.records] == ["majority", "bag_of_words", "linear_probe", "distilled"]
    record = comparison.records[-1]
    assert record.status == "complete", record.error
    told = " ".join(event.text for event in record.events)
    assert "taught by bag_of_words on none (validation " in told
    assert " labelled and 30 further texts" in told

    # with nobody named it is the best on validation; taught are its probabilities and a tenth of the label, and of
    # further texts its answers alone
    task, method = Task(LABELS, is_pair=False), build_method("distilled", {"unlabelled": files["further"]})
    plan = TrialPlan("distilled", method, "m", 0, ModelSettings())

    rows = make_examples(10, seed=3, pair=False, labels=LABELS)
    trial = tmp_path / "run/trials/m/distilled/seed-0"
    lesson = lesson_of(plan, task, Split(tuple(rows), (), ()), trial, listener())
    right = {
        one.name: np.mean([answer.predicted == answer.label for answer in one.validation_predictions])
        for one in comparison.records[:3]
    }
    best = max(right, key=right.get)
    assert lesson.words.startswith(f"taught by {best} on ")
    (place,) = tmp_path.glob(f"run/trials/*/{best}/seed-0")
    teacher = entailor.Predictor.load(place)
    said_EL = np.array([list(one.probabilities.values()) for one in teacher.predict([row.text for row in rows])])
    gold_EL = np.eye(2)[task.targets(rows)]
    np.testing.assert_allclose(lesson.soft_EL[:10], 0.9 * said_EL + 0.1 * gold_EL, atol=1e-6)
    assert len(lesson.examples) == 40
    np.testing.assert_allclose(lesson.soft_EL.sum(axis=1), 1)
    assert [row.label for row in lesson.examples[10:]] == [LABELS[i] for i in lesson.soft_EL[10:].argmax(axis=1)]


@pytest.mark.parametrize(
    ("methods", "said", "told"),
    [
        (
            {"distilled": {}},
            "no candidate of this run is finished, so nobody can teach. Finished are: none. Add the teacher to methods",
            {"distilled": {}, "bag_of_words": {}},
        ),
        (
            {"distilled": {"teacher": "linear_probe"}, "majority": {}},
            "no candidate linear_probe of this run is finished, so nobody can teach. Finished are: majority. Add the",
            {"distilled": {"teacher": "linear_probe"}, "majority": {}, "linear_probe": {"C": [0.1]}},
        ),
    ],
)
def test_without_its_teacher_it_fails_and_with_it_it_learns(methods, said, told, files, tmp_path, tiny_model):
    for chosen, outcome in ((methods, "failed"), (told, "complete")):
        chosen["distilled"]["num_train_epochs"] = 1
        run(files, tmp_path / "run", tiny_model, chosen)
        (file,) = tmp_path.glob("run/trials/*/distilled/seed-0/record.json")
        record = json.loads(file.read_text())
        assert record["status"] == outcome, record["error"]
        assert outcome == "complete" or said in record["error"]
