"""Runs an export's own predict.py in a process that knows nothing of Entailor, and writes down what it answers.

`python prover.py FOLDER JOB.json FOUND.json`. Imports the standard library and numpy; predict.py brings the rest.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def load_runtime(folder: Path) -> Any:
    """Return the module predict.py of an export that was just written here; never of a stranger's folder."""
    spec = importlib.util.spec_from_file_location("predict", folder / "predict.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder / 'predict.py'}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # the folder is released as it is
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


def answers(runtime: Any, job: Mapping[str, Any]) -> dict[str, Any]:
    """Return ids, logits and times of every input of a job.

    Args:
        runtime: a loaded export.
        job: `inputs`, the examples whose scores are recorded; `fuzz`, texts made to break things; `threads`.
    """
    inputs, fuzz = [tuple(one) for one in job["inputs"]], [tuple(one) for one in job["fuzz"]]
    began = time.perf_counter()
    logits = runtime.logits(inputs)
    seconds = time.perf_counter() - began
    few = inputs[: job["alone"]]
    times = []
    alone = []
    for one in [*few[:1], *few]:  # the first one warms up
        start = time.perf_counter()
        alone.append(runtime.logits([one], 1)[0].tolist())
        times.append(time.perf_counter() - start)
    return {
        "labels": list(runtime.labels),
        "engine": getattr(runtime, "engine", None),
        "temperature": runtime.manifest["temperature"],
        "ids": [runtime.tokenize(*one) for one in inputs],
        "fuzz_ids": [runtime.tokenize(*one) for one in fuzz],
        "logits": logits.tolist(),
        "alone": alone[1:],
        "external": {
            name: runtime.logits([tuple(one) for one in others]).tolist()
            for name, others in job.get("external", {}).items()
        },
        "fuzz_logits": runtime.logits(fuzz, 7).tolist(),
        "fuzz_alone": runtime.logits(fuzz, 1).tolist(),
        "p50_ms": float(np.percentile(times[1:], 50)) * 1e3,
        "p95_ms": float(np.percentile(times[1:], 95)) * 1e3,
        "examples_per_second": len(inputs) / max(seconds, 1e-9),
    }


def with_threads(module: Any, folder: Path, job: Mapping[str, Any], base: str | None) -> dict[str, Any]:
    """Return the logits of the first inputs by one thread and by two."""
    found = {}
    few = [tuple(one) for one in job["inputs"][: job["alone"]]]
    for threads in (1, 2):
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
            runtime = module.Runtime(folder, base)
        elif "onnxruntime" in sys.modules or "llama_cpp" in sys.modules:
            runtime = module.Runtime(folder, base, threads)
        else:  # numpy's own threads are set when it is imported, and nothing here is large enough for two
            return {}
        found[str(threads)] = runtime.logits(few).tolist()
    return found


def through_pipeline(folder: Path, job: Mapping[str, Any], labels: list[str]) -> Any:
    """Return probabilities of the first inputs by `pipeline("text-classification")`, as a stranger would use it."""
    from transformers import pipeline

    ask = pipeline("text-classification", model=str(folder), device="cpu")
    rows = []
    for text, pair in job["inputs"][: job["alone"]]:
        one = text if pair is None else {"text": text, "text_pair": pair}
        said = {entry["label"]: entry["score"] for entry in ask(one, top_k=None, truncation=True)}
        rows.append([said[label] for label in labels])
    return rows


def peak_memory_bytes() -> int | None:
    """Return the most bytes that were resident; None where the system does not say so without further packages."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    """Answer a job."""
    folder, job_file, found_file = map(Path, sys.argv[1:4])
    job = json.loads(job_file.read_text(encoding="utf-8"))
    module = load_runtime(folder)
    runtime = module.Runtime(folder, job["base"])
    found = answers(runtime, job)
    found["threads"] = with_threads(module, folder, job, job["base"])
    if job["pipeline"]:
        found["pipeline"] = through_pipeline(folder, job, runtime.labels)
    found["peak_memory_bytes"] = peak_memory_bytes()
    found["imported"] = sorted({name.partition(".")[0] for name in sys.modules})
    found_file.write_text(json.dumps(found), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
