"""Layers on tokens without padding against the model itself, and what is planned for them."""

import pytest
import torch

from entailor.accel.encoder import layer_stack, pack, run_packed

LENGTHS = (5, 9, 5, 2)


def test_a_plan_holds_every_token_once_and_reads_the_first():
    packing = pack(LENGTHS, 9, unread=None)
    places = sorted(packing.places_N.tolist())
    assert places == [row * 9 + t for row, length in enumerate(LENGTHS) for t in range(length)]
    assert packing.places_N[packing.asked_Q].tolist() == [27, 0, 18, 9]  # shortest text first
    assert packing.slots_Q.tolist() == [3, 0, 2, 1]
    assert [(one.texts, one.tokens, one.asked) for one in packing.buckets] == [(1, 2, 1), (2, 5, 1), (1, 9, 1)]


def test_a_plan_may_leave_positions_out():
    packing = pack((6, 4), 6, unread=range(1, 3))
    assert packing.slots_Q.tolist() == [6, 9, 0, 3, 4, 5]
    assert torch.equal(packing.places_N[packing.asked_Q], packing.slots_Q)
    assert [one.asked for one in packing.buckets] == [2, 4]


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "distilbert"])
@pytest.mark.parametrize("unread", [None, range(0), range(1, 3)], ids=["first", "all", "some"])
def test_states_and_gradients_are_those_of_the_model(kind, unread, load_tiny):
    body = load_tiny(kind).model.base_model
    stack, layers = layer_stack(body)
    torch.manual_seed(0)
    states = torch.randn(len(LENGTHS), max(LENGTHS), 16, requires_grad=True)
    real = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    mask = torch.zeros(len(LENGTHS), 1, 1, max(LENGTHS)).masked_fill(~real[:, None, None], torch.finfo().min)
    expected = stack(states, attention_mask=mask.expand(-1, 1, max(LENGTHS), -1)).last_hidden_state
    read = real.clone()
    if unread is None:
        expected, read = expected[:, :1], read[:, :1]
    else:
        read[:, unread.start : unread.stop] = False
    found = run_packed(layers, states, pack(LENGTHS, max(LENGTHS), unread))
    torch.testing.assert_close(found[read], expected[read], atol=1e-5, rtol=1e-5)
    assert not found[~read].any()
    wanted = [states, *(tensor for tensor in stack.parameters() if tensor.requires_grad)]
    ours, theirs = (
        torch.autograd.grad((rows[read] ** 3).sum(), wanted, allow_unused=True) for rows in (found, expected)
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["mpnet", "deberta-v2", "modernbert"])
def test_other_architectures_are_not_taken_apart(kind, load_tiny):
    assert layer_stack(load_tiny(kind).model.base_model) is None
