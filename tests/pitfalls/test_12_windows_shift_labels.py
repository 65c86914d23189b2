"""Pitfall 12: `return_overflowing_tokens=True` makes more rows than labels, so labels shift (transformers#10682)."""

import numpy as np
from tests.conftest import make_examples, make_tokenizer
from tests.methods.conftest import logprobs

from entailor.classifiers.transformer import TransformerClassifier
from entailor.data.example import Example

LONG = " ".join(f"w{number % 50}" for number in range(60))
ROWS = [Example("long", LONG, "yes", "entailment"), *make_examples(3, seed=3)]


def test_usual_overflowing_tokens_make_more_rows_than_labels():
    batch = make_tokenizer("bert")(
        [row.text for row in ROWS],
        [row.text_pair for row in ROWS],
        truncation="only_first",
        max_length=24,
        return_overflowing_tokens=True,
    )
    labels = [row.label for row in ROWS]
    assert len(batch["input_ids"]) > len(labels)
    # zipped as scripts do, the second label goes to the first text's second window
    owners = batch["overflow_to_sample_mapping"][: len(labels)]
    assert owners != list(range(len(labels)))


def test_ours_is_off_by_default_and_windows_carry_their_row(load_tiny, nli_task):
    plain = TransformerClassifier(load_tiny("bert", max_length=24), nli_task)
    assert [item.example_index for item in plain.encode(ROWS)] == [0, 1, 2, 3]
    windows = TransformerClassifier(load_tiny("bert", max_length=24, long_texts="windows", window_stride=4), nli_task)
    items = windows.encode(ROWS)
    assert len(items) > len(ROWS)
    assert [item.example_index for item in items if item.example_index > 0] == [1, 2, 3]
    scores = logprobs(windows, ROWS)
    assert scores.shape == (4, 3)
    np.testing.assert_allclose(scores[1:], logprobs(plain, ROWS)[1:], atol=1e-5)
