"""A request to stop is followed, whatever becomes of the exception that carries it."""

import signal

import pytest

from entailor.engine.stopping import RunContext, Stopped, StopSwitch
from entailor.study.jobs import HERE


def dropped(switch):
    """Ask where the exception goes nowhere, as in `__del__` of an object of a library."""
    with pytest.raises(Stopped):
        switch.request(signal.SIGINT)


def test_a_request_whose_exception_was_dropped_stops_before_the_next_training():
    switch = StopSwitch()
    dropped(switch)
    with pytest.raises(Stopped), switch.held():
        pytest.fail("training began")


def test_a_request_whose_exception_was_dropped_stops_before_the_next_trial():
    switch = StopSwitch()
    dropped(switch)
    with pytest.raises(Stopped) as stopped:
        next(HERE.run([object()], RunContext(stop=switch)))
    assert stopped.value.signum == signal.SIGINT


def asked_twice(switch):
    with switch.held():
        assert switch.request(signal.SIGTERM)
        switch.request(signal.SIGINT)
        pytest.fail("it went on")


def test_the_second_request_stops_at_once():
    with pytest.raises(Stopped) as stopped:
        asked_twice(StopSwitch())
    assert stopped.value.signum == signal.SIGINT
