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
    from entailor.config.experiment import Experiment
    from entailor.config.parts import BudgetSettings, DataSettings, ModelSettings
    from entailor.data.example import Example, Split
    from entailor.diagnostics.doctor import DoctorReport, validate
    from entailor.errors import EntailorError
    from entailor.evaluation.across_runs import AcrossRuns, compare_runs
    from entailor.evaluation.difference import diff_runs
    from entailor.events import Event, Observer
    from entailor.integrations.estimator import EntailorClassifier
    from entailor.methods import Classifier, Method
    from entailor.runs.record import RunRecord
    from entailor.shipping.export import export
    from entailor.shipping.inference import evaluate, predict
    from entailor.shipping.predictor import Predictor
    from entailor.shipping.restoring import load_classifier
    from entailor.study.compare import compare, estimate
    from entailor.study.results import CandidateResult, Comparison, RecommendationResult
    from entailor.study.verification import verify

__version__ = "0.2.0"

shut_out_hub_kernels()

# Where each public name lives; it is imported when it is first asked for, so `import entailor` is quick.
_HOMES = {
    "AcrossRuns": "entailor.evaluation.across_runs",
    "BudgetSettings": "entailor.config.parts",
    "CandidateResult": "entailor.study.results",
    "Classifier": "entailor.methods",
    "Comparison": "entailor.study.results",
    "DataSettings": "entailor.config.parts",
    "EntailorClassifier": "entailor.integrations.estimator",
    "EntailorError": "entailor.errors",
    "Event": "entailor.events",
    "DoctorReport": "entailor.diagnostics.doctor",
    "Example": "entailor.data.example",
    "Experiment": "entailor.config.experiment",
    "Method": "entailor.methods",
    "ModelSettings": "entailor.config.parts",
    "Observer": "entailor.events",
    "Predictor": "entailor.shipping.predictor",
    "RecommendationResult": "entailor.study.results",
    "RunRecord": "entailor.runs.record",
    "Split": "entailor.data.example",
    "compare": "entailor.study.compare",
    "compare_runs": "entailor.evaluation.across_runs",
    "diff_runs": "entailor.evaluation.difference",
    "evaluate": "entailor.shipping.inference",
    "estimate": "entailor.study.compare",
    "export": "entailor.shipping.export",
    "load_classifier": "entailor.shipping.restoring",
    "predict": "entailor.shipping.inference",
    "validate": "entailor.diagnostics.doctor",
    "verify": "entailor.study.verification",
}

__all__ = [
    "AcrossRuns",
    "BudgetSettings",
    "CandidateResult",
    "Classifier",
    "Comparison",
    "DataSettings",
    "DoctorReport",
    "EntailorClassifier",
    "EntailorError",
    "Event",
    "Example",
    "Experiment",
    "Method",
    "ModelSettings",
    "Observer",
    "Predictor",
    "RecommendationResult",
    "RunRecord",
    "Split",
    "compare",
    "compare_runs",
    "diff_runs",
    "estimate",
    "evaluate",
    "export",
    "load_classifier",
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
