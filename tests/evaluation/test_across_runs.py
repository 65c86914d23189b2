"""The same candidates over several data sets: ranks, tests, and what to expect of the next one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import friedmanchisquare, norm, rankdata, wilcoxon
from tests.evaluation.conftest import make_record

import entailor
from entailor.cli import app as cli
from entailor.config.parts import Priorities
from entailor.errors import RunError
from entailor.evaluation.across_runs import (
    LEAST_DATA_SETS,
    compare_runs,
    critical_difference,
    data_sets_needed,
    friedman,
    next_data_set,
    wilcoxon_p,
)
from entailor.evaluation.comparison import compare_records
from entailor.report.across_runs import across_runs_text
from entailor.runs.files import write_checked_json
from entailor.runs.layout import RunFolder
from entailor.runs.record import NO_MODEL

ACCURACIES = {"lora": 0.8, "probe": 0.7, "majority": 0.4}


@cache
def compared(name: str, accuracies: tuple[tuple[str, float], ...], model: str, priorities: tuple) -> dict:
    """Made once: a comparison takes longer than all that is asked of it here."""
    records = [
        make_record(each, accuracy=accuracy, seed=100 * len(name) + seed, model=model, n=120)
        for each, accuracy in accuracies
        for seed in range(2)
    ]
    return compare_records(records, priorities=Priorities(**dict(priorities)))


@pytest.fixture
def finished(tmp_path: Path) -> Callable[..., Path]:
    """Return what writes a finished run: its comparison and its split."""

    def write(name: str, accuracies: dict[str, float] = ACCURACIES, model: str = "org/tiny", **priorities) -> Path:
        folder = RunFolder(tmp_path / name)
        folder.mark()
        found = compared(name, tuple(accuracies.items()), model, tuple(priorities.items()))
        write_checked_json(folder.comparison_file, found)
        write_checked_json(folder.split_file, {"fingerprint": name})
        return folder.path

    return write


@pytest.fixture
def three(finished: Callable[..., Path]) -> list[Path]:
    return [finished("films"), finished("news"), finished("mails")]


def comparison_of(run: Path) -> dict:
    return json.loads(RunFolder(run).comparison_file.read_text())


def test_friedmans_statistic_is_scipys():
    ranks_DK = rankdata(np.random.default_rng(3).random((12, 4)), axis=1)
    statistic, p = friedman(ranks_DK)
    expected = friedmanchisquare(*ranks_DK.T)
    assert statistic == pytest.approx(expected.statistic, abs=1e-9)
    assert p == pytest.approx(expected.pvalue, abs=0.02)  # the chi-square distribution is an approximation


def test_friedmans_test_is_exact_for_three_data_sets():
    """All three rank alike: 6 of the 216 ways to rank three candidates on three data sets."""
    assert friedman(np.array([[1.0, 2.0, 3.0]] * 3))[1] == pytest.approx(6 / 216)
    assert friedman(np.full((3, 2), 1.5))[1] == 1.0


def test_the_critical_difference_is_that_of_the_paper():
    """Demsar 2006, section 3.2.3: four candidates on 14 data sets, and the quantiles of its table 5."""
    assert critical_difference(14, 4) == pytest.approx(1.25, abs=0.005)
    for candidates, quantile in ((2, 1.960), (5, 2.728), (10, 3.164)):
        scale = np.sqrt(candidates * (candidates + 1) / (6 * 20))
        assert critical_difference(20, candidates) / scale == pytest.approx(quantile, abs=6e-4)


def test_wilcoxons_test_is_scipys_and_equal_candidates_are_no_error():
    difference_D = np.random.default_rng(1).normal(0.3, 1, 9)
    assert wilcoxon_p(difference_D) == pytest.approx(wilcoxon(difference_D).pvalue, abs=1e-9)
    assert wilcoxon_p(np.array([0.0, 1e-17, 0.0])) == 1.0


@pytest.mark.parametrize("pairs", [1, 3, 28])
def test_so_many_data_sets_and_not_fewer_can_show_a_difference(pairs):
    needed = data_sets_needed(pairs)
    assert pairs * wilcoxon_p(np.arange(1.0, needed + 1)) < 0.05
    assert pairs * wilcoxon_p(np.arange(1.0, needed)) >= 0.05


def test_the_hierarchical_model_is_that_of_the_plain_integral():
    """Over mean and deviation alike, on a wide grid."""
    difference_D, variance_D = np.array([0.03, 0.01, 0.05, 0.02]), np.array([1e-4, 4e-4, 1e-4, 2e-4])
    scale = np.sqrt((difference_D**2 + variance_D).mean())
    mean_M, between_T = np.linspace(-1, 1, 2001)[:, None], np.geomspace(1e-4, 10, 300)
    seen_MT = np.exp(-((difference_D[:, None, None] - mean_M) ** 2) / 2 / (variance_D[:, None, None] + between_T**2))
    joint_MT = (seen_MT / np.sqrt(variance_D[:, None, None] + between_T**2)).prod(axis=0)
    joint_MT *= between_T / (1 + (between_T / scale) ** 2)  # the prior, on a grid of equal ratios
    expected_better = (joint_MT * norm.sf((0.01 - mean_M) / between_T)).sum() / joint_MT.sum()
    expected_worse = (joint_MT * norm.cdf((-0.01 - mean_M) / between_T)).sum() / joint_MT.sum()
    better, equivalent, worse = next_data_set(difference_D, variance_D, 0.01)
    assert better == pytest.approx(expected_better, abs=2e-3)
    assert worse == pytest.approx(expected_worse, abs=2e-3)
    assert better + equivalent + worse == pytest.approx(1)


def test_probabilities_of_the_next_data_set_come_true():
    """Of drawn studies: where 'better' is said with such a probability, it is as often so."""
    rng, said, came = np.random.default_rng(5), [], []
    for _ in range(400):
        mean, between, variance_D = rng.normal(0, 0.03), 0.02, rng.uniform(1e-4, 6e-4, 8)
        difference_D = rng.normal(mean, np.sqrt(between**2 + variance_D))
        said.append(next_data_set(difference_D, variance_D, 0.01)[0])
        came.append(rng.normal(mean, between) > 0.01)
    said, came = np.array(said), np.array(came)
    assert came.mean() == pytest.approx(said.mean(), abs=0.05)
    for low, high in ((0, 0.3), (0.3, 0.7), (0.7, 1)):
        among = (said >= low) & (said < high)
        assert came[among].mean() == pytest.approx(said[among].mean(), abs=0.12)


def test_differences_known_for_sure_fall_where_they_are():
    same, none = np.full(3, 0.05), np.zeros(3)
    assert next_data_set(none, none, 0.02) == (0.0, 1.0, 0.0)
    assert next_data_set(same, none, 0.02) == pytest.approx((1.0, 0.0, 0.0), abs=0.01)
    assert next_data_set(-same, none, 0.02) == pytest.approx((0.0, 0.0, 1.0), abs=0.01)
    assert next_data_set(same, np.array([0.0, 0.0, 1e-4]), 0.02)[0] > 0.99


def test_candidates_are_ranked_over_the_data_sets(finished):
    runs = [finished("films"), finished("news"), finished("mails", {"lora": 0.6, "probe": 0.75, "majority": 0.4})]
    found = compare_runs(runs)
    assert [(one.method, one.ranks) for one in found.candidates] == [
        ("lora", (1, 1, 2)),
        ("probe", (2, 2, 1)),
        ("majority", (3, 3, 3)),
    ]
    assert found.data_sets == ("films", "news", "mails")
    pair = found.pairs[0]
    assert (pair.a.method, pair.b.method) == ("lora", "probe")
    for run, seen, lora, probe in zip(
        runs, pair.differences, found.candidates[0].values, found.candidates[1].values, strict=True
    ):
        means = {one["method"]: one["accuracy"]["mean"] for one in comparison_of(run)["candidates"]}
        assert (lora, probe) == pytest.approx((means["lora"], means["probe"]), abs=1e-9)
        assert seen == pytest.approx(lora - probe, abs=1e-9)
    assert pair.difference == pytest.approx(np.mean(pair.differences))
    # far apart on all three: the next one will likely be as well, though no test of three data sets can say so
    assert found.pairs[1].better > 0.85
    assert not found.pairs[1].significant
    assert found.data_sets_needed == 7
    assert found.margin == 0.02


def test_where_less_is_better_the_least_ranks_first(finished):
    found = compare_runs([finished(name, metric="log_loss") for name in ("films", "news", "mails")], margin=0.1)
    assert [one.method for one in found.candidates] == ["lora", "probe", "majority"]
    assert list(found.candidates[0].values) < list(found.candidates[1].values)
    assert all(difference > 0 for difference in found.pairs[0].differences)


def test_what_one_run_lacks_is_left_out(finished, three):
    more = finished("letters", {**ACCURACIES, "prompt": 0.6})
    found = compare_runs([*three, more])
    assert [one.method for one in found.left_out] == ["prompt"]
    assert {one.method for one in found.candidates} == set(ACCURACIES)


def test_what_has_no_model_is_on_none(finished):
    """Candidates without a model stand under the name `none`, which is nobody's."""
    runs = [finished(name, {"a": 0.8, "b": 0.5}, NO_MODEL) for name in ("films", "news")]
    more = finished("mails", {"a": 0.8, "b": 0.5, "c": 0.6}, NO_MODEL)
    said = across_runs_text(compare_runs([*runs, more]))
    assert said.endswith("left out, since not every run has them: c")
    with pytest.raises(RunError, match="only a stands in all runs"):
        compare_runs([*runs, finished("letters", {"a": 0.8, "c": 0.7}, NO_MODEL)])


def test_two_runs_are_too_few(three):
    with pytest.raises(RunError, match=f"2 runs given, at least {LEAST_DATA_SETS} are needed, each on another data"):
        compare_runs(three[:2])


def test_the_same_data_twice_are_one_data_set(three):
    with pytest.raises(RunError, match=r"films and .*films: the same data, which count as one data set"):
        compare_runs([*three, three[0]])


def test_runs_by_different_metrics_and_margins_are_refused(finished, three):
    with pytest.raises(RunError, match="different metrics: films accuracy, news accuracy, mails accuracy, f macro_f1"):
        compare_runs([*three, finished("f", metric="macro_f1")])
    other = finished("m", margin=0.05)
    with pytest.raises(RunError, match=r"different margins: films 0\.02, .*, m 0\.05. Say which counts with --margin"):
        compare_runs([*three, other])
    assert compare_runs([*three, other], margin=0.01).margin == 0.01
    with pytest.raises(RunError, match=r"margin: -1.* found, expected 0 or more"):
        compare_runs(three, margin=-1.0)


def test_runs_without_common_candidates_are_refused(finished, three):
    with pytest.raises(RunError, match=r"none stands in all runs \(films: lora, majority, probe; .*letters: "):
        compare_runs([*three, finished("letters", model="org/other")])
    with pytest.raises(RunError, match="only lora on org/tiny stands in all runs"):
        compare_runs([*three, finished("letters", {"lora": 0.8, "prompt": 0.7})])


def test_a_damaged_run_is_named(three):
    file = RunFolder(three[1]).comparison_file
    file.write_text(file.read_text().replace("0.02", "0.03"))
    with pytest.raises(RunError, match=r"news.comparison\.json"):
        compare_runs(three)
    with pytest.raises(RunError, match=r"nowhere.comparison\.json: no such file"):
        compare_runs([*three[:1], three[2], three[0].parent / "nowhere"])
    write_checked_json(file, {"metric": "accuracy"})
    with pytest.raises(RunError, match="not what Entailor writes"):
        compare_runs(three)


def test_a_run_without_a_finished_trial_is_named(three):
    failed = make_record("lora", status="failed", error="out of memory", error_type="MemoryError")
    write_checked_json(RunFolder(three[2]).comparison_file, compare_records([failed]))
    with pytest.raises(RunError, match="mails: no trial of this run finished"):
        compare_runs(three)


def run_study(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["entailor", "study", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0


def test_the_command_prints_a_table_and_writes_every_pair(three, tmp_path, monkeypatch, capsys):
    run_study(monkeypatch, *three, "--output", tmp_path / "study.json")
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[0].split()[:6] == ["candidate", "mean", "rank", "films", "news", "mails"]
    assert lines[0].split()[6:] == ["difference", "p", "worse", "equivalent", "better"]
    assert [line.split()[0] for line in lines[1:4]] == ["lora", "probe", "majority"]
    assert "3 data sets are too few for any pair of 3 candidates to differ significantly" in printed
    document = json.loads((tmp_path / "study.json").read_text())
    assert document == json.loads(json.dumps(entailor.compare_runs(three).document()))
    assert (document["version"], len(document["pairs"])) == (1, 3)
    run_study(monkeypatch, *three, "--json", "--margin", "0.05")
    assert json.loads(capsys.readouterr().out)["margin"] == 0.05
