import math

import numpy as np
import pytest
from tests.methods import api_server as api

from entailor.classifiers.api_answers import Answer, label_logits, named_label, read_chat, read_completion


def test_words_that_begin_alike_part_where_they_differ():
    steps = (("very", -0.1, {"very": -0.1, "bad": -3.0}), (" good", -0.2, {" good": -0.2, " bad": -1.9}))
    answer = Answer(text="very good", steps=steps)
    found = label_logits(answer, ("very good", "very bad", "bad"), exact=False)
    assert found == pytest.approx([-0.3, -2.0, -3.0])


def test_a_word_that_another_goes_on_from_ends_where_the_answer_ends():
    steps = (("credit", -0.1, {"credit": -0.1}), (".", -0.3, {".": -0.3, " card": -1.5}))
    found = label_logits(Answer(text="credit.", steps=steps), ("credit card", "credit"), exact=False)
    assert found == pytest.approx([-1.6, -0.4])
    ended = label_logits(Answer(text="credit", steps=steps[:1]), ("credit card", "credit"), exact=False)
    assert ended[1] == pytest.approx(-0.1)
    assert ended[0] < -1


def test_what_is_not_listed_is_at_most_as_probable_as_what_is():
    tops = {"yes": -0.2, "Yes": -2.5, "maybe": -3.0, "well": -6.0}
    found = label_logits(Answer(text="yes", steps=(("yes", -0.2, tops),)), ("yes", "no"), exact=False)
    assert found[0] == pytest.approx(math.log(math.exp(-0.2) + math.exp(-2.5)))  # case is taken alike in a chat
    assert found[1] <= -6.0


def test_a_token_that_begins_the_word_does_not_add_to_the_word_itself():
    tops = {" True": -1.0, " T": -2.0, " False": -1.5, " F": -3.0, " Fa": -4.0}
    found = label_logits(Answer(text=" True", steps=((" True", -1.0, tops),)), ("True", "False"), exact=True)
    assert found == pytest.approx([-1.0, -1.5])  # as in_context scores the words; " F" may go on to "Few"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("positive", 0),
        (" Negative.\n", 1),
        ('{"label": "negative"}', 1),
        ("The review is very positive!", 0),
        ("It is not so positive, it is very positive", 2),
        ("positive or negative", None),
        ("I cannot say.", None),
        ("", None),
        ("positively", None),
        ('{"a": 1, "b": 2}', None),
    ],
)
def test_an_answer_in_words_names_one_label_or_none(text, expected):
    words = ("positive", "negative", "very positive")
    if expected == 2:
        text = "very positive"
    assert named_label(text, words) == (expected if "very positive!" not in text else 2)


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("Not spam", ("spam", "ham"), None),
        ("This is non-toxic.", ("toxic", "fine"), None),
        ("It isn't a complaint, it isn’t positive", ("positive", "complaint"), None),
        ("Not spam, but ham", ("spam", "ham"), 1),
        ("not entailment", ("entailment", "not_entailment"), None),
        ("I say: not entailment.", ("entailment", "not entailment"), 1),
        ("- positive", ("positive", "negative"), 0),
        ("**positive**", ("positive", "negative"), 0),
        ("I note positive words", ("positive", "negative"), 0),
    ],
)
def test_a_word_that_is_denied_names_no_label(text, words, expected):
    assert named_label(text, words) == expected


@pytest.mark.parametrize("end", ["<|im_end|>", "", "."])
@pytest.mark.parametrize("written", [True, False])
def test_the_end_of_an_answer_may_be_written_as_nothing(end, written):
    """Of what goes on from "no" two fifths end there; the token that ends an answer is "" on some servers."""
    tops = {" opinion": math.log(0.6), end: math.log(0.4)}
    token = end if written else " opinion"
    steps = (("no", math.log(0.7), {"not": math.log(0.2)}), (token, tops[token], tops))
    answer = Answer(text="no", steps=steps)
    found = label_logits(answer, ("no", "no opinion", "not sure"), exact=False)
    assert np.exp(found) == pytest.approx([0.28, 0.42, 0.2])


def test_refusals_are_no_answers():
    refused = api.chat_answer("no", {"no": -0.1}, refusal="I will not say")
    assert label_logits(Answer.model_validate(read_chat(refused)), ("yes", "no"), exact=False) is None
    filtered = {"choices": [{"text": "yes", "finish_reason": "content_filter", "logprobs": None}]}
    assert label_logits(Answer.model_validate(read_completion(filtered)), ("yes", "no"), exact=False) is None


@pytest.mark.parametrize("document", [{}, {"choices": []}, {"choices": [{"message": None}]}, [], {"choices": [1]}])
def test_what_is_not_of_the_protocol_is_an_error(document):
    with pytest.raises((LookupError, TypeError, ValueError, AttributeError)):
        read_chat(document)
