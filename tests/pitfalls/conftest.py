"""Tiny models for the side-by-sides: what the usual tools do to them, and what Entailor does.

A file here is named after its number in docs/pitfalls.md. `usual` in a test's name marks the usual tool going wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import NLI_LABELS, WORDS

DECODER_SPECIALS = ("<unk>", "<s>", "</s>")


def make_plain_tokenizer(*, pad: str | None = None) -> Any:
    """A word-level tokenizer as llama's: it adds <s>, and has no pad token of its own."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: index for index, word in enumerate([*DECODER_SPECIALS, *WORDS])}
    backend = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", ids["<s>"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token=pad,
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def usual_peft(model: Any, config: Any) -> Any:
    """Return the adapted model as peft makes it, its notes to developers left out."""
    from peft import get_peft_model

    from entailor.models.load import quiet_libraries

    with quiet_libraries():
        return get_peft_model(model, config)


@pytest.fixture(scope="session")
def tiny_decoder() -> Callable[..., Any]:
    """Return a maker of tiny random llamas: of a class of transformers, with settings of the configuration."""
    from transformers import LlamaConfig

    def make(kind: Any, **settings: Any) -> Any:
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        words = len(DECODER_SPECIALS) + len(WORDS)
        config = LlamaConfig(vocab_size=words, bos_token_id=1, eos_token_id=2, **(sizes | settings))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = kind(config)
            for tensor in model.parameters():  # far from zero, so that positions matter
                tensor.data += 0.1 * torch.randn_like(tensor)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def plain_encoder(tiny_model: Callable[[str], Path]) -> Callable[..., Any]:
    """Return a loader of the tiny encoder as a plain transformers classifier; the seed makes its head."""
    from transformers import AutoModelForSequenceClassification

    from entailor.models.load import quiet_libraries

    def load(seed: int = 0, folder: Path | None = None) -> Any:
        with torch.random.fork_rng(), quiet_libraries():
            torch.manual_seed(seed)
            return AutoModelForSequenceClassification.from_pretrained(
                folder or tiny_model("bert"), num_labels=len(NLI_LABELS)
            ).eval()

    return load
