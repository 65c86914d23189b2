"""The packed way through a classifier: taken where it gives the same, and nowhere else."""

import pytest
import torch
from tests.conftest import make_examples
from torch import nn

from entailor.methods import build_method

ROWS = make_examples(9, seed=4)
METHODS = {"full_finetuning": {}, "lora": {"r": 2}, "p_tuning": {"num_virtual_tokens": 4}}


@pytest.fixture
def classifier_of(load_tiny, nli_task):
    def make(name, kind, **settings):
        return build_method(name, {**METHODS.get(name, {}), **settings}).adapt(load_tiny(kind), nli_task, 0)

    return make


def batch_of(classifier, count=9):
    return classifier.collate(classifier.encode(ROWS[:count]))


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra"])
@pytest.mark.parametrize("name", METHODS)
def test_logits_and_gradients_are_those_of_the_model(name, kind, classifier_of):
    classifier = classifier_of(name, kind)
    for module in classifier.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    classifier.train()
    batch = batch_of(classifier)
    trained = [tensor for tensor in classifier.parameters() if tensor.requires_grad]
    results = []
    for run in (classifier, classifier.plain_forward):
        logits_BL = run(batch)
        loss = nn.functional.cross_entropy(logits_BL, torch.arange(len(ROWS)) % 3)
        results.append([logits_BL, *torch.autograd.grad(loss, trained)])
    assert classifier.shortcut.proven
    assert not classifier.pads
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["mpnet", "deberta-v2", "modernbert"])
def test_other_architectures_run_as_they_are(kind, classifier_of):
    classifier = classifier_of("lora", kind).eval()
    assert classifier.pads  # known before the first batch, or that one would go through in other parts than the rest
    batch = batch_of(classifier)
    assert torch.equal(classifier(batch), classifier.plain_forward(batch))
    assert classifier.pads
    assert classifier.shortcut.proven is False


def test_a_model_that_computes_something_else_runs_as_it_is(classifier_of, monkeypatch):
    classifier = classifier_of("full_finetuning", "bert").eval()
    output = classifier.model.bert.encoder.layer[0].output
    plain = output.forward
    monkeypatch.setattr(output, "forward", lambda hidden, given: plain(hidden, given).roll(1, -1))
    batch = batch_of(classifier)
    assert torch.equal(classifier(batch), classifier.plain_forward(batch))
    assert classifier.shortcut.proven is False


def test_hooks_inside_the_layers_are_called(classifier_of):
    classifier, calls = classifier_of("lora", "bert").eval(), []
    batch = batch_of(classifier)
    classifier(batch)
    assert classifier.shortcut.proven
    handle = classifier.shortcut.body.encoder.layer[1].attention.register_forward_hook(lambda *call: calls.append(call))
    classifier(batch)
    assert len(calls) == 1
    handle.remove()
    classifier(batch)
    assert len(calls) == 1


def test_the_proof_draws_nothing_and_leaves_every_mode_as_it_was(classifier_of):
    classifier = classifier_of("p_tuning", "bert").train()
    modes = [module.training for module in classifier.modules()]
    batch = batch_of(classifier, 2)
    torch.manual_seed(4)
    first = classifier(batch)
    assert classifier.shortcut.proven
    torch.manual_seed(4)
    assert torch.equal(classifier(batch), first)
    assert [module.training for module in classifier.modules()] == modes


def test_the_model_is_itself_again_after_an_error(classifier_of):
    classifier = classifier_of("full_finetuning", "bert").eval()
    with pytest.raises(RuntimeError, match="stop"), classifier.shortcut.taken([3], unread=None):
        raise RuntimeError("stop")
    assert "forward" not in vars(classifier.model.bert.encoder)


def test_padding_is_not_computed(classifier_of, monkeypatch):
    from entailor.accel import encoder

    classifier, seen = classifier_of("full_finetuning", "bert").eval(), []
    batch = batch_of(classifier)
    classifier(batch)
    run_layer = encoder.run_layer

    def counted(parts, hidden_NH, asked_Q, buckets):
        seen.append((len(hidden_NH), None if asked_Q is None else len(asked_Q)))
        return run_layer(parts, hidden_NH, asked_Q, buckets)

    monkeypatch.setattr(encoder, "run_layer", counted)
    classifier(batch)
    assert seen == [(int(batch.lengths_B.sum()), None), (int(batch.lengths_B.sum()), len(ROWS))]
    # lengths differ, or this would say nothing
    assert len(set(batch.lengths_B.tolist())) > 1


@pytest.mark.parametrize("error", [ValueError("odd rows"), AttributeError("no such part"), IndexError("too far")])
@pytest.mark.parametrize("where", ["plain_forward", "made_up_batch", "short_forward"])
def test_an_exception_inside_the_proof_means_not_proven(where, error, classifier_of, monkeypatch):
    classifier = classifier_of("lora", "bert").eval()
    batch = batch_of(classifier)
    expected = classifier.plain_forward(batch)

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(classifier, where, fail)
        assert classifier.pads
    torch.testing.assert_close(classifier(batch), expected)
    (note,) = classifier.notes()
    assert str(error) in note


def test_nothing_is_tried_on_an_architecture_without_a_shortcut(classifier_of, monkeypatch):
    classifier = classifier_of("lora", "mpnet").eval()
    monkeypatch.setattr(classifier, "made_up_batch", lambda: pytest.fail("rows were run for nothing"))
    assert classifier.pads
    assert classifier.notes() == ()
