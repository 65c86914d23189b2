"""Writes the files of each format from a finished classifier, and says which formats fit which method."""

from __future__ import annotations

import inspect
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from entailor.classifiers.readout import LabelWords, LastToken, OwnHead
from entailor.classifiers.soft_prompt import SoftPromptClassifier
from entailor.classifiers.transformer import PeftClassifier, TransformerClassifier
from entailor.data.example import Example
from entailor.errors import MethodError
from entailor.methods import Classifier
from entailor.methods.bag_of_words import BagOfWordsClassifier
from entailor.methods.full_finetuning import FullClassifier
from entailor.methods.in_context import InContextClassifier
from entailor.methods.linear_probe import LinearProbeClassifier
from entailor.methods.llm_api import LlmApiClassifier
from entailor.methods.majority import MajorityClassifier
from entailor.methods.static_embedding import StaticEmbeddingClassifier
from entailor.models.load import quiet_libraries
from entailor.models.prompts import PromptEncoder
from entailor.runs.files import read_json, write_json
from entailor.shipping.gguf_export import GGUF_FILE, why_no_gguf, write_model
from entailor.shipping.manifest import Format
from entailor.shipping.runtimes import gguf_runtime, linear_runtime, lines, tokens, torch_runtime
from entailor.shipping.runtimes.linear_runtime import LinearInput
from entailor.shipping.runtimes.tokens import InputSettings

FORMATS: tuple[Format, ...] = ("transformers", "adapter", "sklearn", "onnx", "onnx-int8", "gguf", "gguf-f16")
TOKENIZER_FILE = "tokenizer.json"
FIELDS = dict(zip(tokens.MARKS, ({"field": "text"}, {"field": "text_pair"}), strict=True))
LINEAR = (MajorityClassifier, BagOfWordsClassifier, StaticEmbeddingClassifier)
ON_SERVER = "the model is on a server. entailor predict and entailor serve ask it there"
IN_GRAPH = (SoftPromptClassifier, LinearProbeClassifier)
"""Classifiers that are no checkpoint, but can be written as one graph."""


def fitting_formats(classifier: Classifier) -> dict[Format, str | None]:
    """Return, for each format, why a classifier cannot be written in it; None where it can."""
    model = _why_no_model(classifier)
    plain = model or _why_not_plain(classifier)
    adapter = None if isinstance(classifier, PeftClassifier) else "no adapter of peft was trained"
    if classifier.offset_L is not None and not isinstance(getattr(classifier, "readout", None), LabelWords):
        model = plain = "its output layer has no bias to keep its thresholds in. Train with thresholds=none"
    graph = _why_no_graph(classifier) if isinstance(classifier, IN_GRAPH) else plain or _why_no_head(classifier)
    words = plain or why_no_gguf(classifier)
    reasons: dict[Format, str | None] = {
        "transformers": plain,
        "adapter": model or adapter,
        "sklearn": None if isinstance(classifier, LINEAR) else "only baselines without a model are scored by numpy",
        "onnx": graph,
        "onnx-int8": graph,
        "gguf": words,
        "gguf-f16": words,
    }
    return reasons


def _why_no_model(classifier: Classifier) -> str | None:
    if isinstance(classifier, LinearProbeClassifier):
        return "a regression on pooled states is no head that transformers knows"
    if not isinstance(classifier, TransformerClassifier):
        on_server = isinstance(classifier, LlmApiClassifier)
        return ON_SERVER if on_server else "the classifier is no checkpoint of transformers"
    if getattr(classifier.text_encoder, "windows", False):
        return "long texts are cut into windows, which no runtime outside Entailor does. Train with long_texts=truncate"
    if not isinstance(classifier.readout, (OwnHead, LastToken, LabelWords)):
        return "its head reads the last token in a way of its own"
    if classifier.reserve:
        return "it has virtual tokens, which plain checkpoints have no place for"
    return None


def _why_not_plain(classifier: Classifier) -> str | None:
    if isinstance(classifier, InContextClassifier):
        nearest = classifier.method.demonstrations == "nearest"
        return "each text has demonstrations of its own, found by a second model" if nearest else None
    if isinstance(classifier, FullClassifier):
        return None
    if not isinstance(classifier, PeftClassifier):
        return "its adapter is not a change of weights, so it cannot be merged"
    configs = classifier.model.peft_config.values()
    if any(config.is_prompt_learning for config in configs) or not hasattr(
        classifier.model.base_model, "merge_and_unload"
    ):
        return "peft cannot merge its adapter into the base model"
    return None


def _why_no_head(classifier: Any) -> str | None:
    encoder = isinstance(classifier.readout, OwnHead)
    return None if encoder else "only encoders with a classification head are exported to ONNX"


def _why_no_graph(classifier: Any) -> str | None:
    """Say why a soft prompt or a probe cannot be written as one graph, tokens in and logits out."""
    reader = getattr(classifier, "reader", classifier)
    if not isinstance(reader.readout, OwnHead):
        return "only encoders are exported to ONNX"
    if getattr(reader.text_encoder, "windows", False):
        return "long texts are cut into windows, which no runtime outside Entailor does. Train with long_texts=truncate"
    return None


def check_format(name: str, classifier: Classifier, method: str) -> None:
    """Refuse a format that does not fit.

    Raises:
        MethodError: it is unknown or does not fit; says which do.
    """
    reasons = fitting_formats(classifier)
    fit = ", ".join(one for one, reason in reasons.items() if reason is None) or "none"
    if name not in FORMATS:
        raise MethodError(f"--format: {name!r} is no format. Known are {', '.join(FORMATS)}; for {method} fit: {fit}")
    reason = reasons[name]
    if reason is not None:
        raise MethodError(f"--format {name}: not for {method}: {reason}. Fitting: {fit}")


def input_settings(classifier: Any) -> InputSettings | LinearInput:
    """Return what predict.py must know of the way from text to input."""
    if isinstance(classifier, MajorityClassifier):
        return {"fields": [], "max_ngram": 0}
    if isinstance(classifier, BagOfWordsClassifier):
        return {"fields": list(classifier.fields), "max_ngram": classifier.method.max_ngram}
    if isinstance(classifier, StaticEmbeddingClassifier):
        return {"fields": [], "max_ngram": 0, "table": True}
    return token_settings(classifier)


def token_settings(classifier: Any) -> InputSettings:
    """Return the same of a classifier that reads tokens."""
    reader = getattr(classifier, "reader", classifier)
    encoder = reader.text_encoder
    settings: InputSettings = {
        "max_length": encoder.room_beside(reader.reserve),
        "control": sorted(encoder.control),
        "types": bool(getattr(encoder, "has_types", False)),
        "pad": reader.pad_id,
    }
    if isinstance(classifier, LinearProbeClassifier):
        settings["views"] = ["both", "text", "text_pair"] if classifier.task.is_pair else ["both"]
    if isinstance(encoder, PromptEncoder):
        settings |= _frames(encoder, classifier)
    if isinstance(reader.readout, LastToken):
        settings["head"] = reader.readout.head
    return settings


def _frames(encoder: PromptEncoder, classifier: Any) -> InputSettings:
    """Return what stands around the texts, shown to be so by other texts.

    Raises:
        MethodError: the template does more with a text than to write it down.
    """
    shots = classifier.demonstrations.shots if isinstance(classifier, InContextClassifier) else ()
    is_pair = encoder.template.is_pair
    words: tuple[str, ...] = encoder.template.words if encoder.with_labels else ()

    def segments(first: str, second: str, word: str, skipped: int) -> list[int | str]:
        return list(encoder._segments(Example("", first, second if is_pair else None), shots[skipped:], word))

    def filled(frame: list[int | str], first: str, second: str) -> list[int | str]:
        return [
            one if isinstance(one, int) else one.replace(tokens.MARKS[0], first).replace(tokens.MARKS[1], second)
            for one in frame
        ]

    def asked(skipped: int) -> tokens.Frames:
        frames = [segments(*tokens.MARKS, word, skipped) for word in ("", *words)]
        for first, second in (("A b.", "C d?"), ("", "x"), ("UPPER  {{ x }} <b>&amp;", "\U0001f600 Ünïcode")):
            for frame, word in zip(frames, ("", *words), strict=True):
                if filled(frame, first, second) != segments(first, second, word, skipped):
                    raise MethodError(
                        "the template changes or repeats texts by rules of its own, which predict.py cannot follow. "
                        "Train with a template that writes each text as it is"
                    )
        return {"frame": frames[0], "answers": frames[1:]}

    bare = asked(len(shots))
    found: InputSettings = {
        "frame": bare["frame"],
        "answers": bare["answers"],
        "bare_end": not encoder.template.chat,
    }
    if words:
        in_context = classifier if isinstance(classifier, InContextClassifier) else None
        offset_L = np.zeros(len(words)) if classifier.offset_L is None else classifier.offset_L
        found |= {
            "shots": [asked(skipped) for skipped in range(len(shots))],
            "context": encoder.context,
            "bias": in_context.bias_L.tolist() if in_context else (-offset_L).tolist(),
            "scale": in_context.temperature if in_context else 1.0,
            "by_length": bool(in_context and in_context.method.length_normalized),
        }
    return found


def write_script(folder: Path, runtime: Any) -> None:
    """Write predict.py: a runtime's own text, with what it imports from here in front."""
    text = inspect.getsource(runtime)
    for shared in (tokens, lines):
        body = inspect.getsource(shared).partition("from __future__ import annotations\n")[2].strip()
        text = re.sub(rf"from {re.escape(shared.__name__)} import .*", body.replace("\\", r"\\"), text)
    (folder / "predict.py").write_text(text, encoding="utf-8", newline="\n")


def write_linear(classifier: Any, folder: Path) -> None:
    """Write a baseline's numbers as safetensors and JSON."""
    if isinstance(classifier, MajorityClassifier):
        save_file({"bias": np.asarray(classifier.log_frequencies_L, dtype=np.float64)}, folder / "linear.safetensors")
    elif isinstance(classifier, StaticEmbeddingClassifier):
        classifier.linear.save(folder)
        save_file({"vectors": classifier.table.vectors_VH}, folder / "table.safetensors")
        (folder / TOKENIZER_FILE).write_bytes(classifier.table.tokenizer_json)
    else:
        classifier.save(folder)
    write_script(folder, linear_runtime)


def write_transformers(classifier: Any, folder: Path, model: Any) -> None:
    """Write a checkpoint that `pipeline("text-classification")` loads."""
    labels = classifier.task.labels
    if not isinstance(classifier.readout, LabelWords):
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {label: index for index, label in enumerate(labels)}
        model.config.problem_type = "single_label_classification" if len(labels) > 1 else None
    with quiet_libraries():
        model.save_pretrained(folder, safe_serialization=True)
    write_tokenizer(classifier, folder)
    write_script(folder, torch_runtime)


def write_gguf(classifier: Any, folder: Path, model: Any, kind: str) -> None:
    """Write model.gguf, and prompt.json for readers of other programs: what stands around the texts, and the words."""
    write_model(classifier, model, folder / GGUF_FILE, kind)
    encoder = classifier.text_encoder
    settings = token_settings(classifier)
    parts: list[Any] = []
    first: tokens.Frames = settings["shots"][0] if settings["shots"] else settings
    for piece in first["frame"]:
        if isinstance(piece, int):
            parts.append({"token": encoder.tokenizer.convert_ids_to_tokens(piece)})
        else:
            texts = filter(None, re.split(f"({'|'.join(tokens.MARKS)})", piece))
            parts += [FIELDS.get(one, one) for one in texts]
    words = dict(zip(classifier.task.labels, encoder.template.words, strict=True))
    write_json(folder / "prompt.json", {"prompt": parts, "words": words})
    encoder.tokenizer.backend_tokenizer.save(str(folder / TOKENIZER_FILE))
    write_script(folder, gguf_runtime)


def write_tokenizer(classifier: Any, folder: Path) -> None:
    """Write the tokenizer, its limit that of the training."""
    tokenizer = classifier.text_encoder.tokenizer
    before = tokenizer.model_max_length
    tokenizer.model_max_length = classifier.text_encoder.room_beside(0)
    try:
        tokenizer.save_pretrained(folder)
    finally:
        tokenizer.model_max_length = before


def write_adapter(classifier: Any, folder: Path, trial: Path, base: str) -> None:
    """Write adapter and head as peft has them; the base model is named, and not copied."""
    shutil.copytree(trial / "adapter", folder, dirs_exist_ok=True)
    config_file = folder / "adapter_config.json"
    write_json(config_file, {**read_json(config_file), "base_model_name_or_path": base})
    write_tokenizer(classifier, folder)
    write_script(folder, torch_runtime)
