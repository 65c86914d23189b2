"""Dropout by 16 bits a number: the same distribution as PyTorch's, decided by PyTorch's generator."""

import numpy as np
import pytest
import torch
from torch import nn

from entailor.accel.dropout import LEVELS, Dropout, dropout, dropout_mask, kept_of, reference_dropout, replace_dropout


@pytest.mark.parametrize("p", [0.0625, 0.1, 0.5, 0.9])
def test_as_many_are_kept_as_the_reference_keeps(p):
    torch.manual_seed(0)
    rows = torch.ones(400, 1000)
    ours, theirs = dropout(rows, p, True), reference_dropout(rows, p, True)
    deviation = (p * (1 - p) / rows.numel()) ** 0.5
    for dropped in (ours, theirs):
        assert abs(float((dropped == 0).float().mean()) - p) < 5 * deviation
    zero, kept = ours.unique().tolist()
    assert (zero, kept) == (0.0, pytest.approx(1 / (1 - p), rel=1e-3))
    assert ours.mean() == pytest.approx(1.0, abs=5 * deviation / (1 - p))


@pytest.mark.parametrize("p", [0.1, 0.25, 0.3])
def test_the_keep_probability_is_exact_within_the_resolution(p):
    assert abs(kept_of(p) / LEVELS - (1 - p)) <= 0.5 / LEVELS
    mask = dropout_mask((4096,), p)
    assert float(mask.max()) * kept_of(p) / LEVELS == pytest.approx(1.0, rel=1e-6)


def test_neighbours_and_masks_are_independent():
    torch.manual_seed(1)
    one, two = (dropout_mask((1000, 999), 0.3).ravel() > 0 for _ in range(2))
    for lag in range(1, 9):  # four numbers share a word
        assert abs(np.corrcoef(one[lag:].numpy(), one[:-lag].numpy())[0, 1]) < 0.005
    assert abs(np.corrcoef(one.numpy(), two.numpy())[0, 1]) < 0.005


def test_the_default_generator_decides():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, second = dropout_mask((5, 7), 0.5), dropout_mask((5, 7), 0.5)
    torch.set_rng_state(state)
    assert torch.equal(dropout_mask((5, 7), 0.5), first)
    assert not torch.equal(first, second)


def test_gradients_take_the_same_mask():
    torch.manual_seed(0)
    rows = torch.randn(20, 30, requires_grad=True)
    dropped = dropout(rows, 0.4, True)
    (gradient,) = torch.autograd.grad(dropped.sum(), rows)
    torch.testing.assert_close(gradient * rows, dropped)


@pytest.mark.parametrize("rows", [torch.ones(3, 5), torch.ones(0, 4), torch.ones(1)], ids=lambda rows: str(rows.shape))
def test_nothing_happens_outside_training_or_at_zero(rows):
    assert dropout(rows, 0.5, False) is rows
    assert dropout(rows, 0.0, True) is rows
    assert dropout(rows, 0.5, True).shape == rows.shape


def test_everything_may_be_dropped():
    assert not dropout(torch.ones(4, 4), 1.0, True).any()


def test_every_plain_dropout_of_a_model_is_replaced():
    class Own(nn.Dropout):
        pass

    model = nn.Sequential(nn.Dropout(0.2), nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3)), Own(0.4)).eval()
    assert replace_dropout(model) == 2
    assert replace_dropout(model) == 0
    assert [type(model[0]), type(model[1][1]), type(model[2])] == [Dropout, Dropout, Own]
    assert (model[0].p, model[1][1].p) == (0.2, 0.3)
    assert not model[0].training
    assert isinstance(model[0], nn.Dropout)
