"""Entailor: which way should a language model be adapted to these labels, and is the difference real?

from entailor import Experiment, compare, predict

run = compare(Experiment(methods="lora,p_tuning", seeds=3, out="runs/mine"))
print(run.summary["winner"])
predict(run.winner, "new.csv", "labelled.csv")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from entailor.network import shut_out_hub_kernels

if TYPE_CHECKING:
    from entailor.config import BudgetSettings, DataSettings, Experiment, ModelSettings
    from entailor.data.example import Example, Split
    from entailor.doctor import Examination, validate
    from entailor.errors import EntailorError
    from entailor.evaluation.difference import diff_runs
    from entailor.experiment import Comparison, Observer, compare, forecast
    from entailor.inference import evaluate, predict
    from entailor.merging import MergeReport, merge
    from entailor.methods import Classifier, Method
    from entailor.record import RunRecord
    from entailor.restoring import load_classifier
    from entailor.verification import verify

__version__ = "0.1.0"

shut_out_hub_kernels()

# Where each public name lives; it is imported when it is first asked for, so `import entailor` is quick.
_HOMES = {
    "BudgetSettings": "entailor.config",
    "Classifier": "entailor.methods",
    "Comparison": "entailor.experiment",
    "DataSettings": "entailor.config",
    "EntailorError": "entailor.errors",
    "Examination": "entailor.doctor",
    "Example": "entailor.data.example",
    "Experiment": "entailor.config",
    "MergeReport": "entailor.merging",
    "Method": "entailor.methods",
    "ModelSettings": "entailor.config",
    "Observer": "entailor.experiment",
    "RunRecord": "entailor.record",
    "Split": "entailor.data.example",
    "compare": "entailor.experiment",
    "diff_runs": "entailor.evaluation.difference",
    "evaluate": "entailor.inference",
    "forecast": "entailor.experiment",
    "load_classifier": "entailor.restoring",
    "merge": "entailor.merging",
    "predict": "entailor.inference",
    "validate": "entailor.doctor",
    "verify": "entailor.verification",
}

__all__ = [
    "BudgetSettings",
    "Classifier",
    "Comparison",
    "DataSettings",
    "EntailorError",
    "Examination",
    "Example",
    "Experiment",
    "MergeReport",
    "Method",
    "ModelSettings",
    "Observer",
    "RunRecord",
    "Split",
    "compare",
    "diff_runs",
    "evaluate",
    "forecast",
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
