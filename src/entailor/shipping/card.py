"""README.md of an export: a Hugging Face model card made from the record, with what the proof found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from entailor.evaluation.metrics import evaluate_record
from entailor.evaluation.statistics import wilson_interval
from entailor.runs.record import PREDICTIONS_ON, RunRecord
from entailor.shipping.verification import Proof

_USE = {
    "transformers": "`pip install torch transformers`, then `pipeline(\"text-classification\", model=FOLDER)` or "
    "`python predict.py < lines.jsonl`.",
    "adapter": "`pip install torch transformers peft`, then `PeftModel.from_pretrained(base, FOLDER)` or "
    "`python predict.py [BASE] < lines.jsonl`.",
    "sklearn": "`pip install numpy`, then `python predict.py < lines.jsonl`.",
    "onnx": "`pip install numpy tokenizers onnxruntime`, then `python predict.py < lines.jsonl`.",
    "gguf": "`pip install numpy tokenizers llama-cpp-python`, then `python predict.py < lines.jsonl`.",
    "gguf-f16": "`pip install numpy tokenizers llama-cpp-python`, then `python predict.py < lines.jsonl`.",
    "onnx-int8": "`pip install numpy tokenizers onnxruntime`, then `python predict.py < lines.jsonl`.",
}  # fmt: skip


def _plain(text: object) -> str:
    """Return a name as it may stand in a table of Markdown."""
    kept = "".join(letter if letter.isprintable() else " " for letter in str(text))
    return kept.replace("|", "\\|").replace("<", "&lt;")


def model_card(values: Mapping[str, Any], record: RunRecord, proof: Proof) -> str:
    """Return the card.

    Args:
        values: of the manifest.
        record: of the trial.
        proof: of this export.
    """
    base = values["base_model"]
    metrics = evaluate_record(record)
    accuracy = wilson_interval(proof.accuracy_after, proof.examples)
    part = record.provenance.get(PREDICTIONS_ON, "test")
    pairs = "pairs of texts" if values["is_pair"] else "single texts"
    lines = [
        *_head(base),
        f"# {_plain(values['name'])}",
        "",
        f"Sorts {pairs} into {len(record.labels)} labels: {', '.join(map(_plain, record.labels))}. Method "
        f"`{values['method']}`" + (f" on `{_plain(base['name'])}`." if base else "."),
        "",
        "## Use",
        "",
        f'{_USE[values["format"]]} A line is `{{"text": ..., "text_pair": ...}}`; `--calibrated` states '
        "probabilities at the temperature that was fitted on validation.",
        "",
        "## Results",
        "",
        *_crossed(record),
        f"On the {proof.examples:,} examples of the {part} split: accuracy {proof.accuracy_after:.1%} (95 % interval "
        f"{accuracy.low:.1%} to {accuracy.high:.1%}), macro F1 as recorded {metrics.macro_f1:.3f}, calibration error "
        f"{proof.calibration_error:.3f}.",
        "",
        *_recalls(proof),
        "",
        "## Proof",
        "",
        f"Every recorded {part} example was scored again by this folder's own `predict.py`"
        + (f", run by {proof.engine}" if proof.engine else "")
        + f": {len(proof.flips)} labels "
        f"changed, the largest change of a log-probability is {proof.largest_change:.2g}; at most "
        f"{proof.loss_bound:.2%} of accuracy is lost (95 %). `verification.json` has the rest.",
        *_external(proof),
        "",
        "## Limits",
        "",
        f"Texts longer than {values['input'].get('max_length', 'any')} tokens are cut. Other data than the "
        "test split's may be answered worse. Labels stand for what the training data call so.",
        "",
        "## How to cite",
        "",
        f"Trained and exported with Entailor {values['libraries'].get('entailor', '')}; trial "
        f"`{values['trial_sha256'][:16]}`, split `{(values['split_sha256'] or 'unknown')[:16]}`.",
        "",
    ]
    return "\n".join(lines)


def _head(base: Mapping[str, Any] | None) -> list[str]:
    """Return what the Hub reads of a card."""
    head = ["---", "pipeline_tag: text-classification", "tags: [text-classification, entailor]"]
    if base and base["licence"]:
        head.append(f"license: {base['licence'].lower()}")
    if base and "/" in base["name"] and not base["name"].startswith(("/", ".")):
        head.append(f"base_model: {base['name']}")
    return [*head, "---"]


def _recalls(proof: Proof) -> list[str]:
    rows = [
        f"| {_plain(label)} | {_share(before)} | {_share(proof.recall_after[label])} |"
        for label, before in proof.recall_before.items()
    ]
    return ["| label | recall, as measured | recall, this export |", "| --- | --- | --- |", *rows]


def _crossed(record: RunRecord) -> list[str]:
    """Say what a classifier that has no test split is judged by."""
    if PREDICTIONS_ON not in record.provenance:
        return []
    return [
        "Fitted on all labelled examples after a cross-validation, whose figures stand in the report of the run: they, "
        "and not those below, say what to expect of new texts. The validation split chose how long to train.",
        "",
    ]


def _external(proof: Proof) -> list[str]:
    """Return what was found on external test sets, as a table; nothing where there are none."""
    if not proof.external:
        return []
    rows = [
        f"| {_plain(one['name'])} | {one['examples']:,} | {_share(one['accuracy_before'])} | "
        f"{_share(one['accuracy_after'])} | {one['flips']} | {one['largest_change']:.2g} |"
        for one in proof.external
    ]
    head = "| external test set | examples | accuracy, as measured | this export | labels changed | largest change |"
    return ["", head, "| --- | --- | --- | --- | --- | --- |", *rows]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
