"""The contract of a check: it looks at a split and says what it found. A check is one file that registers itself.

What needs a model (tokens, encoder features) is handed in by `entailor.diagnostics.doctor`; nothing here loads one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import numpy as np
import numpy.typing as npt

from entailor.data.checks import Finding, Severity
from entailor.data.example import Example, Split
from entailor.data.words import Integers, TextFeatures
from entailor.events import SILENT, Observer

MOST_SHOWN = 5  # rows shown with a finding; all ids stand in `ids`
MOST_CHARACTERS = 160  # of a text that is shown
MOST_FITTED = 12_000  # rows that cross-validated checks look at: more says little more and takes long
MOST_FITS = 1_500_000  # rows times labels: so many probabilities are estimated
FEWEST_FITTED = 60  # below this, five folds say nothing
FEWEST_OF_LABEL = 5  # on average, in a sample
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class ShownExample:
    """One example a finding points at, its texts shortened.

    Attributes:
        part: train, validation or test.
        id: the example's id.
        label: its label as given, or None.
        text: the text or premise.
        text_pair: the hypothesis, or None.
        note: what is special about this example, in a few words.
    """

    part: str
    id: str
    label: str | None
    text: str
    text_pair: str | None
    note: str = ""


@dataclass(frozen=True)
class DoctorFinding:
    """One thing that was found.

    Attributes:
        check: the check that found it.
        kind: what it is, one word for programs.
        severity: error, warning or info.
        message: what was found, with counts.
        remedy: the next step.
        examples: a few examples it was found in.
        ids: every example it was found in, the most telling first; empty where it concerns no examples in particular.
        figures: the numbers behind the message.
    """

    check: str
    kind: str
    severity: Severity
    message: str
    remedy: str
    examples: tuple[ShownExample, ...] = ()
    ids: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckOutcome:
    """What a check gave.

    Attributes:
        findings: what was found; none means that the check looked and found nothing.
        facts: figures worth showing whatever was found.
        skipped: why the check could not look, or None.
    """

    findings: tuple[DoctorFinding, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    skipped: str | None = None


@dataclass(frozen=True)
class EncoderFeatures:
    """Features of a frozen encoder, one example a training example that cross-validated checks look at.

    Attributes:
        model: the model they come from.
        values: in the order of `CheckInput.fitted_rows`. Shape (N, F).
    """

    model: str
    values: npt.NDArray[np.float32]


@dataclass(frozen=True)
class CheckInput:
    """What a check may look at.

    Attributes:
        split: the examples; validation and test may be empty.
        labels: label names in order.
        is_pair: whether examples are pairs of texts.
        seed: of folds, samples and planted mistakes.
        encoder: features of a model, where one was given.
        reading: what was found when the examples were read, of examples that are not in the split.
    """

    split: Split
    labels: tuple[str, ...]
    is_pair: bool
    seed: int = 0
    encoder: EncoderFeatures | None = None
    reading: tuple[Finding, ...] = ()

    @cached_property
    def fitted_rows(self) -> Integers:
        """Which training examples cross-validated checks look at: all, or a sample, in order. Shape (N,).

        The sample has at most 12,000, and fewer where there are more than 125 labels.
        """
        count, most = len(self.split.train), min(MOST_FITTED, MOST_FITS // len(self.labels))
        if count <= most:
            return np.arange(count)
        return np.sort(np.random.default_rng((self.seed, 1)).choice(count, most, replace=False))

    @cached_property
    def fitted(self) -> TextFeatures:
        """The training examples that cross-validated checks look at, and features of their texts."""
        return TextFeatures([self.split.train[row] for row in self.fitted_rows.tolist()])

    @cached_property
    def targets(self) -> Integers:
        """Label codes of the examples that cross-validated checks look at. Shape (N,)."""
        codes: dict[str | None, int] = {label: code for code, label in enumerate(self.labels)}
        return np.array([codes[row.label] for row in self.fitted.rows], np.int64)

    def too_few(self) -> str | None:
        """Return why cross-validation would say nothing of these examples, or None."""
        count, num_labels = len(self.fitted_rows), len(self.labels)
        if count < FEWEST_FITTED:
            return f"{count} training examples, at least {FEWEST_FITTED} are needed"
        if count < len(self.split.train) and count < FEWEST_OF_LABEL * num_labels:
            return f"{num_labels:,} labels are too many to learn from the {count:,} examples that would be looked at"
        return None


Check = Callable[[CheckInput], CheckOutcome]


@dataclass(frozen=True)
class CheckResult:
    """A check's name, what it looks for in words, and what it gave."""

    name: str
    title: str
    outcome: CheckOutcome


_CHECKS: dict[str, tuple[str, Check]] = {}


def check(name: str, title: str) -> Callable[[Check], Check]:
    """Register a check under a name, with what it looks for in words."""

    def register(function: Check) -> Check:
        _CHECKS[name] = (title, function)
        return function

    return register


def registered_checks() -> dict[str, tuple[str, Check]]:
    """Return name to (title, function) of every check in this folder, in the order of their names."""
    import entailor.diagnostics as folder

    for module in iter_modules(folder.__path__):
        import_module(f"{folder.__name__}.{module.name}")
    return dict(sorted(_CHECKS.items()))


def examine(evidence: CheckInput, observer: Observer = SILENT) -> tuple[CheckResult, ...]:
    """Run every check.

    Args:
        evidence: what to look at.
        observer: told of each check that begins.
    """
    results = []
    for name, (title, function) in registered_checks().items():
        observer.note(title)
        results.append(CheckResult(name, title, function(evidence)))
    return tuple(results)


def shown(part: str, row: Example, note: str = "") -> ShownExample:
    """Return an example as it is shown."""
    pair = None if row.text_pair is None else shortened(row.text_pair)
    return ShownExample(part, row.id, row.label, shortened(row.text), pair, note)


def of_rows(part: str, rows: Sequence[Example]) -> tuple[tuple[ShownExample, ...], tuple[str, ...]]:
    """Return the first rows as they are shown with a finding, and the ids of all."""
    return tuple(shown(part, row) for row in rows[:MOST_SHOWN]), tuple(row.id for row in rows)


def shortened(text: str) -> str:
    """Return a text on one line, cut to 160 characters; control characters, which a terminal obeys, by their codes."""
    line = _CONTROLS.sub(lambda one: f"\\x{ord(one.group()):02x}", " ".join(text[: 2 * MOST_CHARACTERS].split()))
    return line if len(line) <= MOST_CHARACTERS else line[: MOST_CHARACTERS - 2].rstrip() + " …"


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return names in quotes, the first few of them."""
    words = ", ".join(repr(name) for name in names[:most])
    return words + (f" and {len(names) - most} more" if len(names) > most else "")
