"""External test sets in the proof: an export answers there as the classifier it was made from.

Their texts are other ones than those of the test split: longer, of another domain, cut more often.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entailor.config.experiment import parse_settings
from entailor.config.overrides import read_yaml
from entailor.config.parts import DataSettings
from entailor.config.plain import shown
from entailor.data.bundled import PREFIX, located
from entailor.data.example import Example
from entailor.data.readers import ReadOptions, read_examples
from entailor.engine.scorer import log_softmax
from entailor.errors import DataError, EntailorError, RunError
from entailor.events import Observer
from entailor.runs.documents import well_formed
from entailor.runs.files import read_checked_json
from entailor.runs.layout import RunFolder
from entailor.shipping.predictor import wrong_shape
from entailor.shipping.verification import EXACT, Reference

Score = Callable[[Sequence[Example]], NDArray[np.float64]]


@dataclass(frozen=True)
class ExternalSet:
    """What an export must answer on one external test set.

    Attributes:
        name: of the file, without its endings.
        inputs: text and second text of every example.
        logprobs_EL: of the classifier.
        gold_E: index of the gold label; -1 where the classifier has no such label.
    """

    name: str
    inputs: list[tuple[str, str | None]]
    logprobs_EL: NDArray[np.float64]
    gold_E: NDArray[np.int64]


@dataclass(frozen=True)
class ExternalProof:
    """What was found on one external test set.

    Attributes:
        name: of the set.
        examples: how many.
        largest_change: largest absolute difference of a log-probability.
        flips: examples whose label changed.
        accuracy_before: of the classifier, 0 to 1, on examples whose gold label it knows; None where it knows none.
        accuracy_after: of the export.
        loss_bound: accuracy that may be lost at most, at 95 %; without gold labels, the share of answers.
    """

    name: str
    examples: int
    largest_change: float
    flips: int
    accuracy_before: float | None
    accuracy_after: float | None
    loss_bound: float


def sources_of_trial(trial: Path) -> list[str]:
    """Return the external test sets a trial was scored on."""
    files = sorted((trial / "external").glob("*.json"))
    return [str(read_checked_json(file, "Delete it and run `entailor compare` again")["source"]) for file in files]


def read_external(
    trial: Path, sources: Sequence[str], labels: tuple[str, ...], *, is_pair: bool, score: Score
) -> list[ExternalSet]:
    """Read external test sets as the trial's run reads its files, and score them.

    Args:
        trial: of the classifier.
        sources: files, data sets or bundled tables.
        labels: of the classifier.
        is_pair: whether it takes pairs.
        score: gives logprobs_EL of examples.

    Raises:
        DataError: a file cannot be read, or its texts are of the other shape.
    """
    found = []
    for source in sources:
        result = read_examples(located(source), _options(trial))
        examples = result.examples
        if not examples:
            raise DataError("no example found", path=source, remedy="Leave it out of --external")
        if is_pair != (examples[0].text_pair is not None):
            raise wrong_shape(source, "Leave it out of --external", is_pair=is_pair)
        places = {label: place for place, label in enumerate(labels)}
        gold_E = np.array([places.get(str(one.label), -1) for one in examples])
        name = Path(source.removeprefix(PREFIX)).name.split(".")[0]
        found.append(ExternalSet(name, [(one.text, one.text_pair) for one in examples], score(examples), gold_E))
    return found


def readable(trial: Path, observer: Observer) -> list[str]:
    """Return the external test sets of a trial that can still be read; what cannot is named."""
    kept = []
    for source in sources_of_trial(trial):
        try:
            read_examples(located(source), _options(trial))
        except (EntailorError, OSError) as error:
            observer.warn(f"external test set left out of the proof: {error}")
            continue
        kept.append(source)
    return kept


def _options(trial: Path) -> ReadOptions:
    run = RunFolder.of_trial(trial)
    if run is None or not run.experiment_file.exists():
        return ReadOptions(require_labels=False)
    with well_formed(RunError, run.experiment_file, "Put a copy of the file back"):
        written = read_yaml(run.experiment_file).get("data") or {}
        if not isinstance(written, dict):
            raise ValueError(f"data: keys with values were expected, found {shown(written)}")
        data = parse_settings(DataSettings, written, where="data")
    return ReadOptions.of(data, require_labels=False)


def judge_external(
    sets: Sequence[ExternalSet], reference: Reference, found: Mapping[str, Any], margin: float
) -> tuple[list[ExternalProof], list[str]]:
    """Hold an export's answers on external test sets against the classifier's; return findings and problems."""
    proofs, problems = [], []
    for one in sets:
        after_EL = log_softmax(np.array(found["external"][one.name], dtype=np.float64))
        if after_EL.shape != one.logprobs_EL.shape or not np.isfinite(after_EL).all():
            problems.append(f"{one.name}: logits of another shape, or not finite")
            continue
        before_E, after_E = one.logprobs_EL.argmax(1), after_EL.argmax(1)
        known_E = one.gold_E >= 0
        right_E, still_E = (before_E == one.gold_E)[known_E], (after_E == one.gold_E)[known_E]
        flips = int((before_E != after_E).sum())
        if known_E.any():
            bound = reference.loss(right_E, still_E)
        else:
            bound = reference.loss(np.ones(len(before_E), dtype=bool), before_E == after_E)
        change = float(np.abs(after_EL - one.logprobs_EL).max())
        before, after = (float(some.mean()) if known_E.any() else None for some in (right_E, still_E))
        proofs.append(ExternalProof(one.name, len(before_E), change, flips, before, after, bound))
        if reference.exact and change > EXACT:
            problems.append(f"{one.name}: a log-probability is off by {change:.3g}, more than {EXACT:g}")
        elif not reference.exact and bound > margin:
            problems.append(f"{one.name}: up to {bound:.2%} of accuracy may be lost (95 %), more than {margin:.2%}")
        if len(set(after_E)) == 1 < len(set(before_E)):
            problems.append(f"{one.name}: it always answers {reference.labels[after_E[0]]!r}")
    return proofs, problems
