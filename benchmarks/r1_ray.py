"""R1: trials on Ray against one process: efficiency, workers killed at random, and the memory of the driver.

Needs the extra `cluster`. Each trial trains LoRA on a tiny BERT, so that the start of a process weighs as much as it
ever can; `--epochs` makes trials longer, and the seconds one takes without that start are printed beside it.
A trial has one thread in either case: another number of them sums in another order. Outcomes are compared file by file.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.conftest import make_examples, write_csv
from tests.kill import outcome
from tests.long.kills import tiny_bert
from tests.scale.outcomes import differing_results

from entailor.config.experiment import Experiment
from entailor.config.parts import DataSettings, ModelSettings
from entailor.errors import RunError
from entailor.events import Observer
from entailor.models.memory import resident_bytes
from entailor.scale import RayExecutor
from entailor.study.compare import compare

LORA = {"r": 2, "learning_rate": 0.01, "eval_strategy": "epoch"}


def trials(folder: Path, count: int, epochs: int) -> Experiment:
    """Return an experiment of so many trials: candidates that differ in their rate, with three seeds each."""
    parts = {"train": 240, "validation": 60, "test": 60}
    files = {name: write_csv(folder / f"{name}.csv", make_examples(size, seed=size)) for name, size in parts.items()}
    return Experiment(
        data=DataSettings(**files),
        models=(str(tiny_bert(folder / "model")),),
        model=ModelSettings(precision="fp32"),
        methods={
            f"lora{n}": {"method": "lora", **LORA, "num_train_epochs": epochs, "lora_alpha": n + 1}
            for n in range(-(-count // 3))
        },
        seeds=(0, 1, 2),
        checkpoint_steps=20,
        checkpoint_minutes=None,
        doctor=False,
    )


def timed(experiment: Experiment, out: Path, **where: Any) -> float:
    """Run an experiment into a folder and return its seconds."""
    begin = time.perf_counter()
    compare(experiment, out=str(out), **where)
    return time.perf_counter() - begin


def started(workers: int) -> Callable[[], None]:
    """Start Ray with so many cores, and return what ends it."""
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False)
    return ray.shutdown


def killing(kills: int, seconds: float, done: threading.Event) -> list[int]:
    """Kill a worker that is at a trial every so often, as many times as asked; return how long each had lived, in s."""
    rng, lives = random.Random(0), []
    while len(lives) < kills and not done.wait(rng.uniform(0.5, 1.5) * seconds):
        names = [(one, " ".join(one.info["cmdline"] or [])) for one in psutil.process_iter(["cmdline"])]
        found = [one for one, name in names if name.startswith("ray::") and ", seed " in name]  # named as its trial
        if found:
            victim = rng.choice(found)
            lives.append(round(time.time() - victim.create_time()))
            os.kill(victim.pid, signal.SIGKILL)
    return lives


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--tiny", type=int, default=1000, help="trials without a model; 0: none")
    parser.add_argument("--tiny-seconds", type=float, default=1200, help="after which those are ended")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {"bar": "R1", "trials": options.trials, "goal": 0.9, "load": os.getloadavg()}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if options.trials:
            experiment = trials(folder, options.trials, options.epochs)
            here = result["seconds_one_process"] = timed(experiment, folder / "here")
            walls = [
                json.loads(one.read_text())["provenance"]["wall_seconds"]
                for one in folder.glob("here/trials/*/*/*/record.json")
            ]
            result["trial_seconds"] = sum(walls) / len(walls)
            for workers in options.workers:
                end = started(workers)
                took = timed(experiment, folder / f"ray{workers}", executor=RayExecutor())
                end()
                differs = differing_results(outcome(folder / "here"), outcome(folder / f"ray{workers}"))
                result[f"workers_{workers}"] = {
                    "seconds": took,
                    "efficiency": here / took / workers,
                    "differs": differs,
                }
                print(json.dumps(result), flush=True)
        if options.trials and options.kills:
            end, done, lives = started(options.workers[-1]), threading.Event(), list[int]()
            pause = result[f"workers_{options.workers[-1]}"]["seconds"] / options.kills
            killer = threading.Thread(target=lambda: lives.extend(killing(options.kills, pause, done)))
            killer.start()
            notes: list[str] = []
            took = timed(
                experiment,
                folder / "killed",
                observer=Observer(lambda event: notes.append(event.text)),
                executor=RayExecutor(),
            )
            done.set()
            killer.join()
            end()
            result["killed"] = {
                "workers": len(lives),
                "lived_seconds": lives,
                "taken_up_again": sum("goes on from its last checkpoint" in note for note in notes),
                "seconds": took,
                "differs": differing_results(outcome(folder / "here"), outcome(folder / "killed")),
            }
            print(json.dumps(result), flush=True)
        if options.tiny:
            result["tiny"] = tiny(folder, options.tiny, options.tiny_seconds)
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8", newline="\n")


def tiny(folder: Path, count: int, limit: float) -> dict[str, Any]:
    """Run trials of the majority baseline, and return the driver's memory as they end."""
    files = {
        name: write_csv(folder / f"tiny-{name}.csv", make_examples(30, seed=n))
        for n, name in enumerate(("train", "validation", "test"))
    }
    methods = {f"m{n}": {"method": "majority"} for n in range(count)}
    experiment = Experiment(data=DataSettings(**files), methods=methods, doctor=False, out=str(folder / "tiny"))
    begin, memory = time.perf_counter(), list[tuple[int, int]]()

    def finished(event: Any) -> None:
        if event.kind == "finished":
            memory.append((len(memory) + 1, resident_bytes()))
            if time.perf_counter() - begin > limit:
                raise RunError("the time is up")

    end = started(2)
    try:
        compare(experiment, Observer(finished), executor=RayExecutor())
    except RunError as error:
        print(error, flush=True)
    end()
    return {"finished": len(memory), "seconds": time.perf_counter() - begin, "driver_bytes": memory[::100]}


if __name__ == "__main__":
    main()
