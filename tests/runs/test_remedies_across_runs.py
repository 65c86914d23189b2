"""What a message about several runs, splits or servers proposes is done on the command line, and then it works."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
from tests.conftest import make_examples, write_csv
from tests.hostile import running

import entailor.study.compare
from entailor.runs.files import write_text
from entailor.serving.registry import Registry

QUICK = "doctor=false estimate=false"
RUN = f"compare --train {{{{f}}}}/{{0}}.csv --methods majority,bag_of_words {QUICK} --out {{{{r}}}}/{{0}}"
A, D = RUN.format("a"), RUN.format("d")
CROSS = A.replace("{r}/a", "{r}/cv") + " data.cv=3"
MAJORITY = CROSS.replace("majority,bag_of_words", "majority")
SHIPPED = "{r}/cv/trials/none/bag_of_words/seed-0"
PREDICT = f"predict --run {SHIPPED} --input {{f}}/a.csv --output {{r}}/p.csv"
ONE_LABEL = f"{D} --test {{f}}/yes.csv --out {{r}}/yes"
TOKEN = "a-secret-of-mine"


def load_all(named: dict[str, str], settings: object, **options: object) -> None:
    """Load what is to be served, and do not listen."""
    registry = Registry()
    for name, path in named.items():
        registry.load(name, path)


@pytest.fixture(autouse=True)
def _plain_page(monkeypatch):
    monkeypatch.setattr(entailor.study.compare, "write_report", lambda folder: write_text(folder.report_file, "page"))
    monkeypatch.setattr("entailor.serving.server.serve", load_all)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Files of four data sets, and runs on three of them."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "runs").mkdir()
    for seed, name in enumerate("abcd"):
        write_csv(folder / f"{name}.csv", make_examples(60, seed=seed, pair=False, labels=("yes", "no")))
        if name != "d":
            code, text = running.command(shlex.split(RUN.format(name).format(f=folder, r=folder / "runs")))
            assert code == 0, text
    yes = [row for row in make_examples(40, seed=9, pair=False, labels=("yes", "no")) if row.label == "yes"]
    write_csv(folder / "yes.csv", yes)
    (folder / "token").write_text(TOKEN)
    return folder


@pytest.mark.parametrize(
    ("before", "wrong", "remedy", "told"),
    [
        ([], "study {r}/a {r}/b", "at least 3 are needed", "study {r}/a {r}/b {r}/c"),
        ([], "study {r}/a {r}/b", "see `entailor diff`", "diff {r}/a {r}/b"),
        ([], "study {r}/a {r}/b {r}/c {r}/c", "Leave one of them out", "study {r}/a {r}/b {r}/c"),
        ([], "study {r}/a {r}/b {r}/c --margin -1", "Give another --margin", "study {r}/a {r}/b {r}/c --margin 0.1"),
        ([f"{D} recommend.margin=0.1"], "study {r}/a {r}/b {r}/d", "Say which counts with --margin",
         "study {r}/a {r}/b {r}/d --margin 0.02"),
        ([f"{D} recommend.metric=macro_f1"], "study {r}/a {r}/b {r}/d", "Run one of them again with recommend.metric",
         f"{D} recommend.metric=accuracy; study {{r}}/a {{r}}/b {{r}}/d"),
        ([D.replace(",bag_of_words", "")], "study {r}/a {r}/b {r}/d", "Compare the same methods and models",
         f"{D}; study {{r}}/a {{r}}/b {{r}}/d"),
        ([], f"{A} --test {{f}}/b.csv", "Give another --out", f"{A} --test {{f}}/b.csv --out {{r}}/new"),
        ([], f"{A} bag_of_words.max_ngram=1", "or the settings in its experiment.yaml",
         "compare --config {r}/a/experiment.yaml"),
        ([ONE_LABEL], f"{ONE_LABEL} recommend.metric=mcc", "Set recommend.metric=accuracy",
         f"{ONE_LABEL} recommend.metric=accuracy"),
        ([CROSS, f"rm {SHIPPED}"], MAJORITY, "add it to --methods and run again", f"{CROSS}; {PREDICT}"),
        ([CROSS, f"rm {SHIPPED}/adapter"], PREDICT, "Delete the trial's folder", f"rm {SHIPPED}; {CROSS}; {PREDICT}"),
        ([], "serve {r}/a {r}/a", "Give names: NAME=FOLDER", "serve one={r}/a two={r}/a"),
        (["mv {r}/a '{r}/my run'"], "serve '{r}/my run'", "Give one with NAME=PATH", "serve 'mine={r}/my run'"),
        ([], "serve {r}/a --max-inputs 5000", "Raise --max-queue", "serve {r}/a --max-inputs 5000 --max-queue 5000"),
        ([], "serve {r}/a --max-inputs 5000", "or lower --max-inputs", "serve {r}/a --max-inputs 500"),
        ([], "serve {r}/a --models-folder {r}", "Give one with --token-file",
         "serve {r}/a --models-folder {r} --token-file {f}/token"),
        ([], "serve {r}/a --models-folder {r}", "or ENTAILOR_SERVE_TOKEN", "ENTAILOR_SERVE_TOKEN=a-secret-of-mine "
         "serve {r}/a --models-folder {r}"),
        ([], "serve {r}/a --host 0.0.0.0", "Give one with --token-file",
         "serve {r}/a --host 0.0.0.0 --token-file {f}/token"),
    ],
)  # fmt: skip
def test_what_a_message_proposes_works(made, tmp_path, monkeypatch, before, wrong, remedy, told):
    shutil.copytree(made / "runs", tmp_path / "runs")

    def done(words: str) -> tuple[int, str]:
        given = shlex.split(words.format(f=made, r=tmp_path / "runs"))
        if given[0] in ("rm", "mv"):
            shutil.rmtree(given[1]) if given[0] == "rm" else shutil.move(*given[1:])
            return 0, ""
        if given[0].isupper() or "=" in given[0]:
            monkeypatch.setenv(*given.pop(0).split("="))
        return running.command(given)

    for words in before:
        code, text = done(words)
        assert code == 0, text
    code, text = done(wrong)
    assert remedy in text.replace("\n", " "), text
    for words in told.split("; "):
        code, text = done(words)
        assert code == (words.startswith("diff")), text  # 1: the runs differ
    assert remedy not in text
