"""T4: full fine-tuning with an embedding of 250,000 tokens against Trainer, on the same batches, in fp32.

MiniLM's layers under the embedding of a multilingual model; the rows that are added are random and never occur, like
most rows of such a model in one data set. Memory is the peak of a process of its own that trains ten steps.
"""

from __future__ import annotations

import gc
import multiprocessing
import tempfile
from pathlib import Path
from typing import Any

from measure import arguments, gemm_peak, in_turn, ratios, read_rows, report, spread
from training import Contest, default_model, largest_gap

from entailor.config.parts import ModelSettings
from entailor.engine.meter import peak_memory_bytes, reset_peak_memory
from entailor.models.load import open_model, quiet_libraries
from entailor.models.memory import resident_bytes
from entailor.models.resolve.source import ModelFolder

GOALS = {"examples_per_second": 2.5, "memory": 0.4, "loss_gap": 1e-6}
TOKENS = 250_000
MEMORY_STEPS = 10


def multilingual(folder: Path, tokens: int) -> ModelFolder:
    """Write the encoder that ships with an embedding of so many tokens, and return it."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    plain = default_model()
    torch.manual_seed(0)
    with quiet_libraries():
        model = AutoModel.from_pretrained(plain.path)
        model.resize_token_embeddings(tokens)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(plain.path).save_pretrained(folder)
    return open_model(str(folder), ModelSettings())


def memory(who: str, folder: ModelFolder, rows: Any, answer: Any) -> None:
    """Train a few steps one way, and answer with the most resident memory and that of the idle libraries."""
    idle = resident_bytes()
    contest = Contest("full_finetuning", folder, rows)
    batches = contest.grouped_batches(MEMORY_STEPS)
    if who == "ours":
        contest.peer = None
    else:
        contest.classifier.model = None
    gc.collect()
    assert reset_peak_memory(), "this system cannot tell the peak of a stretch of work"
    (contest.run_ours if who == "ours" else contest.run_peer)(batches)
    answer.put((peak_memory_bytes(), idle))


def main() -> None:
    options = arguments(__doc__ or "", steps=24, tokens=TOKENS)
    rows = read_rows(options.data, 2000)
    with tempfile.TemporaryDirectory() as scratch:
        folder = multilingual(Path(scratch), options.tokens)
        peaks: dict[str, float] = {}
        context = multiprocessing.get_context("spawn")
        for who in ("ours", "peer"):
            answer = context.Queue()
            child = context.Process(target=memory, args=(who, folder, rows, answer))
            child.start()
            peaks[who], peaks[f"{who}_idle"] = answer.get(timeout=900)
            child.join()
        result = {
            "gemm_gflops": gemm_peak(),
            "goals": GOALS,
            "tokens": options.tokens,
            "peak_bytes": peaks,
            "memory_ratio": peaks["ours"] / peaks["peer"],
            "largest_loss_gap_20_steps": largest_gap("full_finetuning", folder, rows),
        }
        contest = Contest("full_finetuning", folder, rows)
        occurring = len({token for item in contest.inputs for token in item.input_ids})
        batches = contest.grouped_batches(options.steps)
        speeds = in_turn(
            options.repeats, ours=lambda: contest.run_ours(batches)[0], peer=lambda: contest.run_peer(batches)[0]
        )
        result |= {
            "tokens_that_occur": occurring,
            "ratio": ratios(speeds["ours"], speeds["peer"]),
            "ours_examples_per_second": spread(speeds["ours"]),
            "peer_examples_per_second": spread(speeds["peer"]),
        }
    report("T4", result, options.out)


if __name__ == "__main__":
    main()
