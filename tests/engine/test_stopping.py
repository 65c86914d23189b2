"""A request to stop is followed, whatever becomes of the exception that carries it."""

import signal

import pytest

from entailor.engine.stopping import RunContext, Stopped, StopSwitch, stop_on_signals
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


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no hang-up")
@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_is_closed_stops_with_a_checkpoint_unless_nohup_was_asked_for(ignored, capfd):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        with stop_on_signals() as stop, stop.held():
            signal.raise_signal(signal.SIGHUP)
            assert stop.signum == (None if ignored else signal.SIGHUP)
            stop.signum = None
    finally:
        signal.signal(signal.SIGHUP, before)
    assert ("with a checkpoint" in capfd.readouterr().err) is not ignored


def asked_twice(switch):
    with switch.held():
        assert switch.request(signal.SIGTERM)
        switch.request(signal.SIGINT)
        pytest.fail("it went on")


def test_the_second_request_stops_at_once():
    with pytest.raises(Stopped) as stopped:
        asked_twice(StopSwitch())
    assert stopped.value.signum == signal.SIGINT
