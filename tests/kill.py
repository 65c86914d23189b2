"""Kills `entailor compare` again and again until it is through; shared by the suite and the long run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entailor.config import Experiment
from entailor.overrides import dump_yaml
from entailor.record import RunFolder, RunRecord, read_sealed_json
from entailor.storage import checksums

SRC = Path(__file__).parent.parent / "src"
MACHINE = ("started", "ended", "placement")


@dataclass
class Killed:
    """What came of a run that was killed."""

    kills: int = 0
    sittings: int = 0
    resumed_at: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


def command(experiment: Experiment, folder: Path) -> list[str]:
    config = folder.with_suffix(".yaml")
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(dump_yaml({**experiment.model_dump(mode="json"), "out": str(folder)}), encoding="utf-8")
    return [sys.executable, "-m", "entailor", "compare", "--config", str(config)]


def environment() -> dict[str, str]:
    paths = os.pathsep.join([str(SRC), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def undisturbed(experiment: Experiment, folder: Path) -> float:
    """Run once; return the seconds it took."""
    begin = time.monotonic()
    done = subprocess.run(command(experiment, folder), env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return time.monotonic() - begin


def kill_until_done(
    experiment: Experiment, folder: Path, kills: int, rng: random.Random, shortest: float, longest: float
) -> Killed:
    """Kill the run `kills` times at random instants, then let it finish.

    Args:
        experiment: what is run.
        folder: the run folder.
        kills: how often it is killed with SIGKILL.
        rng: decides the instants.
        shortest: seconds from the start of a process to its kill, at least.
        longest: the same, at most.
    """
    result = Killed()
    while True:
        result.sittings += 1
        process = subprocess.Popen(
            command(experiment, folder), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        last = result.kills >= kills
        try:
            _, said = process.communicate(timeout=None if last else rng.uniform(shortest, longest))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            _, said = process.communicate()
            result.kills += 1
        result.resumed_at += [line for line in said.splitlines() if "goes on from the checkpoint" in line]
        if process.returncode == 0:
            return result
        assert process.returncode == -signal.SIGKILL, said[-2000:]


def differences(first: Path, second: Path) -> list[str]:
    """Return how two runs differ in weights, records and figures, times and memory aside."""
    found = []
    one, other = RunFolder(first), RunFolder(second)
    places = [[str(place.relative_to(run.path)) for place in run.trial_folders()] for run in (one, other)]
    if places[0] != places[1]:
        return [f"trials: {places[0]} and {places[1]}"]
    for name in places[0]:
        files = [{k: v for k, v in checksums(run / name).items() if k != "record.json"} for run in (first, second)]
        found += [f"{name}/{file}" for file in {*files[0], *files[1]} if files[0].get(file) != files[1].get(file)]
        records = [plain(RunRecord.read(run / name)) for run in (first, second)]
        found += [f"{name}: {key}" for key in records[0] if records[0][key] != records[1][key]]
    summaries = [read_sealed_json(run.comparison_file, "") for run in (one, other)]
    figures = [{(row["model"], row["method"]): row["accuracy"] for row in summary["rows"]} for summary in summaries]
    return found + ([] if figures[0] == figures[1] else ["comparison.json: accuracies"])


def plain(record: RunRecord) -> dict[str, Any]:
    provenance = {key: value for key, value in record.provenance.items() if key not in MACHINE}
    return {
        "status": record.status,
        "events": record.events,
        "provenance": provenance,
        "curve": record.curve,
        "predictions": record.predictions,
        "hyperparameters": record.hyperparameters,
        "epochs": record.costs.epochs,
        "stored_bytes": record.costs.stored_bytes,
    }
