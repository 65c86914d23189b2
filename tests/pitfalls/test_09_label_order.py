"""Pitfall 9: label order differs between checkpoint and data set: 4 % instead of 90 % (transformers#10401)."""

import pytest
import torch
from tests.conftest import NLI_LABELS, make_examples
from tests.methods.conftest import logprobs
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from entailor.classifiers.transformer import TransformerClassifier
from entailor.errors import HeadMismatchError
from entailor.tasks import Task

OTHER_ORDER = ("contradiction", "entailment", "neutral")
ROWS = make_examples(30, seed=3)


@pytest.fixture(scope="module")
def checkpoint(tiny_model, tmp_path_factory):
    """A checkpoint that names its outputs in another order than the data."""
    folder = tmp_path_factory.mktemp("own-head")
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model("bert"), num_labels=3)
    for number, tensor in enumerate(model.parameters()):
        tensor.data += 0.2 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(number))
    model.config.id2label = dict(enumerate(OTHER_ORDER))
    model.config.label2id = {label: index for index, label in enumerate(OTHER_ORDER)}
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model("bert")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def said(checkpoint):
    """What the checkpoint says of each row, by name: taken as the truth."""
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    batch = tokenizer([row.text for row in ROWS], [row.text_pair for row in ROWS], padding=True, return_tensors="pt")
    with torch.no_grad():
        places = model(**batch).logits.argmax(1).tolist()
    return places, [model.config.id2label[place] for place in places]


def test_usual_evaluation_by_position_is_wrong_everywhere(said):
    places, names = said
    by_position = [NLI_LABELS[place] for place in places]
    assert sum(one == other for one, other in zip(by_position, names, strict=True)) == 0


def test_ours_is_right_by_name(checkpoint, said, load_tiny, nli_task):
    predicted = logprobs(TransformerClassifier(load_tiny(checkpoint), nli_task), ROWS).argmax(1)
    assert [NLI_LABELS[place] for place in predicted] == said[1]


def test_ours_refuses_a_head_for_other_labels(checkpoint, load_tiny):
    with pytest.raises(HeadMismatchError, match="contradiction"):
        load_tiny(checkpoint, Task(("positive", "negative", "mixed"), is_pair=True))
