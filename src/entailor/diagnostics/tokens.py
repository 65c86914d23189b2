"""What a model's tokenizer makes of the data: texts that are cut, label names that share their tokens.

Checks of the doctor that need a tokenizer; those that read texts alone stand in `diagnostics/`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import chain

import numpy as np

from entailor.config.plain import share
from entailor.data.checks import Severity
from entailor.diagnostics.base import CheckInput, CheckOutcome, CheckResult, DoctorFinding, listed, of_rows
from entailor.models.prompts import PromptEncoder
from entailor.models.tokenizer import TextEncoder

TRUNCATION, COLLISIONS = "truncation", "label_tokens"
MANY = 0.05


def token_checks(encoder: TextEncoder | PromptEncoder, model: str, evidence: CheckInput) -> tuple[CheckResult, ...]:
    """Run both checks with the tokenizer of a model."""
    return (
        CheckResult(COLLISIONS, "label names that share their tokens", label_tokens(encoder, model, evidence.labels)),
        CheckResult(TRUNCATION, "texts that are cut", truncation(encoder, model, evidence)),
    )


def truncation(encoder: TextEncoder | PromptEncoder, model: str, evidence: CheckInput) -> CheckOutcome:
    """Count tokens, and the examples that are longer than the model takes (windows are not cut)."""
    facts: dict[str, str | int | dict[str, float]] = {"model": model, "max_length": encoder.max_length}
    findings = []
    for part, rows in evidence.split.parts():
        if not rows:
            continue
        encoded = encoder.encode(rows)
        lengths = np.array([len(one) for one in encoded])
        cut = sorted({one.example_index for one in encoded if one.truncated})
        low, middle, high = np.quantile(lengths, [0.05, 0.5, 0.95])
        facts[part] = {"p5": int(low), "median": int(middle), "p95": int(high), "cut": len(cut) / len(rows)}
        if cut:
            message = (
                f"{share(len(cut), len(rows))} of {part} are longer than {encoder.max_length} tokens of {model} "
                "and are cut, the longer text of a pair first"
            )
            ways = []
            if encoder.context > encoder.max_length:
                ways.append(f"raise model.max_length (now {encoder.max_length}; the model takes {encoder.context:,})")
            if isinstance(encoder, TextEncoder):  # decoders take no windows
                ways.append("set model.long_texts=windows for methods that are trained with the encoder")
            remedy = ", or ".join(ways) or "take a model that reads longer texts"
            remedy = f"{remedy[0].upper()}{remedy[1:]}"
            severity: Severity = "warning" if len(cut) / len(rows) > MANY else "info"
            found = of_rows(part, [rows[at] for at in cut])
            findings.append(DoctorFinding(TRUNCATION, "truncated", severity, message, remedy, *found, {"part": part}))
    return CheckOutcome(tuple(findings), facts)


def label_tokens(encoder: TextEncoder | PromptEncoder, model: str, labels: tuple[str, ...]) -> CheckOutcome:
    """Tokenise label words as they stand behind a space, and find those that do not differ significantly at once.

    Words are those of the template for decoders, the label names for encoders.
    """
    words = encoder.template.words if isinstance(encoder, PromptEncoder) else labels
    tokens = {word: encoder.tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in words}
    unknown = encoder.tokenizer.unk_token_id
    findings = [*_collisions(tokens, model)]
    lost = [word for word, ids in tokens.items() if not ids or (unknown is not None and unknown in ids)]
    if lost:
        message = f"the vocabulary of {model} lacks words of the labels {listed(lost)}"
        remedy = "Name them with ordinary words (data.label_names) where the names themselves are read or scored"
        findings.append(DoctorFinding(COLLISIONS, "unknown_label_tokens", "warning", message, remedy))
    return CheckOutcome(tuple(findings), {"model": model, "tokens": tokens})


def _collisions(tokens: dict[str, list[int]], model: str) -> Iterator[DoctorFinding]:
    """Find words of the same tokens, words whose tokens begin others', and words of the same first token."""
    remedy = (
        "Give them other words in the verbalizer, or other names with data.label_names; classifiers with a head of "
        "their own are not concerned"
    )
    same: dict[tuple[int, ...], list[str]] = defaultdict(list)
    first: dict[int, list[str]] = defaultdict(list)
    for word, ids in tokens.items():
        if ids:
            same[tuple(ids)].append(word)
    for spelt, words in same.items():
        first[spelt[0]].append(words[0])
        if len(words) > 1:
            message = f"{listed(words)} are the same tokens to {model}: no score can distinguish them"
            yield _collision("same_label_tokens", "error", message, remedy, words, tokens)
    begun = [
        (same[spelt[:end]][0], words[0])
        for spelt, words in same.items()
        if (end := next((end for end in range(1, len(spelt)) if spelt[:end] in same), 0))
    ]
    if begun:
        shown_ = listed([f"{shorter} / {longer}" for shorter, longer in begun])
        message = (
            f"the tokens of one word begin those of another, so that the shorter one always scores higher: {shown_}"
        )
        both = list(dict.fromkeys(chain.from_iterable(begun)))
        yield _collision("prefix_label_tokens", "warning", message, remedy, both, tokens)
    note = "Entailor scores all tokens of a label; other tools may read the first alone"
    for words in first.values():
        if len(words) > 1 and not set(words) <= set(chain.from_iterable(begun)):
            message = f"{listed(words)} begin with the same token: scored by the first alone they are the same"
            yield _collision("same_first_token", "info", message, note, words, tokens)


def _collision(
    kind: str, severity: Severity, message: str, remedy: str, words: list[str], tokens: dict[str, list[int]]
) -> DoctorFinding:
    figures = {"labels": words, "tokens": [tokens[word] for word in words]}
    return DoctorFinding(COLLISIONS, kind, severity, message, remedy, figures=figures)
