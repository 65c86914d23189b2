"""The command line as its user meets it: what is on which stream, with which exit code, and how soon."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests import forked

import entailor.study.compare
from entailor.config.experiment import Experiment
from entailor.errors import RunError
from entailor.runs.files import read_checked_json
from entailor.runs.record import RunRecord

ROOT = Path(__file__).parents[1].parent
DATA = {"--config", "--train", "--validation", "--test", "--columns", "--delimiter", "--encoding", "--model", "--out"}
SIZES = {"--max-train-examples", "--max-test-examples"}
LIMITS = ("--max-bytes", "--max-rows")
LABELLED = ("--columns", "--delimiter", "--encoding", "--label-names", "--no-gold", *LIMITS)
PLAN = {"--learning-curve", "--estimate-only"}
RAY = {"--executor", "--address", "--cpus-per-trial", "--gpus-per-trial"}
VERBS = {
    (): {"--version", "--debug"},
    ("compare",): {
        *DATA,
        *SIZES,
        *PLAN,
        *RAY,
        "--methods",
        "--seeds",
        "--cv",
        "--splits",
        "--external",
        "--json",
        "--quiet",
        "--verbose",
    },
    ("train",): {*DATA, *SIZES, "--method", "--seed", "--json", "--quiet", "--verbose"},
    ("export",): {"--run", "--format", "--out", "--margin", "--external", "--trust-remote-code", "--json", "--quiet"},
    ("evaluate",): {
        "--run",
        "--test",
        *LABELLED,
        "--config-name",
        "--split",
        "--trust-remote-code",
        "--json",
        "--quiet",
    },
    ("serve",): {
        *("--host", "--port", "--token-file", "--wait-ms", "--batch-tokens", "--max-queue", "--max-inputs"),
        *("--max-characters", "--max-body-bytes", "--models-folder", "--trust-remote-code"),
    },
    ("predict",): {
        *(
            "--run",
            "--input",
            "--output",
            "--overwrite",
            "--columns",
            "--delimiter",
            "--encoding",
            *LIMITS,
            "--config-name",
            "--split",
            "--quiet",
        ),
        *("--min-confidence", "--calibrated", "--trust-remote-code"),
    },
    ("report",): {"--run"},
    ("validate",): {*(DATA - {"--out"}), "--output", "--overwrite", "--fail-on", "--json", "--quiet"},
    ("verify",): {"--run", "--sample", "--trust-remote-code", "--json"},
    ("diff",): {"--json"},
    ("study",): {"--margin", "--output", "--overwrite", "--json"},
    ("models",): set(),
    ("models", "list"): {"--json"},
    ("models", "pull"): {"--revision"},
    ("env",): {"--check", "--json"},
    ("config-schema",): set(),
}


def environment(**values: str) -> dict[str, str]:
    paths = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "100", **values}


def python(*words: object, **values: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, words)], env=environment(**values), capture_output=True, text=True, check=False
    )


@pytest.fixture
def words(nli_experiment: Experiment, tmp_path: Path) -> list[str]:
    """A comparison of a third of a second."""
    data = nli_experiment.data
    files = ["--train", data.train, "--validation", data.validation, "--test", data.test]
    return ["compare", *files, "--methods", "majority,bag_of_words", "--out", str(tmp_path / "run"), "estimate=false"]


# --- the public surface


def options_in(text: str) -> set[str]:
    return set(re.findall(r"^\s+(?:-\w, )?(--[a-z-]+)", text, flags=re.MULTILINE)) - {"--help"}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_these_options(entailor_, monkeypatch, verb):
    monkeypatch.setenv("COLUMNS", "100")
    result = entailor_(*verb, "--help")
    assert result.code == 0
    assert options_in(result.out) == VERBS[verb]
    assert result.err == ""


@pytest.mark.parametrize("group", [(), ("models",)])
def test_these_are_the_verbs(entailor_, group):
    _, listed = entailor_(*group, "-h").out.split("Commands:")
    verbs = {line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line[2] != " "}
    assert verbs == {verb[-1] for verb in VERBS if len(verb) == len(group) + 1 and verb[: len(group)] == group}
    assert "..." not in listed  # every verb is told in one line


def test_every_option_says_what_it_is_for(entailor_):
    for verb, known in VERBS.items():
        told = entailor_(*verb, "-h").out.split("Options:")[1].split("Commands:")[0]
        options = re.findall(r"^  -.*", told, flags=re.MULTILINE)
        assert len(options) > len(known)
        for line in options:
            assert re.search(r"\S  +(A|[A-Z]\S+) ", line), (verb, line)


def test_help_is_quick_and_imports_nothing_heavy():
    code = """
import sys
from entailor.cli.app import main
sys.argv = ["entailor", "compare", "--help"]
try:
    main()
except SystemExit:
    pass
heavy = {"torch", "transformers", "numpy", "sklearn", "datasets", "matplotlib", "pandas", "peft", "rich"}
sys.stderr.write(" ".join(sorted(heavy & set(sys.modules))))
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = python("-c", code)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "KEY=VALUE" in done.stdout
    assert done.stderr == ""
    # time on the processor, which does not depend on who else is at work; two tenths of a second are usual
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_the_package_runs_as_a_module():
    done = python("-m", "entailor", "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"entailor \d+\.\d+\.\d+\n", done.stdout)


def test_no_words_show_the_help(entailor_):
    result = entailor_()
    assert result.code == 2
    assert "compare" in result.out + result.err
    assert "Traceback" not in result.err


# --- compare


def test_compare_prints_a_table_where_nobody_watches(entailor_, words, tmp_path):
    result = entailor_(*words)
    assert result.code == 0
    heading, best, other = result.out.splitlines()[:3]
    assert heading.split()[:2] == ["method", "accuracy"]
    assert best.startswith("* bag_of_words")
    assert other.strip("= ").startswith("majority")
    assert "\x1b" not in result.out + result.err
    assert "[1/2] majority\n    33.3 % of test right, trained in " in result.err
    assert "48 examples of" not in result.err
    assert "data: 48 train, 18 validation, 18 test examples, 3 labels" in result.out
    assert result.err.endswith(f"report: {tmp_path / 'run' / 'report.html'}\n")
    again = entailor_(*words)
    assert again.out == result.out
    assert again.err.count("(already there)") == 2
    assert "48 examples of" in entailor_(*words, "--verbose").err


def test_json_is_all_there_is_on_standard_output(entailor_, words, tmp_path):
    result = entailor_(*words, "--json")
    assert json.loads(result.out) == read_checked_json(tmp_path / "run" / "comparison.json", "")
    assert "report: " in result.err


def test_quiet_is_silent(entailor_, words):
    result = entailor_(*words, "--quiet")
    assert result.err == ""
    assert "bag_of_words" in result.out
    assert json.loads(entailor_(*words, "-q", "--json").out)["candidates"]


def test_file_flags_and_words_go_over_each_other_in_this_order(entailor_, words, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(
        "seeds: 3\nrestarts: 7\ndata: {split_seed: 5, max_train_examples: 40, max_test_examples: 12}\n"
        "methods:\n  majority:\n  bag_of_words: {max_ngram: 3, min_df: 2}\n  lora:\n"
    )
    result = entailor_(
        *words, "--config", config, "--max-test-examples", 15, "data.max_train_examples=30", "bag_of_words.min_df=1"
    )
    assert result.code == 0, result.err
    made = yaml.safe_load((tmp_path / "run" / "experiment.yaml").read_text())
    assert made["data"]["split_seed"] == 5
    assert made["data"]["max_test_examples"] == 15
    assert made["data"]["max_train_examples"] == 30
    assert (made["seeds"], made["restarts"]) == ([0, 1, 2], 7)
    assert list(made["methods"]) == ["majority", "bag_of_words"]
    assert made["methods"]["bag_of_words"]["max_ngram"] == 3  # the row was chosen by --methods, its settings stay
    assert made["methods"]["bag_of_words"]["min_df"] == 1


def test_columns_are_mapped(entailor_, words, tmp_path, nli_split):
    for name, rows in nli_split.parts():
        lines = [f"{row.text}\t{row.text_pair}\t{row.label}" for row in rows]
        (tmp_path / f"{name}.tsv").write_text("\n".join(["eins\tzwei\tdrei", *lines]) + "\n")
    words[1:7] = [
        word for name in ("train", "validation", "test") for word in (f"--{name}", str(tmp_path / f"{name}.tsv"))
    ]
    refused = entailor_(*words)
    assert refused.code == 2
    assert "--columns premise=COL,hypothesis=COL,label=COL" in refused.err
    result = entailor_(*words, "--columns", "premise=eins, hypothesis=zwei,label=drei")
    assert result.code == 0
    assert "* bag_of_words" in result.out
    wrong = entailor_(*words, "--columns", "premise:eins")
    assert wrong.err == "error: --columns: expected field=COLUMN,field=COLUMN, found 'premise:eins'\n"


def test_when_every_trial_fails_the_exit_code_says_so(entailor_, words, tiny_model):
    words[words.index("majority,bag_of_words")] = "lora"
    failing = [*words, "--model", tiny_model("bert"), "lora.target_modules=[nowhere]"]
    result = entailor_(*failing)
    assert result.code == 1
    assert "failed: MethodError: lora: " in result.err
    assert "Traceback" not in result.err
    assert "failed: lora on " in result.out


# --- train, evaluate, predict, report


def test_from_training_to_predictions(entailor_, words, tmp_path, tiny_model, nli_files):
    words[0] = "train"
    words[words.index("--methods") : words.index("--out")] = ["--method", "linear_probe", "--model", tiny_model("bert")]
    trained = entailor_(*words, "linear_probe.C=[1.0]")
    assert trained.code == 0, trained.err
    trial = Path(trained.err.splitlines()[-1].removeprefix("saved in "))
    record = RunRecord.read(trial)
    assert record.name == "linear_probe"
    assert record.hyperparameters["C"] == [1.0]

    evaluated = entailor_("evaluate", "--run", trial, "--test", nli_files.test, "--json")
    right = sum(row.predicted == row.label for row in record.predictions)
    assert evaluated.err == ""
    assert json.loads(evaluated.out)["accuracy"]["value"] == pytest.approx(right / 18)
    shown = entailor_("evaluate", "--run", tmp_path / "run", "--test", nli_files.test).out
    assert f"{100 * right / 18:.1f} %" in shown
    assert "entailment" in shown

    out = tmp_path / "new" / "out.csv"
    predicted = entailor_("predict", "--run", trial, "--input", nli_files.test, "--output", out)
    assert predicted.code == 0
    assert predicted.err == f"18 examples written to {out}\n"
    assert predicted.out == ""
    assert len(out.read_text().splitlines()) == 19
    assert entailor_("predict", "--run", trial, "--input", nli_files.test, "--output", out, "-q").err == ""


def test_train_names_the_trial_it_was_asked_for_not_the_winner(entailor_, words):
    assert entailor_(*words).code == 0
    words[0] = "train"
    words[words.index("--methods") : words.index("--out")] = ["--method", "majority"]
    result = entailor_(*words)
    assert Path(result.err.splitlines()[-1]).parts[-2:] == ("majority", "seed-0")
    assert "bag_of_words" in result.out


def test_report_is_written_anew(entailor_, words, tmp_path):
    entailor_(*words, "--quiet")
    page = tmp_path / "run" / "report.html"
    page.unlink()
    result = entailor_("report", "--run", tmp_path / "run")
    assert (result.code, result.out, result.err) == (0, f"{page}\n", "")
    assert "bag_of_words" in page.read_text()
    assert entailor_("report", "--run", tmp_path / "nowhere").code == 2


# --- errors


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compare", "learning_rat=3"], "error: learning_rat: no key"),
        (["compare", "learning_rate"], "error: 'learning_rate': expected key=value"),
        (["compare", "--methods", "lroa"], "Did you mean 'lora'?"),
        (["compare", "--methods", "lora", "lora.r=0"], "error: methods.lora.r: "),
        (["compare", "--seeds", "0"], "error: seeds: at least one seed"),
        (["compare", "--seeds", "1,2,1"], "error: seeds: 1 stands twice"),
        (["compare", "--seeds", "1,,2"], "error: --seeds: '1,,2' is neither a number of trials nor seeds with commas"),
        (["compare", "--config", "/nowhere/run.yaml"], "error: /nowhere/run.yaml: No such file"),
        (["compare", "--train", "/nowhere/train.csv", "--methods", "majority"], "error: /nowhere/train.csv: "),
        (["evaluate", "--run", "/nowhere", "--test", "x.csv"], "error: /nowhere: neither a trial"),
        (["predict", "--run", "/nowhere", "--input", "x.csv", "--output", "out.xlsx"], "error: out.xlsx: .xlsx is no "),
        (["evaluate", "--run", "/nowhere", "--test", "x.csv", "--columns", "premise"], "error: --columns: expected"),
    ],
)
def test_an_error_is_one_text_on_standard_error(entailor_, monkeypatch, tmp_path, words, said):
    monkeypatch.chdir(tmp_path)
    result = entailor_(*words)
    assert result.code == 2
    assert result.out == ""
    assert said in result.err
    assert "Traceback" not in result.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compar"], "Did you mean 'compare'?"),
        (["compare", "--metods", "lora"], "No such option: --metods"),
        (["predict", "--run", "x"], "Missing option"),
        (["report"], "Missing option"),
    ],
)
def test_a_wrong_word_is_named(entailor_, words, said):
    result = entailor_(*words)
    assert result.code == 2
    assert said in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("place", [0, 1, 3, 5])
def test_an_error_is_raised_on_demand_wherever_that_is_asked_for(entailor_, place):
    words = ["evaluate", "--run", "/nowhere", "--test", "x.csv"]
    words.insert(place, "--debug")
    with pytest.raises(RunError, match="/nowhere: neither a trial"):
        entailor_(*words)


def test_a_traceback_is_shown_on_demand():
    done = python("-m", "entailor", "compare", "--config", "/nowhere/run.yaml", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ConfigError: /nowhere/run.yaml: No such file" in done.stderr


def test_a_system_error_is_told_in_words(entailor_, words, monkeypatch, tmp_path):
    def full(*rest: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "run"))

    monkeypatch.setattr(entailor.study.compare, "write_report", full)
    result = entailor_(*words)
    assert result.code == 2
    said = f"error: {tmp_path / 'run'}: cannot be written: the disk is full. Free some space. "
    assert result.err.endswith(f"{said}Then run the same command again\n")


def test_an_interrupted_run_says_how_to_go_on(entailor_, words, monkeypatch):
    def interrupted(*rest: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(entailor.study.compare, "run_trial", interrupted)
    result = entailor_(*words)
    assert result.code == 130
    assert result.err.endswith("interrupted; the same command goes on where it stopped\n")
    assert "Traceback" not in result.err


def test_ctrl_c_from_outside(tmp_path, tiny_model, nli_files):
    """The process is stopped while it trains; what it had finished is not done again."""
    files = ["--train", nli_files.train, "--validation", nli_files.validation, "--test", nli_files.test]
    words = ["compare", *files, "--model", tiny_model("bert"), "--methods", "majority,lora", "--seeds", "1"]
    call = forked.entailor(*words, "--out", tmp_path / "run", "lora.num_train_epochs=100000")
    for line in call.err:
        if line.startswith("[2/2] lora"):
            break
    call.send(signal.SIGINT)
    ended = call.wait()
    assert (ended.code, ended.out) == (130, "")
    # what stands before is chance: whether a step was under way, or a library's __del__
    assert re.fullmatch(r"interrupted.*; the same command goes on where it stopped", ended.err.splitlines()[-1])
    comparison = read_checked_json(tmp_path / "run" / "comparison.json", "")
    assert [row["method"] for row in comparison["candidates"]] == ["majority"]
    assert (tmp_path / "run" / "report.html").exists()


def test_a_closed_pipe_is_no_catastrophe():
    command = f"{sys.executable} -m entailor models list | true"  # the reader is gone before the first word
    done = subprocess.run(["bash", "-c", command], env=environment(), capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_a_command_that_moved_says_where(entailor_):
    result = entailor_("bench", "--json")
    assert result.code == 2
    assert "Run python benchmarks/machine.py in a checkout" in result.err
    assert (ROOT / "benchmarks" / "machine.py").exists()
    result = entailor_("merge", "--run", "runs/mine", "--output", "merged")
    assert result.code == 2
    assert "Run entailor export --format transformers" in result.err
