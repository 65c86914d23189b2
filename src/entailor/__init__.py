"""Entailor: which way should a language model be adapted to these labels, and is the difference real?

from entailor import Experiment, compare, predict

run = compare(Experiment(methods="lora,p_tuning", seeds=3, out="runs/mine"))
print(run.summary["winner"])
predict(run.winner, "new.csv", "labelled.csv")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from entailor.runs.network import shut_out_hub_kernels

if TYPE_CHECKING:
    from entailor.config.experiment import BudgetSettings, DataSettings, Experiment, ModelSettings
    from entailor.data.example import Example, Split
    from entailor.diagnostics.doctor import DoctorReport, validate
    from entailor.errors import EntailorError
    from entailor.evaluation.difference import diff_runs
    from entailor.methods import Classifier, Method
    from entailor.runs.record import RunRecord
    from entailor.shipping.export import export
    from entailor.shipping.inference import evaluate, predict
    from entailor.shipping.merging import MergeReport, merge
    from entailor.shipping.predictor import Predictor
    from entailor.shipping.restoring import load_classifier
    from entailor.study.compare import Comparison, Observer, compare, estimate
    from entailor.study.verification import verify

__version__ = "0.2.0"

shut_out_hub_kernels()

# Where each public name lives; it is imported when it is first asked for, so `import entailor` is quick.
_HOMES = {
    "BudgetSettings": "entailor.config.experiment",
    "Classifier": "entailor.methods",
    "Comparison": "entailor.study.compare",
    "DataSettings": "entailor.config.experiment",
    "EntailorError": "entailor.errors",
    "DoctorReport": "entailor.diagnostics.doctor",
    "Example": "entailor.data.example",
    "Experiment": "entailor.config.experiment",
    "MergeReport": "entailor.shipping.merging",
    "Method": "entailor.methods",
    "ModelSettings": "entailor.config.experiment",
    "Observer": "entailor.study.compare",
    "Predictor": "entailor.shipping.predictor",
    "RunRecord": "entailor.runs.record",
    "Split": "entailor.data.example",
    "compare": "entailor.study.compare",
    "diff_runs": "entailor.evaluation.difference",
    "evaluate": "entailor.shipping.inference",
    "estimate": "entailor.study.compare",
    "export": "entailor.shipping.export",
    "load_classifier": "entailor.shipping.restoring",
    "merge": "entailor.shipping.merging",
    "predict": "entailor.shipping.inference",
    "validate": "entailor.diagnostics.doctor",
    "verify": "entailor.study.verification",
}

__all__ = [
    "BudgetSettings",
    "Classifier",
    "Comparison",
    "DataSettings",
    "DoctorReport",
    "EntailorError",
    "Example",
    "Experiment",
    "MergeReport",
    "Method",
    "ModelSettings",
    "Observer",
    "Predictor",
    "RunRecord",
    "Split",
    "compare",
    "diff_runs",
    "estimate",
    "evaluate",
    "export",
    "load_classifier",
    "merge",
    "predict",
    "validate",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'entailor' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
