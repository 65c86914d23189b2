import pytest
import torch
from tests.engine.conftest import ToyMethod
from torch import nn

from entailor.engine.optimizer import build_optimizer, build_schedule
from entailor.methods import ParameterGroup


def rates(total, **settings):
    """Return the learning rate of every step, as a share of the peak."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = build_schedule(optimizer, ToyMethod(**settings), total)
    found = []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"] / 2.0)
        optimizer.step()
        schedule.step()
    return found


def test_linear_warm_up_and_decay():
    assert rates(10, warmup_ratio=0.2) == pytest.approx(
        [1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    )


def test_no_step_is_lost_to_a_rate_of_zero():
    for kind in ("linear", "cosine", "constant"):
        for ratio in (0.0, 0.1, 1.0):
            assert min(rates(7, warmup_ratio=ratio, lr_scheduler_type=kind)) > 0


def test_cosine_and_constant():
    assert rates(4, warmup_ratio=0.0, lr_scheduler_type="cosine") == pytest.approx(
        [1, 0.853553, 0.5, 0.146447], abs=1e-6
    )
    assert rates(4, warmup_ratio=0.25, lr_scheduler_type="constant") == [0.5, 1, 1, 1]


def test_one_step_in_all():
    assert rates(1, warmup_ratio=0.0) == [1.0]
    assert rates(1, warmup_ratio=1.0) == [0.5]


def test_each_group_keeps_its_rate_and_decay():
    one, two = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = build_optimizer([ParameterGroup((one,), 0.1, 0.5), ParameterGroup((two,), 0.2, 0.0)])
    one.grad, two.grad = torch.zeros(2), torch.zeros(2)
    optimizer.step()
    # without a gradient only decoupled weight decay moves a tensor
    torch.testing.assert_close(one.detach(), torch.full((2,), 1 - 0.1 * 0.5))
    assert torch.equal(two, torch.ones(2))
