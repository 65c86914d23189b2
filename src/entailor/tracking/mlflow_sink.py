"""Trials as runs of MLflow, the comparison and the report as a run of their own."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from entailor.errors import ConfigError
from entailor.runs.layout import RunFolder
from entailor.runs.ownership import TRACKING_FOLDER
from entailor.runs.record import CurvePoint, RunRecord
from entailor.tracking.figures import curve_figures, final_figures, settings_of, title

PARAMS_A_CALL = 100  # what MLflow's log_batch takes
MOST_OF_A_PARAM, MOST_OF_A_TAG = 6000, 5000  # characters
SECONDS_TO_ANSWER = 10
WHOSE_COMPARISON = "entailor.run_folder"  # tag with a hash of the folder a comparison is of
ItemT = TypeVar("ItemT")


class MLflowSink:
    """Keeps trials in one experiment, which is called as the run folder.

    Artefacts of a store on this machine lie in ``tracking/mlflow`` of the run folder; a server keeps its own.

    Args:
        uri: of the store: ``sqlite:///FILE.db`` or a server.
        folder: of the run.

    Raises:
        ConfigError: the store cannot be opened.
    """

    def __init__(self, uri: str, folder: Path) -> None:
        if uri.startswith(("http://", "https://")):
            check_answers(uri)
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow reads it once, when it is imported
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # where results go, and nothing else
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        remote = uri.startswith(("http://", "https://", "databricks"))
        artefacts = None if remote else (folder / TRACKING_FOLDER / "mlflow").as_uri()
        try:
            self.client = MlflowClient(tracking_uri=uri)
            self.experiment = self._experiment(folder, artefacts)
        except MlflowException as error:
            raise ConfigError(f"tracking.mlflow: {uri} cannot be opened: {error}. Give sqlite:///FILE.db") from error

    def _experiment(self, folder: Path, artefacts: str | None) -> str:
        """Return the experiment of this folder; a namesake that belongs to another folder is left alone."""
        for name in (folder.name, str(folder)):
            found = self.client.get_experiment_by_name(name)
            if found is None:
                return str(self.client.create_experiment(name, artifact_location=artefacts))
            if artefacts in (None, found.artifact_location):
                return str(found.experiment_id)
        raise ConfigError(f"tracking.mlflow: experiment {folder} is of another run folder. Give another store")

    def begin(self, record: RunRecord, place: Path, attempt: int) -> MLflowLog:
        """Open a run with the trial's settings."""
        from mlflow.entities import Param

        run = self._start(title(record, attempt), {"seed": str(record.seed)})
        for some in _parts([*settings_of(record).items()], PARAMS_A_CALL):
            self.client.log_batch(run, params=[Param(name, value[:MOST_OF_A_PARAM]) for name, value in some])
        return MLflowLog(self.client, run)

    def finish(self, summary: Mapping[str, Any], folder: RunFolder) -> None:
        """Keep comparison.json and the report, in place of those of an earlier command in the same folder."""
        # The folder's name alone is not enough: a server may know two of one name. Its path is nobody's business.
        whose = hashlib.sha256(f"{platform.node()}:{folder.path.resolve()}".encode()).hexdigest()[:16]
        earlier = self.client.search_runs([self.experiment], f"tags.`{WHOSE_COMPARISON}` = '{whose}'", max_results=1)
        if earlier:
            run = str(earlier[0].info.run_id)
            self.client.set_tag(run, "sentence", summary["sentence"][:MOST_OF_A_TAG])
        else:
            run = self._start("comparison", {"sentence": summary["sentence"], WHOSE_COMPARISON: whose})
        for file in (folder.comparison_file, folder.report_file):
            self.client.log_artifact(run, str(file))
        self.client.set_terminated(run)

    def _start(self, name: str, tags: Mapping[str, str]) -> str:
        run = self.client.create_run(
            self.experiment, run_name=name, tags={k: v[:MOST_OF_A_TAG] for k, v in tags.items()}
        )
        return str(run.info.run_id)


class MLflowLog:
    """One trial, a run of MLflow."""

    def __init__(self, client: Any, run: str) -> None:
        self.client, self.run, self.last = client, run, 0

    def point(self, point: CurvePoint) -> None:
        """Log a point of the curve."""
        self._log(curve_figures(point), point.step)

    def end(self, record: RunRecord | None, place: Path) -> None:
        """Keep final figures and the files of the record; a failed trial with its error, one broken off as killed."""
        if record is None:
            self.client.set_terminated(self.run, "KILLED")
            return
        complete = record.status == "complete"
        if complete:
            self._log(final_figures(record), self.last)
        else:
            self.client.set_tag(self.run, "error", (record.error or "")[:MOST_OF_A_TAG])
        for file in sorted(place.glob("*.json*")):
            self.client.log_artifact(self.run, str(file))
        self.client.set_terminated(self.run, "FINISHED" if complete else "FAILED")

    def _log(self, figures: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self.client.log_batch(self.run, metrics=[Metric(name, value, now, step) for name, value in figures.items()])
        self.last = step


def _parts(items: Sequence[ItemT], size: int) -> Iterator[Sequence[ItemT]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def check_answers(uri: str) -> None:
    """See whether there is a server at all: MLflow itself tries for minutes.

    Raises:
        ConfigError: nobody answers at the address.
    """
    import requests

    try:
        requests.head(uri, timeout=SECONDS_TO_ANSWER)
    except requests.RequestException as error:
        raise ConfigError(
            f"tracking.mlflow: no server answers at {uri} ({type(error).__name__}). Start it, or give sqlite:///FILE.db"
        ) from error
