"""Every method in every format that fits it answers as recorded; what does not fit is refused with the reason."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import NLI_LABELS, make_table
from tests.shipping.faults import Change, cut, document, input_value, swap_first_two

from entailor import Predictor
from entailor.config.experiment import Experiment
from entailor.errors import MethodError
from entailor.methods import build_method
from entailor.shipping import onnx_export
from entailor.shipping.export import Source, finish, prove, write_format
from entailor.shipping.formats import check_format, fitting_formats
from entailor.shipping.verification import ask_here
from entailor.study.compare import Comparison, compare

PLAIN, GRAPH, WORDS = {"transformers"}, {"onnx", "onnx-int8"}, {"gguf", "gguf-f16"}
ONE = {"num_train_epochs": 1}
LORA = {"method": "lora", "r": 2, **ONE}
SOFT = {"num_virtual_tokens": 4, **ONE}
COSTLY = {  # thresholds that are never where they were
    "thresholds": "cost",
    "costs": {
        gold: {said: 1.0 + 8.0 * (gold == "neutral") for said in NLI_LABELS if said != gold} for gold in NLI_LABELS
    },
}
ENCODER = {
    "full_finetuning": ({**ONE, **COSTLY}, PLAIN | GRAPH),
    "p_tuning": ({**SOFT, **COSTLY}, GRAPH),
    "prefix_tuning": (SOFT, GRAPH),
}
DECODER = {
    "lora": (LORA, PLAIN | {"adapter"}),
    "words": ({**LORA, **COSTLY, "head": "verbalizer"}, PLAIN | WORDS | {"adapter"}),
    "nf4": ({**LORA, "head": "verbalizer", "model": {"load_in_4bit": True}}, PLAIN | WORDS | {"adapter"}),
    "zero_shot": ({"method": "in_context", "length_normalized": True}, PLAIN | WORDS),
    "few_shot": ({"method": "in_context", "num_fewshot": 3, "calibration": "contextual", **COSTLY}, PLAIN | WORDS),
}
FITTING = {
    "bag_of_words": {"sklearn"},
    "majority": {"sklearn"},
    "static_embedding": {"sklearn"},
    "linear_probe": GRAPH,
    **{name: formats for name, (_, formats) in ENCODER.items()},
    **{f"decoder {name}": formats for name, (_, formats) in DECODER.items()},
}
# torch's exporter takes many seconds a model: graphs of soft prompts and probes are made in tests/long/exports.py
QUICK = [(name, one) for name, formats in FITTING.items() for one in sorted(formats - GRAPH)]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_table(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="module")
def sources(
    finished_run: Comparison,
    nli_experiment: Experiment,
    tiny_model: Callable[[str], Path],
    table: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Source]:
    """A finished trial of every method, by its name here."""
    place = tmp_path_factory.mktemp("runs")
    found = {f"{record.name} {record.seed}": (finished_run, record) for record in finished_run.records}
    kinds: dict[str, dict[str, Any]] = {
        "bert": {"static_embedding": {"table": table}, **{name: settings for name, (settings, _) in ENCODER.items()}},
        "llama": {name: settings for name, (settings, _) in DECODER.items()},
    }
    for kind, methods in kinds.items():
        changes = {"models": (str(tiny_model(kind)),), "methods": methods, "seeds": (0,), "out": str(place / kind)}
        run = compare(nli_experiment.model_copy(update=changes))
        assert [record.error for record in run.records] == [None] * len(methods)
        prefix = "decoder " if kind == "llama" else ""
        found |= {f"{prefix}{record.name} 0": (run, record) for record in run.records}
    trials = {name: found[f"{name} 0"] for name in FITTING}
    return {name: Source(run.folder.trial(one.model, one.name, one.seed)) for name, (run, one) in trials.items()}


@pytest.mark.parametrize("name", FITTING)
def test_a_format_fits_or_is_refused_with_the_reason_and_those_that_do(name, sources):
    source = sources[name]
    reasons = fitting_formats(source.classifier)
    assert {one for one, reason in reasons.items() if reason is None} == FITTING[name]
    for one, reason in reasons.items():
        if reason is not None:
            with pytest.raises(MethodError) as refused:
                check_format(one, source.classifier, name)
            assert reason in str(refused.value)
            assert all(fitting in str(refused.value) for fitting in FITTING[name])


@pytest.mark.parametrize("name", ["linear_probe", "p_tuning", "prefix_tuning"])
def test_a_graph_of_any_batch_can_be_made(name, sources):
    """The first step of torch's exporter, which is the one that fails where code asks for what a batch holds."""
    names = onnx_export.input_names(sources[name].input)
    shapes = tuple({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC} for _ in names)
    with onnx_export._traceable(sources[name], names) as wrapped, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own
        example = onnx_export._made_up(names, 2, 9, 30)
        graph = torch.export.export(wrapped, example, dynamic_shapes=(shapes,), strict=False).module()
        other = onnx_export._made_up(names, 3, 7, 30)
        torch.testing.assert_close(graph(*other), wrapped(*other))


def in_every_prompt(change: Callable[[dict[str, Any]], None]) -> Change:
    def apply(values: dict[str, Any]) -> None:
        for asked in (values["input"], *values["input"]["shots"]):
            change(asked)

    return document("manifest.json", apply)


def first_token_twice(asked: dict[str, Any]) -> None:
    for frame in (asked["frame"], *asked["answers"]):
        frame.insert(0, frame[0])


def other_template(asked: dict[str, Any]) -> None:
    for frame in (asked["frame"], *asked["answers"]):
        frame[-1] = frame[-1].replace("Question", "Label")


GGUF_FAULTS = {
    "first token twice": in_every_prompt(first_token_twice),
    "another template": in_every_prompt(other_template),
    "words of labels swapped": in_every_prompt(lambda asked: swap_first_two(asked["answers"])),
    "demonstrations lost": input_value("shots", lambda _: []),
    "label bias lost": input_value("bias", lambda bias: [0.0] * len(bias)),
    "file cut": cut("model.gguf"),
}


@pytest.fixture(scope="module")
def healthy_gguf(sources: dict[str, Source], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a decoder with demonstrations, before the proof."""
    folder = tmp_path_factory.mktemp("gguf")
    write_format(sources["decoder few_shot"], "gguf", folder)
    return folder


@pytest.mark.parametrize("fault", GGUF_FAULTS)
def test_faults_planted_in_a_gguf_file_are_caught(fault, sources, healthy_gguf, tmp_path):
    shutil.copytree(healthy_gguf, tmp_path / "faulty")
    GGUF_FAULTS[fault](tmp_path / "faulty")
    assert prove(sources["decoder few_shot"], "gguf", tmp_path / "faulty", 0.01, ask_here).problems


def test_an_adapter_over_a_quantised_base_is_held_to_the_base_it_meets(sources, tmp_path):
    """A scale that is a little off moves too few labels of a small test split to be seen by them."""
    source, folder = sources["decoder nf4"], tmp_path / "adapter"
    folder.mkdir()
    write_format(source, "adapter", folder)
    assert not prove(source, "adapter", folder, 0.9, ask_here).problems
    document("adapter_config.json", lambda values: values.update(lora_alpha=values["lora_alpha"] * 1.05))(folder)
    (problem,) = prove(source, "adapter", folder, 0.9, ask_here).problems
    assert problem.startswith("a log-probability of a made-up text is off by")


@pytest.mark.parametrize(
    ("kind", "method", "settings", "reason"),
    [
        ("llama", "p_tuning", SOFT, "gguf: not for it: it has virtual tokens.*Fitting: none"),
        ("llama", "linear_probe", {}, "gguf: not for it: a regression on pooled states.*Fitting: none"),
        ("qwen3", "lora", {"head": "verbalizer"}, "gguf: not for it: qwen3 is none of llama, mistral, qwen2"),
        ("bert", "lora", {}, "gguf: not for it: llama.cpp keeps no classification head.*Fitting: transformers"),
        (
            "llama",
            "in_context",
            {"num_fewshot": 2, "demonstrations": "nearest"},
            "gguf: not for it: each text has demonstrations of its own.*Fitting: none",
        ),
    ],
)
def test_gguf_is_refused_with_the_reason(kind, method, settings, reason, load_tiny, nli_task):
    way = build_method(method, settings)
    classifier = way.adapt(load_tiny(kind, objective=way.objective), nli_task, 0)
    with pytest.raises(MethodError, match=reason):
        check_format("gguf", classifier, "it")


def test_thresholds_are_refused_where_nothing_can_keep_them(load_tiny, nli_task):
    """A head without a bias, as decoders have: transformers would load the export without its thresholds."""
    classifier = build_method("lora", {}).adapt(load_tiny("llama"), nli_task, 0)
    assert fitting_formats(classifier)["transformers"] is None
    classifier.shift(np.array([0.0, 1.0, 0.0]))
    reasons = fitting_formats(classifier)
    assert None not in reasons.values()
    assert {reasons["transformers"], reasons["adapter"]} == {
        "its output layer has no bias to keep its thresholds in. Train with thresholds=none"
    }


@pytest.mark.parametrize("name", ["full_finetuning", "p_tuning", "decoder words", "decoder few_shot"])
def test_a_record_says_that_its_thresholds_were_moved(name, sources):
    found = [event.text for event in sources[name].record.events if event.text.startswith("thresholds: ")]
    assert len(found) == 1
    assert "least expected cost at temperature" in found[0]


@pytest.mark.parametrize(("name", "format_name"), QUICK)
def test_a_healthy_export_is_not_refused(name, format_name, sources, tmp_path):
    source = sources[name]
    (tmp_path / "scratch").mkdir()
    write_format(source, format_name, tmp_path / "scratch")
    # 18 examples cannot show that what rounds loses little; an adapter meets a base model that is not rounded
    rounds = format_name == "gguf-f16" or (format_name == "adapter" and source.settings.quantized)
    margin = 0.99 if rounds else 0.01
    proof = prove(source, format_name, tmp_path / "scratch", margin, ask_here)
    assert proof.problems == []
    assert proof.flips == [] or margin > 0.01
    finish(source, format_name, tmp_path / "scratch", tmp_path / "out", proof)
    inputs = [(one.text, one.text_pair) for one in source.record.predictions]
    answers = Predictor.load(tmp_path / "out").predict(inputs)
    for answer, one in zip(answers, source.record.predictions, strict=True):
        assert answer.probabilities == pytest.approx(one.probabilities, abs=1e-4 if margin == 0.01 else 0.2)
