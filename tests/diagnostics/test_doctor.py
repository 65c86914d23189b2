"""`validate` from files to findings: the Python call, the command, doctor.json and the section of the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.observers import listener
from typer.testing import CliRunner

from entailor import DataSettings, ModelSettings, validate
from entailor.cli.app import app
from entailor.data.example import Example
from entailor.errors import ConfigError
from entailor.report.doctor import doctor_section, doctor_text
from entailor.study.compare import Comparison

CsvOf = Callable[[Path, Sequence[Example]], str]


@pytest.fixture
def leaky_files(tmp_path: Path, csv_of: CsvOf, nli_split) -> DataSettings:
    """Half of test stands in train, and the first row of train stands there again under another label."""
    other = replace(nli_split.train[0], id="contradicts", label="neutral")
    train = (*nli_split.train, other, *(replace(row, id=f"leak-{row.id}") for row in nli_split.test[:9]))
    return DataSettings(train=csv_of(tmp_path / "train.csv", train), test=csv_of(tmp_path / "test.csv", nli_split.test))


def test_findings_come_with_rows_and_remedies_the_gravest_first(leaky_files: DataSettings):
    told: list[str] = []
    found = validate(leaky_files, observer=listener(note=told.append))
    kinds = {one.kind: one for one in found.findings}
    assert kinds["exact_duplicates"].severity == "warning"
    assert len(kinds["exact_duplicates"].examples) == 5
    assert "contradicts" in kinds["conflicting_labels"].ids
    assert all(one.remedy and one.message for one in found.findings)
    grades = [one.severity for one in found.findings]
    assert grades == sorted(grades, key=("error", "warning", "info").index)
    assert found.data.notes
    assert told[: len(found.data.notes)] == [note.rstrip() for note in found.data.notes]
    assert len(told) == len(found.data.notes) + len(found.checks)


def test_train_is_looked_at_whole(leaky_files: DataSettings):
    found = validate(DataSettings(train=leaky_files.train))
    assert found.document()["sizes"] == {"train": 58, "validation": 0, "test": 0}


def test_the_same_data_give_the_same_document(leaky_files: DataSettings):
    assert json.dumps(validate(leaky_files).document()) == json.dumps(validate(leaky_files).document())


def test_a_model_counts_tokens_and_lends_its_features(tiny_model: Callable[[str], Path], nli_files: DataSettings):
    model = str(tiny_model("bert"))
    found = validate(nli_files, model=model, model_settings=ModelSettings(max_length=12))
    kinds = {one.kind: one for one in found.findings}
    cut = kinds["truncated"]
    assert cut.severity == "warning"
    assert f"longer than 12 tokens of {model}" in cut.message
    # the tiny vocabulary has no word of the label names, so all three are the unknown token
    assert kinds["same_label_tokens"].severity == "error"
    assert "unknown_label_tokens" in kinds
    facts = {one["name"]: one["facts"] for one in found.document()["checks"]}
    assert 0 < facts["truncation"]["test"]["cut"] <= 1


def test_the_command_prints_findings_and_fails_on_request(leaky_files: DataSettings, tmp_path: Path):
    words = ["validate", "--train", str(leaky_files.train), "--test", str(leaky_files.test), "--quiet"]
    plain = CliRunner().invoke(app, words)
    assert plain.exit_code == 0
    assert "warning: 9 of 18 examples (50 %) of test also stand in train, word for word" in plain.stdout
    assert "data.drop_leaks=true" in plain.stdout
    assert CliRunner().invoke(app, [*words, "--fail-on", "warning"]).exit_code == 1
    output = tmp_path / "doctor.json"
    shown = CliRunner().invoke(app, [*words, "--json", "--output", str(output)])
    assert json.loads(shown.stdout) == json.loads(output.read_text("utf-8"))


def test_fail_on_takes_three_words():
    done = CliRunner().invoke(app, ["validate", "--fail-on", "sometimes"])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception) == "--fail-on: 'sometimes' found, expected one of error, warning, never"


def test_a_run_leaves_doctor_json_and_the_report_shows_it(finished_run: Comparison):
    document = json.loads(finished_run.folder.doctor_file.read_text("utf-8"))
    assert document["sizes"] == {"train": 48, "validation": 18, "test": 18}
    assert document["fingerprint"] == json.loads(finished_run.folder.split_file.read_text("utf-8"))["fingerprint"]
    page = finished_run.folder.report_file.read_text("utf-8")
    assert 'id="doctor"' in page
    assert "at least 60 are needed" in page


def test_texts_are_escaped_in_the_section_and_whole_in_the_text(leaky_files: DataSettings):
    document = validate(leaky_files).document()
    next(found for found in document["findings"] if found["examples"])["examples"][0]["text"] = (
        "<script>alert(1)</script>"
    )
    assert "<script>" not in doctor_section(document)
    text = doctor_text(document)
    assert "<script>alert(1)</script>" in text
    assert text.startswith("8 checks over 58 train, 18 test examples: ")
    assert "not looked at: labels that look wrong" in text
