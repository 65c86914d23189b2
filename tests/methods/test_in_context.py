from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.conftest import make_examples
from tests.methods.conftest import logprobs

from entailor.data.example import Example
from entailor.errors import MethodError
from entailor.methods import build_method
from entailor.methods.in_context import best_temperature

TRAIN, TUNE, TEST = (make_examples(count, seed=seed) for count, seed in ((30, 1), (18, 2), (13, 3)))


@pytest.fixture
def asked(load_tiny, nli_task):
    """Return a function: settings to a classifier that was shown train and calibrated on validation."""

    def make(seed=0, kind="llama", train=TRAIN, **settings):
        method = build_method("in_context", settings)
        classifier = method.adapt(load_tiny(kind, nli_task, objective="language_model"), nli_task, seed)
        classifier.eval()
        classifier.demonstrate(train)
        if classifier.needs_validation:
            classifier.calibrate(logprobs(classifier, TUNE), np.array(nli_task.targets(TUNE)))
        return classifier

    return make


@pytest.mark.parametrize("kind", ["llama", "mistral", "gpt2", "qwen3"])
@pytest.mark.parametrize("shots", [0, 3])
def test_the_shared_prompt_changes_no_score(shots, kind, asked):
    classifier = asked(kind=kind, num_fewshot=shots)
    items = classifier.encode(TEST)
    with torch.no_grad():
        plain = np.concatenate([classifier.logits(classifier.collate([item])) for item in items])
    shared = logprobs(classifier, TEST)
    expected = plain - np.log(np.exp(plain).sum(1, keepdims=True))
    np.testing.assert_allclose(shared, expected, atol=1e-4)
    with classifier.scoring(items) as prepared:
        assert (shots > 0) == all(item.behind > 20 for item in prepared)


def test_demonstrations_are_run_once_for_examples_that_come_one_at_a_time(asked, monkeypatch):
    from entailor.methods import in_context

    classifier, made = asked(num_fewshot=3), []
    whole = [logprobs(classifier, [example]) for example in TEST[:1]]  # nothing to have in common with
    really = in_context.SharedPrefix
    monkeypatch.setattr(in_context, "SharedPrefix", lambda model, ids: made.append(len(ids)) or really(model, ids))
    alone = np.concatenate([*whole, *(logprobs(classifier, [example]) for example in TEST[1:])])
    assert len(made) == 1
    np.testing.assert_allclose(alone, logprobs(asked(num_fewshot=3), TEST), atol=1e-5)
    assert np.array_equal(logprobs(classifier, TEST), logprobs(asked(num_fewshot=3), TEST))


@pytest.mark.parametrize("deaf_to", ["past_key_values", "attention_mask"])
def test_a_model_that_ignores_what_it_is_told_is_asked_with_whole_prompts(deaf_to, asked):
    # rwkv takes any keyword and drops the cache; falcon's attention does not look where it is told to
    classifier = asked(num_fewshot=3)
    classifier._proven.clear()  # of the model as it was
    model, forward = classifier.model, classifier.model.forward

    def deaf(input_ids, position_ids=None, **kwargs):
        if deaf_to == "past_key_values" or kwargs["attention_mask"].ndim > 2:
            kwargs = {key: value for key, value in kwargs.items() if key != deaf_to}
        return forward(input_ids=input_ids, position_ids=position_ids, **kwargs)

    items = classifier.encode(TEST)
    with torch.no_grad():
        plain = np.concatenate([classifier.logits(classifier.collate([item])) for item in items])
        model.forward = deaf
        with classifier.scoring(items) as prepared:
            assert not any(item.behind for item in prepared)
        found = logprobs(classifier, TEST)
    np.testing.assert_allclose(found, plain - np.log(np.exp(plain).sum(1, keepdims=True)), atol=1e-4)


@pytest.mark.parametrize("length_normalized", [False, True])
@pytest.mark.parametrize("shots", [0, 3])
@pytest.mark.parametrize("verbalizer", [{}, {"entailment": "w1 w2 w3", "neutral": "w1 w4", "contradiction": "w5"}])
def test_a_premise_with_several_hypotheses_is_run_once(verbalizer, shots, length_normalized, load_tiny, nli_task):
    task = replace(nli_task, prompt=nli_task.prompt.model_copy(update={"verbalizer": verbalizer}))
    method = build_method("in_context", {"num_fewshot": shots, "length_normalized": length_normalized})
    classifier = method.adapt(load_tiny("llama", task, objective="language_model"), task, 0)
    classifier.demonstrate(TRAIN)
    premise = " ".join(["w11 w12 w13"] * 5)
    rows = [Example(str(i), premise if i % 2 else f"w{i} w7", f"w{i} w3", "neutral") for i in range(10)]
    rows.append(replace(rows[1], id="again"))
    items = classifier.encode(rows)
    with torch.no_grad():
        plain = np.concatenate([classifier.logits(classifier.collate([item])) for item in items])
    np.testing.assert_allclose(
        logprobs(classifier, rows), plain - np.log(np.exp(plain).sum(1, keepdims=True)), atol=1e-4
    )
    with classifier.scoring(items) as prepared:
        assert max(len(tree.rows) for tree in prepared) == 6
        assert sum(map(len, prepared)) < sum(map(len, items)) - len(rows) * max(tree.behind for tree in prepared)


def test_prompts_that_lost_demonstrations_are_run_whole(asked):
    classifier = asked(num_fewshot=8)
    room = classifier.prompts.context
    long = Example("long", " ".join(["w11 w12"] * 90), "w1", "neutral")
    rows = [*TEST[:5], long]
    items = classifier.encode(rows)
    assert [item.shots for item in items[:5]] == [8] * 5
    assert items[-1].shots < 8
    assert len(items[-1]) <= room
    with classifier.scoring(items) as prepared:
        assert {row: bool(tree.behind) for tree in prepared for row in tree.rows} == {
            **dict.fromkeys(range(5), True),
            5: False,
        }
    np.testing.assert_allclose(logprobs(classifier, rows), logprobs(classifier, rows, max_tokens=1), atol=1e-4)


def test_demonstrations_are_stratified_and_another_draw_with_each_seed(asked):
    draws = [asked(seed=seed, num_fewshot=6).demonstrations.shots for seed in range(4)]
    for shots in draws:
        assert Counter(shot.label for shot in shots) == {"entailment": 2, "neutral": 2, "contradiction": 2}
        assert {shot.id for shot in shots} <= {row.id for row in TRAIN}
    assert len({tuple(shot.id for shot in shots) for shots in draws}) == 4
    assert asked(seed=1, num_fewshot=6).demonstrations.shots == draws[1]
    one = [asked(seed=seed, num_fewshot=1).demonstrations.shots[0].label for seed in range(12)]
    assert len(set(one)) == 3  # one-shot shows another label each time


def test_the_draw_does_not_depend_on_others_generators(asked):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - the legacy generator is what must not matter
    first = asked(num_fewshot=6).demonstrations.shots
    torch.manual_seed(2)
    assert asked(num_fewshot=6).demonstrations.shots == first


def test_fixed_demonstrations_stand_in_their_order(asked):
    ids = [TRAIN[7].id, TRAIN[2].id]
    classifier = asked(num_fewshot=2, demonstrations="fixed", demonstration_ids=ids)
    assert [shot.id for shot in classifier.demonstrations.shots] == ids
    with pytest.raises(MethodError, match=r"which is no example of train. Did you mean"):
        asked(num_fewshot=1, demonstrations="fixed", demonstration_ids=[TRAIN[0].id + "x"])
    with pytest.raises(MethodError, match="num_fewshot=3, but demonstration_ids names 2"):
        asked(num_fewshot=3, demonstrations="fixed", demonstration_ids=ids)
    with pytest.raises(MethodError, match="goes with demonstration_ids"):
        asked(num_fewshot=1, demonstrations="fixed")


def test_the_nearest_stands_last(asked, tiny_model):
    classifier = asked(num_fewshot=3, demonstrations="nearest", retriever=str(tiny_model("bert")))
    twin = replace(TRAIN[11], id="twin")
    item = classifier.encode([twin])[0]
    text = "".join(classifier.prompts.pieces(item.input_ids))
    assert text.count(f"{twin.text}\nQuestion: {twin.text_pair} ") == 2  # itself, and in front of it its twin
    assert not classifier.method.is_seeded


@pytest.mark.parametrize("calibration", ["pmi", "contextual", "batch"])
def test_calibration_takes_off_one_bias_from_every_example(calibration, asked):
    plain, calibrated = asked(num_fewshot=2), asked(num_fewshot=2, calibration=calibration)
    difference = logprobs(plain, TEST) - logprobs(calibrated, TEST)
    centred = difference - difference.mean(1, keepdims=True)
    np.testing.assert_allclose(centred, np.tile(centred[0], (len(TEST), 1)), atol=1e-4)
    assert np.ptp(centred[0]) > 1e-3


def test_batch_calibration_evens_out_validation(asked):
    classifier = asked(calibration="batch")
    means = np.exp(logprobs(asked(), TUNE)).mean(0)
    np.testing.assert_allclose(classifier.bias_L.numpy(), np.log(means), atol=1e-5)


def test_contextual_calibration_gives_texts_that_say_nothing_no_preference(asked):
    classifier = asked(calibration="contextual")
    empty = [Example(str(i), text, text) for i, text in enumerate(("N/A", "[MASK]", ""))]
    raw = np.exp(logprobs(asked(), empty)).mean(0)
    np.testing.assert_allclose(np.exp(classifier.bias_L.numpy()), raw, atol=1e-5)


def test_the_temperature_mends_confidence_and_changes_no_answer(asked):
    plain, fitted = asked(), asked(fit_temperature=True)
    gold = np.array(plain.task.targets(TUNE))

    def loss(classifier):
        return -logprobs(classifier, TUNE)[np.arange(len(gold)), gold].mean()

    assert loss(fitted) <= loss(plain) + 1e-9
    np.testing.assert_array_equal(logprobs(fitted, TEST).argmax(1), logprobs(plain, TEST).argmax(1))


def test_the_best_temperature_is_found():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 3)) * 2
    odds = np.exp(logits / 3)
    targets = np.array([rng.choice(3, p=row / row.sum()) for row in odds])
    assert best_temperature(logits, targets) == pytest.approx(3, rel=0.1)


def test_long_words_can_be_scored_by_the_token(load_tiny, nli_task):
    task = replace(nli_task, prompt=nli_task.prompt.model_copy(update={"verbalizer": {"neutral": "w1 w2 w3"}}))
    classifiers = [
        build_method("in_context", {"length_normalized": flag}).adapt(
            load_tiny("llama", task, objective="language_model"), task, 0
        )
        for flag in (False, True)
    ]
    items = classifiers[0].encode(TEST[:2])
    with torch.no_grad():
        whole, mean = (one.eval().logits(one.collate(items)) for one in classifiers)
    counts = torch.tensor([len(word) for word in items[0].continuations])
    assert counts.tolist() == [1, 3, 1]
    np.testing.assert_allclose(mean * counts, whole, atol=1e-4)


def test_more_demonstrations_than_examples_are_refused(asked):
    with pytest.raises(MethodError, match="num_fewshot=31, but train has 30 examples"):
        asked(num_fewshot=31)
