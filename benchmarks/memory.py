"""Peak resident memory of training, against Trainer + peft on the same batches; each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from measure import arguments, in_turn, ratios, read_rows, report, spread
from training import METHODS, Contest, default_model

from entailor.engine.meter import peak_memory_bytes, reset_peak_memory


def child(way: str, name: str, data: str | None, steps: int) -> None:
    """Train one way and print the peak. Both models are loaded, and the other one is dropped before."""
    contest = Contest(name, default_model(), read_rows(data, 2000))
    batches = contest.grouped_batches(steps)
    rows: Any = contest.run_ours if way == "ours" else contest.run_peer
    if way == "ours":
        contest.peer = None
    else:
        contest.classifier.model = None
    import gc

    gc.collect()
    reset_peak_memory()
    rows(batches)
    print(json.dumps(peak_memory_bytes()))


def main() -> None:
    options = arguments(__doc__ or "", steps=10, methods="lora,full_finetuning,p_tuning_peft", way="", name="")
    if options.way:
        child(options.way, options.name, options.data, options.steps)
        return

    def peak(way: str, name: str) -> float:
        command = [sys.executable, __file__, "--way", way, "--name", name, "--steps", str(options.steps)]
        command += ["--data", options.data]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(json.loads(done.stdout.splitlines()[-1]))

    result: dict[str, Any] = {"goal": 1.0}
    for name in options.methods.split(","):
        assert name in METHODS
        peaks = in_turn(
            options.repeats, ours=lambda name=name: peak("ours", name), peer=lambda name=name: peak("peer", name)
        )
        result[name] = {
            "ratio": ratios(peaks["ours"], peaks["peer"]),
            "ours_bytes": spread(peaks["ours"]),
            "peer_bytes": spread(peaks["peer"]),
        }
    report("memory", result, options.out)


if __name__ == "__main__":
    main()
