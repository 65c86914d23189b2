"""What is in use on this machine and what it wins: ``python -m entailor.accel``, a minute on two cores.

Each shortcut and the plain way are run in turn on random weights (MiniLM's shape, SmolLM2's with four layers), and the
ratio of their median times is printed. What cannot be tried is named with the reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from entailor.accel.dropout import dropout_mask, reference_dropout
from entailor.accel.embedding_rows import EmbeddingRows
from entailor.accel.gate import prove
from entailor.accel.lora_linear import lora_linear, reference_lora_linear
from entailor.accel.prefix_cache import SharedPrefix
from entailor.accel.shortcut import Shortcut

Run = Callable[[], Tensor]
REPEATS = 7
LENGTHS = [8 + 7 * (index % 8) for index in range(32)]
"""Tokens of the texts of a batch."""
WIDTH = max(LENGTHS)


def packed_encoder() -> tuple[Run, Run]:
    """An encoder's forward pass with padding, and without it and with the last layer for the first token alone."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=1000, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    body = BertModel(config).eval()
    shortcut = Shortcut(body)
    ids_BT = torch.randint(5, 1000, (len(LENGTHS), WIDTH))
    mask_BT = (torch.arange(WIDTH) < torch.tensor(LENGTHS)[:, None]).long()

    def plain() -> Tensor:
        first_BH: Tensor = body(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state[:, 0]
        return first_BH

    def short() -> Tensor:
        with shortcut.taken(LENGTHS, unread=None):
            return plain()

    return plain, short


def lora_step() -> tuple[Run, Run]:
    """A frozen layer with a low-rank update, forward and backward; both without dropout, so that they agree."""
    layer = nn.Linear(384, 1536).requires_grad_(requires_grad=False)
    down_RI, up_OR = nn.Parameter(torch.randn(16, 384) / 20), nn.Parameter(torch.randn(1536, 16) / 20)
    rows_NI = torch.randn(1024, 384, requires_grad=True)

    def step(linear: Any) -> Tensor:
        with torch.enable_grad():
            output_NO = linear(rows_NI, layer, down_RI, up_OR, 0.5, None)
            return torch.autograd.grad(output_NO.square().mean(), (down_RI, up_OR, rows_NI))[0]

    return lambda: step(reference_lora_linear), lambda: step(lora_linear)


def dropout_masks() -> tuple[Run, Run]:
    """The mask of the attention weights of a batch; what is compared is the share that is kept."""
    shape = (len(LENGTHS), 12, WIDTH, WIDTH)
    ones = torch.ones(shape)
    return lambda: _means(reference_dropout(ones, 0.1, training=True)), lambda: _means(dropout_mask(shape, 0.1))


def embedding_step() -> tuple[Run, Run]:
    """A step on a word embedding of 60,000 tokens, of which some hundred occur."""
    words_NT = torch.randint(5, 300, (32, 40))
    whole, few = (nn.Embedding(60_000, 64) for _ in range(2))
    few.load_state_dict(whole.state_dict())
    rows = EmbeddingRows(few, words_NT.flatten().tolist())

    def stepping(embedding: nn.Embedding, trained: Tensor) -> Run:
        optimizer = torch.optim.AdamW([trained], weight_decay=0.0, fused=True)

        def step() -> Tensor:
            with torch.enable_grad():
                vectors_NTH: Tensor = embedding(words_NT)
                vectors_NTH.square().mean().backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_([trained], 1.0)
            optimizer.step()
            optimizer.zero_grad()
            return vectors_NTH.detach().flatten(1)

        return step

    return stepping(whole, whole.weight), stepping(few, rows.rows_UH)


def _means(mask: Tensor) -> Tensor:
    return torch.stack([mask.mean(), -mask.mean()])[:, None].round(decimals=2)


def shared_prefix() -> tuple[Run, Run]:
    """Prompts behind 200 tokens that all of them share."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=576,
        num_hidden_layers=4,
        num_attention_heads=9,
        num_key_value_heads=3,
        intermediate_size=1536,
    )
    model = LlamaForCausalLM(config).eval()
    shared, own_BT = torch.randint(5, 1000, (200,)), torch.randint(5, 1000, (16, 20))
    whole_BT = torch.cat([shared.expand(16, -1), own_BT], dim=1)
    prefix: list[SharedPrefix] = []

    def plain() -> Tensor:
        logits_BV: Tensor = model(input_ids=whole_BT, logits_to_keep=1).logits[:, 0]
        return logits_BV

    def short() -> Tensor:
        if not prefix:
            prefix.append(SharedPrefix(model, shared.tolist()))
        with prefix[0].attending():
            inputs = prefix[0].inputs_behind(own_BT, torch.ones_like(own_BT))
            logits_BV: Tensor = model(**inputs, logits_to_keep=1).logits[:, 0]
        return logits_BV

    return plain, short


SHORTCUTS: dict[str, Callable[[], tuple[Run, Run]]] = {
    "packed encoder": packed_encoder,
    "LoRA in one step": lora_step,
    "dropout masks": dropout_masks,
    "embedding rows": embedding_step,
    "shared prefix": shared_prefix,
}


def lines() -> Iterator[str]:
    """Yield a line a shortcut: whether it is in use, and how many times as fast it is."""
    for name, make in SHORTCUTS.items():
        plain, short = make()
        verdict = prove(name, plain, short)
        if not verdict.proven:
            yield f"{name:18} not in use: {verdict.trouble or 'it gives another result here'}"
            continue
        times: tuple[list[float], list[float]] = ([], [])
        with torch.no_grad():
            for _ in range(REPEATS):
                for run, taken in zip((plain, short), times, strict=True):
                    begin = time.perf_counter()
                    run()
                    taken.append(time.perf_counter() - begin)
        yield f"{name:18} in use, {median(times[0]) / median(times[1]):.1f} times as fast"


def main() -> None:
    """Print a line a shortcut."""
    torch.manual_seed(0)
    for line in lines():
        print(line, flush=True)


if __name__ == "__main__":
    main()
