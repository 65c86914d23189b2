"""RunRecord, what one trial gave, and the run folder it is written to.

Statistics and reports read these records only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from entailor.errors import RunError, VersionError
from entailor.events import Event
from entailor.runs.documents import first_complaint, json_lines, well_formed
from entailor.runs.files import CHECKSUM_KEY, _content, _parsed, write_checked_json, write_jsonl
from entailor.runs.integrity import checksums, damaged_file, verify_checksum
from entailor.runs.ownership import remove_files
from entailor.runs.trial_folder import (
    CHECKPOINT_FOLDER,
    RECORD_FILE,
    RUN_AGAIN,
    TRIAL_FILES,
    VALIDATION_FILE,
    WRITTEN_FILE,
    _listed_files,
)

RECORD_VERSION = 4
PREDICTIONS_ON = "predictions_on"  # in the provenance of a record that has no test split: the part it answers
DATA = "data"  # in the provenance of a record: hash of the examples of its split
SPLIT = "split"  # in the provenance of a record: the number of the run's split, where it is not 0
NO_MODEL = "none"  # the model of candidates that read the texts alone
MOST_LABELS = 5_000  # every two of them make a cell of the confusion matrix

# Of what is read back. A record may come from a stranger, so its types and ranges are checked then.
_AS_WRITTEN = ConfigDict(extra="forbid", allow_inf_nan=False)
CandidateName = Annotated[str, Field(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]*\z", max_length=200)]
SeedNumber = Annotated[int, Field(ge=0, lt=1 << 63)]
Probability = Annotated[float, Field(ge=0, le=1 + 1e-6)]
Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Amount = Annotated[float, Field(ge=0, le=1e18)]
Temperature = Annotated[float, Field(ge=1e-3, le=1e6)]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a classifier said of one test example.

    Attributes:
        id: the example's id.
        label: its gold label.
        probabilities: label name to probability; sums to 1, or all 0 where the classifier gave no answer.
        group: genre, phenomenon, or None.
        text: the text or premise, kept for the report's hardest examples.
        text_pair: the hypothesis, or None.
        cluster: key of :func:`cluster_key` where the texts are not kept, or None.
    """

    __pydantic_config__: ClassVar = _AS_WRITTEN

    id: str
    label: str
    probabilities: dict[str, Probability]
    group: str | None = None
    text: str = ""
    text_pair: str | None = None
    cluster: str | None = None

    @property
    def predicted(self) -> str:
        """The most probable label, the first in the task's order on a tie; empty where there is no answer."""
        if not any(self.probabilities.values()):
            return ""
        return max(self.probabilities, key=self.probabilities.__getitem__)


@dataclass(frozen=True, slots=True)
class ShownPrompt:
    """The prompt of one validation example, token by token.

    Attributes:
        label: the example's gold label.
        id: the example's id.
        tokens: as the model reads them.
        slot: the tokens of the label's word; none where a head reads.
    """

    label: str
    id: str
    tokens: list[str]
    slot: list[str]


def cluster_key(text: str) -> str:
    """Return what examples that are not independent share: a hash of the first text, case and spaces aside."""
    normalised = " ".join(text.split()).casefold()
    return hashlib.blake2b(normalised.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One logged moment of training.

    Attributes:
        step: optimizer steps done.
        epoch: epochs done, fractional.
        train_loss: mean training loss since the last point, nats; None at an evaluation-only point.
        validation_loss: log loss on the validation split, nats; None where it was not evaluated.
        validation_accuracy: 0 to 1; None where it was not evaluated.
        learning_rate: of the first parameter group.
        gradient_norm: before clipping, mean since the last point.
        validation_figure: what chose the weights there, where that is neither accuracy nor the loss; more is better.
    """

    __pydantic_config__: ClassVar = _AS_WRITTEN

    step: Count
    epoch: float
    train_loss: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    learning_rate: float | None = None
    gradient_norm: float | None = None
    validation_figure: float | None = None


@dataclass(frozen=True, slots=True)
class Costs:
    """What a trial took.

    Attributes:
        load_seconds: reading the checkpoint.
        tokenize_seconds: text to tokens, all three splits.
        train_seconds: the training loop without evaluation (0 for a training-free method).
        evaluate_seconds: validation evaluations and the final scoring of test.
        train_examples_per_second: None for a training-free method.
        test_examples_per_second: in the final scoring.
        latency_p50_ms: median time for one example alone, tokenisation included; of a server, as it was when asked.
        latency_p95_ms: 95th percentile of the same.
        peak_memory_bytes: most resident memory of the process during the trial.
        peak_gpu_memory_bytes: None without a GPU.
        trainable_parameters: parameters that receive gradients (or are fitted).
        stored_parameters: parameters that are saved.
        total_parameters: backbone included.
        stored_bytes: size on disk of what is saved.
        epochs: training epochs run.
        truncated_share: share of test examples that did not fit `max_length`, 0 to 1.
        cost_per_thousand: money for a thousand answers, in the currency of the prices that were given; None without.
    """

    __pydantic_config__: ClassVar = _AS_WRITTEN

    load_seconds: Amount = 0.0
    tokenize_seconds: Amount = 0.0
    train_seconds: Amount = 0.0
    evaluate_seconds: Amount = 0.0
    train_examples_per_second: Amount | None = None
    test_examples_per_second: Amount | None = None
    latency_p50_ms: Amount | None = None
    latency_p95_ms: Amount | None = None
    peak_memory_bytes: Count = 0
    peak_gpu_memory_bytes: Count | None = None
    trainable_parameters: Count = 0
    stored_parameters: Count = 0
    total_parameters: Count = 0
    stored_bytes: Count = 0
    epochs: Amount = 0.0
    truncated_share: Amount = 0.0
    cost_per_thousand: Amount | None = None


@dataclass(frozen=True)
class RunRecord:
    """What one (model, method, seed) gave.

    Attributes:
        model: the model as the user named it, or NO_MODEL.
        name: the candidate's name in the experiment; usually the method.
        method: the registered method.
        seed: as asked for.
        labels: label names in the order of the classifier's outputs.
        status: complete, or failed with `error` and `error_type`.
        hyperparameters: every field of the method, defaults included.
        costs: time, memory, sizes.
        events: alarms and decisions a reader must know, each with its kind: collapse, restart, truncation, ...
        provenance: precision and how it was chosen, checkpoint hash, versions, timestamps.
        error: the failure in words, or None.
        error_type: the name of its exception class, or None.
        curve: logged training moments.
        predictions: one a test example, in the order of the test split.
        temperature: what logits are divided by so that confidence is earned, fitted on validation; None in older
        records.
        validation_predictions: one a validation example, without texts; empty in older records.
    """

    __pydantic_config__: ClassVar = _AS_WRITTEN

    model: str
    name: CandidateName
    method: str
    seed: SeedNumber
    labels: Annotated[tuple[str, ...], Field(max_length=MOST_LABELS)]
    status: Literal["complete", "failed"] = "complete"
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    costs: Costs = field(default_factory=Costs)
    events: tuple[Event, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    error_type: str | None = None
    curve: tuple[CurvePoint, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    temperature: Temperature | None = None
    validation_predictions: tuple[Prediction, ...] = ()

    def write(self, folder: Path) -> None:
        """Write predictions and curve, and record.json last: a folder with a record.json is whole.

        It holds the SHA-256 of every other file of the folder, and a checksum of its own.
        """
        folder.mkdir(parents=True, exist_ok=True)
        write_jsonl(folder / "predictions.jsonl", (asdict(row) for row in self.predictions))
        write_jsonl(folder / "curve.jsonl", (asdict(point) for point in self.curve))
        if self.validation_predictions:
            write_jsonl(folder / VALIDATION_FILE, (asdict(row) for row in self.validation_predictions))
        head = asdict(replace(self, curve=(), predictions=(), validation_predictions=()))
        del head["curve"], head["predictions"], head["validation_predictions"]
        head["events"] = [{"kind": one.kind, "severity": one.severity, "text": one.text} for one in self.events]
        counts = {"version": RECORD_VERSION, "num_predictions": len(self.predictions)}
        own = {*TRIAL_FILES, *_listed_files(folder / WRITTEN_FILE), *_listed_files(folder / RECORD_FILE)}
        found = checksums(folder, leave_out=(RECORD_FILE, WRITTEN_FILE, CHECKPOINT_FOLDER))
        files = {name: digest for name, digest in found.items() if name in own}
        write_checked_json(folder / RECORD_FILE, {**counts, **head, "files": files})
        remove_files(folder, (WRITTEN_FILE,))

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """Read a record back.

        Raises:
            RunError: a file is missing, damaged, or of another version.
        """
        head = _read_head(folder)
        files, expected = head.pop("files"), head.pop("num_predictions")
        validation = (VALIDATION_FILE,) if VALIDATION_FILE in files else ()
        if problem := damaged_file(folder, files, ("predictions.jsonl", "curve.jsonl", *validation)):
            raise RunError(f"{problem}. {RUN_AGAIN}")
        with well_formed(RunError, folder / RECORD_FILE, RUN_AGAIN):
            record = _RECORD.validate_python(head)
            _Provenance.model_validate(record.provenance)
            if len(set(record.labels)) < len(record.labels):
                raise ValueError("labels: one stands twice")
        record = replace(
            record,
            predictions=tuple(_predictions(folder / "predictions.jsonl", record.labels, expected)),
            curve=tuple(_rows(_POINT, folder / "curve.jsonl")),
            validation_predictions=tuple(_predictions(folder / VALIDATION_FILE, record.labels)) if validation else (),
        )
        if record.status == "complete" and not record.predictions:
            raise RunError(f"{folder}: a complete record without predictions. {RUN_AGAIN}")
        return record


def by_candidate(records: Iterable[RunRecord]) -> dict[tuple[str, str], list[RunRecord]]:
    """Return the records of each model and candidate, both in the order they come in."""
    found: dict[tuple[str, str], list[RunRecord]] = {}
    for record in records:
        found.setdefault((record.model, record.name), []).append(record)
    return found


class _Provenance(BaseModel):
    """Of the provenance what others take from it."""

    started: str = ""
    wall_seconds: Amount = 0.0
    precision: str = ""
    precision_reason: str = ""
    prompts: list[ShownPrompt] = []


_RECORD, _PREDICTION, _POINT = TypeAdapter(RunRecord), TypeAdapter(Prediction), TypeAdapter(CurvePoint)
_FILES, _COUNT = TypeAdapter(dict[str, str]), TypeAdapter(Count)
_NAME, _SEED = TypeAdapter(CandidateName), TypeAdapter(SeedNumber)


def _rows(kind: TypeAdapter[Any], path: Path) -> Iterator[Any]:
    """Read one object a line.

    Raises:
        RunError: the file is missing, or a line is damaged.
    """
    line = 0
    try:
        for number, row in json_lines(path):
            line = number
            yield kind.validate_python(row)
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}). {RUN_AGAIN}") from None
    except ValidationError as error:
        raise RunError(f"{path}, line {line}: damaged ({first_complaint(error)}). {RUN_AGAIN}") from None
    except ValueError as error:
        raise RunError(f"{path}: damaged ({error}). {RUN_AGAIN}") from None


def _predictions(path: Path, labels: tuple[str, ...], expected: int | None = None) -> Iterator[Prediction]:
    """Read predictions over a record's labels.

    Raises:
        RunError: the file is missing, a line is damaged, or there are not as many as expected.
    """
    known, number = set(labels), 0
    for number, row in enumerate(_rows(_PREDICTION, path), start=1):
        if row.probabilities.keys() != known or row.label not in known:
            raise RunError(f"{path}: prediction {number} is over other labels than the record. {RUN_AGAIN}")
        yield row
    if expected not in (None, number):
        raise RunError(f"{path}: {number} rows, {expected} expected. {RUN_AGAIN}")


def _read_head(folder: Path) -> dict[str, Any]:
    """Read record.json without what stands in other files.

    Raises:
        RunError: it is missing, damaged, or of another version.
    """
    path = folder / RECORD_FILE
    content = _content(path)
    found = _parsed(path, content)  # says it better where it is cut short
    head: dict[str, Any] = found if isinstance(found, dict) else {}
    version = head.pop("version", None)
    if version != RECORD_VERSION:
        if isinstance(version, int):
            raise VersionError(path, version, RECORD_VERSION)
        raise RunError(f"{path}: damaged. Run the trial again")
    verify_checksum(path, content, RUN_AGAIN)
    with well_formed(RunError, path, RUN_AGAIN):
        del head[CHECKSUM_KEY]
        head["files"] = _FILES.validate_python(head["files"])
        head["num_predictions"] = _COUNT.validate_python(head["num_predictions"])
        for name in head["files"]:
            path_inside = PurePosixPath(name)
            if path_inside.is_absolute() or ".." in path_inside.parts or "\0" in name:
                raise ValueError(f"files: {name[:80]!r} lies outside the trial's folder")
    return head


def read_status(folder: Path) -> str:
    """Return whether a trial is complete or failed, without reading its predictions.

    Raises:
        RunError: its record is missing, damaged, or of another version.
    """
    return str(_read_head(folder).get("status"))


def check_trial_files(folder: Path, parts: Iterable[str] = ()) -> None:
    """Hold files of a finished trial against the checksums of its record.

    Args:
        folder: the trial's.
        parts: names of files and folders at its top; none means all.

    Raises:
        RunError: the record or a file is missing or damaged, or a file stands there that the trial did not write.
    """
    files = _read_head(folder)["files"]
    wanted = set(parts)
    names = [name for name in files if not wanted or name.partition("/")[0] in wanted]
    if problem := damaged_file(folder, files, names):
        raise RunError(f"{problem}. {RUN_AGAIN}")
    for part in sorted(wanted):
        for path in sorted((folder / part).rglob("*")):
            if path.is_file() and path.relative_to(folder).as_posix() not in files:
                raise RunError(f"{path}: was not written by this trial. Remove it, or run the trial again")


def _trial_order(record_file: Path) -> tuple[str, str, int]:
    """Sort seed-10 behind seed-2."""
    seed, row, model = (folder.name for folder in record_file.parents[:3])
    number = seed.removeprefix("seed-")
    return model, row, int(number) if number.isdecimal() else -1
