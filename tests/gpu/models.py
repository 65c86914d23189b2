"""Tiny models for a process that is not pytest's, and what stands in for layers in 4 bits."""

from pathlib import Path
from typing import Any

import torch
from tests.conftest import DECODERS, make_config, make_decoder_config, make_decoder_tokenizer, make_tokenizer
from torch import nn


def make_model(kind: str, place: Path) -> Path:
    """Write a random model of two layers, once, and return its folder."""
    from transformers import AutoModel, AutoModelForCausalLM

    folder = place / kind
    if folder.exists():
        return folder
    if kind == "bert-nli":
        return _with_nli_head(make_model("bert", place), folder)
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


def _with_nli_head(plain: Path, folder: Path) -> Path:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    names = dict(enumerate(("contradiction", "neutral", "entailment")))
    numbers = {name: row for row, name in names.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(plain, id2label=names, label2id=numbers)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(plain).save_pretrained(folder)
    return folder


def stand_in_for_4bit() -> None:
    """Let a model in 4 bits be loaded with the weights that its layers unpack to, in plain layers.

    The kernels and tensors of bitsandbytes cannot lie on the pretend accelerator.
    """
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    from entailor.models import load

    plain_load = load.load_checkpoint

    def load_checkpoint(auto_class: Any, path: Path, plan: Any, form: Path | None = None, **options: Any) -> Any:
        model, info = plain_load(auto_class, path, plan, form, **options)
        if plan.main == "cpu":
            return model, info
        for parent in list(model.modules()):
            for name, layer in list(parent.named_children()):
                if isinstance(layer, Linear4bit):
                    plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
                    plain.weight = nn.Parameter(
                        dequantize_4bit(layer.weight.data, layer.weight.quant_state).float(), requires_grad=False
                    )
                    if layer.bias is not None:
                        plain.bias = layer.bias
                    setattr(parent, name, plain)
        return model, info

    load.load_checkpoint = load_checkpoint
