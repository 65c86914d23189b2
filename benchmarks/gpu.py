"""Everything that wants a GPU, in one command of under eight minutes; with `--tiny` the same on a CPU, in small.

    python benchmarks/gpu.py --out gpu.json

Parts: the suite of tests/gpu on the real device; NF4 products against unpacked ones; LoRA and full fine-tuning in bf16
on a model of roberta-large's shape against Trainer and peft; a Llama of 8B shape in NF4, built on the device: time and
memory of building, zero-shot documents a second, QLoRA tokens a second. All weights and texts are random: nothing is
fetched. Each part is a process of its own with a limit of time, and what fails leaves the other parts their figures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

SECONDS = {"suite": 130, "nf4": 40, "lora": 80, "full": 80, "llama": 140}
"""Parts, and how long each may take: 470 in all."""
ENCODER = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
DECODER = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 14336}
DECODER |= {"num_key_value_heads": 8, "vocab_size": 128_256, "max_position_embeddings": 8192}
TINY = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
WORDS = 50_000
BATCH = 32
REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--tiny", action="store_true", help="two small layers and few steps, on whatever device there is"
    )
    parser.add_argument("--parts", nargs="+", choices=tuple(SECONDS), default=list(SECONDS))
    parser.add_argument("--out", type=Path, help="JSON file, written after each part")
    parser.add_argument("--one", choices=tuple(SECONDS), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print("\n" + json.dumps(PARTS[asked.one](asked.tiny)))
        return
    result: dict[str, Any] = {"device": describe_device(), "tiny": asked.tiny}
    for part in asked.parts:
        result[part] = in_own_process(part, tiny=asked.tiny)
        print(part, json.dumps(result[part]), flush=True)
        if asked.out:
            asked.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8", newline="\n")
    sys.exit(any("failed" in result[part] for part in asked.parts))


def describe_device() -> dict[str, Any]:
    """Return what the figures belong to."""
    import torch

    from entailor.models.device import free_bytes, main_device
    from entailor.runs.environment import describe_environment

    found = describe_environment()
    kept = {name: found[name] for name in ("gpus", "cpu", "versions", "python")}
    device = main_device()
    free = None if device.type == "cpu" else free_bytes(device)
    return kept | {
        "cuda": torch.version.cuda,
        "free_bytes": free,
        "float32_products": torch.get_float32_matmul_precision(),
    }


def in_own_process(part: str, *, tiny: bool) -> dict[str, Any]:
    """Run a part, and return what it found or how it failed, with its seconds."""
    command = [sys.executable, __file__, "--one", part, *(["--tiny"] if tiny else [])]
    begin = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS[part], check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {SECONDS[part]} seconds", "seconds": SECONDS[part]}
    seconds = round(time.perf_counter() - begin, 1)
    if done.returncode:
        return {"failed": done.stderr[-2000:], "seconds": seconds}
    return {**json.loads(done.stdout.splitlines()[-1]), "seconds": seconds}


def suite(tiny: bool) -> dict[str, Any]:
    """Run the tests for a real device; where there is none they are skipped, which is said."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/gpu/test_real.py",
        "-rs",
        "-p",
        "no:cacheprovider",
        "-o",
        "addopts=",
    ]
    path = os.pathsep.join(sys.path[:2])
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stdout[-1800:])
    return {"outcome": done.stdout.splitlines()[-1].strip("= ")}


def nf4(tiny: bool) -> dict[str, Any]:
    """Hold a product with NF4 weights against one with the weights unpacked, and both against bf16."""
    import bitsandbytes
    import torch
    from bitsandbytes.functional import dequantize_4bit

    from entailor.models.device import main_device

    device, found = main_device(), {}
    inner, outer = (64, 128) if tiny else (DECODER["hidden_size"], DECODER["intermediate_size"])
    torch.manual_seed(0)
    layer = bitsandbytes.nn.Linear4bit(inner, outer, bias=False, compute_dtype=torch.float32, quant_type="nf4").to(
        device
    )
    layer.support_avx512bf16_for_cpu = False
    weight_OI = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    for tokens in (1, 64, 4096):
        rows_TI = torch.randn(tokens, inner, device=device)
        with torch.no_grad():
            expected_TO = rows_TI @ weight_OI.T
            gap = (layer(rows_TI) - expected_TO).abs().max() / expected_TO.abs().max()
            milliseconds = {"nf4_fp32": timed(lambda rows_TI=rows_TI: layer(rows_TI))}
            half_TI, half_OI = rows_TI.bfloat16(), weight_OI.bfloat16()
            milliseconds["bf16"] = timed(lambda half_TI=half_TI, half_OI=half_OI: half_TI @ half_OI.T)
        found[f"{tokens}_tokens"] = {"relative_gap": float(gap), "milliseconds": milliseconds}
        if gap > 1e-3:
            raise SystemExit(
                f"{tokens} tokens: a product with NF4 weights is off by {float(gap):.1e} of its largest value"
            )
    return found


def timed(run: Callable[[], object], repeats: int = 20) -> float:
    """Return the milliseconds of one call, the device waited for at the end of all."""
    for _ in range(3):
        run()
    wait()
    begin = time.perf_counter()
    for _ in range(repeats):
        run()
    wait()
    return 1000 * (time.perf_counter() - begin) / repeats


def wait() -> None:
    """Wait until the device has done what it was asked."""
    import torch

    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def make_rows(count: int, tiny: bool) -> list[Any]:
    """Return pairs about as long as MultiNLI's, of words as frequent as words are (Zipf)."""
    import numpy as np
    from tests.conftest import NLI_LABELS

    from entailor.data.example import Example

    rng, known = np.random.default_rng(0), 200 if tiny else WORDS
    share = 1 / (np.arange(known) + 10)
    draw = rng.choice(known, size=120 * count, p=share / share.sum()).tolist()
    lengths = np.clip(rng.lognormal((2.8, 2.2), (0.6, 0.4), (count, 2)).astype(int), 2, 60)

    def text(length: int) -> str:
        return " ".join(f"w{draw.pop()}" for _ in range(length))

    return [
        Example(f"e{row}", text(first), text(second), NLI_LABELS[row % 3])
        for row, (first, second) in enumerate(lengths)
    ]


def large(name: str, tiny: bool) -> dict[str, Any]:
    """Train on roberta-large's shape in bf16, Entailor and Trainer with peft in turn, on the same batches."""
    import tests.conftest
    import torch
    import training
    from measure import ratios, spread
    from transformers import RobertaConfig, RobertaModel

    from entailor.models.device import main_device, peak_bytes, reset_peak_bytes
    from entailor.models.resolve.source import resolve_model

    tests.conftest.WORDS = [f"w{number}" for number in range(200 if tiny else WORDS)]
    steps, batch, device = (6, 4, main_device()) if tiny else (34, BATCH, main_device())
    with tempfile.TemporaryDirectory() as place:
        tokenizer = tests.conftest.make_tokenizer("roberta")
        torch.manual_seed(0)
        sizes = TINY if tiny else ENCODER
        config = RobertaConfig(
            vocab_size=len(tokenizer), max_position_embeddings=514, type_vocab_size=1, pad_token_id=1, **sizes
        )
        RobertaModel(config).save_pretrained(place)
        tokenizer.save_pretrained(place)
        rows = make_rows(steps * batch, tiny)
        contest = training.Contest(name, resolve_model(place), rows, batch_size=batch, bf16=True)
    batches = contest.random_batches(steps)
    speeds: dict[str, list[float]] = {"ours": [], "peer": []}
    peaks: dict[str, int | None] = {}
    for _ in range(1 if tiny else REPEATS):
        for one, model, run in (
            ("ours", contest.classifier, contest.run_ours),
            ("peer", contest.peer, contest.run_peer),
        ):
            model.to(device)
            reset_peak_bytes()
            speeds[one].append(run(batches)[0])
            peaks[one] = peak_bytes()
            model.to("cpu")  # so that neither counts in the other's memory
            if device.type != "cpu":
                torch.accelerator.empty_cache()
    return {
        "examples_per_second": {one: spread(found) for one, found in speeds.items()},
        "ratio": ratios(speeds["ours"], speeds["peer"]),
        "peak_bytes": peaks,
        "tokens_per_example": contest.tokens(batches),
        "batch": batch,
    }


def llama(tiny: bool) -> dict[str, Any]:
    """Build a Llama in NF4 on the device, score documents zero-shot with it, and train LoRA on it."""
    import numpy as np
    import torch
    from tests.conftest import NLI_LABELS

    from entailor.engine import trainer as loop
    from entailor.engine.scorer import score, usual_batch_tokens
    from entailor.methods import build_method
    from entailor.models.device import peak_bytes, reset_peak_bytes
    from entailor.tasks import Task

    task, rows = Task(NLI_LABELS, is_pair=True), make_rows(24 if tiny else 512, tiny)
    begin = time.perf_counter()
    backbone = build_llama(task, tiny)
    wait()
    found: dict[str, Any] = {"build_seconds": time.perf_counter() - begin, "build_peak_bytes": peak_bytes()}

    classifier = build_method("in_context", {"num_fewshot": 0, "calibration": "none"}).adapt(backbone, task, 0)
    classifier.demonstrate([])
    inputs = classifier.encode(rows)
    score(classifier, inputs[:8], usual_batch_tokens())
    reset_peak_bytes()
    begin = time.perf_counter()
    score(classifier, inputs, usual_batch_tokens())
    found["zero_shot"] = {
        "documents_per_second": len(rows) / (time.perf_counter() - begin),
        "tokens_per_document": float(np.mean([len(one) for one in inputs])),
        "peak_bytes": peak_bytes(),
    }

    settings = {"head": "verbalizer", "gradient_checkpointing": True, "per_device_train_batch_size": 8}
    method: Any = build_method("lora", settings | {"num_train_epochs": 1.0, "eval_strategy": "epoch"})
    tuned: Any = method.adapt(backbone, task, 0)
    inputs, targets = tuned.encode(rows), np.array(task.targets(rows))
    reset_peak_bytes()
    for count in (16, 16 if tiny else 128):  # the first is for what is set up once
        data = loop.TrainingData(inputs[:count], targets[:count], inputs[:8], targets[:8])
        result = loop.train(tuned, method, data, loop.LoopRuntime(0, torch.bfloat16))
        tokens = sum(len(one) for one in inputs[:count])
    found["qlora"] = {"tokens_per_second": tokens / result.train_seconds, "peak_bytes": peak_bytes()}
    return found


def build_llama(task: Any, tiny: bool) -> Any:
    """Return a Llama whose random layers were drawn on the device and quantised there, one at a time."""
    import bitsandbytes
    import torch
    from tests.conftest import make_decoder_tokenizer
    from torch import nn
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    from entailor.config.parts import ModelSettings
    from entailor.models.device import main_device
    from entailor.models.load import Backbone
    from entailor.models.precision import PrecisionChoice
    from entailor.models.prompts import PromptEncoder
    from entailor.models.quantization import settle_quantized
    from entailor.models.resolve.source import ModelFolder

    device, tokenizer = main_device(), make_decoder_tokenizer("llama")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    sizes = TINY | {"vocab_size": len(tokenizer), "max_position_embeddings": 512} if tiny else DECODER
    config = LlamaConfig(**sizes, bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.pad_token_id)
    torch.manual_seed(0)
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config)

    def draw(shape: Any) -> Any:
        return torch.empty(shape, dtype=torch.bfloat16, device=device).normal_(0, 0.02)

    for parent in list(model.model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear):
                packed = bitsandbytes.nn.Linear4bit(
                    layer.in_features, layer.out_features, bias=False, compute_dtype=torch.float32, device="meta"
                )
                packed.weight = bitsandbytes.nn.Params4bit(
                    draw(layer.weight.shape), requires_grad=False, quant_type="nf4"
                ).to(device)
                setattr(parent, name, packed)
            elif hasattr(layer, "weight"):
                norm = "norm" in name
                layer.weight = nn.Parameter(
                    torch.ones(layer.weight.shape, device=device) if norm else draw(layer.weight.shape)
                )
    model.lm_head.weight = nn.Parameter(draw(model.lm_head.weight.shape))
    model.model.rotary_emb = LlamaRotaryEmbedding(config).to(device)
    model.requires_grad_(False).eval()
    model.is_loaded_in_4bit = True  # by which peft knows it
    settings = ModelSettings(load_in_4bit=True)
    settle_quantized(model, settings)
    encoder = PromptEncoder(tokenizer, config, settings.max_length, task.template, with_labels=True)
    folder = ModelFolder("random Llama", ROOT, "folder", "0" * 64)
    return Backbone(folder, model, encoder, PrecisionChoice("bf16", "benchmark"), (), kind="language_model")


PARTS: dict[str, Callable[[bool], dict[str, Any]]] = {
    "suite": suite,
    "nf4": nf4,
    "lora": lambda tiny: large("lora", tiny),
    "full": lambda tiny: large("full_finetuning", tiny),
    "llama": llama,
}

if __name__ == "__main__":
    main()
