"""An export answers as what was measured, or it is not released; planted faults are caught and healthy ones are not."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError
from tests.conftest import NLI_LABELS, make_examples, write_csv
from tests.observers import listener
from tests.shipping.faults import FAULTS, cut, manifest_value

from entailor import Predictor
from entailor.cli.app import main
from entailor.config.experiment import Experiment
from entailor.config.parts import DataSettings
from entailor.data.example import Example
from entailor.errors import ConfigError, EntailorError, MethodError, OutputError, RunError
from entailor.runs.files import write_checked_json
from entailor.runs.integrity import checksums
from entailor.runs.record import RunRecord
from entailor.shipping.export import Source, export, prove, write_format
from entailor.shipping.manifest import read_manifest
from entailor.shipping.onnx_export import INT8_VARIANTS
from entailor.shipping.prover import load_runtime
from entailor.shipping.verification import ask_here, ask_in_fresh_process, largest_loss
from entailor.study.compare import Comparison, compare

AUTO_CLASSES = ("AutoModelForSequenceClassification", "AutoTokenizer")


def trial_of(run: Comparison, name: str) -> Path:
    record = next(record for record in run.records if record.name == name)
    return run.folder.trial(record.model, name, record.seed)


@pytest.fixture(scope="module")
def sources(finished_run: Comparison) -> dict[str, Source]:
    return {name: Source(trial_of(finished_run, name)) for name in ("lora", "bag_of_words", "majority")}


@pytest.fixture(scope="module")
def healthy(sources: dict[str, Source], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder of each format, as written, before the proof."""
    place = tmp_path_factory.mktemp("healthy")
    wanted = {"adapter": "lora", "transformers": "lora", "sklearn": "bag_of_words"}
    if onnx_is_here():
        wanted["onnx"] = "lora"
    for name, trial in wanted.items():
        (place / name).mkdir()
        write_format(sources[trial], name, place / name)
    return {name: place / name for name in wanted}


def onnx_is_here() -> bool:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        return False
    return True


# --- what is released answers as the record


@pytest.mark.parametrize("name", ["transformers", "adapter", "sklearn", "onnx"])
def test_healthy_exports_pass(name, healthy, sources):
    if name not in healthy:
        pytest.skip("the extra `export` is not installed")
    source = sources["bag_of_words" if name == "sklearn" else "lora"]
    proof = prove(source, name, healthy[name], 0.01, ask_here)
    assert proof.problems == []
    assert proof.flips == []
    assert proof.largest_change < 1e-5


def test_the_command_proves_in_a_process_of_its_own(finished_run, nli_split, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    words = ["export", "--run", str(trial_of(finished_run, "bag_of_words")), "--format", "sklearn", "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["entailor", *words, "--quiet"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert f"sklearn: {out} (0 of 18 labels changed" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    record = RunRecord.read(trial_of(finished_run, "bag_of_words"))
    predictor = Predictor.load(out)
    answers = predictor.predict([(one.text, one.text_pair) for one in record.predictions])
    for answer, one in zip(answers, record.predictions, strict=True):
        assert answer.probabilities == pytest.approx(one.probabilities, abs=1e-6)
    assert predictor.labels == NLI_LABELS
    first = record.predictions[0]
    done = subprocess.run(
        [sys.executable, "-I", str(out / "predict.py")],
        input=json.dumps({"text": first.text, "text_pair": first.text_pair}) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["probabilities"] == pytest.approx(first.probabilities, abs=1e-6)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: text-classification" in card
    assert "accuracy" in card


def test_predict_needs_nothing_of_entailor(healthy, sources):
    reference = sources["bag_of_words"].reference
    job = {"inputs": reference.inputs, "fuzz": [], "alone": 2, "base": None, "pipeline": False}
    found = ask_in_fresh_process(healthy["sklearn"], job)
    assert not {"entailor", "torch", "transformers", "sklearn", "scipy"} & set(found["imported"])


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft, which predict.py of an adapter loads by itself
@pytest.mark.parametrize("name", ["adapter", "onnx"])
def test_texts_that_an_export_cuts_are_said(name, healthy, monkeypatch, capsys):
    if name not in healthy:
        pytest.skip("the extra `export` is not installed")
    long, short = ("w1 " * 400, "w2"), ("w1", "w2")
    assert Predictor.load(healthy[name]).score([Example("a", *long), Example("b", *short)]).cut == 1
    lines = [json.dumps({"text": text, "text_pair": pair}) for text, pair in (long, short, long)]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    monkeypatch.setattr("sys.argv", ["predict.py", "--calibrated"])
    load_runtime(healthy[name]).main()
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 3
    assert said.err.endswith("2 of 3 inputs are longer than what the model reads, and were cut\n")


@pytest.mark.parametrize(
    ("words", "line", "said"),
    [
        (["--calibrate"], '{"text": "a", "text_pair": "b"}', "'--calibrate' is not taken. Write: python predict.py"),
        (["lines.jsonl"], '{"text": "a", "text_pair": "b"}', "[--calibrated] < lines.jsonl"),
        ([], '{"text": "a"}', 'line 1: {"text": "...", "text_pair": "..."} was expected, found {"text": "a"}'),
        ([], '{"text": "a", "text_pair": 1}', "line 1: "),
        ([], "a text", "was expected, found a text"),
        ([], "", "was expected, found "),
    ],
)
def test_what_predict_py_cannot_read_is_one_line(healthy, monkeypatch, words, line, said):
    """A pair that lacked its second text was answered as if there were none."""
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{line}\n"))
    monkeypatch.setattr("sys.argv", ["predict.py", *words])
    with pytest.raises(SystemExit, match=re.escape(said)):
        load_runtime(healthy["sklearn"]).main()


def test_of_two_exports_to_one_folder_the_second_is_refused(finished_run, tmp_path):
    def ask(folder, job):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs").touch()
        return ask_here(folder, job)

    with pytest.raises(OutputError, match=r"out: exists already\. Give another --out, or delete it"):
        export(trial_of(finished_run, "bag_of_words"), ["sklearn"], tmp_path / "out", ask=ask)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["out", "out/theirs"]


@pytest.mark.parametrize("name", ["transformers", "adapter", "onnx"])
def test_the_predictor_answers_for_an_export(name, healthy, sources):
    if name not in healthy:
        pytest.skip("the extra `export` is not installed")
    record = sources["lora"].record
    answers = Predictor.load(healthy[name]).predict([(one.text, one.text_pair) for one in record.predictions])
    for answer, one in zip(answers, record.predictions, strict=True):
        assert answer.probabilities == pytest.approx(one.probabilities, abs=1e-5)


# --- weights in 8 bits


@pytest.mark.parametrize("variant", INT8_VARIANTS)
def test_each_way_to_round_gives_nearly_the_same_answers(variant, healthy, sources, tmp_path):
    if "onnx" not in healthy:
        pytest.skip("the extra `export` is not installed")
    shutil.copytree(healthy["onnx"], tmp_path / "out")
    INT8_VARIANTS[variant](healthy["onnx"] / "model.onnx", tmp_path / "out" / "model.onnx")
    proof = prove(sources["lora"], "onnx-int8", tmp_path / "out", 0.99, ask_here)
    assert proof.problems == []
    assert 0 < proof.largest_change < 0.2


def test_the_first_way_to_round_that_passes_is_released(healthy, sources, finished_run, tmp_path, monkeypatch):
    if "onnx" not in healthy:
        pytest.skip("the extra `export` is not installed")
    asked: list[Path] = []

    def first_one_fails(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
        asked.append(folder)
        return {"problem": "it fell"} if len(asked) == 1 else ask_here(folder, job)

    def copied(source: Source, name: str, folder: Path) -> None:  # torch's exporter takes seconds
        shutil.copytree(healthy["onnx"], folder, dirs_exist_ok=True)

    monkeypatch.setattr("entailor.shipping.export.write_format", copied)
    trial = trial_of(finished_run, "lora")
    (report,) = export(trial, ["onnx-int8"], tmp_path / "out", margin=0.99, ask=first_one_fails)
    assert report.proof.passed
    assert report.variant == list(INT8_VARIANTS)[1]
    assert [path.name for path in (tmp_path / "out").glob("*.onnx")] == ["model.onnx"]
    read_manifest(tmp_path / "out")


# --- faults


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_caught(fault, healthy, sources, tmp_path):
    name, plant = FAULTS[fault]
    if name not in healthy:
        pytest.skip("the extra `export` is not installed")
    shutil.copytree(healthy[name], tmp_path / "faulty")
    plant(tmp_path / "faulty")
    source = sources["bag_of_words" if name == "sklearn" else "lora"]
    proof = prove(source, name, tmp_path / "faulty", 0.01, ask_here)
    assert not proof.passed, fault
    assert all(proof.problems)


def test_at_least_thirty_faults_are_planted():
    assert len(FAULTS) >= 30


def test_what_does_not_pass_is_kept_under_another_name(finished_run, tmp_path, monkeypatch):
    def wrong(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
        found = ask_here(folder, job)
        found["logits"] = (np.array(found["logits"])[:, ::-1]).tolist()
        return found

    (report,) = export(trial_of(finished_run, "bag_of_words"), ["sklearn"], tmp_path / "out", ask=wrong)
    assert not report.proof.passed
    assert [path.name for path in tmp_path.iterdir()] == ["out.rejected"]
    assert json.loads((report.folder / "verification.json").read_text())["problems"] == report.proof.problems
    with pytest.raises(RunError, match="did not pass its proof"):
        Predictor.load(report.folder)


# --- external test sets


def test_external_test_sets_belong_to_the_proof(finished_run, nli_split, tmp_path, csv_of):
    shutil.copytree(finished_run.folder.path, tmp_path / "run")
    name = trial_of(finished_run, "bag_of_words").relative_to(finished_run.folder.path)
    trial = tmp_path / "run" / name
    elsewhere = csv_of(tmp_path / "elsewhere.csv", [replace(one, label="other") for one in nli_split.validation[:4]])
    twisted = csv_of(tmp_path / "twisted.csv", nli_split.validation)
    for file in (twisted, str(tmp_path / "gone.csv")):  # as a run leaves them
        write_checked_json(trial / "external" / f"{Path(file).stem}.json", {"source": file})
    notes: list[str] = []
    (report,) = export(trial, ["sklearn"], tmp_path / "out", ask=ask_here, observer=listener(warn=notes.append))
    assert report.proof.passed
    (found,) = report.proof.external
    assert (found["name"], found["examples"], found["flips"]) == ("twisted", 18, 0)
    assert found["accuracy_before"] == found["accuracy_after"] > 0.5
    assert found["largest_change"] < 1e-6
    assert any("gone.csv" in one for one in notes)
    assert "| twisted | 18 |" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")

    def wrong(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
        answer = ask_here(folder, job)
        answer["external"]["elsewhere"][0][0] += 0.01
        return answer

    (report,) = export(trial, ["sklearn"], tmp_path / "other", external=[elsewhere], ask=wrong)
    assert report.folder.name == "other.rejected"
    (problem,) = report.proof.problems
    assert problem.startswith("elsewhere: a log-probability is off by 0.00")
    assert report.proof.external[0]["accuracy_before"] is None  # none of its labels is the classifier's


# --- bad input


@pytest.mark.parametrize(
    ("name", "formats", "problem"),
    [
        ("lora", ["sklearn"], r"not for lora: only baselines.* Fitting: transformers, adapter, onnx, onnx-int8"),
        ("majority", ["onnx"], r"not for majority: the classifier is no checkpoint.* Fitting: sklearn"),
        ("linear_probe", ["transformers"], r"Fitting: onnx, onnx-int8"),
        ("lora", ["pickle"], r"'pickle' is no format\. Known are"),
    ],
)
def test_a_format_that_does_not_fit_writes_nothing(finished_run, tmp_path, name, formats, problem):
    with pytest.raises(MethodError, match=problem):
        export(trial_of(finished_run, name), formats, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_outputs_in_use_and_odd_margins_are_refused(finished_run, tmp_path):
    trial = trial_of(finished_run, "majority")
    (tmp_path / "mine").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        export(trial, ["sklearn"], tmp_path / "mine")
    with pytest.raises(OutputError, match="lies among the files of a run"):
        export(trial, ["sklearn"], trial / "out")
    with pytest.raises(ConfigError, match="--margin"):
        export(trial, ["sklearn"], tmp_path / "out", margin=2)
    with pytest.raises(ConfigError, match="each format once"):
        export(trial, ["sklearn", "sklearn"], tmp_path / "out")
    with pytest.raises(RunError, match="neither a trial"):
        export(tmp_path, ["sklearn"], tmp_path / "out")


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), SafetensorError("I/O error: No space left on device (os error 28)")],
)
def test_a_full_disk_leaves_nothing(finished_run, tmp_path, monkeypatch, error):
    def full(*args: Any) -> None:
        raise error

    monkeypatch.setattr("entailor.shipping.export.write_manifest", full)
    with pytest.raises(OutputError, match=r"out: not written: the disk is full\. Free some space"):
        export(trial_of(finished_run, "majority"), ["sklearn"], tmp_path / "deep" / "out")
    assert list(tmp_path.iterdir()) == []


def listed(folder: Path, **changes: Any) -> None:
    """Write the manifest again, its checksums those of the changed files."""
    values = {**json.loads((folder / "manifest.json").read_text()), **changes}
    del values["checksum"]
    write_checked_json(folder / "manifest.json", {**values, "files": checksums(folder, leave_out=("manifest.json",))})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (cut("linear.safetensors"), "damaged, its content is not what was written"),
        (manifest_value("name", "another"), "its checksum is that of another content"),
        (lambda folder: (folder / "extra.py").write_text("1"), "not in manifest.json"),
        (lambda folder: (folder / "predict.py").unlink(), "missing"),
        (lambda folder: ((folder / "model.bin").write_bytes(b"x"), listed(folder)), "pickle is never loaded"),
        (lambda folder: ((folder / "linear.safetensors").write_bytes(b"\xff" * 90), listed(folder)), "safetensors"),
        (lambda folder: listed(folder, labels=["x"]), "scores for 1 labels: its files do not belong together"),
        (lambda folder: listed(folder, labels=["x", "x", "y"]), "'x' stands twice"),
    ],
)
def test_a_strangers_folder_is_refused(healthy, tmp_path, change, problem):
    shutil.copytree(healthy["sklearn"], tmp_path / "theirs")
    change(tmp_path / "theirs")
    with pytest.raises(EntailorError, match=problem):
        Predictor.load(tmp_path / "theirs").predict([("a", "b")])


def test_what_systems_leave_in_a_folder_is_no_part_of_an_export(healthy, tmp_path):
    mine = Path(shutil.copytree(healthy["sklearn"], tmp_path / "mine"))
    for name in (".DS_Store", ".gitattributes", ".git/config", ".cache/huggingface/x", "__pycache__/predict.pyc"):
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text("x")
    assert Predictor.load(mine).labels == Predictor.load(healthy["sklearn"]).labels


def with_code_of_its_own(folder: Path) -> None:
    (folder / "theirs.py").write_text(f"open({str(folder.parent / 'was run')!r}, 'w')")
    config = {"model_type": "theirs", "auto_map": dict.fromkeys(("AutoConfig", *AUTO_CLASSES), "theirs.Theirs")}
    (folder / "config.json").write_text(json.dumps(config))


def through_a_link(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    (folder.parent / "elsewhere" / "file").write_text("private")
    (folder / "linked").symlink_to(folder.parent / "elsewhere")
    values = json.loads((folder / "manifest.json").read_text())
    values["files"]["linked/file"] = hashlib.sha256(b"private").hexdigest()
    del values["checksum"]
    write_checked_json(folder / "manifest.json", values)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda folder: (with_code_of_its_own(folder), listed(folder)), "cannot be loaded"),
        (through_a_link, "lies outside the folder"),
        (lambda folder: (weights(folder).write_bytes(b"\xff" * 90), listed(folder)), "header too large"),
        (lambda folder: ((folder / "tokenizer.json").write_text("[" * 50_000), listed(folder)), "tokenizer cannot be"),
    ],
)
def test_a_strangers_checkpoint_is_refused_and_nothing_of_it_is_run(healthy, tmp_path, change, problem, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *words: "y")  # where transformers would ask
    shutil.copytree(healthy["transformers"], tmp_path / "theirs")
    change(tmp_path / "theirs")
    with pytest.raises(EntailorError, match=problem):
        Predictor.load(tmp_path / "theirs")
    assert not (tmp_path / "was run").exists()


def weights(folder: Path) -> Path:
    return folder / "model.safetensors"


def test_a_strangers_script_is_not_run(healthy, tmp_path):
    shutil.copytree(healthy["sklearn"], tmp_path / "theirs")
    (tmp_path / "theirs" / "predict.py").write_text("raise SystemExit('run')")
    listed(tmp_path / "theirs")
    assert Predictor.load(tmp_path / "theirs").labels == NLI_LABELS
    assert read_manifest(tmp_path / "theirs").format == "sklearn"


def test_the_bound_of_a_loss_is_that_of_the_score_interval():
    # Tango 1998, table 1, in the limit without discordant pairs: z^2 / (n + z^2)
    assert largest_loss(0, 0, 100) == pytest.approx(1.6449**2 / (100 + 1.6449**2), abs=1e-4)
    assert largest_loss(5, 5, 1000) < largest_loss(10, 5, 1000) < largest_loss(20, 5, 1000)
    assert largest_loss(5, 5, 10_000) < 0.001
    assert largest_loss(5, 5, 1000) < largest_loss(5, 5, 1000, 0.01)


def test_thresholds_travel_in_the_biases(tmp_path, monkeypatch):
    """What validation chose decides in the record, in `predict` and in an export, by the same probabilities."""
    rows = [one for one in make_examples(240, seed=2) if one.label == "neutral" or one.id.endswith("7")]
    data = DataSettings(train=write_csv(tmp_path / "train.csv", rows), test_size=40, validation_size=40)
    words = {"method": "bag_of_words", "thresholds": "macro_f1"}
    monkeypatch.setattr("entailor.study.compare.write_report", lambda folder: None)
    run = compare(Experiment(data=data, methods={"words": words}, out=str(tmp_path / "run"), doctor=False))
    (record,) = run.records
    (chosen,) = [event.text for event in record.events if "thresholds: tau" in event.text]
    assert "tau 0 " not in chosen
    trial = trial_of(run, "words")
    (made,) = export(trial, ["sklearn"], tmp_path / "out", ask=ask_here)
    texts = [(one.text, one.text_pair) for one in record.predictions]
    for place in (trial, made.folder):
        answers = Predictor.load(place).predict(texts)
        assert [one.label for one in answers] == [one.predicted for one in record.predictions]
