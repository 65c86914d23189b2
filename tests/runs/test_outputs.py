"""Where a command may not write although nothing is there yet: where its output would become part of an input."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tests.hostile import running
from tests.hostile.runs import run_copy, sound_run

from entailor.errors import OutputError
from entailor.runs.files import write_checked_json
from entailor.runs.outputs import check_output, refuse_inputs
from entailor.shipping.export import export

BAG = "trials/none/bag_of_words/seed-0"


@pytest.mark.parametrize("name", ["data/train.json", "data/new.csv", "tracking/new.csv"])
def test_what_a_run_was_given_in_memory_and_what_trackers_keep_is_its_own(tmp_path, name):
    run = run_copy(tmp_path)
    (run / "data").mkdir()
    (run / "data/train.json").write_text("mine")
    with pytest.raises(OutputError, match="lies among the files of a run"):
        check_output(run / name, (), overwrite=True)
    with pytest.raises(OutputError, match="lies among the files of a run"):
        export(run / BAG, ["sklearn"], run / Path(name).parent / "exported")
    assert check_output(run / "mine.csv", (), overwrite=False) == (run / "mine.csv").resolve()


def test_nothing_is_written_into_an_export(tmp_path):
    """One file more than its manifest lists, and it is not loaded any more."""
    exported = tmp_path / "exported"
    write_checked_json(exported / "manifest.json", {"files": {}})
    for place in ("new.csv", "a/b/new.csv"):
        with pytest.raises(
            OutputError, match=r"exported folder .*exported, whose manifest lists all it holds\. Give ano"
        ):
            refuse_inputs(place, exported / place, ())
    (tmp_path / "manifest.json").write_text('{"name": "of a web page"}')
    assert check_output(tmp_path / "new.csv", (), overwrite=False)


@pytest.mark.parametrize(
    ("name", "refused"), [("part-2.csv", True), ("new.csv", True), ("new.jsonl", False), ("a/new.csv", False)]
)
def test_an_output_that_the_pattern_of_the_input_would_match(tmp_path, monkeypatch, name, refused):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "part-1.csv").write_bytes((sound_run() / "train.csv").read_bytes())
    words = ["predict", "--run", str(sound_run() / "run" / BAG), "--input", "*.csv", "--output", name, "-q"]
    code, text = running.command(words)
    assert (code, "would be read with *.csv the next time" in text) == ((2, True) if refused else (0, False)), text
    assert (tmp_path / name).exists() != refused


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
def test_a_command_that_is_asked_to_end_leaves_nothing_half_written(tmp_path, monkeypatch, number):
    def begin(file, labels, lines, delimiter):
        file.write("line")
        os.kill(os.getpid(), number)

    monkeypatch.setattr("entailor.shipping.inference._write_table", begin)
    words = ["--run", str(sound_run() / "run" / BAG), "--input", str(sound_run() / "train.csv")]
    code, _ = running.command(["predict", *words, "--output", str(tmp_path / "new.csv"), "-q"])
    assert code == 128 + number
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
