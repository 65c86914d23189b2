import math

import numpy as np
import pytest
import torch
from tests.conftest import ENCODERS, make_examples
from tests.engine.conftest import Toy, ToyMethod, toy_data
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from entailor.engine import batching, trainer
from entailor.engine.batching import BatchLimit, training_batches
from entailor.engine.scorer import score
from entailor.engine.trainer import is_collapsed, train
from entailor.engine.training import LoopRuntime, TrainingData
from entailor.errors import TrainingError
from entailor.methods import build_method


@pytest.fixture
def teach_tiny(load_tiny, nli_task):
    """Return a function: a method's settings to the classifier and the training result, on a tiny encoder."""

    def teach(name, kind="bert", seed=0, count=40, autocast=None, prepare=None, **settings):
        method = build_method(name, {"logging_steps": 1, **settings})
        classifier = method.adapt(load_tiny(kind, seed=seed), nli_task, seed)
        if prepare:
            prepare(classifier)
        train_rows, search_candidates = make_examples(count, seed=1), make_examples(18, seed=2)
        data = TrainingData(
            classifier.encode(train_rows),
            np.array(nli_task.targets(train_rows)),
            classifier.encode(search_candidates),
            np.array(nli_task.targets(search_candidates)),
        )
        return classifier, train(classifier, method, data, LoopRuntime(seed, autocast))

    return teach


def losses(result):
    return [point.train_loss for point in result.curve if point.train_loss is not None]


def no_dropout(classifier):
    for module in classifier.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


# what training gives


def test_it_learns_a_task_that_can_be_learnt(teach_tiny):
    # from noise, with 16 units and dropout, about half of the seeds stay at two of the three labels
    classifier, result = teach_tiny("full_finetuning", seed=1, count=96, learning_rate=0.01, num_train_epochs=20)
    assert np.mean(losses(result)[-5:]) < 0.3 < 1.0 < losses(result)[0]
    rows = make_examples(60, seed=3)
    predicted = score(classifier, classifier.encode(rows), 10**6).argmax(axis=1)
    assert np.mean(predicted == classifier.task.targets(rows)) >= 0.9
    assert result.best_accuracy >= 0.9
    assert not result.collapsed


@pytest.mark.parametrize("name", ["full_finetuning", "lora"])
def test_the_same_seed_gives_the_same_losses_and_weights_bit_for_bit(name, teach_tiny):
    (first, one), (second, two), (_, other) = (
        teach_tiny(name, seed=seed, learning_rate=0.01, num_train_epochs=1) for seed in (0, 0, 1)
    )
    assert losses(one) == losses(two)
    assert losses(one) != losses(other)
    for tensor, again in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(tensor, again)


def test_twenty_steps_give_the_losses_of_a_plain_loop(teach_tiny, load_tiny):
    from transformers import get_linear_schedule_with_warmup

    settings = {"learning_rate": 0.003, "num_train_epochs": 4, "per_device_train_batch_size": 8, "warmup_ratio": 0.0}
    _, result = teach_tiny("full_finetuning", prepare=no_dropout, **settings)

    plain = load_tiny()
    rows = make_examples(40, seed=1)
    inputs, targets = plain.text_encoder.encode(rows), torch.tensor([index % 3 for index in range(40)])
    model = plain.model.train()
    no_dropout(model)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}], lr=0.003
    )
    schedule = get_linear_schedule_with_warmup(optimizer, 0, 20)
    rng, expected = np.random.default_rng(0), []
    for _ in range(4):
        for batch in training_batches([len(item) for item in inputs], BatchLimit(examples=8), rng):
            padded = plain.text_encoder.tokenizer.pad(
                {
                    "input_ids": [list(inputs[i].input_ids) for i in batch],
                    "token_type_ids": [list(inputs[i].token_type_ids) for i in batch],
                },
                return_tensors="pt",
            )
            loss = model(**padded, labels=targets[batch]).loss
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            expected.append(loss.item())
    assert len(losses(result)) == 20
    np.testing.assert_allclose(losses(result), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["full_finetuning", "lora"])
def test_two_batches_of_four_accumulated_equal_one_of_eight(name, teach_tiny):
    settings = {"group_by_length": False, "num_train_epochs": 1, "learning_rate": 0.003}
    whole, one = teach_tiny(name, prepare=no_dropout, per_device_train_batch_size=8, **settings)
    parts, two = teach_tiny(
        name, prepare=no_dropout, per_device_train_batch_size=4, gradient_accumulation_steps=2, **settings
    )
    np.testing.assert_allclose(losses(two), losses(one), atol=1e-5)
    assert len(losses(one)) == 5
    for tensor, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(tensor, other, atol=1e-4, rtol=1e-3)


def test_accumulation_averages_over_examples_not_over_batches():
    # 10 examples in batches of 8 and 2: each example counts the same
    gradients = []
    for settings in (
        {"per_device_train_batch_size": 10},
        {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2},
    ):
        toy = Toy()
        data = TrainingData(*toy_data(10), *toy_data(6, seed=1))
        method = ToyMethod(num_train_epochs=1, learning_rate=1.0, group_by_length=False, weight_decay=0.0, **settings)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                trainer.nn.utils,
                "clip_grad_norm_",
                lambda tensors, limit: (gradients.append([t.grad.clone() for t in tensors]), torch.tensor(1.0))[1],
            )
            train(toy, method, data, LoopRuntime(0))
    one, two = gradients
    for tensor, other in zip(one, two, strict=True):
        torch.testing.assert_close(tensor, other)


@pytest.mark.parametrize("name", ["full_finetuning", "lora", "p_tuning", "prefix_tuning"])
@pytest.mark.parametrize("kind", [kind for kind in ENCODERS if kind != "mpnet"])
def test_gradient_checkpointing_recomputes_and_changes_no_loss(name, kind, teach_tiny):
    # with re-entrant checkpointing adapters get no gradient at all (huggingface/transformers#26221)
    passes = {True: 0, False: 0}
    results = {}
    for on in (False, True):

        def count(module, args, on=on):
            passes[on] += torch.is_grad_enabled()

        def prepare(classifier, count=count):
            layers = [m for m in classifier.modules() if isinstance(m, GradientCheckpointingLayer)]
            next(m for m in layers[-1].modules() if isinstance(m, nn.LayerNorm)).register_forward_pre_hook(count)

        settings = {"num_train_epochs": 1, "per_device_train_batch_size": 8, "learning_rate": 0.003}
        _, results[on] = teach_tiny(name, kind, prepare=prepare, gradient_checkpointing=on, **settings)
    np.testing.assert_allclose(losses(results[True]), losses(results[False]), atol=1e-6)
    assert passes == {False: 5, True: 10}


def test_an_architecture_without_gradient_checkpointing_is_refused(teach_tiny):
    with pytest.raises(TrainingError, match=r"MPNet.* does not support.*Set gradient_checkpointing=false"):
        teach_tiny("lora", "mpnet", gradient_checkpointing=True)


@pytest.mark.parametrize("name", ["full_finetuning", "lora", "p_tuning", "prefix_tuning", "peft"])
def test_mixed_precision_trains_and_scores_stay_fp32(name, teach_tiny):
    settings = {"num_train_epochs": 1, "per_device_train_batch_size": 8}
    _, plain = teach_tiny(name, prepare=no_dropout, **settings)
    classifier, mixed = teach_tiny(name, prepare=no_dropout, autocast=torch.bfloat16, **settings)
    np.testing.assert_allclose(losses(mixed), losses(plain), atol=0.02)
    assert losses(mixed) != losses(plain)
    assert all(tensor.dtype == torch.float32 for tensor in classifier.parameters())
    inputs = classifier.encode(make_examples(3, seed=3))
    assert classifier.logits(classifier.collate(inputs)).dtype == torch.float32


# what must not pass silently


def test_a_loss_that_is_no_number_stops_at_its_step_with_a_remedy(session):
    class Breaks(Toy):
        def logits(self, batch):
            return super().logits(batch) * (float("nan") if len(self.batches) == 3 else 1.0)

    session.toy = Breaks()
    with pytest.raises(TrainingError, match=r"step 3: loss nan, .*Lower learning_rate \(now 0\.05\).*precision=fp32"):
        session.run(per_device_train_batch_size=8)


def test_a_tensor_cut_off_from_the_loss_is_named(session):
    session.toy.forgotten = nn.Parameter(torch.ones(3))
    with pytest.raises(TrainingError, match=r"1 trainable tensors get no gradient: forgotten\. They are cut off"):
        session.run()


def test_a_tensor_that_only_weight_decay_moves_is_named(session):
    class Idle(Toy):
        def __init__(self):
            super().__init__()
            self.idle = nn.Parameter(torch.ones(1, 2))

        def logits(self, batch):
            return super().logits(batch) + 0.0 * self.idle

    session.toy = Idle()
    with pytest.raises(TrainingError, match=r"1 trainable tensors get no gradient: idle\. They are cut off"):
        session.run(per_device_train_batch_size=8)


def test_a_tensor_that_waits_for_another_is_no_mistake(session):
    class Chain(Toy):
        """As in LoRA: A gets no gradient before B has left zero."""

        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Parameter(torch.ones(4, 2)), nn.Parameter(torch.zeros(2, 2))

        def logits(self, batch):
            return super().logits(batch) + batch @ self.a @ self.b

    session.toy = Chain()
    session.run(per_device_train_batch_size=8, weight_decay=0.0)
    assert not torch.equal(session.toy.a, torch.ones(4, 2))


def test_rates_too_small_to_move_a_norm_are_no_mistake(teach_tiny):
    # as in the first steps of a warm-up over thousands: 1e-9 is nothing beside a gain of one in fp32
    _, result = teach_tiny("full_finetuning", learning_rate=1e-9, num_train_epochs=1, per_device_train_batch_size=8)
    assert result.epochs == 1


@pytest.mark.parametrize(
    ("counts", "part"), [({"train_count": 0}, "training"), ({"validation_count": 0}, "validation")]
)
def test_an_empty_split_is_named(counts, part, session):
    with pytest.raises(TrainingError, match=f"the {part} split is empty"):
        session.run(**counts)


def test_a_model_without_gradient_checkpointing_is_refused(session):
    with pytest.raises(TrainingError, match=r"no gradient checkpointing.*Set gradient_checkpointing=false"):
        session.run(gradient_checkpointing=True)


def test_one_class_for_nearly_everything_is_a_collapse():
    gold = np.array([0, 1] * 50)
    assert is_collapsed(np.zeros(100, dtype=int), gold)
    assert is_collapsed(np.array([0] * 98 + [1] * 2), gold)
    assert not is_collapsed(np.array([0] * 90 + [1] * 10), gold)
    assert not is_collapsed(np.zeros(100, dtype=int), np.array([0] * 97 + [1] * 3))  # the gold labels are like that


def test_a_collapse_is_told_with_the_label(session):
    session.toy.layer.bias.data[0] = 1.0
    result = session.run(learning_rate=1e-12, num_train_epochs=2)
    assert result.collapsed
    assert [event.text for event in result.events] == [
        f"collapse: after epoch {epoch}.00 nearly all of validation is predicted 'label0'" for epoch in (1, 2)
    ]


# which weights are kept, and when training ends


@pytest.fixture
def scripted(monkeypatch, session):
    """Return a function: validation results to come, as (right answers of 4, log loss), to what was kept."""
    seen = []

    def run(script, **settings):
        results = iter(script)

        def fake_score(classifier, inputs, max_tokens, **_):
            right, loss = next(results)
            seen.append([tensor.detach().clone() for tensor in classifier.parameters()])
            gold = toy_data(4, seed=1)[1]
            said = np.where(np.arange(4) < right, gold, 1 - gold)
            logprobs = np.full((4, 2), -5.0)
            logprobs[np.arange(4), said] = -0.1
            logprobs[np.arange(4), gold] += -loss - logprobs[np.arange(4), gold].mean()
            return logprobs

        monkeypatch.setattr(trainer, "score", fake_score)
        result = session.run(validation_count=4, num_train_epochs=len(script), **settings)
        kept = [index for index, weights in enumerate(seen) if all(map(torch.equal, weights, session.toy.parameters()))]
        return result, kept

    return run


def test_the_best_weights_are_kept_not_the_last(scripted):
    result, kept = scripted([(2, 0.6), (4, 0.3), (3, 0.4)])
    assert kept == [1]
    assert (result.best_step, result.best_accuracy) == (4, 1.0)
    assert result.epochs == 3


def test_accuracy_ties_are_broken_by_the_loss(scripted):
    assert scripted([(3, 0.6), (3, 0.2), (3, 0.4)])[1] == [1]


def test_the_loss_may_choose(scripted):
    assert scripted([(4, 0.6), (3, 0.2), (4, 0.4)], metric_for_best_model="loss")[1] == [1]


def test_training_stops_early_when_nothing_improves(scripted):
    result, kept = scripted([(2, 0.6), (4, 0.3), (3, 0.4), (3, 0.5), (4, 0.1)], early_stopping_patience=2)
    assert (kept, result.epochs) == ([1], 4)
    assert result.events[-1].text == "stopped early at step 8 of 10"


def test_the_last_evaluation_is_no_early_stop(scripted):
    result, kept = scripted([(4, 0.3), (3, 0.4)], early_stopping_patience=1)
    assert (kept, result.epochs) == ([0], 2)
    assert not any(event.kind == "early_stop" for event in result.events)


# the loop's settings


def test_evaluation_every_few_steps_and_once_at_the_end(session):
    result = session.run(
        eval_strategy="steps", eval_steps=3, num_train_epochs=2, per_device_train_batch_size=8, logging_steps=2
    )
    assert [point.step for point in result.curve if point.validation_loss is not None] == [3, 6, 8]
    assert [point.step for point in result.curve if point.train_loss is not None] == [2, 3, 4, 6, 8]


def test_the_curve_holds_what_a_reader_needs(session):
    result = session.run(num_train_epochs=2, per_device_train_batch_size=8, logging_steps=1, warmup_ratio=0.25)
    trained = [point for point in result.curve if point.train_loss is not None]
    tuned = [point for point in result.curve if point.validation_loss is not None]
    assert [point.step for point in trained] == list(range(1, 9))
    assert [point.epoch for point in trained] == [step / 4 for step in range(1, 9)]
    assert trained[0].train_loss == pytest.approx(math.log(2))  # zero weights
    assert trained[0].learning_rate == pytest.approx(0.05 * 1 / 3)
    assert trained[-1].learning_rate == pytest.approx(0.05 * 1 / 6)
    assert all(point.gradient_norm > 0 for point in trained)
    assert [(point.step, point.epoch) for point in tuned] == [(4, 1.0), (8, 2.0)]
    best = next(point for point in tuned if point.step == result.best_step)
    assert (best.validation_loss, best.validation_accuracy) == (result.best_loss, result.best_accuracy)
    assert (result.examples_seen, result.epochs) == (64, 2.0)
    assert session.said[-1][:2] == (8, 8)
    assert session.said[-1][2].startswith("loss 0.")


@pytest.mark.parametrize(("epochs", "steps"), [(0.5, 2), (1.25, 5), (3, 12)])
def test_epochs_may_be_fractions(epochs, steps, session):
    result = session.run(num_train_epochs=epochs, per_device_train_batch_size=8)
    assert result.epochs == epochs
    assert session.said[-1][:2] == (steps, steps)
    assert result.best_step > 0


def test_label_smoothing_is_in_the_loss_of_training_alone(session):
    items, targets = toy_data(32)
    session.toy.layer.weight.data[0] = 1.0
    logits = session.toy.layer(torch.tensor([item.features for item in items]))
    expected = nn.functional.cross_entropy(logits, torch.from_numpy(targets), label_smoothing=0.4).item()
    result = session.run(
        label_smoothing_factor=0.4, per_device_train_batch_size=32, num_train_epochs=1, logging_steps=1
    )
    assert losses(result)[0] == pytest.approx(expected)


def test_a_token_budget_bounds_every_batch_padding_included(session):
    items, _ = toy_data(32)
    session.run(max_batch_tokens=40, num_train_epochs=3, per_device_train_batch_size=2)
    trained = [rows for rows in session.toy.batches if rows]
    sizes = [len(rows) * max(items[row].length for row in rows) for rows in trained[:-1]]
    assert max(len(rows) for rows in trained) > 2
    assert (
        sum(size <= 40 for size in sizes) >= len(sizes) - 3
    )  # the three evaluations of validation have a budget of their own


def test_a_large_batch_goes_through_in_parts_and_gives_the_same_weights(monkeypatch):
    # 16 examples of up to 20 tokens held 5 GB at once in a decoder of 135M parameters
    toys, items = [], toy_data(32)[0]
    for tokens in (10**6, 60):
        monkeypatch.setattr(batching, "TRAINING_TOKENS", tokens)
        toy = Toy()
        data = TrainingData(*toy_data(32), *toy_data(12, seed=1))
        train(toy, ToyMethod(learning_rate=0.05, num_train_epochs=3), data, LoopRuntime(0))
        toys.append(toy)
    whole, parted = toys
    torch.testing.assert_close(parted.layer.weight, whole.layer.weight, rtol=1e-5, atol=1e-7)
    evaluated = [list(range(12))] * 3
    trained = [rows for rows in parted.batches if sorted(rows) != evaluated[0]]
    assert len(trained) == len(parted.batches) - 3
    assert max(len(rows) * max(items[row].length for row in rows) for rows in trained) <= 60
    assert max(map(len, whole.batches)) == 16


def test_where_padding_is_left_out_it_makes_no_parts(monkeypatch):
    monkeypatch.setattr(batching, "TRAINING_TOKENS", 240)
    monkeypatch.setattr(Toy, "pads", False)
    data = TrainingData(*toy_data(32), *toy_data(12, seed=1))
    assert sum(item.length for item in data.train[:16]) <= 240 < 16 * max(item.length for item in data.train)
    toy = Toy()
    train(toy, ToyMethod(num_train_epochs=1, group_by_length=False), data, LoopRuntime(0))
    assert max(map(len, toy.batches)) == 16


def test_gradients_are_clipped_but_told_as_they_were(session):
    session.toy.layer.weight.data.normal_(generator=torch.Generator().manual_seed(0)).mul_(5)
    seen = []
    session.toy.layer.weight.register_post_accumulate_grad_hook(lambda tensor: seen.append(tensor.grad))
    result = session.run(max_grad_norm=0.001, num_train_epochs=0.1, logging_steps=1)
    assert result.curve[0].gradient_norm > 0.01
    assert seen[0].norm() <= 0.001 * 1.001


def test_weight_decay_spares_biases(session):
    session.toy.layer.bias.data.fill_(1.0)
    groups = ToyMethod(weight_decay=0.5).parameter_groups(session.toy)
    assert {group.weight_decay: [t.ndim for t in group.parameters] for group in groups} == {0.5: [2], 0.0: [1]}
