"""What several data sets together say of the same candidates, as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from entailor.evaluation.across_runs import AcrossRuns
from entailor.evaluation.recommendation import CandidateKey, key_of
from entailor.evaluation.targets import METRICS
from entailor.evaluation.wording import candidate_titles, lead, p_value, percent
from entailor.report.tables import align
from entailor.runs.record import NO_MODEL

HEADINGS = ("difference", "p", "worse", "equivalent", "better")


def across_runs_text(found: AcrossRuns) -> str:
    """Return candidates with ranks and how each stands to the first, and what the tests can show."""
    candidates = found.document()["candidates"]
    titles = candidate_titles(candidates)
    lines = [("candidate", "mean rank", *found.data_sets, *HEADINGS)]
    for place, one in enumerate(candidates):
        values = [percent(value) if found.metric == "accuracy" else f"{value:.3f}" for value in one["values"]]
        lines.append((titles[key_of(one)], f"{one['mean_rank']:.2f}", *values, *_against_first(found, place)))
    return "\n".join([*align(lines, left={0}), *_remarks(found, titles)])


def _against_first(found: AcrossRuns, place: int) -> tuple[str, ...]:
    """Return the cells under `HEADINGS`: the candidate minus the first one."""
    if place == 0:
        return ("",) * len(HEADINGS)
    pair = found.pairs[place - 1]
    chances = (f"{100 * chance:.0f} %" for chance in (pair.better, pair.equivalent, pair.worse))
    return (
        lead(found.metric, -pair.difference),
        p_value(pair.p_holm).removeprefix("p = ").removeprefix("p "),
        *chances,
    )


def _remarks(found: AcrossRuns, titles: Mapping[CandidateKey, str]) -> Iterator[str]:
    first, number = found.candidates[0], len(found.data_sets)
    name = titles[first.model, first.method]
    margin = f"{100 * found.margin:g} points" if found.metric == "accuracy" else f"{found.margin:g}"
    yield (
        f"{number} data sets by {METRICS[found.metric].title}. difference: minus {name}, mean over data sets   "
        "p: Wilcoxon's signed-rank test, corrected for all pairs (Holm)"
    )
    yield (
        f"worse, equivalent, better: than {name} on the next data set of this kind, by more than {margin} or not "
        "(hierarchical model, test examples and seeds counted)"
    )
    yield (
        f"all candidates alike: {p_value(found.friedman_p)} (Friedman); mean ranks differ significantly from "
        f"{found.critical_difference:.2f} on (Nemenyi)"
    )
    if number < found.data_sets_needed:
        yield (
            f"{number} data sets are too few for any pair of {len(found.candidates)} candidates to differ "
            f"significantly, however large the differences: Wilcoxon's test needs {found.data_sets_needed}. "
            "Read the probabilities, or add runs on other data sets"
        )
    if found.claims == "classifiers":
        yield "with one seed in at least one run this holds for these classifiers, not for the methods"
    if found.left_out:
        names = ", ".join(one.method + (f" on {one.model}" if one.model != NO_MODEL else "") for one in found.left_out)
        yield f"left out, since not every run has them: {names}"
