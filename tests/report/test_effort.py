"""Tuning, learning curves, the estimate and reads of test, as lines for a terminal and as sections of the page."""

from __future__ import annotations

import re
from typing import Any

import pytest

from entailor.report.effort import (
    budget_words,
    effort_lines,
    effort_section,
    estimate_lines,
    repeat_words,
    settings_words,
)
from entailor.report.html import render

NAME = "<b>lora</b>"


def tried(number: int, rate: float, state: str, accuracy: float | None, error: str | None = None) -> dict[str, Any]:
    return {
        "number": number,
        "settings": {"learning_rate": rate},
        "state": state,
        "validation_accuracy": accuracy,
        "validation_loss": None if accuracy is None else 1.0 - accuracy,
        "examples_seen": 1000,
        "epochs": 1.0,
        "seconds": 12.0,
        "ended": "2026-01-01T00:00:00+00:00",
        "error": error,
    }


@pytest.fixture
def full(comparison: dict[str, Any]) -> dict[str, Any]:
    """A comparison with everything this module shows."""
    row = comparison["candidates"][0]
    name = {"model": row["model"], "method": NAME}
    budget = {"trials": 3, "minutes": None, "examples": None, "pruner": "successive_halving", "repeats": 2}
    trials = [
        tried(0, 1e-3, "complete", 0.61),
        tried(1, 2e-2, "pruned", 0.4),
        tried(2, 0.5, "failed", None, "nan & inf"),
    ]
    study = {
        **name,
        "status": "finished",
        "budget": budget,
        "search_space": {},
        "trials": trials,
        "best": 0,
        "repeat": 1,
    }
    study |= {"chosen": {"learning_rate": 1e-3}, "seconds": 36.0, "examples_seen": 3000}
    points = [
        {"n": n, "accuracy": {"mean": mean, "low": mean - 0.05, "high": mean + 0.05}, "per_seed": [mean], "epochs": 3.0}
        for n, mean in ((50, 0.4), (200, 0.5), (1000, 0.6))
    ]
    points[0]["exploratory"] = True
    told = {"factor": 2, "n": 2000, "accuracy": 0.64, "low": 0.6, "high": 0.68}
    told |= {"gain": 0.03, "gain_low": 0.02, "gain_high": 0.05}
    far = {**told, "factor": 10, "n": 10_000, "refused": "the interval is 40 points wide"}
    for point in points:
        point.setdefault("exploratory", False)
    curve_row = {**name, "points": points, "laws": ["power", "sigmoid"], "refused": None, "predicted": [told, far]}
    crossing = {**name, "over_model": row["model"], "over_method": "majority", "between": [50, 200], "at": 120}
    overtaking = {**name, "over_model": row["model"], "over_method": "zero_shot", "accuracy_untrained": 0.47}
    overtaking |= {"at": 130, "low": None, "high": 400, "before_first": False}
    pair = {"estimate": 10.0, "measured": 8.0, "ratio": 1.25}
    estimate_row = {**name, "error": None, "trial_seconds": pair, "tuning_seconds": pair, "peak_memory_bytes": pair}
    reads = [
        {"time": "2026-01-01T10:00:00+00:00", "choices": {"a": "1"}, "sha256": "f" * 64, "exploratory": False},
        {"time": "2026-01-02T10:00:00+00:00", "choices": {NAME: "2"}, "sha256": "e" * 64, "exploratory": True},
    ]
    return {
        **comparison,
        "candidates": [{**row, "method": NAME, "exploratory": True}, *comparison["candidates"][1:]],
        "recommendation": None,
        "tuning": {"budget": budget, "studies": [study, {**study, "repeat": 2}]},
        "learning_curve": {
            "num_test": 100,
            "candidates": [curve_row],
            "best": [],
            "crossings": [crossing],
            "overtakes_untrained": [overtaking],
            "failed": [],
            "sentence": "lora, best at 1,000 labels: more labels are worth it.",
        },
        "estimate": {"candidates": [estimate_row], "all_trials": pair},
        "test_access": {"test": {"examples": 100, "sha256": "d" * 32}, "reads": reads},
    }


def test_a_comparison_without_any_of_it_shows_nothing(comparison):
    assert effort_lines(comparison) == []
    assert str(effort_section(comparison)).strip() == ""


def test_lines_say_what_was_tried_what_more_labels_give_and_how_good_the_estimate_was(full):
    text = "\n".join(effort_lines(full))
    assert "tuning, 3 trials a candidate, on validation alone:" in text
    assert re.search(r"lora</b>\s+3\s+1\s+3.0 k\s+36 s\s+61.0 %\s+learning_rate 0.001", text)
    assert f"{NAME}, search 2" in text
    assert f"{NAME}, 2 searches: validation 61.0 %, 61.0 %" in text
    assert "64.0 % (60.0 to 68.0)" in text
    assert f"{NAME} overtakes majority at about 120 labels (between 50 and 200)" in text
    assert (
        f"{NAME} overtakes zero_shot, which needs no labels (47.0 %), at about 130 labels "
        "(95 %: from fewer than the smallest size to 400)"
    ) in text
    assert "more labels are worth it." in text
    assert re.search(r"all trials: 8\.0|10 s expected, 8\.0 s measured, ratio 1\.25", text)
    assert f"exploratory, since test had been read before they were added: {NAME}" in text


def test_the_page_shows_every_trial_and_marks_what_was_stopped_chosen_and_exploratory(full, records):
    page = render(name="run", comparison=full, records=records)
    assert "&lt;b&gt;lora&lt;/b&gt;" in page
    assert NAME not in page
    for part in ('id="tuning"', 'id="learning-curve"', 'id="estimate"', 'id="test-reads"'):
        assert page.count(part) == 1
    assert "<summary><h2>Learning curves</h2></summary>" in page
    assert "test was read more than once" in page
    assert "test was read once" not in page
    assert "pruned" in page
    assert "3 trials, in each of 2 searches, of which the first one chose" in page
    assert "nan &amp; inf" in page
    assert '<span class="badge best">chosen</span>' in page
    assert page.count('<span class="badge warn">exploratory</span>') >= 2
    assert "power, sigmoid" in page
    assert "overtakes zero_shot, which needs no labels" in page
    assert "50: 40.0 % (exploratory)" in page
    assert len(re.findall(r'aria-label="(Validation accuracy of every setting|Test accuracy by number)', page)) == 2


def test_a_refused_prediction_gives_its_reason(full):
    row = full["learning_curve"]["candidates"][0]
    row |= {"predicted": [], "refused": "3 sizes; a prediction needs 4"}
    assert "no prediction: 3 sizes; a prediction needs 4" in str(effort_section(full))


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ({"trials": 4, "minutes": None, "examples": None}, "4 trials"),
        ({"trials": None, "minutes": 1.5, "examples": None}, "1.5 minutes"),
        ({"trials": None, "minutes": None, "examples": 20_000}, "20,000 training examples"),
    ],
)
def test_budgets_in_words(budget, words):
    assert budget_words(budget) == words


def test_an_estimate_names_what_could_not_be_found_out_and_the_day_it_ends():
    row = {"model": "m", "method": "lora", "trials": 3, "error": None, "trial_seconds": 60.0, "tuning_seconds": 0.0}
    row |= {"curve_seconds": 30.0, "external_seconds": 0.0, "seconds": 210.0, "peak_memory_bytes": 10**9}
    broken = {**row, "method": "full", "error": "ModelError: no such file"}
    expected = {"candidates": [row, broken], "seconds": 99_999.0, "peak_memory_bytes": 10**9, "slowdown": 1.0}
    expected |= {"low": 51_234.0, "high": 201_234.0, "ends": "2026-01-02T11:30:00+00:00"}
    lines = estimate_lines(expected)
    assert re.search(r"lora\s+3\s+60 s\s+–\s+30 s\s+–\s+4 min\s+1.0 GB", lines[1])
    assert lines[3] == "  full: ModelError: no such file"
    said = (
        "estimate: 14.2 h to 55.6 h, done by 11:30 2 days later at the latest, up to 1.0 GB of memory; not in it: full"
    )
    assert lines[-1] == said
    busy = estimate_lines({**expected, "slowdown": 7.04})[-1]
    assert busy == f"{said}; other work makes it 7.0 times slower"
    assert estimate_lines({**expected, "candidates": [broken]})[-1] == "no estimate: ModelError: no such file"


def test_settings_of_a_hundred_and_more_are_plain_numbers():
    settings = {"learning_rate": 0.00123, "lora.r": 128, "num_virtual_tokens": 100, "warmup_steps": 12_345.0, "C": 9.96}
    said = "learning_rate 0.0012, lora.r 128, num_virtual_tokens 100, warmup_steps 12,345, C 10"
    assert settings_words(settings, {}) == said


def test_choices_of_repeated_searches_stand_beside_each_other():
    space = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True, "choices": []}}
    template = {"template": {"low": 0, "high": 1, "log": False, "choices": ["its own", "short"]}}

    def study(rate, place, score, repeat):
        chosen = {"learning_rate": rate, "template": place}
        trials = [{"validation_accuracy": score}]
        named = {"model": "m", "method": "lora", "split": 0, "repeat": repeat}
        return {**named, "search_space": {**space, **template}, "chosen": chosen, "best": 0, "trials": trials}

    once, again = study(1e-3, 0, 0.78, 1), study(1e-2, 1, 0.8, 2)
    (words,) = repeat_words([once, again])
    # half of two decades apart: 0.5 / sqrt(2) of the range
    assert words == (
        "lora, 2 searches: learning_rate 0.001, 0.01 (standard deviation 35 % of the range); template its own, short; "
        "validation 78.0 %, 80.0 %"
    )
    assert repeat_words([once]) == []
    useless = {**again, "best": None, "chosen": {}}
    assert "learning_rate 0.001; template" in repeat_words([once, useless])[0]
    assert repeat_words([{**useless, "repeat": 1}, useless]) == ["lora, 2 searches: none could use any setting"]
