"""What fuzzing calls: bytes in, and nothing but an `EntailorError` may come out. Shared by hypothesis and atheris."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from entailor import cli
from entailor.config import Experiment, PromptSettings, parse_settings
from entailor.data.example import Example
from entailor.data.readers import ReadOptions, iter_examples, read_examples
from entailor.errors import EntailorError
from entailor.methods import build_method
from entailor.methods.registry import known_keys
from entailor.overrides import apply_overrides, dump_sealed_yaml, read_sealed_yaml, read_yaml
from entailor.record import RECORD_FILE, RunFolder, RunRecord, read_sealed_json
from entailor.report.html import write_report
from entailor.storage import BLANK_SEAL, seal
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
    text = dump_sealed_yaml(experiment.model_dump(mode="json"))
    (folder / "b.yaml").write_text(text, encoding="utf-8", errors="surrogatepass", newline="\n")
    read_sealed_yaml(folder / "b.yaml", "again")


def templates(data: bytes, folder: Path) -> None:
    """Any text as a prompt's template."""
    text = data.decode("utf-8", "replace")
    prompt = parse_settings(PromptSettings, {"template": text}, "prompt")
    template = build_template(prompt, ("yes", "no"), is_pair=True)
    template.before_slot(Example("1", "a", "b"))


def run_folders(data: bytes, folder: Path) -> None:
    """Any bytes as each file of a run, with a checksum that fits, so that what is behind it is reached."""
    kind, body = (data[0] % 4, data[1:]) if data else (0, b"")
    text = body.decode("utf-8", "replace")
    with contextlib.suppress(ValueError):
        value = json.loads(text)
        if isinstance(value, dict):
            text = seal(json.dumps({**value, "checksum": BLANK_SEAL}) + "\n")
    path = folder / ("comparison.json" if kind == 3 else RECORD_FILE)
    path.write_text(text, encoding="utf-8", errors="surrogatepass", newline="\n")
    for name in ("predictions.jsonl", "curve.jsonl"):
        (folder / name).write_bytes(body)
    if kind == 3:
        read_sealed_json(path, "again")
        write_report(RunFolder(folder))
    else:
        RunRecord.read(folder)


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
    "templates": templates,
    "run_folders": run_folders,
    "command_lines": command_lines,
}


def attempt(target: str, data: bytes) -> None:
    """Call a target in an empty folder; whatever is no `EntailorError` comes out."""
    with tempfile.TemporaryDirectory() as name, contextlib.suppress(EntailorError):
        TARGETS[target](data, Path(name))
