"""Whether `torchrun` or `accelerate launch` started this process as one of several; the variables they set say so."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress

from entailor.errors import ConfigError

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launched_rank() -> int | None:
    """Return the number of this process among those a launcher started, or None where there is one alone.

    Raises:
        ConfigError: a variable of the launcher is missing or no number.
    """
    said = {name: os.environ.get(name, "") for name in VARIABLES}
    if said["WORLD_SIZE"] in ("", "1"):
        return None
    odd = [name for name in VARIABLES if not (said[name] if name == "MASTER_ADDR" else said[name].isdecimal())]
    if odd:
        raise ConfigError(
            f"the environment has WORLD_SIZE={said['WORLD_SIZE']}, but {odd[0]} is {said[odd[0]] or 'missing'}. Start "
            "several processes with torchrun or accelerate launch, or unset WORLD_SIZE"
        )
    return int(said["RANK"])


def be_silent() -> None:
    """Let all that this process prints from now on lead nowhere: it is not the first."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(io.UnsupportedOperation, ValueError):
            stream.flush()
            os.dup2(nowhere, stream.fileno())
