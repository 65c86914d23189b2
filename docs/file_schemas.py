"""What each file of a run folder and of an export holds, as types; docs/generate.py makes JSON schemas of them.

Where the package has a type for what it writes, that type is taken. tests/test_file_schemas.py holds the files of a
real run against them, so a key that is added, renamed or dropped is noticed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from entailor.config.parts import BudgetSettings
from entailor.data.checks import Finding
from entailor.diagnostics.base import DoctorFinding
from entailor.evaluation.selection import Corrected
from entailor.evaluation.statistics import Clustering, Proportion
from entailor.methods.registry import experiment_schema
from entailor.models.precision import PrecisionChoice
from entailor.runs.record import Costs, CurvePoint, Prediction
from entailor.shipping.manifest import Manifest
from entailor.shipping.restoring import SavedClassifier
from entailor.shipping.verification import Proof
from entailor.study.sampler import Tried

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Fingerprint = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Checksum = Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")]


class Closed(BaseModel):
    """A mapping with these keys and no others."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


class Open(BaseModel):
    """A mapping of which these keys stay; others may come and go."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True, protected_namespaces=())


class Checked(Closed):
    """A file with a checksum of its own."""

    checksum: Checksum
    """SHA-256 of the file with 64 zeros in this place."""


class Sizes(Closed):
    """Numbers of examples."""

    train: int
    validation: int
    test: int


class Marker(Checked):
    """What marks a folder as a run's."""

    version: Literal[2]
    """Of the run folder."""
    what: str
    """In words."""


class SplitFile(Checked):
    """Which examples stand in which part."""

    fingerprint: Fingerprint
    """Over ids, texts and labels of all parts."""
    train: list[str]
    """Ids, in their order."""
    validation: list[str]
    """Ids, in their order."""
    test: list[str]
    """Ids, in their order."""


class DataNotes(Closed):
    """What was read."""

    notes: list[str]
    """In words, a line for each part."""
    findings: list[Finding]
    """What was odd about it while it was read."""
    fingerprint: Fingerprint
    """As in split.json."""


class Environment(Checked, Open):
    """Where the run ran, and what was chosen for it there."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True, protected_namespaces=())

    versions: dict[str, str | None]
    """Of the libraries, by name."""
    python: str
    platform: str
    cpu: str
    cores: int
    threads: int
    memory_bytes: int
    gpus: list[Any]
    git_commit: str | None
    """Of the checkout that ran."""
    precision: dict[str, PrecisionChoice]
    """Arithmetic of training, by model, and why."""
    placement: dict[str, Any] = {}
    """What of each model stands where, by model."""
    date: str
    """The first day; a chat template may print it."""
    model_settings: dict[str, Any]
    """The section `model` of the experiment."""
    data: DataNotes
    command: str
    """Runs the same again."""


class Check(Closed):
    """A check of the data doctor."""

    name: str
    title: str
    findings: int
    """How many."""
    skipped: str | None
    """Why it was not run."""
    facts: dict[str, Any]
    """Figures, whether there was a finding or not."""


class DoctorFile(Closed):
    """What the data doctor found."""

    version: Literal[1]
    fingerprint: Fingerprint
    """As in split.json."""
    sizes: Sizes
    labels: list[str]
    model: str | None
    """Whose tokenizer and features were used."""
    notes: list[str]
    checks: list[Check]
    findings: list[DoctorFinding]
    """The gravest first."""
    checksum: Checksum | None = None
    """In a run folder; not in a file that `validate` writes."""


class Expected(Closed):
    """What is expected of a candidate."""

    model: str
    method: str
    """The candidate's name."""
    load: float
    """Seconds a trial."""
    train: float
    """Seconds a trial."""
    evaluate: float
    """Seconds a trial, on validation."""
    test: float
    """Seconds a trial."""
    example: float
    """Seconds of scoring one example in a full batch."""
    peak_memory_bytes: int | None
    error: str | None
    """Why there is no estimate."""
    trial_seconds: float | None
    trials: int
    """How many are left."""
    tuning_seconds: float | None
    curve_seconds: float | None
    external_seconds: float | None
    """Of scoring the external test sets."""
    seconds: float | None
    """All of it."""


class EstimateFile(Checked):
    """What was expected before the run."""

    version: Literal[6]
    made: str
    """When, UTC."""
    candidates: list[Expected]


class TestPart(Closed):
    """The test split."""

    examples: int
    sha256: Fingerprint
    """Over ids, texts and labels, the first half of it."""


class Read(Closed):
    """One time the test split was read with choices that had not been there before."""

    time: str
    """UTC."""
    split: Fingerprint
    """As in split.json."""
    choices: dict[str, Digest]
    """A hash of the settings of every candidate, by model and name."""
    sha256: Digest
    """Over the other keys of this read."""
    exploratory: bool
    """Whether results of test were known before."""
    results: bool
    """Whether a trial of it was finished."""


class AccessFile(Checked):
    """When test was read, and what had been chosen by then."""

    version: Literal[2]
    test: TestPart
    reads: list[Read]


class Record(Checked):
    """What one trial gave, but for its predictions and its curve."""

    version: Literal[4]
    num_predictions: int
    """Lines of predictions.jsonl."""
    model: str
    """As it was named, or `none`."""
    name: str
    """The candidate."""
    method: str
    seed: int
    labels: list[str]
    """In the order of the outputs."""
    status: Literal["complete", "failed"]
    hyperparameters: dict[str, Any]
    """Every key of the method."""
    costs: Costs
    events: list[dict[Literal["kind", "severity", "text"], str]]
    """Alarms and decisions."""
    provenance: dict[str, Any]
    """Precision, hashes of the weights, times, seed that was used."""
    error: str | None
    error_type: str | None
    """The name of its exception."""
    temperature: float | None
    """What logits are divided by, fitted on validation."""
    files: dict[str, Digest]
    """SHA-256 of every other file of the trial."""


class StudyFile(Checked):
    """The settings that were tried for a candidate."""

    version: Literal[4]
    model: str
    method: str
    """The candidate's name."""
    key: Digest
    """A hash of all that the study depends on."""
    status: Literal["running", "finished"]
    written: str
    """When, UTC."""
    budget: BudgetSettings
    search_space: dict[str, Any]
    """Range of each hyperparameter."""
    best: int | None
    """Number of the chosen trial."""
    chosen: dict[str, float]
    trials: list[Tried]


class ExternalScores(Checked):
    """A trial's answers on an external test set."""

    version: Literal[3]
    source: str
    fingerprint: str
    """Of the examples."""
    scoring: str
    """How labels were matched."""
    predictions: list[Prediction]


class Accuracy(Open):
    """Mean over seeds, 0 to 1, with its 95 % interval."""

    mean: float
    low: float
    high: float
    per_seed: list[float]


class Candidate(Open):
    """A line of the table. These keys stay."""

    model: str
    method: str
    """The candidate's name."""
    registered_method: str
    num_seeds: int
    seeds: list[int]
    accuracy: Accuracy
    intervals: dict[str, Proportion | None]
    """Every metric of `recommend.metric` with its 95 % interval; null where test does not define it."""
    macro_f1: float
    train_seconds: float
    """A trial, mean over seeds."""
    examples_per_second: float | None
    """In training."""
    latency_p50_ms: float | None
    """For one example alone."""
    peak_memory_bytes: int
    trainable_parameters: int
    stored_bytes: int
    group: str
    """Letters: candidates that share one do not differ significantly."""
    best: bool
    """The most accurate one."""
    tied_with_best: bool
    beats_majority: bool
    """Whether its answers (probabilities, where the metric is of these) agree with the labels more than chance gives,
    and it is not significantly worse than always naming the most frequent label."""
    exploratory: bool
    """Whether it was added after results of test were known."""


class Name(Closed):
    """A candidate."""

    model: str
    method: str


class Best(Open):
    """The best candidate by the metric, which need not be the recommended one."""

    model: str
    method: str
    corrected: Corrected
    """Its metric, corrected for having been chosen."""
    tied_with: list[Name]
    sentence: str


class Pair(Open):
    """Two candidates on the same examples."""

    a: Name
    b: Name
    value: float
    """The metric of `a` less that of `b`."""
    low: float
    high: float
    """Ends of its 95 % interval."""
    p: float
    """Two-sided p-value, not corrected."""
    p_holm: float
    """Corrected for the number of pairs."""
    significant: bool


class Advice(Open):
    """What to ship and why."""

    outcome: Literal["recommended", "none_within_limits", "none_beats_majority"]
    model: str | None
    method: str | None
    leader: Name | None
    """The best within the limits."""
    contenders: list[Name]
    """The leader, and those shown to be no worse than it by more than the margin."""
    decided_by: list[str]
    """Costs by which contenders left."""
    rule: dict[str, Any]
    """The priorities it followed: the section `recommend` of the experiment."""


class ComparisonFile(Checked, Open):
    """What the table and the report show."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True, protected_namespaces=())

    version: Literal[2]
    """Of the run folder."""
    sizes: Sizes
    labels: list[str]
    num_test: int
    majority_accuracy: float | None
    """Of always giving the most frequent label of test."""
    metric: str
    """As `recommend.metric`."""
    candidates: list[Candidate]
    """Best first."""
    pairs: list[Pair]
    """Every two candidates."""
    claims: Literal["methods", "classifiers"]
    """What the tests speak of: with one seed of classifiers only."""
    clustering: Clustering | None
    """Of test examples that share a text."""
    winner: Best | None
    sentence: str
    recommendation: Advice | None
    failed: list[dict[str, Any]]
    """Trials that failed, with their errors."""
    external: list[dict[str, Any]]
    """Scores on external test sets."""
    test_access: dict[str, Any]
    """The content of test_access.json."""
    tuning: dict[str, Any] | None
    """Every study, where there was a budget."""
    learning_curve: dict[str, Any] | None
    estimate: dict[str, Any] | None
    """What was expected, beside what was measured."""


class ManifestFile(Manifest, Checked):
    """What an export is."""


FILES: dict[str, tuple[type, str]] = {
    ".entailor.json": (Marker, "run folder"),
    "split.json": (SplitFile, "run folder"),
    "environment.json": (Environment, "run folder"),
    "doctor.json": (DoctorFile, "run folder, or where `validate --output` says"),
    "estimate.json": (EstimateFile, "run folder"),
    "test_access.json": (AccessFile, "run folder"),
    "comparison.json": (ComparisonFile, "run folder"),
    "study.json": (StudyFile, "`tuning/MODEL/CANDIDATE`"),
    "record.json": (Record, "trial, point of a learning curve"),
    "predictions.jsonl": (Prediction, "trial, point of a learning curve; one line an example"),
    "validation_predictions.jsonl": (
        Prediction,
        "trial, point of a learning curve; one line an example, without texts",
    ),
    "curve.jsonl": (CurvePoint, "trial, point of a learning curve; one line a logged moment"),
    "classifier.json": (SavedClassifier, "trial"),
    "external.json": (ExternalScores, "`external/` of a trial, under the name of the set"),
    "manifest.json": (ManifestFile, "export"),
    "verification.json": (Proof, "export"),
}
"""Name of a file to its type, and where it stands."""


def adapter(name: str) -> TypeAdapter[Any]:
    """Return what reads a file, or a line of one."""
    return TypeAdapter(FILES[name][0])


def schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON schema of every file, by name; experiment.yaml's among them."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    found = {name: dialect | {"title": name} | _without_titles(adapter(name).json_schema()) for name in FILES}
    return {"experiment.yaml": dialect | experiment_schema(), **found}


def _without_titles(schema: Any) -> Any:
    """Leave out the titles pydantic makes of names: they repeat them."""
    if isinstance(schema, dict):
        return {
            key: _without_titles(value)
            for key, value in schema.items()
            if not (key == "title" and isinstance(value, str))
        }
    return [_without_titles(one) for one in schema] if isinstance(schema, list) else schema
