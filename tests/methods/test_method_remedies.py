"""What an error about a method tells the user to do is done, to the letter, and then a classifier is built."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.conftest import make_examples

from entailor.classifiers.base import Classifier
from entailor.data.example import Example
from entailor.errors import EntailorError
from entailor.methods import build_method
from entailor.methods.demonstrations import Demonstrations
from entailor.tasks import Task

SINGLE = Task(("good", "bad"), is_pair=False)
Settings = dict[str, Any]


def built(load_tiny, name: str, settings: Settings, kind: str | None = "bert", task: Task = SINGLE) -> Classifier:
    loading = {key: settings[key] for key in ("load_in_4bit", "max_length", "long_texts") if key in settings}
    method = build_method(name, {key: value for key, value in settings.items() if key not in loading})
    backbone = load_tiny(kind, task, objective=method.objective, **loading) if kind else None
    return method.adapt(backbone, task, 0)


LAYERS = {"target_modules": ["query"]}
FIXED = {"demonstrations": "fixed", "num_fewshot": 2}
BY_API = {"api_model": "x"}


@pytest.mark.parametrize(
    ("name", "kind", "wrong", "remedy", "told"),
    [
        ("lora", "bert", {"target_modules": ["qery"]}, "or to some of its linear layers: dense, key, query",
         LAYERS),
        ("lora", "bert", {"target_modules": ["qery"]}, "Set target_modules to all-linear",
         {"target_modules": "all-linear"}),
        ("lora", "bert", {"target_modules": "nothing.*"}, "Set target_modules to all-linear, or choose", {}),
        ("lora", "bert", {"target_modules": "(query"}, "Give a list of names of layers", LAYERS),
        ("ia3", "distilbert", {"target_modules": ["x"]}, "or give some of its linear layers: k_lin, lin1",
         {"target_modules": ["k_lin"], "feedforward_modules": []}),
        ("ia3", "distilbert", {"target_modules": ["x"]}, "Leave the key out", {}),
        ("full_finetuning", "bert", {"load_in_4bit": True}, "set model.load_in_4bit=false", {"load_in_4bit": False}),
        ("p_tuning", "bert", {"num_virtual_tokens": 60}, "Lower num_virtual_tokens", {"num_virtual_tokens": 20}),
        ("p_tuning", "bert", {"num_virtual_tokens": 20, "max_length": 24}, "or raise model.max_length",
         {"num_virtual_tokens": 20, "max_length": 60}),
        ("p_tuning", "bert", {"pooling": "pair"}, "Set pooling=mean", {"pooling": "mean"}),
        ("p_tuning", "llama", {"head": "verbalizer", "pooling": "mean"}, "Leave out pooling", {"head": "verbalizer"}),
        ("p_tuning", "llama", {"head": "verbalizer", "pooling": "mean"}, "or set head=classifier",
         {"head": "classifier", "pooling": "mean"}),
        ("linear_probe", "bert", {"C": []}, "at least 1", {"C": [1]}),
        ("peft", "bert", {"peft_type": "LORRA"}, "Did you mean 'LORA'?", {"peft_type": "LORA"}),
        ("peft", "bert", {"peft_type": "LORA", "peft_config": {"revision": "a/b"}}, "Leave out revision",
         {"peft_type": "LORA"}),
        ("zero_shot_embedding", "bert", {"descriptions": {"god": "x"}}, "Use the data's label names",
         {"descriptions": {"good": "x"}}),
        ("in_context", "llama", {**FIXED, "demonstration_ids": []}, "Give both or neither", {}),
        ("in_context", "llama", {**FIXED, "demonstration_ids": ["a"]}, "Make them agree",
         {**FIXED, "demonstration_ids": ["a", "b"]}),
        ("llm_api", None, {}, "Give llm_api.api_model=NAME", BY_API),
        ("llm_api", None, {**BY_API, "max_cost": 1}, "Give input_price and output_price",
         {**BY_API, "max_cost": 1, "input_price": 1, "output_price": 1}),
    ],
)  # fmt: skip
def test_settings_of_a_method(load_tiny, name, kind, wrong, remedy, told):
    with pytest.raises(EntailorError, match=re.escape(remedy)):
        built(load_tiny, name, wrong, kind)
    assert built(load_tiny, name, told, kind)


@pytest.mark.parametrize("name", ["lora", "p_tuning", "linear_probe", "in_context"])
def test_a_method_without_a_model(load_tiny, name):
    with pytest.raises(EntailorError, match=f"{name} needs a model. Give one with --model"):
        built(load_tiny, name, {}, None)
    assert built(load_tiny, name, {}, "llama" if name == "in_context" else "bert")


@pytest.mark.parametrize(
    ("wrong", "remedy", "told"),
    [
        ({"num_fewshot": 50}, "Lower num_fewshot", {"num_fewshot": 8}),
        ({**FIXED, "demonstration_ids": ["first", "secnd"]}, "Did you mean 'second'?",
         {**FIXED, "demonstration_ids": ["first", "second"]}),
    ],
)  # fmt: skip
def test_demonstrations(wrong: Settings, remedy: str, told: Settings):
    names = ("first", "second", *"abcdef")
    rows = make_examples(8, pair=False, labels=SINGLE.labels)
    train = [Example(name, row.text, None, row.label) for row, name in zip(rows, names, strict=True)]
    with pytest.raises(EntailorError, match=re.escape(remedy)):
        Demonstrations(build_method("in_context", wrong), SINGLE, 0).choose(train)
    assert Demonstrations(build_method("in_context", told), SINGLE, 0).choose(train)
