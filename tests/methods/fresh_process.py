"""Loads what was saved in a process of its own, and prints its logits as JSON.

The plain ways, `peft_logits` and `transformers_logits`, never import entailor.
"""

import json
import sys
import warnings
from typing import Any

import torch


def tell(way: str, request: dict[str, Any]) -> None:
    """Print the logits that a function of this module gives."""
    warnings.simplefilter("ignore")
    print("\n" + json.dumps(globals()[way](**request)))


def peft_logits(folder: str, inputs: dict[str, list[Any]], num_labels: int) -> Any:
    from peft import PeftConfig, PeftModel
    from transformers import AutoModelForSequenceClassification

    name = PeftConfig.from_pretrained(folder).base_model_name_or_path
    base = AutoModelForSequenceClassification.from_pretrained(name, num_labels=num_labels)
    return _plain_forward(PeftModel.from_pretrained(base, folder), inputs)


def transformers_logits(folder: str, inputs: dict[str, list[Any]]) -> Any:
    from transformers import AutoModelForSequenceClassification

    return _plain_forward(AutoModelForSequenceClassification.from_pretrained(folder), inputs)


def _plain_forward(model: Any, inputs: dict[str, list[Any]]) -> Any:
    assert "entailor" not in sys.modules
    model.eval()
    with torch.inference_mode():
        return model(**{name: torch.tensor(rows) for name, rows in inputs.items()}).logits.tolist()


def entailor_logits(folder: str, texts: list[tuple[str, str | None]]) -> Any:
    from entailor import load_classifier
    from entailor.data.example import Example
    from entailor.engine.scorer import score

    classifier = load_classifier(folder)
    examples = [Example(str(number), text, pair) for number, (text, pair) in enumerate(texts)]
    return score(classifier, classifier.encode(examples), 10**6).tolist()
