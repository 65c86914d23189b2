"""An exported classifier as a model of MLflow, which loads it without a pickle.

``save_model(exported, path)`` makes it; ``mlflow.pyfunc.load_model(path).predict(frame)`` answers. The model holds
all there is: neither the run folder nor the base model is needed, and `entailor` alone has to be installed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from entailor.errors import OutputError
from entailor.runs.ownership import MANIFEST_FILE
from entailor.shipping.manifest import read_manifest
from entailor.shipping.predictor import Predictor

WHOLE = ("transformers", "sklearn", "onnx", "onnx-int8", "gguf", "gguf-f16")  # an adapter needs its base model


def save_model(exported: str | Path, path: str | Path) -> Path:
    """Write an exported classifier as a model of MLflow.

    Args:
        exported: a folder that `entailor export` wrote, in another format than `adapter`.
        path: the folder to write, which must not exist.

    Returns:
        The folder.

    Raises:
        OutputError: `path` exists, or `exported` is no export or needs a base model.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow.pyfunc

    exported, path = Path(exported), Path(path)
    if not (exported / MANIFEST_FILE).is_file():
        raise OutputError(f"{exported}: no export. Write one with: entailor export --run RUN --out {exported}")
    if read_manifest(exported).format not in WHOLE:
        raise OutputError(f"{exported}: needs its base model. Export one of {', '.join(WHOLE)} instead")
    if path.exists():
        raise OutputError(f"{path}: exists. Give another folder")
    mlflow.pyfunc.save_model(str(path), loader_module=__name__, data_path=str(exported), pip_requirements=["entailor"])
    return path


class PyFunc:
    """What MLflow calls: texts in, a frame with the label and one column of probabilities a label out."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        """Return `label` and ``probability_LABEL`` for each line of the input.

        Args:
            model_input: a pandas frame whose columns are found as those of a file, or named `text` (and `text_pair`).
            params: none are known.
        """
        from pandas import DataFrame  # type: ignore[import-untyped, unused-ignore]

        answers = self.predictor.predict(model_input)
        lines = [
            {"label": one.label, **{f"probability_{label}": p for label, p in one.probabilities.items()}}
            for one in answers
        ]
        return DataFrame(lines, index=model_input.index)


def _load_pyfunc(data_path: str) -> PyFunc:
    """Load what :func:`save_model` wrote; the name is MLflow's."""
    return PyFunc(Predictor.load(data_path))
