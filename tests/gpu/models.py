"""Tiny models for a process that is not pytest's."""

from pathlib import Path

import torch
from tests.conftest import DECODERS, make_config, make_decoder_config, make_decoder_tokenizer, make_tokenizer


def make_model(kind: str, place: Path) -> Path:
    """Write a random model of two layers, once, and return its folder."""
    from transformers import AutoModel, AutoModelForCausalLM

    folder = place / kind
    if folder.exists():
        return folder
    is_decoder = kind in DECODERS
    tokenizer = make_decoder_tokenizer(kind) if is_decoder else make_tokenizer(kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if is_decoder:
            model = AutoModelForCausalLM.from_config(make_decoder_config(kind, tokenizer))
        else:
            model = AutoModel.from_config(make_config(kind, len(tokenizer), tokenizer.pad_token_id))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
