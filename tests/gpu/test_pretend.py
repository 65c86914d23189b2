"""Every method on a pretend accelerator, in a process of its own: the device mistakes a CPU would hide."""

import pytest
from tests.gpu.process import ask


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    return ask("quick", tmp_path_factory.mktemp("pretend"))


def test_every_method_runs_on_an_accelerator_and_asks_it_once_an_interval(quick):
    """Training, evaluation, scoring, saving, loading there and on the CPU; some are broken off and go on."""
    assert {name: problems for name, problems in quick["rounds"].items() if problems} == {}


def test_every_method_with_a_model_has_a_round():
    from tests.gpu.rounds import NOT_PRETENDED, ROUNDS

    from entailor.methods import registered_methods

    with_torch = {name for name, kind in registered_methods().items() if kind.needs_backbone}
    assert with_torch - NOT_PRETENDED.keys() == {method for method, _, _ in ROUNDS.values()}


def test_a_batch_that_finds_no_room_is_halved_and_the_gradient_stays(quick):
    plain, halved = quick["faults"]["losses"]
    assert quick["faults"]["events"] == [
        "step 1: out of memory with 4 examples at a time; from here on 2, the gradient still averaged over the same "
        "examples"
    ]
    assert halved == pytest.approx(plain, abs=1e-6)
    assert quick["faults"]["score_gap"] < 1e-4


def test_a_loss_that_is_no_number_is_found_at_its_step_though_it_is_read_later(quick):
    found = quick["faults"]["diverged"]
    assert found["said"].startswith("step 5: loss nan, gradient norm nan. Lower learning_rate")
    assert found["kept"] == "the weights after step 4"
    assert found["same"], "the weights are not those before the broken step"
    assert found["calls"] == 6, "the loss was read at every step, or later than at the end of the interval"
