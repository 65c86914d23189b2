"""The proof of an export: it answers as what was measured, shown in a fresh process before the folder gets its name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entailor.engine.scorer import log_softmax
from entailor.evaluation.calibration import expected_calibration_error, fit_temperature
from entailor.models.load import quiet_libraries
from entailor.runs.files import read_json, write_json
from entailor.shipping import prover

EXACT = 1e-4
"""Most by which a log-probability may change where weights and arithmetic are the same; rounding stays below."""
ALONE = 64
"""Inputs asked one by one."""
ERROR_RATE = 0.05
"""How often an export that loses more than the margin may pass, at most."""


@dataclass(frozen=True)
class Reference:
    """What the export must answer.

    Attributes:
        labels: in the order of the outputs.
        inputs: text and second text of every recorded test example.
        logprobs_EL: as recorded.
        gold_E: index of the gold label.
        ids: token ids and types of the inputs; empty where the format has others.
        fuzz: texts made to break things.
        fuzz_ids: their ids and types.
        fuzz_logprobs_EL: of the classifier, on the base model's weights that the export meets.
        temperature: fitted on validation; None where none was.
        exact: whether weights and arithmetic are those of the record, so that nothing but rounding may differ.
        quantised: whether the format rounds weights: then answers may differ a little from batch to batch.
        tries: of how many ways to write a format the first that passes is released; each is tested more strictly, so
            that all of them together err no more often than one would (Bonferroni).
    """

    labels: tuple[str, ...]
    inputs: list[tuple[str, str | None]]
    logprobs_EL: NDArray[np.float64]
    gold_E: NDArray[np.int64]
    ids: list[Any]
    fuzz: list[tuple[str, str | None]]
    fuzz_ids: list[Any]
    fuzz_logprobs_EL: NDArray[np.float64]
    temperature: float | None
    exact: bool = True
    quantised: bool = False
    tries: int = 1

    def loss(self, right_E: NDArray[np.bool_], still_E: NDArray[np.bool_]) -> float:
        """Return the accuracy that may be lost at most, of examples that were right before and are right now."""
        lost, won = int((right_E & ~still_E).sum()), int((~right_E & still_E).sum())
        return largest_loss(lost, won, len(right_E), ERROR_RATE / self.tries)


@dataclass(frozen=True)
class Proof:
    """What was found; an export is released where `problems` is empty.

    Attributes:
        examples: recorded test examples scored again.
        largest_change: largest absolute difference of a log-probability on them.
        flips: ids of examples whose label changed, by their number.
        accuracy_before: as recorded, 0 to 1.
        accuracy_after: of the export.
        loss_bound: accuracy that may be lost at most, at 95 % (score interval of Tango 1998).
        margin: accuracy that may be lost.
        recall_before: by label; None where the label does not occur.
        recall_after: by label.
        calibration_error: of the export at its temperature, 0 to 1.
        refitted_temperature: what would suit the export's own logits on these examples; for reading, never used.
        largest_batch_change: largest difference of a log-probability between a batch and one by one.
        p50_ms: median time for one example alone.
        p95_ms: 95th percentile of the same.
        examples_per_second: in batches.
        peak_memory_bytes: of the process.
        size_bytes: of the folder.
        engine: what ran it, where predict.py can be run by several.
        external: the same of each external test set, see `ExternalProof`.
        problems: in words; empty where it passed.
    """

    examples: int
    largest_change: float
    flips: list[int]
    accuracy_before: float
    accuracy_after: float
    loss_bound: float
    margin: float
    recall_before: dict[str, float | None]
    recall_after: dict[str, float | None]
    calibration_error: float
    refitted_temperature: float
    largest_batch_change: float
    p50_ms: float
    p95_ms: float
    examples_per_second: float
    peak_memory_bytes: int | None
    size_bytes: int
    engine: str | None = None
    external: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether the export may be released."""
        return not self.problems

    def write(self, path: Path) -> None:
        """Write verification.json."""
        write_json(path, {"passed": self.passed, **asdict(self)})


def job_of(
    reference: Reference, *, base: str | None, pipeline: bool, external: Mapping[str, Any] | None = None
) -> Mapping[str, Any]:
    """Return what the prover is asked; `external` holds inputs by the name of their set."""
    return {
        "inputs": reference.inputs,
        "external": dict(external or {}),
        "fuzz": reference.fuzz,
        "alone": ALONE,
        "base": base,
        "pipeline": pipeline,
    }


def ask_in_fresh_process(folder: Path, job: Mapping[str, Any], *, seconds: float = 3600) -> Mapping[str, Any]:
    """Return what an export answers in a process without Entailor; `problem` where it ended in an error."""
    with tempfile.TemporaryDirectory(prefix="entailor-proof-") as scratch:
        asked, found = Path(scratch) / "job.json", Path(scratch) / "found.json"
        asked.write_text(json.dumps(job), encoding="utf-8", newline="\n")
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        command = [sys.executable, "-IB", prover.__file__, str(folder.resolve()), str(asked), str(found)]
        try:
            done = subprocess.run(  # noqa: S603 - this interpreter on an export that was just written here
                command, env=environment, capture_output=True, text=True, timeout=seconds, check=False, cwd=scratch
            )
        except subprocess.TimeoutExpired:
            return {"problem": f"the export gave no answer within {seconds:g} seconds"}
        if done.returncode or not found.is_file():
            lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
            return {"problem": f"predict.py ends in an error: {lines[-1][:300] if lines else done.returncode}"}
        answer = read_json(found)
        return answer if isinstance(answer, dict) else {"problem": "predict.py gave no answer"}


def ask_here(folder: Path, job: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what an export answers, asked in this process: the same questions, for many exports one after another."""
    try:
        module = prover.load_runtime(folder)
        with quiet_libraries():
            runtime = module.Runtime(folder, job["base"])
        found = prover.answers(runtime, job)
        if job["pipeline"]:
            found["pipeline"] = prover.through_pipeline(folder, job, runtime.labels)
    except Exception as error:  # whatever a broken export raises is the answer
        return {"problem": f"predict.py ends in an error: {type(error).__name__}: {str(error)[:300]}"}
    return found


def judge(folder: Path, reference: Reference, found: Mapping[str, Any], margin: float) -> Proof:
    """Hold what an export answered against the record."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if "problem" in found:
        return _failed(reference, margin, size, found["problem"])
    logprobs_EL = log_softmax(np.array(found["logits"], dtype=np.float64))
    if logprobs_EL.shape != reference.logprobs_EL.shape or not np.isfinite(logprobs_EL).all():
        return _failed(reference, margin, size, "logits of another shape, or not finite")
    problems = list(_same_input(reference, found))
    before_E, after_E = reference.logprobs_EL.argmax(1), logprobs_EL.argmax(1)
    change = float(np.abs(logprobs_EL - reference.logprobs_EL).max())
    right, still = before_E == reference.gold_E, after_E == reference.gold_E
    bound = reference.loss(right, still)
    batch = _batch_change(logprobs_EL, found)
    problems += _other_scores(reference, found, logprobs_EL, change, batch, bound, margin)
    recalls = [_recalls(reference, predicted) for predicted in (before_E, after_E)]
    problems += [
        f"{label}: recall was {one:.0%} and is 0" for label, one in recalls[0].items() if one and recalls[1][label] == 0
    ]
    scaled_EL = np.exp(log_softmax(logprobs_EL / (reference.temperature or 1.0)))
    return Proof(
        examples=len(right),
        largest_change=change,
        flips=np.flatnonzero(before_E != after_E).tolist(),
        accuracy_before=float(right.mean()),
        accuracy_after=float(still.mean()),
        loss_bound=bound,
        margin=margin,
        recall_before=recalls[0],
        recall_after=recalls[1],
        calibration_error=expected_calibration_error(scaled_EL.max(1), still),
        refitted_temperature=fit_temperature(np.exp(logprobs_EL), reference.gold_E),
        largest_batch_change=batch,
        p50_ms=found["p50_ms"],
        p95_ms=found["p95_ms"],
        examples_per_second=found["examples_per_second"],
        peak_memory_bytes=found.get("peak_memory_bytes"),
        size_bytes=size,
        engine=found.get("engine"),
        problems=problems,
    )


def _failed(reference: Reference, margin: float, size: int, problem: str) -> Proof:
    right = reference.logprobs_EL.argmax(1) == reference.gold_E
    before = _recalls(reference, reference.logprobs_EL.argmax(1))
    return Proof(
        examples=len(right),
        largest_change=1e9,
        flips=[],
        accuracy_before=float(right.mean()),
        accuracy_after=0.0,
        loss_bound=1.0,
        margin=margin,
        recall_before=before,
        recall_after=dict.fromkeys(before),
        calibration_error=1.0,
        refitted_temperature=1.0,
        largest_batch_change=1e9,
        p50_ms=0,
        p95_ms=0,
        examples_per_second=0,
        peak_memory_bytes=None,
        size_bytes=size,
        problems=[problem],
    )


def _same_input(reference: Reference, found: Mapping[str, Any]) -> list[str]:
    problems = []
    if tuple(found["labels"]) != reference.labels:
        problems.append(f"the labels are {', '.join(found['labels'])}; expected {', '.join(reference.labels)}")
    if found["temperature"] != reference.temperature:
        problems.append(f"the temperature is {found['temperature']}, expected {reference.temperature}")
    for name, expected in (("ids", reference.ids), ("fuzz_ids", reference.fuzz_ids)):
        odd = [row for row, (one, other) in enumerate(zip(expected, found[name], strict=True)) if one != other]
        if odd:
            kind = "test examples" if name == "ids" else "made-up texts"
            problems.append(f"{len(odd)} of {len(expected)} {kind} have other token ids, first number {odd[0]}")
    if "entailor" in found.get("imported", ()):
        problems.append("predict.py needs Entailor")
    return problems


def _batch_change(logprobs_EL: NDArray[np.float64], found: Mapping[str, Any]) -> float:
    """Return the largest difference between a batch and one by one, and between one thread and two."""
    alone = log_softmax(np.array(found["alone"], dtype=np.float64))
    pairs = [(alone, logprobs_EL[: len(alone)])]
    if found["fuzz_logits"]:
        pairs.append((log_softmax(np.array(found["fuzz_logits"])), log_softmax(np.array(found["fuzz_alone"]))))
    pairs += [(log_softmax(np.array(one)), logprobs_EL[: len(one)]) for one in found.get("threads", {}).values()]
    return max(float(np.abs(one - other).max()) for one, other in pairs)


def _other_scores(
    reference: Reference,
    found: Mapping[str, Any],
    logprobs_EL: NDArray[np.float64],
    change: float,
    batch: float,
    bound: float,
    margin: float,
) -> list[str]:
    problems = []
    if reference.exact and change > EXACT:
        problems.append(f"a log-probability changed by {change:.3g}, more than {EXACT:g}, which is not rounding")
    elif not reference.exact and bound > margin:
        problems.append(f"up to {bound:.2%} of accuracy may be lost (95 %), more than the margin of {margin:.2%}")
    if not reference.quantised and reference.fuzz:
        fuzz_EL = log_softmax(np.array(found["fuzz_logits"], dtype=np.float64))
        far = float(np.abs(fuzz_EL - reference.fuzz_logprobs_EL).max())
        if far > EXACT:
            problems.append(f"a log-probability of a made-up text is off by {far:.3g}, more than {EXACT:g}")
    if batch > EXACT and not reference.quantised:
        problems.append(f"answers change by {batch:.3g} with batch size or threads, more than {EXACT:g}")
    if "pipeline" in found:
        said_EL = np.log(np.maximum(np.array(found["pipeline"]), 1e-30))
        # pipelines round their scores to fp32
        off = float(np.abs(np.exp(said_EL) - np.exp(logprobs_EL[: len(said_EL)])).max())
        if off > EXACT:
            problems.append(f'pipeline("text-classification") answers otherwise: a probability is off by {off:.3g}')
    after_E, before_E = logprobs_EL.argmax(1), reference.logprobs_EL.argmax(1)
    if len(set(after_E)) == 1 < len(set(before_E)):
        problems.append(f"it always answers {reference.labels[after_E[0]]!r}")
    return problems


def _recalls(reference: Reference, predicted_E: NDArray[np.int64]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for index, label in enumerate(reference.labels):
        own = reference.gold_E == index
        found[label] = float((predicted_E[own] == index).mean()) if own.any() else None
    return found


def largest_loss(lost: int, won: int, examples: int, error_rate: float = ERROR_RATE) -> float:
    """Return the one-sided upper confidence bound of the accuracy lost between paired answers.

    The score interval of Tango (1998), Equivalence test and confidence interval for the difference in proportions for
    the paired-sample design, section 2.

    Args:
        lost: examples that were right and are wrong now.
        won: the other way round.
        examples: all of them.
        error_rate: how often the bound lies too low.
    """
    critical = NormalDist().inv_cdf(1 - error_rate)
    low, high = (lost - won) / examples, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _score(lost, won, examples, middle) > -critical:
            low = middle
        else:
            high = middle
    return high


def _score(lost: int, won: int, n: int, difference: float) -> float:
    """Return the score statistic for one true difference, with the other parameter at its most likely value."""
    a = 2 * n
    b = -lost - won + (2 * n - lost + won) * difference
    c = -won * difference * (1 - difference)
    q = (max(b * b - 4 * a * c, 0.0) ** 0.5 - b) / (2 * a)
    variance = n * (2 * q + difference * (1 - difference))
    return float((lost - won - n * difference) / max(variance, 1e-12) ** 0.5)


def fuzz_texts(*, is_pair: bool, max_length: int, words: Sequence[str]) -> list[tuple[str, str | None]]:
    """Return texts made to break tokenisers: empty, control tokens, emoji, half characters, lengths around the limit.

    Args:
        is_pair: whether inputs are pairs.
        max_length: most tokens of an input.
        words: made-up words to fill long texts with.
    """
    long = " ".join(words[index % len(words)] for index in range(max_length + 8))
    family = "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467"
    singles = ["", " ", "a", "[CLS] [SEP] [PAD]", "<s></s><|endoftext|>", family, "\ud83d", "سلام دنیا", "ＦＵＬＬ"]
    singles += ["a\x00b\n\t c", long]
    around = [" ".join(words[index % len(words)] for index in range(max_length + extra)) for extra in (-4, -3, -2, -1)]
    singles += around
    if not is_pair:
        return [(one, None) for one in singles]
    return [*((one, "b") for one in singles), *(("b", one) for one in singles[:6]), (long, long)]
