"""Loads saved classifiers in a process of its own: one JSON request a line, one JSON answer a line.

Modes: `peft` (plain peft and transformers), `transformers` (plain transformers), `entailor` (`load_classifier`).
The plain modes never import entailor.
"""

import json
import sys
import warnings

import torch

warnings.simplefilter("ignore")


def peft_logits(request):
    from peft import PeftConfig, PeftModel
    from transformers import AutoModelForSequenceClassification

    name = PeftConfig.from_pretrained(request["folder"]).base_model_name_or_path
    base = AutoModelForSequenceClassification.from_pretrained(name, num_labels=request["num_labels"])
    return plain_forward(PeftModel.from_pretrained(base, request["folder"]), request)


def transformers_logits(request):
    from transformers import AutoModelForSequenceClassification

    return plain_forward(AutoModelForSequenceClassification.from_pretrained(request["folder"]), request)


def plain_forward(model, request):
    assert "entailor" not in sys.modules
    model.eval()
    with torch.inference_mode():
        return model(**{name: torch.tensor(rows) for name, rows in request["inputs"].items()}).logits.tolist()


def entailor_logits(request):
    from entailor import load_classifier
    from entailor.data.example import Example
    from entailor.engine.scorer import score

    classifier = load_classifier(request["folder"])
    examples = [Example(str(row), text, pair) for row, (text, pair) in enumerate(request["texts"])]
    return score(classifier, classifier.encode(examples), 10**6).tolist()


def main():
    torch.set_num_threads(1)
    answer = {"peft": peft_logits, "transformers": transformers_logits, "entailor": entailor_logits}[sys.argv[1]]
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    for line in sys.stdin:
        try:
            reply = {"logits": answer(json.loads(line))}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()
