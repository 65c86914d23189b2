"""What a sink is given of a trial: figures by name, step by step and at the end, and its settings."""

from __future__ import annotations

from entailor.evaluation.metrics import evaluate_record
from entailor.runs.record import NO_MODEL, SPLIT, CurvePoint, RunRecord

CURVE = {
    "train_loss": "train/loss",
    "learning_rate": "train/learning_rate",
    "gradient_norm": "train/gradient_norm",
    "validation_loss": "validation/loss",
    "validation_accuracy": "validation/accuracy",
}
COSTS = (
    "train_seconds",
    "latency_p50_ms",
    "test_examples_per_second",
    "peak_memory_bytes",
    "trainable_parameters",
    "stored_bytes",
)


def title(record: RunRecord, attempt: int = 0) -> str:
    """Return what a trial is called: candidate, model where there is one, seed, split, and which restart it is."""
    model = "" if record.model == NO_MODEL else f" on {record.model}"
    split = f", split {number}" if (number := record.provenance.get(SPLIT)) else ""
    return f"{record.name}{model}, seed {record.seed}{split}" + (f", restart {attempt}" if attempt else "")


def curve_figures(point: CurvePoint) -> dict[str, float]:
    """Return what was logged at one step, by name; what was not measured there is left out."""
    found = {name: getattr(point, field) for field, name in CURVE.items()}
    return {name: float(value) for name, value in found.items() if value is not None}


def final_figures(record: RunRecord) -> dict[str, float]:
    """Return test figures (0 to 1, log loss in nats) and costs of a complete trial, by name."""
    metrics = evaluate_record(record)
    test = {
        "test/accuracy": metrics.accuracy.value,
        "test/macro_f1": metrics.macro_f1,
        "test/mcc": metrics.mcc,
        "test/log_loss": metrics.log_loss,
        "test/calibration_error": metrics.ece,
    }
    costs = {f"cost/{name}": getattr(record.costs, name) for name in COSTS}
    return {name: float(value) for name, value in {**test, **costs}.items() if value is not None}


def settings_of(record: RunRecord) -> dict[str, str]:
    """Return model, method, seed and hyperparameters as text."""
    names = {"model": record.model, "candidate": record.name, "method": record.method, "seed": record.seed}
    return {key: str(value) for key, value in {**record.hyperparameters, **names}.items()}
