"""What the data doctor found, as text for a terminal and as a section of the report. Reads doctor.json only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from entailor.report.page import filled

MOST_EXAMPLES_IN_TEXT = 3


def doctor_section(document: Mapping[str, Any]) -> Any:
    """Return the section of the report as safe HTML."""
    return filled(
        "doctor.html.j2",
        summary=summary(document),
        findings=document["findings"],
        skipped=_skipped(document),
        parts=_part_names(document),
    )


def doctor_text(document: Mapping[str, Any]) -> str:
    """Return the findings as text, the gravest first, each with a few examples and the next step."""
    return "\n".join(_lines(document))


def summary(document: Mapping[str, Any]) -> str:
    """Return one sentence: what was looked at, and how much was found."""
    sizes = ", ".join(f"{number:,} {part}" for part, number in document["sizes"].items() if number)
    done = [one for one in document["checks"] if not one["skipped"]]
    counts = {
        severity: sum(one["severity"] == severity for one in document["findings"])
        for severity in ("error", "warning", "info")
    }
    names = {"error": "errors", "warning": "warnings", "info": "remarks"}
    found = ", ".join(
        f"{number} {names[severity].removesuffix('s') if number == 1 else names[severity]}"
        for severity, number in counts.items()
        if number
    )
    return f"{len(done)} checks over {sizes} examples: {found or 'nothing found'}."


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    yield summary(document)
    for found in document["findings"]:
        yield ""
        yield f"{found['severity']}: {found['message']}."
        yield f"    {found['remedy']}."
        yield from map(_example_line, found["examples"][:MOST_EXAMPLES_IN_TEXT])
    quiet = [one["title"] for one in document["checks"] if not one["findings"] and not one["skipped"]]
    if quiet:
        yield ""
        yield f"nothing found: {'; '.join(quiet)}."
    for one in _skipped(document):
        yield f"not looked at: {one['title']} ({one['skipped']})."


def _example_line(example: Mapping[str, Any]) -> str:
    texts = " | ".join(text for text in (example["text"], example["text_pair"]) if text is not None)
    note = f" ({example['note']})" if example["note"] else ""
    label = "" if example["label"] is None else f" {example['label']}:"
    return f"    {example['part']} {example['id']}{note}{label} {texts}"


def _skipped(document: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return [one for one in document["checks"] if one["skipped"]]


def _part_names(document: Mapping[str, Any]) -> tuple[str, str | None]:
    examples = [example for found in document["findings"] for example in found["examples"]]
    if all(example["text_pair"] is None for example in examples):
        return "text", None
    return ("premise", "hypothesis") if "entailment" in document["labels"] else ("first text", "second text")
