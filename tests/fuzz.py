"""What fuzzing calls: bytes in, and nothing but an `EntailorError` may come out. Shared by hypothesis and the long run.

The first bytes of an input choose what is read and how; the rest is what stands there.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tests.hostile import runs as hostile

from entailor.cli import app as cli
from entailor.config.experiment import Experiment, parse_settings
from entailor.config.overrides import apply_overrides, dump_checked_yaml, read_checked_yaml, read_yaml
from entailor.config.parts import ModelSettings, PromptSettings
from entailor.data.example import Example
from entailor.data.readers import ReadOptions, iter_examples, read_examples
from entailor.errors import EntailorError
from entailor.evaluation.difference import diff_runs
from entailor.events import SILENT
from entailor.methods import build_method
from entailor.methods.registry import known_keys
from entailor.models.load import load_backbone, open_model, plan_model
from entailor.models.precision import PrecisionChoice
from entailor.report.html import write_report
from entailor.runs.layout import RunFolder
from entailor.runs.record import RunRecord, read_status
from entailor.shipping.inference import label_words_of_run
from entailor.shipping.restoring import find_trial, load_classifier
from entailor.study.prepare import check_same_experiment, earlier_records
from entailor.study.search import search_document
from entailor.study.test_access import log_test_access
from entailor.study.verification import verify
from entailor.tasks import Task
from entailor.tasks.templates import build_template

SUFFIXES = ("a.csv", "a.tsv", "a.jsonl", "a.json", "a.csv.gz", "a.parquet", "a.jsonl.gz")


def readers(data: bytes, folder: Path) -> None:
    """Any bytes as any kind of file, read with and without labels."""
    name = SUFFIXES[data[0] % len(SUFFIXES)] if data else "a.csv"
    (folder / name).write_bytes(data[1:])
    read_examples(str(folder / name))
    for row in iter_examples(str(folder / name), ReadOptions(require_labels=False)):
        row.text.encode("utf-8")


def configuration(data: bytes, folder: Path) -> None:
    """Any bytes as a YAML file and as ``key=value`` words behind it."""
    head, _, tail = data.partition(b"\n\n")
    (folder / "a.yaml").write_bytes(head)
    words = tail.decode("utf-8", "replace").split("\n") if tail else []
    values = apply_overrides(read_yaml(folder / "a.yaml"), words, known_keys)
    experiment = parse_settings(Experiment, values)
    for name, settings in experiment.methods.items():
        build_method(name, settings)
    if len(data) % 8:  # writing takes longer than all the rest
        return
    text = dump_checked_yaml(experiment.model_dump(mode="json"))
    (folder / "b.yaml").write_text(text, encoding="utf-8", errors="surrogatepass", newline="\n")
    read_checked_yaml(folder / "b.yaml", "again")


def templates(data: bytes, folder: Path) -> None:
    """Any text as a prompt's template."""
    text = data.decode("utf-8", "replace")
    prompt = parse_settings(PromptSettings, {"template": text}, "prompt")
    template = build_template(prompt, ("yes", "no"), is_pair=True)
    template.before_slot(Example("1", "a", "b"))


@cache
def sound_run() -> Path:
    """A finished run that every input changes one file of; its experiment is cut to what others read, and is JSON."""
    run = hostile.run_copy(hostile.temporary_folder("fuzz-"))
    written = read_yaml(run / "experiment.yaml")
    kept = {key: written[key] for key in ("methods", "seeds", "models", "restarts", "doctor")}
    data = {"external": [], "label_names": {"1": "a"}, "split_seed": 0}
    text = json.dumps(
        {**kept, "data": data, "recommend": {"ties": "cheapest"}, "budget": {}, "prompt": {}, "model": {}}
    )
    hostile.write_sealed(run / "experiment.yaml", text + "\n")
    return run


@cache
def run_files() -> dict[str, bytes]:
    """The files of the sound run."""
    run = sound_run()
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


def run_folders(data: bytes, folder: Path) -> None:
    """Any bytes as a file of a run, with checksums that fit, so that what is behind them is reached."""
    run, files = sound_run(), run_files()
    name = hostile.RUN_FILES[data[0] % len(hostile.RUN_FILES)] if data else hostile.RUN_FILES[0]
    try:
        _put(run, name, data[2:])
        _read_run(run, data[1] if len(data) > 1 else 0)
    finally:
        for name, content in files.items():
            if not (run / name).is_file() or (run / name).read_bytes() != content:
                (run / name).parent.mkdir(
                    parents=True, exist_ok=True
                )  # a damaged trial is cleared when it is run again
                (run / name).write_bytes(content)


def _put(run: Path, name: str, body: bytes) -> None:
    file, text = run / name, body.decode("utf-8", "replace")
    trial = hostile.first_trial(run)
    if name.endswith(".yaml"):
        hostile.write_sealed(file, text + ("" if text.endswith("\n") else "\n"))
        return
    file.write_bytes(body)
    if file.parent == run or file.name == "record.json":
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(text)
            if isinstance(value, dict):
                hostile.write_value(file, value)
    else:
        hostile.sign_trial(trial)


def _read_run(run: Path, how: int) -> None:
    """Read a run as one of the commands does; those that take long less often."""
    folder, trial = RunFolder(run), hostile.first_trial(run)
    if how < 2:
        write_report(folder)
    elif how < 4:
        verify(run, sample=1)
    elif how < 12:
        diff_runs(run, hostile.sound_run() / "run")
    elif how < 40:
        records = earlier_records(folder, SILENT)
        check_same_experiment(folder, {"methods": {"majority": {}}}, {record.name for record in records.values()})
    elif how < 60:
        log_test_access(folder.test_access_file, hostile.sound_split(), {"none majority": "x"}, ())
        search_document(folder)
    elif how < 130:
        read_status(trial)
        load_classifier(trial)
    elif how < 200:
        find_trial(run)
        label_words_of_run(trial)
    else:
        RunRecord.read(trial)


MODEL_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "adapter_config.json",
    "generation_config.json",
    "chat_template.jinja",
)


@cache
def sound_model() -> Path:
    """A tiny checkpoint that every input changes one file of."""
    from tests.conftest import make_config, make_tokenizer
    from transformers import AutoModelForSequenceClassification

    folder = hostile.temporary_folder("model-")
    tokenizer = make_tokenizer("bert")
    tokenizer.save_pretrained(folder)
    config = make_config("bert", len(tokenizer), tokenizer.pad_token_id)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


@cache
def model_files() -> dict[str, bytes]:
    """The files of the tiny checkpoint."""
    return {path.name: path.read_bytes() for path in sorted(sound_model().iterdir())}


def model_folders(data: bytes, folder: Path) -> None:
    """Any bytes as a file of a model's folder: found, planned, and now and then loaded."""
    model, files = sound_model(), model_files()
    name = MODEL_FILES[data[0] % len(MODEL_FILES)] if data else MODEL_FILES[0]
    how = data[1] if len(data) > 1 else 0
    task, settings = Task(("yes", "no"), True), ModelSettings()
    try:
        (model / name).write_bytes(data[2:])
        found = open_model(str(model), settings)
        if how < 64:
            plan_model(str(model), settings, task)
        if how < 16:
            load_backbone(found, task, settings, PrecisionChoice("fp32", "fuzzing"), 0)
    finally:
        (model / name).unlink(missing_ok=True)
        if name in files:
            (model / name).write_bytes(files[name])


def command_lines(data: bytes, folder: Path) -> None:
    """Any words as a command line that reads and trains nothing."""
    words = [word for word in data.decode("utf-8", "replace").split("\0") if word]
    verb = ("predict", "evaluate", "report", "verify", "diff", "config-schema", "compare")[data[0] % 7 if data else 0]
    out = ["--out", str(folder / "run"), "--train", str(folder / "no.csv")] if verb == "compare" else []
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code: object = 0
        try:
            cli.app(args=[verb, *words, *out], standalone_mode=True)
        except SystemExit as ended:
            code = ended.code
        assert code in (0, 1, 2, None), code


TARGETS: dict[str, Callable[[bytes, Path], None]] = {
    "readers": readers,
    "configuration": configuration,
    "run_folders": run_folders,
    "model_folders": model_folders,
    "templates": templates,
    "command_lines": command_lines,
}


def attempt(target: str, data: bytes) -> None:
    """Call a target in an empty folder; whatever is no `EntailorError` comes out."""
    with tempfile.TemporaryDirectory() as name, contextlib.suppress(EntailorError):
        TARGETS[target](data, Path(name))
