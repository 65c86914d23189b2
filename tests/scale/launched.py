"""The command line as a process of a launcher, in which something happens at a step of training: PROCESS:STEP:WHAT."""

import os
import signal
import sys
from unittest import mock

from tests.forked import blank_figure

from entailor.cli.app import main
from entailor.engine.trainer import Training
from entailor.scale import processes


def happens(training: Training) -> None:
    process, step, what = os.environ["HAPPENS"].split(":")
    again = os.environ["TORCHELASTIC_RESTART_COUNT"] != "0"
    if again or (os.environ["RANK"], str(training.step)) != (process, step):
        return
    if what == "error":
        raise RuntimeError("a cable is loose")
    os.kill(os.getpid(), signal.Signals[what])


def run(words: list[str]) -> None:
    sys.argv[1:] = words
    after_step = Training._after_step
    with (
        mock.patch.object(Training, "_after_step", lambda training: (happens(training), after_step(training))),
        mock.patch.object(processes, "ALIKE_SECONDS", 1),
        mock.patch("entailor.report.plots._svg", blank_figure),
    ):
        main()


if __name__ == "__main__":
    run(sys.argv[1:])
