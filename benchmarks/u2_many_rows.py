"""U2: reading, checking and splitting 400,000 pairs, against pandas reading the same file; cost by the number of rows.

Then the same with tokenising and one epoch of batches behind it, which is all that training does to data.

Each run is a process of its own, so that its peak memory is its own. Needs pandas beside Entailor.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from measure import arguments, in_turn, ratios, read_rows, report, spread

GOAL_TIME, GOAL_MEMORY = 3.0, 4.0
COUNTS = (1_000, 10_000, 100_000)

RUN = """
import json, sys, time
way, path = sys.argv[1:]
if way == "peer":
    import pandas
    run = lambda: len(pandas.read_csv(path) if path.endswith("csv") else pandas.read_json(path, lines=True))
else:
    from entailor.config.parts import DataSettings
    from entailor.data.splits import load_data
    def run():
        split = load_data(DataSettings(train=path)).split
        if way == "batched":
            inputs = encoder.encode(split.train)
            lengths = [len(item) for item in inputs]
            for batch in training_batches(lengths, BatchLimit(examples=16), numpy.random.default_rng(0)):
                pad_ids([inputs[index].input_ids for index in batch], 0)
        return sum(len(rows) for _, rows in split.parts())
if way == "batched":
    import numpy
    from transformers import AutoConfig, AutoTokenizer
    from entailor.config.experiment import DEFAULT_MODEL
    from entailor.config.parts import ModelSettings
    from entailor.data.example import Example
    from entailor.engine.batching import BatchLimit, training_batches
    from entailor.classifiers.base import pad_ids
    from entailor.models.load import open_model
    from entailor.models.tokenizer import TextEncoder
    folder = open_model(DEFAULT_MODEL, ModelSettings()).path
    encoder = TextEncoder(AutoTokenizer.from_pretrained(folder), AutoConfig.from_pretrained(folder), 256)
    encoder.encode([Example("x", "a", "b")])
def resident(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
before, wall, own = resident("VmRSS"), time.perf_counter(), time.process_time()
count = run()
wall, own = time.perf_counter() - wall, time.process_time() - own
print(json.dumps({"rows": count, "wall": wall, "own": own, "bytes": resident("VmHWM") - before}))
"""


def write_rows(folder: Path, data: str, count: int) -> dict[str, Path]:
    """Write `count` different pairs as CSV and JSON lines."""
    rows = read_rows(data, count)
    paths = {kind: folder / f"{count}.{kind}" for kind in ("csv", "jsonl")}
    with paths["csv"].open("w", newline="", encoding="utf-8") as table, paths["jsonl"].open("w") as lines:
        writer = csv.writer(table)
        writer.writerow(["id", "premise", "hypothesis", "label"])
        for number, row in enumerate(islice(cycle(rows), count)):
            premise = f"{row.text} ({number // len(rows)})"
            writer.writerow([f"r{number}", premise, row.text_pair, row.label])
            cells = {"id": f"r{number}", "premise": premise, "hypothesis": row.text_pair, "label": row.label}
            lines.write(json.dumps(cells) + "\n")
    return paths


def run(way: str, path: Path) -> dict[str, Any]:
    """Read in a fresh process."""
    done = subprocess.run([sys.executable, "-c", RUN, way, str(path)], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    options = arguments(__doc__ or "", rows=400_000)
    clock = "own" if options.processor_time else "wall"
    result: dict[str, Any] = {"goal_time": GOAL_TIME, "goal_memory": GOAL_MEMORY}
    with tempfile.TemporaryDirectory() as place:
        for kind, path in write_rows(Path(place), options.data, options.rows).items():
            seen: list[dict[str, Any]] = []

            def ours(path: Path = path, seen: list[dict[str, Any]] = seen) -> float:
                seen.append(run("ours", path))
                return float(seen[-1][clock])

            times = in_turn(options.repeats, ours=ours, peer=lambda path=path: run("peer", path)[clock])
            size = path.stat().st_size
            assert {one["rows"] for one in seen} == {options.rows}
            result[kind] = {
                "time_over_pandas": ratios(times["ours"], times["peer"]),
                "ours_seconds": spread(times["ours"]),
                "pandas_seconds": spread(times["peer"]),
                "memory_over_file": spread([one["bytes"] / size for one in seen]),
            }
        per_row = {}
        for count in (*COUNTS, options.rows):
            path = write_rows(Path(place), options.data, count)["jsonl"]
            per_row[str(count)] = spread([1e6 * run("ours", path)[clock] / count for _ in range(options.repeats)])
        result["microseconds_per_row"] = per_row
        tokenised = {}
        for count in (*COUNTS, options.rows):
            path = write_rows(Path(place), options.data, count)["jsonl"]
            one = run("batched", path)
            tokenised[str(count)] = {
                "microseconds_per_row": 1e6 * one[clock] / count,
                "memory_over_file": one["bytes"] / path.stat().st_size,
            }
        result["tokenised_and_batched"] = tokenised
    report("U2", result, options.out)


if __name__ == "__main__":
    main()
