import json

import numpy as np
import pytest
from tests.conftest import NLI_LABELS, make_examples
from tests.methods.conftest import logprobs, teach

from entailor.data.example import Example
from entailor.errors import ConfigError, MethodError
from entailor.methods import build_method
from entailor.tasks import Task

TRAIN, TUNE, TEST = (make_examples(60, seed=seed) for seed in (1, 2, 3))


def fitted(name, task, train=TRAIN, validation=TUNE, **settings):
    method = build_method(name, settings)
    classifier = method.adapt(None, task, 0)
    teach(method, classifier, train, validation)
    return classifier


def accuracy(classifier, rows):
    return np.mean(logprobs(classifier, rows).argmax(axis=1) == classifier.task.targets(rows))


@pytest.mark.parametrize("name", ["bag_of_words", "hypothesis_only"])
def test_a_word_that_tells_the_label_is_found(name, nli_task):
    assert accuracy(fitted(name, nli_task), TEST) >= 0.9


def swapped(rows):
    return [Example(row.id, row.text_pair, row.text, row.label) for row in rows]


def test_hypothesis_only_reads_the_second_text_alone(nli_task):
    # the word that tells the label now stands in the first text
    train, validation, test = swapped(TRAIN), swapped(TUNE), swapped(TEST)
    assert accuracy(fitted("bag_of_words", nli_task, train, validation), test) >= 0.9
    blind = fitted("hypothesis_only", nli_task, train, validation)
    assert accuracy(blind, test) < 0.6
    other_first = [Example(row.id, "something else", row.text_pair, row.label) for row in test]
    np.testing.assert_array_equal(logprobs(blind, other_first), logprobs(blind, test))


def test_the_same_word_counts_apart_in_each_text(nli_task):
    # "yes" in the first text means one label, in the second text another
    rows = [
        Example(f"{index}", "yes" if index % 2 else "no", "no" if index % 2 else "yes", NLI_LABELS[index % 2])
        for index in range(20)
    ]
    assert accuracy(fitted("bag_of_words", nli_task, rows, rows), rows) == 1.0


def test_order_within_a_text_is_seen_through_longer_ngrams():
    task = Task(("x", "y"), is_pair=False)
    rows = [Example(f"{i}", "w1 w2" if i % 2 else "w2 w1", None, task.labels[i % 2]) for i in range(20)]
    assert accuracy(fitted("bag_of_words", task, rows, rows, max_ngram=2), rows) == 1.0
    assert accuracy(fitted("bag_of_words", task, rows, rows, max_ngram=1), rows) == 0.5


def test_one_letter_words_other_scripts_and_marks_are_words():
    task = Task(("x", "y"), is_pair=False)
    for first, second in (("I", "a"), ("人", "水"), ("?", "!"), ("7", "8")):
        rows = [Example(f"{i}", first if i % 2 else second, None, task.labels[i % 2]) for i in range(20)]
        assert accuracy(fitted("bag_of_words", task, rows, rows), rows) == 1.0


def test_vowel_signs_and_joiners_do_not_cut_words():
    # the joiner inside and at the end of a Persian word, a mark of direction, Hindi vowel signs
    rows = [Example(str(i), "کتاب\u200cها\u200e हिन्दी", None, label) for i, label in enumerate("ab" * 4)]
    task = Task(("a", "b"), is_pair=False)
    classifier = fitted("bag_of_words", task, rows, rows, max_ngram=1)
    assert set(classifier.vectorizers[0].vocabulary_) == {"کتابها", "हिन्दी"}


def test_words_never_seen_give_a_finite_score(nli_task):
    classifier = fitted("bag_of_words", nli_task)
    assert np.isfinite(logprobs(classifier, [Example("x", "unheard", "of"), Example("y", "", "")])).all()


@pytest.mark.parametrize("name", ["bag_of_words", "hypothesis_only"])
def test_texts_without_a_single_word_are_refused(name, nli_task):
    empty = [Example(f"{index}", "", "", NLI_LABELS[index % 3]) for index in range(9)]
    with pytest.raises(MethodError, match=rf"{name}: the training texts have no n-gram.*Lower min_df"):
        fitted(name, nli_task, empty, empty)
    with pytest.raises(MethodError, match=r"stands in 99 examples"):
        fitted(name, nli_task, min_df=99)


def test_hypothesis_only_needs_pairs():
    with pytest.raises(MethodError, match="second text of a pair"):
        build_method("hypothesis_only", {}).adapt(None, Task(("x", "y"), is_pair=False), 0)


@pytest.mark.parametrize("value", [[], [0.0], [1.0, -1.0]])
def test_strengths_must_be_positive(value):
    with pytest.raises(ConfigError, match=r"methods\.bag_of_words\.C"):
        build_method("bag_of_words", {"C": value})


def test_the_saved_vocabulary_is_readable(nli_task, tmp_path):
    classifier = fitted("bag_of_words", nli_task, max_features=30)
    classifier.save(tmp_path)
    vocabularies = json.loads((tmp_path / "vocabulary.json").read_text())
    assert [len(one["terms"]) for one in vocabularies] == [30, 30]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["linear.safetensors", "vocabulary.json"]
