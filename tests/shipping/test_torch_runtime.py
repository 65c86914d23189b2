"""Label words behind a prompt that is read once score as each would behind its own reading."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MambaConfig, MambaForCausalLM

from entailor.shipping.runtimes.torch_runtime import Runtime

PROMPT = [1, 5, 9, 7, 3]
WORDS = [[*PROMPT, 4], [*PROMPT, 8, 6], [*PROMPT, 8, 2, 11]]


def keeps_what_it_read() -> Any:
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    )


def keeps_a_state() -> Any:
    return MambaForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, state_size=4))


@pytest.mark.parametrize("by_length", [False, True])
@pytest.mark.parametrize("make", [keeps_what_it_read, keeps_a_state])
def test_words_of_one_and_several_tokens_score_as_if_each_were_read_whole(make: Any, by_length: bool) -> None:
    torch.manual_seed(0)
    runtime: Any = Runtime.__new__(Runtime)
    runtime.model = make().eval()
    runtime.is_words, runtime.labels = True, ["a", "b", "c"]
    runtime.settings = {"by_length": by_length, "bias": [0.0, 0.5, 0.0], "scale": 2.0}
    runtime.tokens = Tokens()
    expected = []
    for ids, bias in zip(WORDS, (0.0, 0.5, 0.0), strict=True):
        with torch.inference_mode():
            log_p = torch.log_softmax(runtime.model(input_ids=torch.tensor([ids])).logits[0].double(), dim=-1)
        word = [float(log_p[place - 1, ids[place]]) for place in range(len(PROMPT), len(ids))]
        expected.append(((sum(word) / len(word) if by_length else sum(word)) - bias) / 2.0)
    assert runtime.logits([("any", None)])[0] == pytest.approx(expected, abs=1e-6)


class Tokens:
    """Ids of a prompt and three words, whatever the text."""

    def __call__(self, text: str, pair: str | None) -> tuple[list[int], list[int]]:
        return PROMPT, []

    def words(self, text: str, pair: str | None) -> list[tuple[list[int], int]]:
        return [(ids, len(PROMPT)) for ids in WORDS]
