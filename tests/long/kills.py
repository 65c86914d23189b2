"""The long run of kill and go on: at named events of a search, seeds, a learning curve, external scores and the report.

    PYTHONPATH=src:. .venv/bin/python tests/long/kills.py --kills 1000 --seed 0 --out kills.json

Not collected by pytest. Prints a line each 50 kills and at the end a table by event; exits with 1 where a run that was
killed gives another result than the undisturbed one. Folders of runs that differ are kept.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.kill import Runs, Target

from entailor.config.experiment import Experiment
from entailor.config.parts import BudgetSettings, DataSettings, ModelSettings

LORA = {
    "r": 2,
    "num_train_epochs": 2,
    "per_device_train_batch_size": 8,
    "learning_rate": 0.01,
    "eval_strategy": "epoch",
}


def tiny_bert(folder: Path) -> Path:
    import torch
    from tests.conftest import make_config, make_tokenizer  # not above: every forked child imports this module
    from transformers import AutoModel

    tokenizer = make_tokenizer("bert")
    torch.manual_seed(0)
    AutoModel.from_config(make_config("bert", len(tokenizer), tokenizer.pad_token_id)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_experiment(folder: Path) -> Experiment:
    """A search of two settings, done twice, two seeds, one point of a curve for each row and seed, one external set."""
    from tests.conftest import make_examples, write_csv

    parts = {"train": 36, "validation": 9, "test": 12, "further": 9}
    files = {name: write_csv(folder / f"{name}.csv", make_examples(n, seed=n)) for name, n in parts.items()}
    further = files.pop("further")
    return Experiment(
        data=DataSettings(**files, external=(further,)),
        models=(str(tiny_bert(folder / "model")),),
        model=ModelSettings(precision="fp32"),
        methods={"lora": LORA, "bag_of_words": {}},
        seeds=(0, 1),
        budget=BudgetSettings(trials=2, repeats=2),
        learning_curve=(18,),
        checkpoint_steps=2,
        checkpoint_minutes=None,
        restarts=0,
        estimate=False,
        out="set by each run",
    )


def next_target(counts: dict[str, int], killed: Counter[str], rng: random.Random, before: Target | None) -> Target:
    """Return one of the events that were least often a target.

    Args:
        counts: how often each event occurs in an undisturbed run, in the order of their first occurrence.
        killed: how often each was a target.
        rng: draws among equals, and the occurrence.
        before: where the run was ended last; None for a run from its beginning, where any event surely occurs.
    """
    events = list(counts)
    events = events[events.index(before.event) + 1 :] if before else events
    least = min((killed[event] for event in events), default=0)
    event = rng.choice([event for event in events if killed[event] == least] or list(counts))
    return Target(event, rng.randint(1, max(1, counts[event] // 2) if before else counts[event]))


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=1000)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--kills-a-run", type=int, default=4)
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    rng, begin = random.Random(chosen.seed), time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    runs = Runs(make_experiment(folder), folder / "runs")
    killed: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    found: dict[str, list[str]] = {}
    number = 0
    while killed.total() < chosen.kills:
        run = folder / "runs" / f"run-{number}"
        here: list[Target] = []
        number += 1
        for _ in range(min(chosen.kills_a_run, chosen.kills - killed.total())):
            target = next_target(runs.counts, killed, rng, here[-1] if here else None)
            code = runs.sit(run, target)
            if code == 0:  # the event is behind the run already
                break
            assert code == -target.signum, runs.said(run)
            killed[target.event] += 1
            here.append(target)
            if killed.total() % 50 == 0:
                minutes = (time.monotonic() - begin) / 60
                sys.stderr.write(f"{killed.total()} kills, {lost.total()} differ, {minutes:.1f} min\n")
        if odd := runs.finish(run):
            found[str(run)] = [*(f"{one.event}, {one.occurrence}" for one in here), *odd]
            lost.update(one.event for one in here)
            sys.stderr.write(f"{run}: {json.dumps(found[str(run)], indent=1)}\n")
    lines = [f"{killed[event]:6}{killed[event] - lost[event]:6}  {event}" for event in sorted(killed)]
    sys.stdout.write(
        "\n".join(["killed  same  event", *lines, f"{killed.total():6}{killed.total() - lost.total():6}\n"])
    )
    report = {"kills": killed.total(), "same": killed.total() - lost.total(), "runs": number, "differences": found}
    report |= {"events": dict(killed), "seconds": round(time.monotonic() - begin), "seed": chosen.seed}
    if chosen.out:
        chosen.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
