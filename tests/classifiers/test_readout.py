"""Heads and label words are read at the right places, whatever the padding."""

import numpy as np
import pytest
import torch
from tests.conftest import DECODERS, make_examples

from entailor.classifiers.readout import LabelWords, plan_reads
from entailor.classifiers.transformer import TransformerClassifier
from entailor.config.parts import PromptSettings
from entailor.models.prompts import PromptIds
from entailor.tasks import Task

ROWS = make_examples(6, seed=4)
LONG_WORDS = {"entailment": "True w1 w2", "neutral": "True w1 w3", "contradiction": "False"}


def words_task(words):
    return Task(("entailment", "neutral", "contradiction"), True, PromptSettings(verbalizer=words))


def one_by_one(model, items):
    """The reference: every prompt and word alone, whole, every logit of it."""
    scores = []
    for item in items:
        for word in item.continuations:
            ids = torch.tensor([[*item.input_ids, *word]])
            with torch.no_grad():
                logprobs_TV = torch.log_softmax(model(input_ids=ids).logits[0].float(), dim=-1)
            places = range(len(item.input_ids) - 1, ids.shape[1] - 1)
            scores.append(sum(float(logprobs_TV[place, ids[0, place + 1]]) for place in places))
    return np.array(scores).reshape(len(items), -1)


@pytest.mark.parametrize("words", [{}, LONG_WORDS], ids=["one token", "several tokens"])
@pytest.mark.parametrize("kind", DECODERS)
def test_label_words_score_as_in_the_plain_forward_pass(kind, words, load_tiny):
    backbone = load_tiny(kind, words_task(words), objective="language_model")
    classifier = TransformerClassifier(backbone, backbone_task := words_task(words)).eval()
    items = classifier.encode(ROWS)
    expected = one_by_one(backbone.model, items)
    classifier.readout = LabelWords(whole_vocabulary=True)
    with torch.no_grad():
        np.testing.assert_allclose(classifier.logits(classifier.collate(items)), expected, atol=1e-4)
        classifier.readout = LabelWords()
        rows_BL = classifier.logits(classifier.collate(items))
    assert rows_BL.shape == (len(ROWS), len(backbone_task.labels))
    plain = expected - expected.max(1, keepdims=True)
    np.testing.assert_allclose(rows_BL - rows_BL.max(1, keepdim=True).values, plain, atol=1e-4)


@pytest.mark.parametrize("kind", DECODERS)
def test_a_head_reads_the_last_real_token(kind, load_tiny, nli_task):
    backbone = load_tiny(kind)
    classifier = TransformerClassifier(backbone, nli_task).eval()
    items = classifier.encode(ROWS)
    with torch.no_grad():
        together = classifier.logits(classifier.collate(items))
        for row, item in enumerate(items):
            hidden_1TH = backbone.model.base_model(input_ids=torch.tensor([item.input_ids])).last_hidden_state
            np.testing.assert_allclose(together[row], backbone.model.score(hidden_1TH)[0, -1], atol=1e-5)


def test_rows_are_as_few_as_the_words_allow():
    item = PromptIds(0, [5, 6], ((1,), (2, 3), (2, 4), (2, 3, 9)), truncated=False)
    rows, reads = plan_reads([item])
    # behind [2] and [2, 3]: the second row serves both
    assert rows == [[5, 6, 2, 3]]
    assert reads.counts_BL().tolist() == [[1, 2, 2, 3]]
    assert reads.words_L is None
    rows, reads = plan_reads([PromptIds(0, [5], ((1, 2), (3, 4)), truncated=False)])
    assert rows == [[5, 1], [5, 3]]
    rows, reads = plan_reads([PromptIds(row, [5] * (row + 1), ((1,), (3,)), truncated=False) for row in range(2)])
    assert rows == [[5], [5, 5]]
    assert reads.words_L.tolist() == [1, 3]
