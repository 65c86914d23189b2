"""Faults planted in exports: how many are caught by the proof, and by a plain script that loads what it saved.

python benchmarks/export_faults.py [--out export_faults.json]

The plain script is what guides show: `merge_and_unload`, `save_pretrained`, load again, classify a text. It catches
what raises an error there; where transformers only logs a warning, that is counted by itself.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.conftest import NLI_LABELS, make_examples, make_tiny, write_csv  # noqa: E402
from tests.shipping.faults import FAULTS  # noqa: E402

from entailor.config.experiment import Experiment  # noqa: E402
from entailor.config.parts import DataSettings, ModelSettings  # noqa: E402
from entailor.shipping.export import Source, prove, write_format  # noqa: E402
from entailor.shipping.prover import load_runtime  # noqa: E402
from entailor.shipping.verification import ask_here  # noqa: E402
from entailor.study.compare import compare  # noqa: E402


class Warned(logging.Handler):
    """Counts what transformers and peft warn of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count one."""
        self.count += 1


def trained(place: Path) -> dict[str, Path]:
    """Return a finished trial of each method."""
    parts = (("train", 48, 1), ("validation", 18, 2), ("test", 18, 3))
    files = {name: write_csv(place / f"{name}.csv", make_examples(count, seed=seed)) for name, count, seed in parts}
    (place / "model").mkdir()
    run = compare(
        Experiment(
            data=DataSettings(**files),
            models=(str(make_tiny("bert", place / "model")),),
            model=ModelSettings(precision="fp32"),
            methods={"bag_of_words": {}, "lora": {"r": 2, "num_train_epochs": 2, "learning_rate": 0.03}},
            seeds=(0,),
            restarts=0,
            estimate=False,
            out=str(place / "run"),
        )
    )
    return {one.name: run.folder.trial(one.model, one.name, one.seed) for one in run.records}


def saved_plainly(trial: Path, base: str, healthy: Path, folder: Path) -> None:
    """Write a checkpoint as guides do; beside it predict.py and manifest, so that their faults can be planted."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(NLI_LABELS))
    PeftModel.from_pretrained(model, str(trial / "adapter")).merge_and_unload().save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    for name in ("predict.py", "manifest.json"):
        shutil.copy(healthy / name, folder / name)


def plain_check(name: str, folder: Path, base: str | None) -> tuple[bool, bool]:
    """Load an export and classify a text, by `pipeline` where it is a checkpoint; say whether it failed or warned."""
    from transformers import pipeline

    handler = Warned()
    loggers = [logging.getLogger(one) for one in ("transformers", "peft")]
    for one in loggers:
        one.addHandler(handler)
    try:
        if name == "transformers":
            ask: Any = pipeline("text-classification", model=str(folder), device="cpu")
            ask({"text": "w11 w12", "text_pair": "w0"})
        load_runtime(folder).Runtime(folder, base).logits([("w11 w12", "w0")])
    except Exception:  # whatever it is, the user sees it
        return True, False
    finally:
        for one in loggers:
            one.removeHandler(handler)
    return False, bool(handler.count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("export_faults.json"))
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        trials = trained(place)
        base = str(place / "model")
        made = {"adapter": "lora", "transformers": "lora", "sklearn": "bag_of_words", "onnx": "lora"}
        sources = {name: Source(trial) for name, trial in trials.items()}
        for name, trial in made.items():  # merging takes the adapter off, so it comes first
            (place / name).mkdir()
            write_format(sources[trial], name, place / name)
        saved_plainly(trials["lora"], base, place / "transformers", place / "plain")
        rows = []
        for fault, (name, plant) in FAULTS.items():
            found = {"fault": fault, "format": name}
            faulty = place / "faulty"
            shutil.copytree(place / name, faulty)
            plant(faulty)
            found["proof"] = not prove(sources[made[name]], name, faulty, 0.01, ask_here).passed
            shutil.rmtree(faulty)
            shutil.copytree(place / ("plain" if name == "transformers" else name), faulty)
            plant(faulty)
            failed, warned = plain_check(name, faulty, base if name == "adapter" else None)
            found |= {"plain": failed, "plain_warned": warned}
            shutil.rmtree(faulty)
            rows.append(found)
    sums = {by: sum(row[by] for row in rows) for by in ("proof", "plain", "plain_warned")}
    out.write_text(json.dumps({"planted": len(rows), **sums, "faults": rows}, indent=1), encoding="utf-8")
    print(f"{len(rows)} faults: the proof catches {sums['proof']}, the plain script {sums['plain']}", end="")
    print(f" and with a warning in its log {sums['plain_warned']} more")


if __name__ == "__main__":
    main()
