import io
from dataclasses import replace

import pytest
from rich.console import Console

from entailor.evaluation import wording
from entailor.evaluation.comparison import compare_records
from entailor.evaluation.metrics import evaluate_record
from entailor.report import tables
from entailor.report.advice import advice


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0, "0.0 s"), (0.01, "<0.1 s"), (3.21, "3.2 s"), (9.97, "10 s"), (75, "75 s"), (720, "12 min")],
)
def test_durations(seconds, text):
    assert wording.duration(seconds) == text


def test_long_durations_do_not_say_60_minutes():
    assert wording.duration(3569) == "59 min"
    assert wording.duration(3570) == "1.0 h"
    assert wording.duration(12_000) == "3.3 h"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0, "0.0 ms"), (0.004, "<0.1 ms"), (0.05, "0.1 ms"), (12.34, "12.3 ms"), (1234.5, "1,234.5 ms")],
)
def test_times_of_one_answer_that_round_to_nothing(value, text):
    assert wording.milliseconds(value) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(None, "–"), (0, "0 B"), (999, "999 B"), (1_240_000, "1.2 MB"), (707_400_000, "707 MB"), (999_600, "1.0 MB")],
)
def test_sizes(num_bytes, text):
    assert wording.size(num_bytes) == text


def test_counts_rates_and_points():
    assert [wording.count(n) for n in (None, 0, 297_000, 22_700_000, 8_000_000_000)] == [
        "–",
        "0",
        "297 k",
        "22.7 M",
        "8.0 B",
    ]
    assert [wording.rate(n) for n in (None, 3.14, 1234.5)] == ["–", "3.1", "1,234"]
    assert [wording.points(n) for n in (0.0123, -0.2)] == ["+1.2", "−20.0"]
    assert [wording.p_value(p) for p in (0.0001, 0.0042, 0.25)] == ["p < 0.001", "p = 0.004", "p = 0.25"]


def printed(comparison, width, *, verbose=False):
    console = Console(width=width, color_system=None, file=io.StringIO())
    console.print(tables.comparison_table(comparison, width=width, verbose=verbose))
    return console.file.getvalue()


def test_terminal_table_marks_the_best_and_keeps_figures_whole_at_80_columns(comparison):
    text = printed(comparison, 80)
    best = comparison["candidates"][0]
    assert f"* {best['method']}" in text
    figure = f"{100 * best['accuracy']['mean']:.1f} ({100 * best['accuracy']['low']:.1f}–"
    assert figure in text
    assert "22.7 M" in text
    assert "90.9 MB" in text
    assert "failed: lora_r256" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("width", [44, 60, 80, 100, 140])
def test_the_table_fits_the_terminal_and_keeps_what_is_needed_most(comparison, width):
    lines = printed(comparison, width).splitlines()
    assert max(map(len, lines)) <= width
    assert "80.8 (73.2–87.1)" in "".join(lines)
    heads = " ".join(lines[:3]).split()
    assert ("stored" in heads) == (width >= 60)
    assert ("params" in heads) == (width >= 80)
    if width >= 60:  # a column goes before a name is broken
        assert all(any(line[2:].startswith(one["method"]) for line in lines) for one in comparison["candidates"])


@pytest.mark.parametrize("width", [20, 24, 30, 36, 44, 60])
@pytest.mark.parametrize("name", ["majority", "zero_shot_embedding", "lora on a-model-of-a-long-name-indeed"])
def test_no_name_is_broken_within_a_word(records, width, name):
    comparison = compare_records([replace(record, name=f"{name}_{record.name}"[:40]) for record in records])
    lines = printed(comparison, width).splitlines()
    assert max(map(len, lines)) <= width
    words = {word for line in lines for word in line.split()}
    for one in comparison["candidates"]:
        assert {word for word in one["method"].split() if len(word) <= width - 2} <= words
        figure = one["accuracy"]
        assert f"{100 * figure['mean']:.1f} ({100 * figure['low']:.1f}–{100 * figure['high']:.1f})" in "\n".join(lines)


def test_one_screen_by_default_and_more_on_demand(comparison):
    full = {
        **comparison,
        "sizes": {"train": 2100, "validation": 300, "test": 300},
        "data": {"findings": [{"severity": "warning", "message": "x", "remedy": "y"}]},
    }
    text = printed(full, 100)
    assert len(text.splitlines()) <= 24
    said = "data: 2,100 train, 300 validation, 300 test examples, 3 labels; 1 warning, which -v and the report tell"
    assert said in " ".join(text.split())
    recommended = advice(comparison)
    assert recommended.sentence in " ".join(text.split())
    assert comparison["sentence"] not in " ".join(text.split())
    more = " ".join(printed(full, 100, verbose=True).split())
    assert comparison["sentence"] in more
    assert "params: trained" in more


def test_rows_level_with_the_best_are_marked(records):
    lora = next(record for record in records if record.name == "lora")
    comparison = compare_records([lora, replace(lora, name="twin")])
    assert "= twin" in tables.plain_table(comparison)
    assert "= twin" in printed(comparison, 100)


def test_names_with_brackets_are_text_and_no_markup(records):
    one = replace(records[0], model="[red]x")
    comparison = compare_records([one, replace(one, model="b/y")])
    assert "[red]x" in printed(comparison, 160)


def test_plain_table_is_aligned_and_uncoloured(comparison):
    lines = tables.plain_table(comparison).splitlines()
    table = lines[: len(comparison["candidates"]) + 1]
    assert len({len(line) for line in table}) == 1  # the last column is right-aligned
    assert "\x1b" not in "".join(lines)
    assert lines[-1] == advice(comparison).sentence
    assert tables.plain_table(comparison, verbose=True).splitlines()[-1] == comparison["sentence"]


def test_a_comparison_without_rows_still_says_what_happened(records):
    comparison = compare_records([records[-1]])
    text = tables.plain_table(comparison)
    assert "failed: lora_r256" in text
    assert "No trial finished" in text
    assert "No trial" in printed(comparison, 80)


def test_models_are_named_where_there_are_several(records):
    first = records[0]
    comparison = compare_records([first, replace(first, model="org/other")])
    assert set(tables.candidate_names(comparison)) == {"full_finetuning · tiny-encoder", "full_finetuning · other"}


def test_classification_report_says_undefined(records):
    majority = next(record for record in records if record.name == "majority")
    text = tables.classification_report_text(evaluate_record(majority))
    neutral = next(line for line in text.splitlines() if line.startswith("neutral"))
    assert neutral.split() == ["neutral", "undefined", "0.000", "0.000", "100"]
    assert "Matthews correlation  0.000" in text
    assert "gold \\ predicted" in text


def test_letters_and_the_pareto_set_are_marked(comparison):
    text = tables.plain_table(comparison)
    for row in comparison["candidates"]:
        line = next(line for line in text.splitlines() if line[2:].startswith(row["method"] + " "))
        assert f" {row['group']}{'°' if row['pareto'] else ' '}" in line + " "


def test_what_is_recommended_and_when_not_is_said(comparison):
    text = tables.plain_table(comparison, verbose=True)
    said = advice(comparison)
    assert said is not None
    assert said.sentence in text
    for change in said.changes:
        assert change in text


def test_challenges_are_told(records):
    scored = {"name": "hans", "majority_accuracy": 0.5, "scoring": "two-way: summed", "error": None}
    scored["candidates"] = [{"method": "lora", "accuracy": {"mean": 0.61}}]
    gone = {"name": "gone", "error": "gone.csv: no such file", "candidates": []}
    text = tables.plain_table({**compare_records(records), "external": [scored, gone]}, verbose=True)
    assert (
        "external test set hans: best lora with 61.0 % (its most frequent label: 50.0 %)\n    two-way: summed" in text
    )
    assert "external test set gone: left out: gone.csv: no such file" in text
