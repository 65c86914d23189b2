"""The long run of kill and go on: fifty kills at random instants, over several methods, and JSON of what came out.

    PYTHONPATH=src:. .venv/bin/python tests/long/kills.py --kills 50 --out kills.json

Not collected by pytest. Exits with 1 where a run that was killed gives another result than the undisturbed one.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import torch
from tests.conftest import make_config, make_examples, make_tokenizer, write_csv
from tests.kill import differences, kill_until_done, undisturbed

from entailor.config import DataSettings, Experiment, ModelSettings

METHODS = {
    "lora": {"r": 2, "num_train_epochs": 150},
    "p_tuning": {"num_virtual_tokens": 4, "num_train_epochs": 150},
    "prefix_tuning": {"num_virtual_tokens": 4, "num_train_epochs": 150},
    "full_finetuning": {"num_train_epochs": 150},
    "bag_of_words": {},
}
COMMON = {"per_device_train_batch_size": 4, "learning_rate": 0.01}


def tiny_bert(folder: Path) -> Path:
    from transformers import AutoModel

    tokenizer = make_tokenizer("bert")
    torch.manual_seed(0)
    AutoModel.from_config(make_config("bert", len(tokenizer), tokenizer.pad_token_id)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_experiment(folder: Path) -> Experiment:
    parts = {"train": 24, "tune": 9, "test": 9}
    files = {name: write_csv(folder / f"{name}.csv", make_examples(n, seed=n)) for name, n in parts.items()}
    methods = {name: {**(COMMON if settings else {}), **settings} for name, settings in METHODS.items()}
    return Experiment(
        data=DataSettings(**files),
        models=(str(tiny_bert(folder / "model")),),
        model=ModelSettings(precision="fp32"),
        methods=methods,
        checkpoint_steps=15,
        restarts=0,
        out="set below",
    )


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=50)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--kills-a-run", type=int, default=5)
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    rng = random.Random(chosen.seed)
    begin = time.monotonic()
    report: dict[str, object] = {"kills": 0, "survived": 0, "resumed_from_a_checkpoint": 0, "runs": 0}
    found: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        experiment = make_experiment(folder)
        seconds = undisturbed(experiment, folder / "whole" / "run")
        while report["kills"] < chosen.kills:  # type: ignore[operator]
            run = folder / f"run-{report['runs']}" / "run"
            wanted = min(chosen.kills_a_run, chosen.kills - report["kills"])  # type: ignore[operator]
            # some while the libraries are loaded, most in the work, so early that it is not through before the last one
            killed = kill_until_done(experiment, run, wanted, rng, 0.2 * seconds, 0.7 * seconds)
            if killed.kills < wanted:  # the machine has become quicker than it was when that was measured
                seconds *= 0.8
            odd = differences(folder / "whole" / "run", run)
            found += odd
            report["runs"] += 1  # type: ignore[operator]
            report["kills"] += killed.kills  # type: ignore[operator]
            report["survived"] += 0 if odd else killed.kills  # type: ignore[operator]
            report["resumed_from_a_checkpoint"] += len(killed.resumed_at)  # type: ignore[operator]
            sys.stderr.write(f"{json.dumps(report)}\n")
    report |= {"differences": found, "seconds": round(time.monotonic() - begin), "one_run_seconds": round(seconds, 1)}
    text = json.dumps(report, indent=2)
    if chosen.out:
        chosen.out.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
