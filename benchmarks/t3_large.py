"""T3: LoRA on a model of roberta-large's shape with random weights, random batches, against Trainer + peft."""

from __future__ import annotations

import tempfile
from pathlib import Path

import training
from measure import arguments, gemm_peak, in_turn, ratios, read_rows, report, spread
from training import Contest, default_model

from entailor.models.resolve.source import ModelFolder, resolve_model

GOAL = 1.5
GOAL_SHARE = 0.7


def random_large(folder: Path, layers: int) -> ModelFolder:
    """Write a checkpoint of roberta-large's shape, with the tokenizer of the encoder that ships."""
    import torch
    from transformers import AutoTokenizer, RobertaConfig, RobertaModel

    tokenizer = AutoTokenizer.from_pretrained(default_model().path)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=1024,
        num_hidden_layers=layers,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=514,
        type_vocab_size=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    RobertaModel(config).save_pretrained(folder)
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(folder)
    return resolve_model(str(folder))


def operations(contest: Contest, batches: list[list[int]]) -> float:
    """Return the floating-point operations of an example on average: products on real tokens alone.

    Of the last layer only what is computed: keys and values of every token, the rest of the first. Frozen layers have
    a forward pass and one backward; the two factors of an update have a forward pass and two.
    """
    shape = contest.classifier.model.config
    width, inner, layers = shape.hidden_size, shape.intermediate_size, shape.num_hidden_layers
    rank = contest.method.r
    whole = {"frozen": 4 * width * width + 2 * width * inner, "low": rank * (8 * width + 2 * (width + inner))}
    cut = {"frozen": 2 * width * width, "low": rank * 4 * width}
    total = 0.0
    for index in (index for batch in batches for index in batch):
        tokens = len(contest.inputs[index])
        for part, passes in (("frozen", 2), ("low", 3)):
            all_layers = (layers - 1) * whole[part] * tokens + cut[part] * tokens + (whole[part] - cut[part])
            total += 2 * passes * all_layers
        total -= 2 * tokens * 3 * width * width  # nothing before the first layer wants a gradient
        attention = 2 * 2 * width * (tokens * tokens * (layers - 1) + tokens)
        total += 3 * attention
    return total / sum(map(len, batches))


def main() -> None:
    options = arguments(__doc__ or "", steps=8, layers=24)
    training.WARM_UP = 2
    rows = read_rows(options.data, 400)
    with tempfile.TemporaryDirectory() as place:
        contest = Contest("lora", random_large(Path(place), options.layers), rows)
        batches = contest.random_batches(options.steps)
        peaks = [gemm_peak()]
        speeds = in_turn(
            min(options.repeats, 3),
            ours=lambda: contest.run_ours(batches)[0],
            peer=lambda: contest.run_peer(batches)[0],
        )
        peaks.append(gemm_peak())
        useful = operations(contest, batches[training.WARM_UP :])
        share = [speed * useful / 1e9 / max(peaks) for speed in speeds["ours"]]
        result = {
            "gemm_gflops": spread(peaks),
            "goal": GOAL,
            "goal_share": GOAL_SHARE,
            "ratio": ratios(speeds["ours"], speeds["peer"]),
            "share_of_gemm_peak": spread(share),
            "ours_examples_per_second": spread(speeds["ours"]),
            "peer_examples_per_second": spread(speeds["peer"]),
            "tokens_per_example": contest.tokens(batches),
        }
    report("T3", result, options.out)


if __name__ == "__main__":
    main()
