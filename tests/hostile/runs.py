"""Run folders of strangers: files that are none, documents beyond limits, and values with the right checksum."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests.hostile.cases import TRAIN_CSV, Build, Words

from entailor.config.parts import DataSettings
from entailor.data.example import Split
from entailor.data.splits import load_data
from entailor.runs.integrity import BLANK_CHECKSUM, checksums, with_checksum
from entailor.runs.layout import RunFolder


def temporary_folder(prefix: str, place: str | None = None) -> Path:
    """Make a folder that goes when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def sound_run() -> Path:
    """A finished run of two rows without a model."""
    from entailor.config.experiment import Experiment, parse_settings
    from entailor.study.compare import compare

    folder = temporary_folder("sound-")
    (folder / "train.csv").write_text(TRAIN_CSV)
    settings = {
        "data": {"train": str(folder / "train.csv")},
        "methods": "majority,bag_of_words",
        "out": str(folder / "run"),
        "doctor": False,
        "estimate": False,
    }
    compare(parse_settings(Experiment, settings))
    return folder


@cache
def sound_split() -> Split:
    """The split of the sound run."""
    return load_data(DataSettings(train=str(sound_run() / "train.csv"))).split


def run_copy(folder: Path) -> Path:
    shutil.copytree(sound_run() / "run", folder / "run")
    return folder / "run"


def first_trial(run: Path) -> Path:
    return run / "trials" / "none" / "majority" / "seed-0"


def over_run(run: Path) -> Sequence[Words]:
    """Every command that takes a run folder."""
    source, trial = str(sound_run() / "train.csv"), first_trial(run)
    again = ["--train", source, "--methods", "majority,bag_of_words", "--out", str(run), "doctor=false"]
    return [
        ["verify", "--run", str(run), "--sample", "2"],
        ["report", "--run", str(run)],
        ["diff", str(run), str(sound_run() / "run")],
        ["evaluate", "--run", str(trial), "--test", source],
        ["predict", "--run", str(trial), "--input", source, "--output", str(run.parent / "out.csv")],
        ["predict", "--run", str(run), "--input", source, "--output", str(run.parent / "out.csv")],
        ["export", "--run", str(trial), "--format", "transformers", "--out", str(run.parent / "out")],
        ["compare", *again, "estimate=false"],
    ]


def write_sealed(file: Path, text: str) -> None:
    """Write a file with the checksum that fits; a stranger can do that too."""
    if file.name.endswith(".yaml"):
        text = f"{text}# checksum {BLANK_CHECKSUM}\n"
    file.write_bytes(with_checksum(text).encode("utf-8", "surrogatepass"))


def plain_page(folder: RunFolder) -> None:
    """Write a page in no time, which `verify` takes for a report."""
    write_sealed(folder.report_file, f"<p>page</p>\n<!-- {BLANK_CHECKSUM} -->\n")


def write_value(file: Path, value: Any) -> None:
    write_sealed(file, json.dumps({**value, "checksum": BLANK_CHECKSUM}) + "\n")


def read_value(file: Path) -> Any:
    value = json.loads(file.read_bytes().decode("utf-8", "surrogatepass"))
    value.pop("checksum", None)
    return value


def sign_trial(trial: Path) -> None:
    """Let the record's checksums be those of the files that stand there."""
    head = read_value(trial / "record.json")
    write_value(trial / "record.json", {**head, "files": checksums(trial, leave_out=("record.json",))})


RUN_FILES = (
    "experiment.yaml",
    "environment.json",
    "split.json",
    "comparison.json",
    "test_access.json",
    "trials/none/majority/seed-0/record.json",
    "trials/none/majority/seed-0/classifier.json",
    "trials/none/majority/seed-0/predictions.jsonl",
    "trials/none/majority/seed-0/curve.jsonl",
    "trials/none/majority/seed-0/adapter/frequencies.json",
)
RUN_CODES = (0, 1, 2)  # not every command reads every file, and what is written again is right again


def in_place_of(name: str, make: Callable[[Path], Any]) -> Build:
    def build(folder: Path) -> Sequence[Words]:
        run = run_copy(folder)
        (run / name).unlink()
        make(run / name)
        return over_run(run)

    return build


DOCUMENTS: dict[str, str] = {
    "nested": "[" * 200_000,
    "nested closed": "[" * 20_000 + "]" * 20_000,
    "nested mappings": '{"a":' * 20_000 + "1" + "}" * 20_000,
    "many empty lists": "[" + "[]," * 9_000_000 + "[]]",
    "long number": '{"version": ' + "9" * 6_000 + "}",
    "large number": '{"version": 1e999}',
    "not a number": '{"version": NaN}',
    "a list": "[1, 2]",
    "a text": '"hello"',
    "half a pair": '{"\\ud800": "\\ud800"}',
    "unclosed text": '{"a": "' + '\\"' * 500_000,
}


def document(name: str, text: str) -> Build:
    def build(folder: Path) -> Sequence[Words]:
        run = run_copy(folder)
        (run / name).write_text(text)
        return over_run(run)

    return build


def _changed(name: str, change: Callable[[Any], Any]) -> Build:
    """A JSON file with another content and the right checksum."""

    def build(folder: Path) -> Sequence[Words]:
        run = run_copy(folder)
        value = read_value(run / name)
        replaced = change(value)
        file = run / name
        if file.name in ("record.json", "comparison.json", "split.json", "environment.json", "test_access.json"):
            write_value(file, value if replaced is None else replaced)
        else:
            file.write_text(json.dumps(value if replaced is None else replaced))
            sign_trial(first_trial(run))
        return over_run(run)

    return build


def _lines(change: Callable[[list[dict[str, Any]]], Any]) -> Build:
    """Other predictions, with the right checksum."""

    def build(folder: Path) -> Sequence[Words]:
        run = run_copy(folder)
        file = first_trial(run) / "predictions.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        change(rows)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        sign_trial(first_trial(run))
        return over_run(run)

    return build


def _set(*path: Any, to: Any) -> Callable[[Any], None]:
    def change(value: Any) -> None:
        for part in path[:-1]:
            value = value[part]
        value[path[-1]] = to

    return change


RECORD = "trials/none/majority/seed-0/record.json"
CLASSIFIER = "trials/none/majority/seed-0/classifier.json"
CHANGES: dict[str, Build] = {
    "a file outside": _changed(RECORD, _set("files", to={"../../../../../etc/passwd": "0" * 64})),
    "a device as a file": _changed(RECORD, _set("files", to={"/dev/zero": "0" * 64, "predictions.jsonl": "x"})),
    "files is a list": _changed(RECORD, _set("files", to=["predictions.jsonl"])),
    "a billion predictions": _changed(RECORD, _set("num_predictions", to=10**9)),
    "predictions counted in text": _changed(RECORD, _set("num_predictions", to="18")),
    "row name outwards": _changed(RECORD, _set("name", to="../../../x")),
    "half a pair as model": _changed(RECORD, _set("model", to="\ud800")),
    "seed of a list": _changed(RECORD, _set("seed", to=[0])),
    "labels of numbers": _changed(RECORD, _set("labels", to=[1, 2])),
    "labels twice": _changed(RECORD, _set("labels", to=["a", "a"])),
    "no labels": _changed(RECORD, _set("labels", to=[])),
    "100,000 labels": _changed(RECORD, _set("labels", to=[str(i) for i in range(100_000)])),
    "unknown status": _changed(RECORD, _set("status", to="perhaps")),
    "failed without a reason": _changed(RECORD, _set("status", to="failed")),
    "costs are a list": _changed(RECORD, _set("costs", to=[])),
    "costs of text": _changed(RECORD, _set("costs", "train_seconds", to="long")),
    "costs beyond": _changed(RECORD, _set("costs", "stored_bytes", to=10**400)),
    "hyperparameters are text": _changed(RECORD, _set("hyperparameters", to="x")),
    "provenance is a list": _changed(RECORD, _set("provenance", to=[])),
    "prompts of numbers": _changed(RECORD, _set("provenance", "prompts", to=[1, 2])),
    "temperature is text": _changed(RECORD, _set("temperature", to="hot")),
    "temperature of nought": _changed(RECORD, _set("temperature", to=0)),
    "an unknown key": _changed(RECORD, _set("surprise", to=1)),
    "classifier of a list": _changed(CLASSIFIER, _set("labels", to={"a": 1})),
    "classifier of other labels": _changed(CLASSIFIER, _set("labels", to=["x", "y", "z"])),
    "classifier of an unknown method": _changed(CLASSIFIER, _set("method", to="../x")),
    "classifier of another method": _changed(CLASSIFIER, _set("method", to="bag_of_words")),
    "hyperparameters are a list": _changed(CLASSIFIER, _set("hyperparameters", to=[1])),
    "batches of text": _changed(CLASSIFIER, _set("scoring_batch_tokens", to="many")),
    "batches below nought": _changed(CLASSIFIER, _set("scoring_batch_tokens", to=-1)),
    "prompt of numbers": _changed(CLASSIFIER, _set("prompt", to={"template": 3})),
    "frequencies are a list": _changed("trials/none/majority/seed-0/adapter/frequencies.json", lambda value: [1]),
    "frequencies of text": _changed("trials/none/majority/seed-0/adapter/frequencies.json", lambda value: {"a": "x"}),
    "rows are text": _changed("comparison.json", _set("candidates", to="many")),
    "rows of numbers": _changed("comparison.json", _set("candidates", to=[1, 2])),
    "row outwards": _changed("comparison.json", _set("candidates", 0, "method", to="../../x")),
    "row is absolute": _changed("comparison.json", _set("candidates", 0, "method", to="/etc")),
    "seeds outwards": _changed("comparison.json", _set("candidates", 0, "seeds", to=["../../x"])),
    "seeds are a number": _changed("comparison.json", _set("candidates", 0, "seeds", to=3)),
    "a seed of 400 digits": _changed("comparison.json", _set("candidates", 0, "seeds", to=[10**400])),
    "confusion is empty": _changed("comparison.json", _set("candidates", 0, "confusion", to=[])),
    "accuracy is text": _changed("comparison.json", _set("candidates", 0, "accuracy", to="good")),
    "no recommendation": _changed("comparison.json", _set("recommendation", to=[1])),
    "labels are null": _changed("comparison.json", _set("labels", to=None)),
    "a count beyond": _changed("comparison.json", _set("num_test", to=10**400)),
    "precision is a list": _changed("environment.json", _set("precision", to=[1])),
    "versions are text": _changed("environment.json", _set("versions", to="x")),
    "data notes are numbers": _changed("environment.json", _set("data", to=3)),
    "parts are numbers": _changed("split.json", _set("train", to=5)),
    "ids are lists": _changed("split.json", lambda value: {**value, "fingerprint": "x", "train": [[1], [2]]}),
    "reads are numbers": _changed("test_access.json", _set("reads", to=[1])),
    "a probability of text": _lines(_set(0, "probabilities", to={"a": "x", "b": 1})),
    "a probability of 7": _lines(_set(0, "probabilities", to={"a": 7, "b": -6})),
    "probabilities of other labels": _lines(_set(0, "probabilities", to={"x": 1.0})),
    "probabilities are a list": _lines(_set(0, "probabilities", to=[0.5, 0.5])),
    "no probabilities": _lines(_set(0, "probabilities", to={})),
    "an unknown gold label": _lines(_set(0, "label", to="z")),
    "an id of a number": _lines(_set(0, "id", to=5)),
    "a line twice": _lines(lambda rows: rows.append(rows[0])),
    "no lines": _lines(lambda rows: rows.clear()),
}


def experiment_of(text: str) -> Build:
    def build(folder: Path) -> Sequence[Words]:
        run = run_copy(folder)
        write_sealed(run / "experiment.yaml", text)
        return over_run(run)

    return build


def shallow(folder: Path) -> Sequence[Words]:
    """A trial's folder moved to the top of the file system, as a container mounts it."""
    shallow = temporary_folder("x", "/tmp")
    shutil.copytree(first_trial(sound_run() / "run"), shallow, dirs_exist_ok=True)
    source = str(sound_run() / "train.csv")
    return [
        ["evaluate", "--run", str(shallow), "--test", source],
        ["export", "--run", str(shallow), "--format", "transformers", "--out", str(folder / "out")],
        ["evaluate", "--run", "/", "--test", source],
        ["export", "--run", "/tmp", "--format", "transformers", "--out", str(folder / "out")],
        ["verify", "--run", "/"],
        ["report", "--run", "/"],
    ]


def odd_folders(folder: Path) -> Sequence[Words]:
    run = run_copy(folder)
    for name in ("trials/none/majority/seed-x", "curve/none/majority/n-x/seed-0", "curve/none/majority/n-20/seed-0"):
        shutil.copytree(first_trial(run), run / name)
    return over_run(run)


def not_a_run(folder: Path) -> Sequence[Words]:
    (folder / "file").write_text("x")
    places = [folder / "none", folder / "file", Path("a\0b"), Path("\ud800"), Path("x" * 5_000), Path("/dev/zero")]
    return [words for place in places for words in over_run(place)[:-1]]
