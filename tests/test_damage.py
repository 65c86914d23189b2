"""Every file of a run folder damaged, one at a time: it is named, redone or refused, and never believed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.observers import listener

import entailor.study.compare
from entailor.config.parts import BudgetSettings
from entailor.errors import RunError
from entailor.evaluation.difference import diff_runs
from entailor.report.html import write_report
from entailor.runs.files import read_json, write_checked_json, write_text
from entailor.runs.layout import RunFolder
from entailor.runs.record import RunRecord
from entailor.shipping.restoring import find_trial, load_classifier
from entailor.study.compare import compare
from entailor.study.verification import verify

DAMAGES = ("cut", "empty", "flip", "delete")


@pytest.fixture(scope="module")
def experiment(nli_experiment):
    rows = {name: nli_experiment.methods[name] for name in ("majority", "lora")}
    return nli_experiment.model_copy(update={"methods": rows, "seeds": (0,)})


@pytest.fixture(scope="module")
def sound(experiment, tmp_path_factory):
    run = tmp_path_factory.mktemp("sound") / "run"
    compare(experiment.model_copy(update={"out": str(run)}))
    return run


@pytest.fixture(scope="module")
def words(experiment, tmp_path_factory):
    """An experiment without a model, and its run."""
    run = tmp_path_factory.mktemp("words") / "run"
    chosen = experiment.model_copy(update={"methods": {"majority": {}, "bag_of_words": {}}})
    compare(chosen.model_copy(update={"out": str(run)}))
    return chosen, run


@pytest.fixture(autouse=True)
def plain_page(monkeypatch):
    """Drawing takes longer than all the rest."""
    monkeypatch.setattr(entailor.study.compare, "write_report", lambda folder: write_text(folder.report_file, "page"))


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "delete":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[: max(1, len(content) * 2 // 3)] if len(content) > 1 else b"")
    elif how == "empty":
        path.write_bytes(b"")
    elif content:
        content[len(content) // 3] ^= 4
        path.write_bytes(content)


def files_of(run: Path) -> list[str]:
    return sorted(
        str(path.relative_to(run)) for path in run.rglob("*") if path.is_file() and not path.name.startswith(".")
    )


def figures(run: Path) -> dict[str, RunRecord]:
    return {str(place.relative_to(run)): record.predictions for place, record in RunFolder(run).records()}


@pytest.mark.parametrize("how", DAMAGES)
def test_every_file_that_is_damaged_is_named_and_no_figure_is_wrong(how, words, tmp_path):
    """Each file is looked at after every damage; a comparison goes on over one that is gone, and over one of the rest.

    Some files are empty as they should be, and cutting those changes nothing.
    """
    experiment, sound = words
    for number, name in enumerate(files_of(sound)):
        goes_on = how == "delete" or number % 3 == DAMAGES.index(how)
        look_at_damaged(how, name, sound, experiment if goes_on else None, tmp_path / f"run-{number}")


def test_every_file_of_a_trained_trial_that_is_damaged_is_named(sound, experiment, tmp_path):
    """Every second one is trained again."""
    (trial,) = sound.glob("trials/*/lora/seed-0")
    for number, path in enumerate(sorted(path for path in trial.rglob("*") if path.is_file())):
        how, name = DAMAGES[number % 4], str(path.relative_to(sound))
        look_at_damaged(how, name, sound, experiment if number % 2 else None, tmp_path / f"run-{number}")


def look_at_damaged(how, name, sound, goes_on, run):
    """Damage a file in a copy of a run; it is named by `verify`, and by the experiment that goes on, if any."""
    shutil.copytree(sound, run)
    before = (run / name).read_bytes()
    damage(run / name, how)
    if (run / name).exists() and (run / name).read_bytes() == before:
        return
    found = verify(run, sample=4)
    told = " ".join(f"{check.what} {check.words}" for check in found.checks if check.outcome != "sound")
    missing_record = how == "delete" and name.endswith("record.json")
    assert not found.sound, f"{how} {name}"
    assert Path(name).name in told or missing_record, f"{how} {name}: {told}"
    if goes_on is None:
        return
    notes: list[str] = []
    try:
        compare(goes_on.model_copy(update={"out": str(run)}), listener(note=notes.append))
    except RunError as error:
        said = str(error)
    else:
        said = name
        assert figures(run) == figures(sound), f"{how} {name}"
    assert name in said, f"{how} {name}: {said}"


def test_what_is_read_is_checked(sound, tmp_path):
    for name, read in (
        ("comparison.json", lambda run: write_report(RunFolder(run))),
        ("comparison.json", find_trial),
        ("environment.json", lambda run: write_report(RunFolder(run))),
        ("experiment.yaml", lambda run: write_report(RunFolder(run))),
        ("split.json", lambda run: diff_runs(run, sound)),
        ("trials/none/majority/seed-0/predictions.jsonl", lambda run: write_report(RunFolder(run))),
        ("trials/none/majority/seed-0/record.json", lambda run: write_report(RunFolder(run))),
        (
            "trials/none/majority/seed-0/adapter/frequencies.json",
            lambda run: load_classifier(run / "trials" / "none" / "majority" / "seed-0"),
        ),
        (
            "trials/none/majority/seed-0/classifier.json",
            lambda run: load_classifier(run / "trials" / "none" / "majority" / "seed-0"),
        ),
    ):
        run = tmp_path / "run"
        shutil.copytree(sound, run)
        damage(run / name, "flip")
        with pytest.raises(RunError, match=Path(name).name.replace(".", r"\.")):
            read(run)
        shutil.rmtree(run)


def test_a_trial_that_is_gone_is_missed_by_the_report(sound, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(sound, run)
    (run / "trials" / "none" / "majority" / "seed-0" / "record.json").unlink()
    with pytest.raises(RunError, match=r"seed-0: record\.json is missing, which comparison\.json counts"):
        write_report(RunFolder(run))


def test_a_file_that_was_put_beside_a_classifier_is_refused(sound, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(sound, run)
    trial = run / "trials" / "none" / "majority" / "seed-0"
    (trial / "adapter" / "extra.bin").write_bytes(b"x")
    with pytest.raises(RunError, match=r"extra\.bin: was not written by this trial"):
        load_classifier(trial)


def test_what_tuning_curves_challenges_and_the_forecast_wrote_is_looked_at_too(experiment, tmp_path):
    run = tmp_path / "run"
    shutil.copyfile(experiment.data.test, tmp_path / "hard.csv")
    settings = {
        "out": str(run),
        "methods": {"lora": experiment.methods["lora"]},
        "data": experiment.data.model_copy(update={"external": (str(tmp_path / "hard.csv"),)}),
        "budget": BudgetSettings(trials=1),
        "learning_curve": (20,),
        "estimate": True,
    }
    again = experiment.model_copy(update=settings)
    compare(again)

    def damaged() -> list[str]:
        checks = verify(run, sample=4).checks
        return [
            check.what for check in checks if check.outcome != "sound" and check.what != "report.html"
        ]  # no real page

    assert damaged() == []
    patterns = (
        "estimate.json",
        "tuning/*/*/study.json",
        "curve/**/predictions.jsonl",
        "trials/*/*/*/external/*.json",
    )
    for pattern in patterns:
        (file,) = run.glob(pattern)
        whole = file.read_bytes()
        file.write_bytes(whole.replace(b"0.", b"1.", 1))
        assert file.read_bytes() != whole
        (found,) = damaged()
        assert found in (file.relative_to(run).as_posix(), file.parent.relative_to(run).as_posix())
        if "external" not in pattern:
            file.write_bytes(whole)
    compare(again)  # what is damaged of an external test set is scored again
    assert damaged() == []


def test_a_sound_run_is_sound(sound):
    found = verify(sound, sample=5)
    assert found.sound
    assert [check.outcome for check in found.checks] == ["sound"] * len(found.checks)
    assert "5 of 18 test examples scored again, probabilities within" in found.as_text()
    assert "comparison.json is what the 2 records give" in found.as_text()


def test_scores_that_are_not_the_recorded_ones_are_found(sound, tmp_path):
    from dataclasses import replace

    run = tmp_path / "run"
    shutil.copytree(sound, run)
    trial = run / "trials" / "none" / "majority" / "seed-0"
    record = RunRecord.read(trial)
    swapped = [
        replace(row, probabilities=dict(zip(record.labels, (0.8, 0.1, 0.1), strict=True))) for row in record.predictions
    ]
    replace(record, predictions=tuple(swapped)).write(trial)
    found = verify(run)
    assert [check.outcome for check in found.checks].count("differs") == 2  # its scores, and the figures made of them
    assert "at most 1e-04 was expected" in found.as_text()


def test_diff_says_what_differs(sound, experiment, tmp_path):
    assert diff_runs(sound, sound).same
    other = experiment.model_copy(update={"out": str(tmp_path / "other"), "seeds": (1,), "checkpoint_steps": 3})
    data = other.data.model_copy(update={"max_train_examples": 30})
    compare(other.model_copy(update={"data": data}))
    found = diff_runs(sound, tmp_path / "other")
    assert not found.same
    assert found.data[0] == "train: 18 of 48 only in the first, 0 of 30 only in the second"
    assert "data.max_train_examples: None and 30" in found.configuration
    assert not [line for line in found.configuration if line.startswith(("out", "checkpoint"))]
    assert found.versions == ()
    assert [line for line in found.results if "seed 1: only in the second" in line]
    assert "versions: the same" in found.as_text()


def test_the_same_experiment_twice_is_the_same(sound, experiment, tmp_path):
    compare(experiment.model_copy(update={"out": str(tmp_path / "again")}))
    assert diff_runs(sound, tmp_path / "again").same


def test_what_a_stranger_wrote_with_checksums_that_fit_is_refused_and_the_remedies_work(sound, experiment, tmp_path):
    """Each file made up, then what the message says to do is done."""
    run = tmp_path / "run"
    shutil.copytree(sound, run)
    again = experiment.model_copy(update={"out": str(run)})
    whole = figures(sound)

    def made_up(name: str, **changes: object) -> None:
        value = {key: one for key, one in read_json(run / name).items() if key != "checksum"}
        write_checked_json(run / name, {**value, **changes})

    made_up("comparison.json", candidates=[{"model": "none", "method": "../../../x", "seeds": [0]}])
    with pytest.raises(RunError, match="can be neither a candidate nor a seed of a run"):
        write_report(RunFolder(run))
    made_up("comparison.json", candidates="many")
    with pytest.raises(RunError, match=r"comparison\.json: not what Entailor writes.*Run the command that made it"):
        write_report(RunFolder(run))
    candidates = read_json(sound / "comparison.json")["candidates"]
    made_up("comparison.json", candidates=[{**one, "intervals": {}} for one in candidates])
    with pytest.raises(RunError, match=r"not what Entailor writes.*'dict object' has no attribute 'macro_f1'"):
        write_report(RunFolder(run))
    compare(again)
    write_report(RunFolder(run))

    notes: list[str] = []
    made_up("environment.json", precision=[1])
    compare(again, listener(warn=notes.append))
    assert any("environment.json: not what Entailor writes" in note for note in notes)
    made_up("trials/none/majority/seed-0/record.json", costs=[])
    with pytest.raises(RunError, match=r"record\.json: not what Entailor writes.*Delete the trial's folder"):
        write_report(RunFolder(run))
    shutil.rmtree(run / "trials" / "none" / "majority" / "seed-0")
    compare(again)
    write_report(RunFolder(run))
    assert figures(run) == whole
    assert verify(run, sample=2).sound


def test_a_run_whose_model_is_another_one_now_is_not_sound(tmp_path, tiny_model, nli_files):
    import json

    from safetensors.torch import load_file, save_file
    from typer.testing import CliRunner

    from entailor.cli.app import app
    from entailor.config.experiment import Experiment

    model, out = tmp_path / "model", tmp_path / "run"
    shutil.copytree(tiny_model("bert"), model)
    settings = {"seeds": 1, "estimate": False, "doctor": False, "out": str(out)}
    compare(Experiment(data=nli_files, models=(str(model),), methods={"linear_probe": {}}, **settings))
    write_report(RunFolder(out))
    assert CliRunner().invoke(app, ["verify", "--run", str(out)]).exit_code == 0
    weights = load_file(model / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, model / "model.safetensors", {"format": "pt"})
    for change in ("other weights", "gone"):
        found = CliRunner().invoke(app, ["verify", "--run", str(out), "--json"])
        outcomes = [check["outcome"] for check in json.loads(found.stdout)["checks"]]
        assert outcomes.count("not scored") == 1, change
        assert found.exit_code == 1, change
        shutil.rmtree(model, ignore_errors=True)
