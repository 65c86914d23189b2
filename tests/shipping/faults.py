"""Faults that exports have in the wild: each changes the folder of a healthy one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Change = Callable[[Path], None]


def tensors(change: Callable[[dict[str, torch.Tensor]], Any], file: str = "model.safetensors") -> Change:
    def apply(folder: Path) -> None:
        found = load_file(folder / file)
        change(found)
        save_file({name: tensor.contiguous() for name, tensor in found.items()}, folder / file)

    return apply


def document(file: str, change: Callable[[Any], Any]) -> Change:
    def apply(folder: Path) -> None:
        values = json.loads((folder / file).read_text(encoding="utf-8"))
        change(values)
        (folder / file).write_text(json.dumps(values), encoding="utf-8")

    return apply


def script(old: str, new: str) -> Change:
    def apply(folder: Path) -> None:
        text = (folder / "predict.py").read_text(encoding="utf-8")
        assert old in text
        (folder / "predict.py").write_text(text.replace(old, new), encoding="utf-8")

    return apply


def both(first: Change, second: Change) -> Change:
    def apply(folder: Path) -> None:
        first(folder)
        second(folder)

    return apply


def cut(file: str) -> Change:
    def apply(folder: Path) -> None:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: len(content) // 2])

    return apply


def noise(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(found: dict[str, torch.Tensor]) -> None:
        hit = [one for one in found if one.startswith(name) or f".{name}" in one]
        assert hit
        for one in hit:
            found[one] = torch.randn(found[one].shape, generator=torch.Generator().manual_seed(0)) * 0.5

    return change


def drop(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(found: dict[str, torch.Tensor]) -> None:
        for one in [one for one in found if name in one]:
            del found[one]

    return change


def scaled(part: str, factor: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(found: dict[str, torch.Tensor]) -> None:
        hit = [one for one in found if part in one]
        assert hit
        for one in hit:
            found[one] = found[one] * factor

    return change


def in_four_bits(found: dict[str, torch.Tensor]) -> None:
    for name, tensor in found.items():
        if tensor.ndim == 2:
            step = tensor.abs().max() / 7
            found[name] = (tensor / step).round() * step


def rows_swapped(found: dict[str, torch.Tensor]) -> None:
    found["classifier.weight"], found["classifier.bias"] = (
        found["classifier.weight"][[1, 0, 2]],
        found["classifier.bias"][[1, 0, 2]],
    )


def manifest_value(key: str, value: Any) -> Change:
    return document("manifest.json", lambda values: values.update({key: value}))


def input_value(key: str, change: Callable[[Any], Any]) -> Change:
    return document("manifest.json", lambda values: values["input"].update({key: change(values["input"][key])}))


def swap_first_two(values: list[Any]) -> None:
    values[0], values[1] = values[1], values[0]


T, A, S, X = "transformers", "adapter", "sklearn", "onnx"
FAULTS: dict[str, tuple[str, Change]] = {
    "head dropped": (T, tensors(drop("classifier"))),
    "head random": (T, tensors(noise("classifier"))),
    "head of zeros": (T, tensors(scaled("classifier", 0.0))),
    "head's rows swapped": (T, tensors(rows_swapped)),
    "head rounded to 4 bits, and all else": (T, tensors(in_four_bits)),
    "pooler dropped": (T, tensors(drop("pooler"))),
    "pooler random": (T, tensors(noise("bert.pooler"))),
    "embeddings random": (T, tensors(noise("bert.embeddings.word"))),
    "positions shifted": (T, tensors(lambda found: found.update({"bert.embeddings.position_embeddings.weight": found["bert.embeddings.position_embeddings.weight"].roll(1, 0)}))),  # noqa: E501
    "a norm scaled": (T, tensors(scaled("LayerNorm.weight", 1.1))),
    "a layer dropped": (T, tensors(drop("layer.1."))),
    "one layer less in the configuration": (T, document("config.json", lambda v: v.update(num_hidden_layers=1))),
    "another activation": (T, document("config.json", lambda v: v.update(hidden_act="relu"))),
    "another epsilon of norms": (T, document("config.json", lambda v: v.update(layer_norm_eps=0.1))),
    "labels of the configuration swapped": (
        T,
        document("config.json", lambda v: v.update(id2label={"0": "neutral", "1": "entailment", "2": "contradiction"})),
    ),
    "label order swapped": (T, document("manifest.json", lambda v: swap_first_two(v["labels"]))),
    "token types zeroed": (T, script("return found.ids, found.type_ids if self", "return found.ids, [0] * len(found.ids) if self")),  # noqa: E501
    "token types left out": (T, input_value("types", lambda _: False)),
    "attention mask of ones": (T, script("(torch.arange(longest) < lengths[:, None]).long()", "torch.ones(len(rows), longest).long()")),  # noqa: E501
    "padded on the left, mask on the right": (
        T,
        script("[*ids, *[self.settings[\"pad\"]] * (longest - len(ids))]", "[*[self.settings[\"pad\"]] * (longest - len(ids)), *ids]"),  # noqa: E501
    ),
    "truncation off by one": (T, input_value("max_length", lambda length: length - 1)),
    "truncation of the first text only": (T, script('strategy="longest_first"', 'strategy="only_first"')),
    "control tokens read as such": (T, both(script("encode_special_tokens = True", "encode_special_tokens = False"), input_value("control", lambda _: []))),  # noqa: E501
    "control tokens twice": (T, script("return found.ids, found", "return [found.ids[0], *found.ids], found")),
    "texts of a pair swapped": (T, script("ids, types = self.tokens(text, pair)", "ids, types = self.tokens(pair or text, text if pair else None)")),  # noqa: E501
    "second text left out": (T, script("rows = [self.tokens(*one) for one in inputs]", "rows = [self.tokens(one[0]) for one in inputs]")),  # noqa: E501
    "vocabulary in another order": (
        T,
        document("tokenizer.json", lambda v: v["model"]["vocab"].update(w0=v["model"]["vocab"]["w1"], w1=v["model"]["vocab"]["w0"])),  # noqa: E501
    ),
    "case kept": (T, document("tokenizer.json", lambda v: v.update(normalizer=None, pre_tokenizer={"type": "WhitespaceSplit"}))),  # noqa: E501
    "weights cut": (T, cut("model.safetensors")),
    "configuration cut": (T, cut("config.json")),
    "temperature lost": (T, manifest_value("temperature", None)),
    "another temperature": (T, manifest_value("temperature", 7.5)),
    "in training mode": (T, script("self.model.eval()", "self.model.train()")),
    "in bfloat16": (T, script("torch.float32", "torch.bfloat16")),
    "adapter at another scale": (A, document("adapter_config.json", lambda v: v.update(lora_alpha=v["lora_alpha"] * 2))),  # noqa: E501
    "rank-stabilised scale": (A, document("adapter_config.json", lambda v: v.update(use_rslora=True))),
    "adapter's B of zeros": (A, tensors(scaled("lora_B", 0.0), "adapter_model.safetensors")),
    "adapter without a head": (A, tensors(drop("classifier"), "adapter_model.safetensors")),
    "adapter on some layers": (A, document("adapter_config.json", lambda v: v.update(target_modules=["query"]))),
    "adapter cut": (A, cut("adapter_model.safetensors")),
    "vocabulary swapped": (S, document("vocabulary.json", lambda v: [swap_first_two(one["terms"]) for one in v])),
    "weights of terms lost": (S, document("vocabulary.json", lambda v: [one.update(idf=[1.0] * len(one["idf"])) for one in v])),  # noqa: E501
    "single words only": (S, input_value("max_ngram", lambda _: 1)),
    "fields swapped": (S, input_value("fields", lambda fields: fields[::-1])),
    "not normalised": (S, script("values / np.sqrt((values**2).sum())", "values")),
    "linear model cut": (S, cut("linear.safetensors")),
    "ONNX cut": (X, cut("model.onnx")),
    "ONNX: token types zeroed": (X, script("types_BT[place, : len(types)] = ids, 1, types", "types_BT[place, : len(types)] = ids, 1, 0")),  # noqa: E501
    "ONNX: mask of ones": (X, script("mask_BT[place, : len(ids)], types_BT", "mask_BT[place, :], types_BT")),
    "ONNX: batch frozen at 1": (X, lambda folder: freeze(folder / "model.onnx")),
}  # fmt: skip


def freeze(file: Path) -> None:
    import onnx

    model = onnx.load(str(file))
    for one in model.graph.input:
        one.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, str(file))
