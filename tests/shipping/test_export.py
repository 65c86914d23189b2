"""An export answers as what was measured, or it is not released; planted faults are caught and healthy ones are not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import NLI_LABELS

from entailor import Predictor
from entailor.cli.app import main
from entailor.errors import ConfigError, EntailorError, MethodError, OutputError, RunError
from entailor.runs.integrity import checksums
from entailor.runs.record import RunRecord, write_checked_json
from entailor.shipping.export import Source, export, prove, write_format
from entailor.shipping.manifest import read_manifest
from entailor.shipping.verification import ask_here, ask_in_fresh_process, largest_loss
from entailor.study.compare import Comparison

Change = Callable[[Path], None]


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


@pytest.mark.parametrize("name", ["transformers", "adapter", "onnx"])
def test_the_predictor_answers_for_an_export(name, healthy, sources):
    if name not in healthy:
        pytest.skip("the extra `export` is not installed")
    record = sources["lora"].record
    answers = Predictor.load(healthy[name]).predict([(one.text, one.text_pair) for one in record.predictions])
    for answer, one in zip(answers, record.predictions, strict=True):
        assert answer.probabilities == pytest.approx(one.probabilities, abs=1e-5)


# --- faults


def tensors(change: Callable[[dict[str, torch.Tensor]], Any], file: str = "model.safetensors") -> Change:
    def apply(folder: Path) -> None:
        found = load_file(folder / file)
        change(found)
        save_file({name: tensor.contiguous() for name, tensor in found.items()}, folder / file)

    return apply


def document(file: str, change: Callable[[Any], Any]) -> Change:
    def apply(folder: Path) -> None:
        values = json.loads((folder / file).read_text(encoding="utf-8"))
        change(values)
        (folder / file).write_text(json.dumps(values), encoding="utf-8")

    return apply


def script(old: str, new: str) -> Change:
    def apply(folder: Path) -> None:
        text = (folder / "predict.py").read_text(encoding="utf-8")
        assert old in text
        (folder / "predict.py").write_text(text.replace(old, new), encoding="utf-8")

    return apply


def both(first: Change, second: Change) -> Change:
    def apply(folder: Path) -> None:
        first(folder)
        second(folder)

    return apply


def cut(file: str) -> Change:
    def apply(folder: Path) -> None:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: len(content) // 2])

    return apply


def noise(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(found: dict[str, torch.Tensor]) -> None:
        hit = [one for one in found if one.startswith(name) or f".{name}" in one]
        assert hit
        for one in hit:
            found[one] = torch.randn(found[one].shape, generator=torch.Generator().manual_seed(0)) * 0.5

    return change


def drop(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(found: dict[str, torch.Tensor]) -> None:
        for one in [one for one in found if name in one]:
            del found[one]

    return change


def scaled(part: str, factor: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(found: dict[str, torch.Tensor]) -> None:
        hit = [one for one in found if part in one]
        assert hit
        for one in hit:
            found[one] = found[one] * factor

    return change


def in_four_bits(found: dict[str, torch.Tensor]) -> None:
    for name, tensor in found.items():
        if tensor.ndim == 2:
            step = tensor.abs().max() / 7
            found[name] = (tensor / step).round() * step


def rows_swapped(found: dict[str, torch.Tensor]) -> None:
    found["classifier.weight"], found["classifier.bias"] = (
        found["classifier.weight"][[1, 0, 2]],
        found["classifier.bias"][[1, 0, 2]],
    )


def manifest_value(key: str, value: Any) -> Change:
    return document("manifest.json", lambda values: values.update({key: value}))


def input_value(key: str, change: Callable[[Any], Any]) -> Change:
    return document("manifest.json", lambda values: values["input"].update({key: change(values["input"][key])}))


def swap_first_two(values: list[Any]) -> None:
    values[0], values[1] = values[1], values[0]


T, A, S, X = "transformers", "adapter", "sklearn", "onnx"
FAULTS: dict[str, tuple[str, Change]] = {
    "head dropped": (T, tensors(drop("classifier"))),
    "head random": (T, tensors(noise("classifier"))),
    "head of zeros": (T, tensors(scaled("classifier", 0.0))),
    "head's rows swapped": (T, tensors(rows_swapped)),
    "head rounded to 4 bits, and all else": (T, tensors(in_four_bits)),
    "pooler dropped": (T, tensors(drop("pooler"))),
    "pooler random": (T, tensors(noise("bert.pooler"))),
    "embeddings random": (T, tensors(noise("bert.embeddings.word"))),
    "positions shifted": (T, tensors(lambda found: found.update({"bert.embeddings.position_embeddings.weight": found["bert.embeddings.position_embeddings.weight"].roll(1, 0)}))),  # noqa: E501
    "a norm scaled": (T, tensors(scaled("LayerNorm.weight", 1.1))),
    "a layer dropped": (T, tensors(drop("layer.1."))),
    "one layer less in the configuration": (T, document("config.json", lambda v: v.update(num_hidden_layers=1))),
    "another activation": (T, document("config.json", lambda v: v.update(hidden_act="relu"))),
    "another epsilon of norms": (T, document("config.json", lambda v: v.update(layer_norm_eps=0.1))),
    "labels of the configuration swapped": (
        T,
        document("config.json", lambda v: v.update(id2label={"0": "neutral", "1": "entailment", "2": "contradiction"})),
    ),
    "label order swapped": (T, document("manifest.json", lambda v: swap_first_two(v["labels"]))),
    "token types zeroed": (T, script("return found.ids, found.type_ids if self", "return found.ids, [0] * len(found.ids) if self")),  # noqa: E501
    "token types left out": (T, input_value("types", lambda _: False)),
    "attention mask of ones": (T, script("(torch.arange(longest) < lengths[:, None]).long()", "torch.ones(len(rows), longest).long()")),  # noqa: E501
    "padded on the left, mask on the right": (
        T,
        script("[*ids, *[self.settings[\"pad\"]] * (longest - len(ids))]", "[*[self.settings[\"pad\"]] * (longest - len(ids)), *ids]"),  # noqa: E501
    ),
    "truncation off by one": (T, input_value("max_length", lambda length: length - 1)),
    "truncation of the first text only": (T, script('strategy="longest_first"', 'strategy="only_first"')),
    "control tokens read as such": (T, both(script("encode_special_tokens = True", "encode_special_tokens = False"), input_value("control", lambda _: []))),  # noqa: E501
    "control tokens twice": (T, script("return found.ids, found", "return [found.ids[0], *found.ids], found")),
    "texts of a pair swapped": (T, script("ids, types = self.tokens(text, pair)", "ids, types = self.tokens(pair or text, text if pair else None)")),  # noqa: E501
    "second text left out": (T, script("rows = [self.tokens(*one) for one in inputs]", "rows = [self.tokens(one[0]) for one in inputs]")),  # noqa: E501
    "vocabulary in another order": (
        T,
        document("tokenizer.json", lambda v: v["model"]["vocab"].update(w0=v["model"]["vocab"]["w1"], w1=v["model"]["vocab"]["w0"])),  # noqa: E501
    ),
    "case kept": (T, document("tokenizer.json", lambda v: v.update(normalizer=None, pre_tokenizer={"type": "WhitespaceSplit"}))),  # noqa: E501
    "weights cut": (T, cut("model.safetensors")),
    "configuration cut": (T, cut("config.json")),
    "temperature lost": (T, manifest_value("temperature", None)),
    "another temperature": (T, manifest_value("temperature", 7.5)),
    "in training mode": (T, script("self.model.eval()", "self.model.train()")),
    "in bfloat16": (T, script("torch.float32", "torch.bfloat16")),
    "adapter at another scale": (A, document("adapter_config.json", lambda v: v.update(lora_alpha=v["lora_alpha"] * 2))),  # noqa: E501
    "rank-stabilised scale": (A, document("adapter_config.json", lambda v: v.update(use_rslora=True))),
    "adapter's B of zeros": (A, tensors(scaled("lora_B", 0.0), "adapter_model.safetensors")),
    "adapter without a head": (A, tensors(drop("classifier"), "adapter_model.safetensors")),
    "adapter on some layers": (A, document("adapter_config.json", lambda v: v.update(target_modules=["query"]))),
    "adapter cut": (A, cut("adapter_model.safetensors")),
    "vocabulary swapped": (S, document("vocabulary.json", lambda v: [swap_first_two(one["terms"]) for one in v])),
    "weights of terms lost": (S, document("vocabulary.json", lambda v: [one.update(idf=[1.0] * len(one["idf"])) for one in v])),  # noqa: E501
    "single words only": (S, input_value("max_ngram", lambda _: 1)),
    "fields swapped": (S, input_value("fields", lambda fields: fields[::-1])),
    "not normalised": (S, script("values / np.sqrt((values**2).sum())", "values")),
    "linear model cut": (S, cut("linear.safetensors")),
    "ONNX cut": (X, cut("model.onnx")),
    "ONNX: token types zeroed": (X, script("types_BT[place, : len(types)] = ids, 1, types", "types_BT[place, : len(types)] = ids, 1, 0")),  # noqa: E501
    "ONNX: mask of ones": (X, script("mask_BT[place, : len(ids)], types_BT", "mask_BT[place, :], types_BT")),
    "ONNX: batch frozen at 1": (X, lambda folder: freeze(folder / "model.onnx")),
}  # fmt: skip


def freeze(file: Path) -> None:
    import onnx

    model = onnx.load(str(file))
    for one in model.graph.input:
        one.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, str(file))


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


# --- bad input


@pytest.mark.parametrize(
    ("name", "formats", "problem"),
    [
        ("lora", ["sklearn"], r"not for lora: only baselines.* Fitting: transformers, adapter, onnx, onnx-int8"),
        ("majority", ["onnx"], r"not for majority: the classifier is no checkpoint.* Fitting: sklearn"),
        ("linear_probe", ["transformers"], r"Fitting: none"),
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


def test_a_full_disk_leaves_nothing(finished_run, tmp_path, monkeypatch):
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("entailor.shipping.export.write_manifest", full)
    with pytest.raises(OSError, match="No space"):
        export(trial_of(finished_run, "majority"), ["sklearn"], tmp_path / "deep" / "out")
    assert list(tmp_path.iterdir()) == []


def listed(folder: Path) -> None:
    """Write the manifest again, its checksums those of the changed files."""
    values = json.loads((folder / "manifest.json").read_text())
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
    ],
)
def test_a_strangers_folder_is_refused(healthy, tmp_path, change, problem):
    shutil.copytree(healthy["sklearn"], tmp_path / "theirs")
    change(tmp_path / "theirs")
    with pytest.raises(EntailorError, match=problem):
        Predictor.load(tmp_path / "theirs")


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
